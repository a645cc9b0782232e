//! A caller comes back while its INVITE rings. It may have kept the transaction, or forgotten it with
//! the connection: it is asked in the early dialog, and the other side rings on or hears CANCEL.

use std::time::Duration;

use sipring::base::id::Transport;

use crate::client::{Client, GRACE, two};
use crate::lab::Lab;
use crate::lab::draft::Draft;
use crate::lab::loss::{ENDS, End, KNOWN, Known};
use crate::lab::text::Sip;
use crate::talk::{Talk, invite, obey, ringing};

/// What a client says that does not know the dialog of a request (RFC 3261 §12.2.2), or any more the
/// URI that it is sent to.
const FORGOT: [u16; 2] = [481, 404];
/// What clients say to an INFO without a body in a dialog that they know.
const KNOWS: [u16; 5] = [200, 403, 415, 469, 500];

/// The INVITE as it was sent and as it came; the caller knows that it is on its way.
fn begin(lab: &mut Lab, caller: &Client, callee: &Client) -> (Draft, Sip) {
    let draft = invite(caller, callee, "n");
    caller.send(lab, &draft.text());
    let request = callee.take_method(lab, "INVITE");
    caller.take_status(lab, 100);
    (draft, request)
}

/// The caller is back, on the last shard: what it is asked.
fn returns(lab: &mut Lab, talk: &mut Talk) -> Sip {
    talk.caller.lose(lab, End::Reset);
    let last = lab.shards() - 1;
    talk.caller.come_back(lab, last, End::Reset);
    talk.take_question(lab)
}

/// Counts of questions and of those whose answer ended the call.
fn asked(lab: &Lab) -> (u64, u64) {
    (lab.count(|it| it.callers_asked), lab.count(|it| it.callers_forgot))
}

#[test]
fn a_caller_that_forgot_its_invite_stops_the_ringing() {
    for shards in [1, 2, 3] {
        for (known, end) in KNOWN.into_iter().zip(ENDS).chain([(Known::ByRegId, End::Silent)]) {
            for status in FORGOT {
                let (mut lab, caller, callee) = two(shards, known);
                let mut talk = Talk::ring(&mut lab, caller, callee);
                let lost_at = lab.now;
                talk.caller.lose(&mut lab, end);
                lab.pass(Duration::from_secs(2));
                talk.caller.come_back(&mut lab, shards - 1, end);
                let question = talk.take_question(&mut lab);
                talk.callee.heard_nothing(&mut lab);
                talk.caller.send(&mut lab, &question.response(status, "", &[]));
                obey(&mut lab, &talk.callee, &talk.invite, "callee");
                assert!(lab.now < lost_at + GRACE, "within the grace");
                talk.caller.take_status(&mut lab, 487);
                assert_eq!(asked(&lab), (1, 1));
                lab.finish();
            }
        }
    }
}

/// It has the identity of the early dialog as the caller sees it, a number below every other, nothing
/// that could change anything, and one Via: its answer ends here.
#[test]
fn the_question_is_a_request_of_the_early_dialog() {
    let (mut lab, caller, callee) = two(2, Known::ByRegId);
    let mut talk = Talk::ring(&mut lab, caller, callee);
    let question = returns(&mut lab, &mut talk);
    assert_eq!(question.uri(), talk.caller.contact);
    assert_eq!(
        question.header("From"),
        format!("<sip:{}@example.com>;tag=callee", talk.callee.user)
    );
    assert_eq!(question.header("To"), talk.invite.header("From"));
    assert_eq!(question.header("Call-ID"), talk.invite.header("Call-ID"));
    assert_eq!(question.header("CSeq"), "0 INFO");
    assert_eq!(question.header("Content-Length"), "0");
    assert_eq!(question.header("Max-Forwards"), "70");
    let vias: Vec<&str> = question.all("Via").collect();
    assert!(vias[0].starts_with("SIP/2.0/WSS 192.0.2.1:8443;branch=z9hG4bK"), "{vias:?}");
    assert_eq!((vias.len(), question.headers.len(), question.body.len()), (1, 7, 0));
    talk.caller.send(&mut lab, &question.response(200, "", &[]));
    talk.answer(&mut lab);
    talk.exchange(&mut lab, "BYE", false);
    lab.finish();
}

