//! Within a dialog its token vouches for those between whom it is (RFC 5626 §5.3), and for nothing
//! else.

use sipring::base::id::Transport;

use crate::client::{ask, lab_of, log_in, of_user, proxy_authorization, register, users};
use crate::lab::Lab;
use crate::lab::digest::{Challenge, Settings, with_digest};
use crate::lab::draft::{Draft, request};
use crate::lab::phone::Phone;
use crate::lab::text::Sip;

const ALICE: &str = "203.0.113.5:40001";
const BOB: &str = "203.0.113.6:40002";
const TARGET: &str = "sip:bob@example.com";
/// What bob and a server answer an INVITE with: To tag and Contact.
const CLIENT: (&str, &str) = ("b", "Contact: <sip:bob@df7jal23ls0d.invalid>");
const SERVER: (&str, &str) = ("s", "Contact: <sip:900@198.51.100.7>");

/// Alice calls bob, both with passwords; what each of them needs for the next request.
struct Dialog {
    alice: Phone,
    bob: Phone,
    route: Vec<String>,
    reverse: Vec<String>,
}

impl Dialog {
    fn establish(lab: &mut Lab, transport: Transport) -> Dialog {
        let alice = Phone::connect(lab, 0, transport, ALICE);
        let bob = Phone::connect(lab, 1, transport, BOB);
        log_in(lab, &bob, "bob");
        let invite = |branch: &str| {
            of_user(&alice, "alice", "INVITE", TARGET, "call")
                .branch(&alice, branch)
                .line("Contact: <sip:alice@df7jal23ls0d.invalid>")
        };
        let refused = ask(lab, &alice, &invite("c1"));
        let tag = refused.tag("To").expect("a tag");
        let ack = invite("c1").method("ACK").to(&format!("<{TARGET}>;tag={tag}"));
        alice.send(lab, &ack.text());
        let proof = proxy_authorization(&Challenge::last(&refused), "alice", "INVITE", TARGET);
        let proven = invite("c2").cseq(2).line(&proof);
        let (got, route) = answered(lab, &alice, &proven, &bob, CLIENT);
        let dialog = Dialog { alice, bob, route, reverse: got.record_route() };
        let ack = dialog.by_alice(&alice, "ACK", 2);
        alice.send(lab, &ack.text());
        bob.take_method(lab, "ACK");
        dialog
    }

    fn by_alice(&self, sender: &Phone, method: &str, cseq: u32) -> Draft {
        of_user(sender, "alice", method, "sip:bob@df7jal23ls0d.invalid", "call")
            .branch(sender, &format!("a{cseq}{method}"))
            .to(&format!("<{TARGET}>;tag=b"))
            .cseq(cseq)
            .route(&self.route)
    }

    fn by_bob(&self, sender: &Phone, method: &str, cseq: u32) -> Draft {
        request(sender, method, "sip:alice@df7jal23ls0d.invalid", "call")
            .branch(sender, &format!("b{cseq}{method}"))
            .from(&format!("<{TARGET}>;tag=b"))
            .to("<sip:alice@example.com>;tag=fcall")
            .cseq(cseq)
            .route(&self.reverse)
    }
}

/// The INVITE reaches the callee, who answers it with that tag and Contact: as it arrived, and the
/// route set of the caller.
fn answered(
    lab: &mut Lab,
    caller: &Phone,
    invite: &Draft,
    callee: &Phone,
    (tag, contact): (&str, &str),
) -> (Sip, Vec<String>) {
    caller.send(lab, &invite.text());
    let got = callee.take_method(lab, "INVITE");
    caller.take_status(lab, 100);
    callee.send(lab, &got.response(200, tag, &[contact]));
    let mut route = caller.take_status(lab, 200).record_route();
    route.reverse();
    (got, route)
}

fn deliver(lab: &mut Lab, from: &Phone, to: &Phone, draft: &Draft) -> Sip {
    from.send(lab, &draft.text());
    let got = to.take_one(lab);
    to.send(lab, &got.response(200, "", &[]));
    from.take_status(lab, 200);
    got
}

#[test]
fn neither_side_of_a_call_is_challenged_within_it() {
    for transport in [Transport::Wss, Transport::Tcp, Transport::Udp] {
        let mut lab = lab_of(2, &["alice", "bob"]);
        let dialog = Dialog::establish(&mut lab, transport);
        let challenged = lab.count(|it| it.requests_challenged);
        let (alice, bob) = (dialog.alice, dialog.bob);
        deliver(&mut lab, &alice, &bob, &dialog.by_alice(&alice, "INFO", 3));
        deliver(&mut lab, &bob, &alice, &dialog.by_bob(&bob, "INFO", 4));
        deliver(&mut lab, &bob, &alice, &dialog.by_bob(&bob, "BYE", 5));
        assert_eq!(lab.count(|it| it.requests_challenged), challenged, "{transport:?}");
        lab.finish();
    }
}