#[test]
fn a_caller_that_kept_its_invite_gets_its_answer() {
    for shards in [1, 2, 3] {
        for status in KNOWS {
            let (mut lab, caller, callee) = two(shards, Known::ByContact);
            let mut talk = Talk::ring(&mut lab, caller, callee);
            let question = returns(&mut lab, &mut talk);
            // A second thought is none.
            for status in [100, status, 481] {
                talk.caller.send(&mut lab, &question.response(status, "", &[]));
            }
            talk.callee.heard_nothing(&mut lab);
            talk.answer(&mut lab);
            talk.exchange(&mut lab, "INFO", false);
            talk.exchange(&mut lab, "BYE", true);
            assert_eq!(asked(&lab), (1, 0));
            lab.finish();
        }
    }
}

/// Who does not answer is not asked twice, and nothing ends for it.
#[test]
fn silence_says_nothing() {
    let (mut lab, caller, callee) = two(2, Known::ByRegId);
    let mut talk = Talk::ring(&mut lab, caller, callee);
    talk.caller.lose(&mut lab, End::Fin);
    talk.caller.come_back(&mut lab, 1, End::Fin);
    talk.take_question(&mut lab);
    lab.pass(Duration::from_secs(40));
    talk.caller.heard_nothing(&mut lab);
    talk.callee.heard_nothing(&mut lab);
    talk.answer(&mut lab);
    talk.exchange(&mut lab, "BYE", true);
    lab.finish();
}

/// Before there is a dialog nothing can be asked: the first provisional response that opens one is
/// followed by the question.
#[test]
fn who_heard_100_alone_is_asked_when_it_rings() {
    for shards in [1, 2] {
        for forgets in [true, false] {
            let (mut lab, mut caller, callee) = two(shards, Known::ByRegId);
            let (draft, request) = begin(&mut lab, &caller, &callee);
            caller.lose(&mut lab, End::Reset);
            caller.come_back(&mut lab, shards - 1, End::Reset);
            caller.take_status(&mut lab, 100);
            let contact = format!("Contact: <{}>", callee.contact);
            for (status, tag, lines) in [(180, "", vec![&*contact]), (183, "callee", vec![])] {
                callee.send(&mut lab, &request.response(status, tag, &lines));
                caller.take_status(&mut lab, status);
            }
            callee.send(&mut lab, &ringing(&request, &callee, "callee"));
            let got = caller.take(&mut lab);
            assert_eq!((got.len(), got[0].status(), got[1].method()), (2, 180, "INFO"));
            callee.send(&mut lab, &ringing(&request, &callee, "callee"));
            caller.take_status(&mut lab, 180);
            if forgets {
                caller.send(&mut lab, &got[1].response(481, "", &[]));
                obey(&mut lab, &callee, &request, "callee");
                caller.take_status(&mut lab, 487);
            } else {
                caller.send(&mut lab, &got[1].response(415, "", &[]));
                callee.send(&mut lab, &request.response(486, "callee", &[]));
                callee.take_method(&mut lab, "ACK");
                caller.take_status(&mut lab, 486);
            }
            caller.send(&mut lab, &draft.method("ACK").text());
            assert_eq!(asked(&lab), (1, u64::from(forgets)));
            lab.finish();
        }
    }
}

/// What rang while the caller was away is said when it is back: the last of it, once, before the
/// question, so that the dialog is known that is asked for.
#[test]
fn what_rings_meanwhile_is_said_before_the_question() {
    for shards in [1, 2, 3] {
        let (mut lab, mut caller, callee) = two(shards, Known::ByRegId);
        let (_, request) = begin(&mut lab, &caller, &callee);
        caller.lose(&mut lab, End::Reset);
        callee.send(&mut lab, &request.response(183, "callee", &[]));
        callee.send(&mut lab, &ringing(&request, &callee, "callee"));
        caller.come_back(&mut lab, shards - 1, End::Reset);
        let got = caller.take(&mut lab);
        let what: Vec<_> = got.iter().map(|it| (it.status(), it.method())).collect();
        assert_eq!(what, [(180, ""), (0, "INFO")]);
        caller.send(&mut lab, &got[1].response(481, "", &[]));
        obey(&mut lab, &callee, &request, "callee");
        caller.take_status(&mut lab, 487);
        lab.finish();
    }
}

/// A provisional response after the final one is for no transaction (RFC 3261 §17.1.1.2, RFC 6026
/// §7.2): what rang while the caller was away is nothing to it once there is an answer.
#[test]
fn an_answer_that_waited_is_the_last_word() {
    for shards in [1, 2, 3] {
        for status in [200, 486] {
            let (mut lab, mut caller, callee) = two(shards, Known::ByRegId);
            let (draft, request) = begin(&mut lab, &caller, &callee);
            caller.lose(&mut lab, End::Reset);
            callee.send(&mut lab, &request.response(183, "callee", &[]));
            callee.send(&mut lab, &ringing(&request, &callee, "callee"));
            let contact = format!("Contact: <{}>", callee.contact);
            callee.send(&mut lab, &request.response(status, "callee", &[&contact]));
            callee.take(&mut lab);
            caller.come_back(&mut lab, shards - 1, End::Reset);
            caller.take_status(&mut lab, status);
            if status == 486 {
                caller.send(&mut lab, &draft.method("ACK").text());
            }
            lab.finish();
        }
    }
}

/// One question for all early dialogs of a fork: that of the response which was just said again. All
/// callees that ring are cancelled.
#[test]
fn of_several_early_dialogs_one_is_asked_for() {
    for shards in [1, 2, 3] {
        for forgets in [true, false] {
            let (mut lab, mut caller, first) = two(shards, Known::ByContact);
            let by = Transport::Wss;
            let mut second = Client::offline(&mut lab, 0, &first.user, Known::ByContact, by);
            second.contact = "sip:second@y.invalid".into();
            second.log_in(&mut lab);
            second.take(&mut lab);
            let draft = invite(&caller, &first, "n");
            caller.send(&mut lab, &draft.text());
            caller.take_status(&mut lab, 100);
            let callees = [(&first, "one"), (&second, "two")];
            let requests = callees.map(|(callee, tag)| {
                let request = callee.take_method(&mut lab, "INVITE");
                callee.send(&mut lab, &ringing(&request, callee, tag));
                caller.take_status(&mut lab, 180);
                request
            });
            caller.lose(&mut lab, End::Reset);
            caller.come_back(&mut lab, shards - 1, End::Reset);
            let got = caller.take(&mut lab);
            assert_eq!((got.len(), got[0].status(), got[1].method()), (2, 180, "INFO"));
            assert_eq!((got[0].tag("To"), got[1].tag("From")), (Some("two"), Some("two")));
            if forgets {
                caller.send(&mut lab, &got[1].response(481, "", &[]));
                for ((callee, tag), request) in callees.into_iter().zip(&requests) {
                    obey(&mut lab, callee, request, tag);
                }
                caller.take_status(&mut lab, 487);
                caller.send(&mut lab, &draft.method("ACK").text());
            } else {
                caller.send(&mut lab, &got[1].response(200, "", &[]));
                let contact = format!("Contact: <{}>", first.contact);
                first.send(&mut lab, &requests[0].response(200, "one", &[&contact]));
                caller.take_status(&mut lab, 200);
                second.take_method(&mut lab, "CANCEL");
                second.send(&mut lab, &requests[1].response(487, "two", &[]));
                second.take_method(&mut lab, "ACK");
            }
            assert_eq!(asked(&lab), (1, u64::from(forgets)));
            lab.finish();
        }
    }
}

/// The callee answers before the caller says that it has forgotten: the call is there, and no CANCEL
/// could end it (RFC 3261 §9.1).
#[test]
fn an_answer_that_comes_first_counts() {
    for shards in [1, 2, 3] {
        let (mut lab, caller, callee) = two(shards, Known::ByRegId);
        let mut talk = Talk::ring(&mut lab, caller, callee);
        let question = returns(&mut lab, &mut talk);
        talk.say_200(&mut lab);
        talk.caller.send(&mut lab, &question.response(481, "", &[]));
        talk.callee.heard_nothing(&mut lab);
        talk.acknowledge(&mut lab);
        talk.exchange(&mut lab, "BYE", false);
        assert_eq!(asked(&lab), (1, 0));
        lab.finish();
    }
}