#[test]
fn who_only_knows_a_token_is_challenged() {
    for (transport, status) in [(Transport::Wss, 403), (Transport::Tcp, 403)] {
        let mut lab = lab_of(2, &["alice", "bob"]);
        let dialog = Dialog::establish(&mut lab, transport);
        let thief = Phone::connect(&mut lab, 0, transport, "203.0.113.66:6");
        let answer = ask(&mut lab, &thief, &dialog.by_alice(&thief, "BYE", 3));
        assert_eq!(answer.status(), status, "the token names two others: {answer:#?}");
        lab.finish();
    }
    // The token of a call to a server names one client only.
    let mut lab = lab_of(1, &["alice"]);
    let alice = Phone::connect(&mut lab, 0, Transport::Wss, ALICE);
    log_in(&mut lab, &alice, "alice");
    let core = Phone::connect(&mut lab, 0, Transport::Udp, crate::lab::CORE);
    let uri = "sip:900@example.com";
    let invite = of_user(&alice, "alice", "INVITE", uri, "up");
    let (_, route) = answered(&mut lab, &alice, &invite, &core, SERVER);
    let bye = |phone: &Phone, branch: &str| {
        of_user(phone, "alice", "BYE", "sip:900@198.51.100.7", "up")
            .branch(phone, branch)
            .to(&format!("<{uri}>;tag=s"))
            .cseq(3)
            .route(&route)
    };
    let thief = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.66:6");
    assert_eq!(ask(&mut lab, &thief, &bye(&thief, "x")).status(), 407);
    core.heard_nothing(&mut lab);
    deliver(&mut lab, &alice, &core, &bye(&alice, "y"));
    lab.finish();
}

/// A server's call to a user, of which To and so the user's From may say anything: who comes with the
/// token on another flow is asked for the password of that user, whatever From says.
#[test]
fn a_token_of_one_client_is_for_that_client_whatever_from_says() {
    const TO: &str = "<sip:5551234@pstn.example.net>";
    for (transport, is_restarted) in
        [Transport::Wss, Transport::Udp].iter().flat_map(|it| [(*it, false), (*it, true)])
    {
        let mut lab = lab_of(1, &["alice", "carol"]);
        let alice = Phone::connect(&mut lab, 0, transport, ALICE);
        log_in(&mut lab, &alice, "alice");
        let core = Phone::connect(&mut lab, 0, Transport::Udp, crate::lab::CORE);
        let invite = request(&core, "INVITE", "sip:alice@example.com", "in").to(TO);
        let invite = invite.line("Contact: <sip:900@198.51.100.7>");
        let (got, _) = answered(&mut lab, &core, &invite, &alice, CLIENT);
        let bye = |phone: &Phone, branch: &str| {
            request(phone, "BYE", "sip:900@198.51.100.7", "in")
                .branch(phone, branch)
                .from(&format!("{TO};tag=b"))
                .to("<sip:sender@example.org>;tag=fin")
                .cseq(7)
                .route(&got.record_route())
        };
        if is_restarted {
            let users = users(&["alice", "carol"]);
            let settings = Settings { users: &users, ..Settings::default() };
            lab = Lab::with_epoch(1, with_digest(crate::lab::config(), &settings), 2);
        }
        let thief = Phone::connect(&mut lab, 0, transport, "203.0.113.66:6");
        let core = Phone::connect(&mut lab, 0, Transport::Udp, crate::lab::CORE);
        assert_eq!(ask(&mut lab, &thief, &bye(&thief, "x")).status(), 407, "{transport:?}");
        core.heard_nothing(&mut lab);
        for (user, port) in [("carol", 40_009), ("alice", 40_010)] {
            let next = Phone::connect(&mut lab, 0, transport, &format!("203.0.113.5:{port}"));
            let challenge = Challenge::last(&ask(&mut lab, &next, &bye(&next, "y")));
            let proof = proxy_authorization(&challenge, user, "BYE", "sip:900@198.51.100.7");
            let proven = bye(&next, "z").line(&proof);
            if user == "alice" {
                deliver(&mut lab, &next, &core, &proven);
            } else {
                assert_eq!(ask(&mut lab, &next, &proven).status(), 403, "another's password");
                core.heard_nothing(&mut lab);
            }
        }
        lab.finish();
    }
}

/// A dialog lets nobody register, nor speak to all users of ours in any name.
#[test]
fn a_token_is_no_password() {
    let mut lab = lab_of(2, &["alice", "bob", "carol"]);
    let stranger = Phone::connect(&mut lab, 0, Transport::Tcp, ALICE);
    let bob = Phone::connect(&mut lab, 1, Transport::Wss, BOB);
    log_in(&mut lab, &bob, "bob");
    let invite = request(&stranger, "INVITE", TARGET, "call");
    let (_, route) = answered(&mut lab, &stranger, &invite, &bob, CLIENT);
    let own = &route[..1];
    let theft =
        register(&stranger, "carol", "call", 3).to("<sip:carol@example.com>;tag=b").route(own);
    assert_eq!(ask(&mut lab, &stranger, &theft).status(), 401);
    let message = of_user(&stranger, "carol", "MESSAGE", TARGET, "call")
        .branch(&stranger, "m")
        .to(&format!("<{TARGET}>;tag=b"))
        .cseq(4)
        .route(own);
    assert_eq!(ask(&mut lab, &stranger, &message).status(), 407);
    bob.heard_nothing(&mut lab);
    assert_eq!(lab.count(|it| it.registrations), 1);
    lab.finish();
}

/// The same of a token that is older than the process: whom it named is gone, and what it permitted
/// was a dialog.
#[test]
fn a_token_of_another_run_is_no_password_either() {
    let uri = "sip:900@example.com";
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut lab = lab_of(1, &["bob", "carol"]);
        let stranger = Phone::connect(&mut lab, 0, transport, ALICE);
        let core = Phone::connect(&mut lab, 0, Transport::Udp, crate::lab::CORE);
        let invite = request(&stranger, "INVITE", uri, "up");
        let (_, route) = answered(&mut lab, &stranger, &invite, &core, SERVER);
        let users = users(&["bob", "carol"]);
        let settings = Settings { users: &users, ..Settings::default() };
        let mut lab = Lab::with_epoch(1, with_digest(crate::lab::config(), &settings), 2);
        let stranger = Phone::connect(&mut lab, 0, transport, ALICE);
        let bob = Phone::connect(&mut lab, 0, Transport::Wss, BOB);
        log_in(&mut lab, &bob, "bob");
        let message = of_user(&stranger, "carol", "MESSAGE", TARGET, "up")
            .branch(&stranger, "m")
            .to(&format!("<{TARGET}>;tag=s"))
            .cseq(4)
            .route(&route);
        assert_eq!(ask(&mut lab, &stranger, &message).status(), 407, "{transport:?}");
        bob.heard_nothing(&mut lab);
        lab.finish();
    }
}

/// Nor may it by naming another user's device in the place of its own peer's (RFC 5627 §6.1).
#[test]
fn a_token_leads_to_nobody_else_by_a_gruu() {
    for shards in [1, 2] {
        let mut lab = lab_of(shards, &["bob", "carol", "dave"]);
        let stranger = Phone::connect(&mut lab, 0, Transport::Tcp, ALICE);
        let bob = Phone::connect(&mut lab, 0, Transport::Wss, BOB);
        let carol = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.7:40003");
        log_in(&mut lab, &bob, "bob");
        let challenge = log_in(&mut lab, &carol, "carol");
        let contact = "Contact: <sip:c@cc.invalid>;reg-id=1;+sip.instance=\"<urn:uuid:7>\"";
        let aor = "<sip:carol@example.com>";
        let again = request(&carol, "REGISTER", "sip:example.com", "again")
            .from(&format!("{aor};tag=f"))
            .to(aor)
            .line(contact)
            .line("Supported: path, outbound, gruu")
            .line(&crate::client::authorization(&challenge, "carol"));
        assert_eq!(ask(&mut lab, &carol, &again).status(), 200);
        let invite = request(&stranger, "INVITE", TARGET, "call");
        let (_, route) = answered(&mut lab, &stranger, &invite, &bob, CLIENT);
        let gruu = "sip:carol@example.com;gr=urn:uuid:7";
        let message = of_user(&stranger, "dave", "MESSAGE", gruu, "call")
            .branch(&stranger, "m")
            .to(&format!("<{TARGET}>;tag=b"))
            .cseq(4)
            .route(&route);
        stranger.send(&mut lab, &message.text());
        carol.heard_nothing(&mut lab);
        lab.finish();
    }
}