/// The callee answers before our CANCEL reaches it: its 200 goes on as any (RFC 3261 §16.7 step 5).
#[test]
fn an_answer_that_crosses_the_cancel_is_forwarded() {
    for shards in [1, 2, 3] {
        let (mut lab, caller, callee) = two(shards, Known::ByRegId);
        let mut talk = Talk::ring(&mut lab, caller, callee);
        let question = returns(&mut lab, &mut talk);
        talk.caller.send(&mut lab, &question.response(481, "", &[]));
        talk.say_200(&mut lab);
        let cancel = talk.callee.take_method(&mut lab, "CANCEL");
        talk.callee.send(&mut lab, &cancel.response(481, "", &[]));
        talk.acknowledge(&mut lab);
        talk.exchange(&mut lab, "BYE", true);
        assert_eq!(asked(&lab), (1, 1));
        lab.finish();
    }
}

/// Lost once more before it answered, the caller is asked again where it is then.
#[test]
fn each_next_flow_is_asked() {
    for shards in [1, 2] {
        let (mut lab, caller, callee) = two(shards, Known::ByRegId);
        let mut talk = Talk::ring(&mut lab, caller, callee);
        let mut questions = Vec::new();
        for shard in [shards - 1, 0] {
            talk.caller.lose(&mut lab, End::Reset);
            lab.pass(Duration::from_secs(1));
            talk.caller.come_back(&mut lab, shard, End::Reset);
            questions.push(talk.take_question(&mut lab));
        }
        assert_eq!(asked(&lab), (2, 0));
        talk.caller.send(&mut lab, &questions[1].response(481, "", &[]));
        obey(&mut lab, &talk.callee, &talk.invite, "callee");
        assert_eq!(asked(&lab), (2, 1));
        lab.finish();
    }
}

/// Whatever others say, who know the question or guess one: only the caller's own flow is heard.
#[test]
fn nobody_else_can_answer() {
    for shards in [1, 2] {
        let (mut lab, caller, callee) = two(shards, Known::ByRegId);
        let mut talk = Talk::ring(&mut lab, caller, callee);
        let question = returns(&mut lab, &mut talk).response(481, "", &[]);
        let stranger = talk.callee.twin(&mut lab);
        stranger.send(&mut lab, &question);
        talk.callee.send(&mut lab, &question);
        let (head, tail) = question.split_once(";branch=").expect("a branch");
        let mut guess = tail.to_string();
        // Within the secret, which follows the cookie, the shard and the transaction.
        guess.replace_range(24..25, if &tail[24..25] == "A" { "B" } else { "A" });
        talk.caller.send(&mut lab, &format!("{head};branch={guess}"));
        talk.callee.heard_nothing(&mut lab);
        assert_eq!((asked(&lab), lab.count(|it| it.dropped_stray_response)), ((1, 0), 1));
        talk.answer(&mut lab);
        talk.exchange(&mut lab, "BYE", true);
        lab.finish();
    }
}

/// Behind another proxy on the flow the caller may never have lost anything: that is not asked.
#[test]
fn who_is_behind_another_proxy_is_not_asked() {
    let (mut lab, mut caller, callee) = two(1, Known::ByRegId);
    let inner = "Via: SIP/2.0/UDP 10.0.0.9:5060;branch=z9hG4bKinner";
    let outer = caller.phone.via("outer");
    let draft = invite(&caller, &callee, "n").vias(&[&outer, inner]);
    caller.send(&mut lab, &draft.text());
    let got = caller.take(&mut lab);
    assert_eq!(got[0].status(), 407, "through another proxy each request proves who sends it");
    caller.send(&mut lab, &draft.method("ACK").to(got[0].header("To")).text());
    let challenge = crate::lab::digest::Challenge::last(&got[0]);
    let uri = format!("sip:{}@example.com", callee.user);
    let login = (caller.user.as_str(), "secret");
    let proof = crate::lab::digest::Response::new(&challenge, login, "INVITE", &uri).value();
    let outer = caller.phone.via("again");
    let draft = invite(&caller, &callee, "n")
        .vias(&[&outer, inner])
        .cseq(2)
        .line(&format!("Proxy-Authorization: {proof}"));
    caller.send(&mut lab, &draft.text());
    let request = callee.take_method(&mut lab, "INVITE");
    callee.send(&mut lab, &ringing(&request, &callee, "callee"));
    caller.take(&mut lab);
    caller.lose(&mut lab, End::Reset);
    caller.come_back(&mut lab, 0, End::Reset);
    let got = caller.take(&mut lab);
    assert!(got.iter().all(|it| it.method() != "INFO"), "{got:#?}");
    assert_eq!(asked(&lab), (0, 0));
    lab.finish();
}
