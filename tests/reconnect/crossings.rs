//! A client is back and away again before the shards have told each other: what waited for it, and
//! reached that flow's shard too late, has the flow after it, or its sender is told.

use std::time::Duration;

use crate::client::{Client, of_user, two};
use crate::lab::Lab;
use crate::lab::loss::{End, Known};
use crate::lab::text::Sip;
use crate::talk::{Talk, invite};
use sipring::base::id::Transport;

/// How many messages between shards a reconnect takes, and more.
const MOMENTS: usize = 12;

/// After how many messages between shards a client that registers on a flow of that shard is away
/// again.
#[derive(Clone, Copy, Debug)]
struct Moment {
    shards: u16,
    shard: u16,
    messages: usize,
}

impl Moment {
    fn all() -> impl Iterator<Item = Moment> {
        let places = [2, 3].into_iter().flat_map(|shards| (0..shards).map(move |it| (shards, it)));
        places.flat_map(|(shards, shard)| {
            (0..MOMENTS).map(move |messages| Moment { shards, shard, messages })
        })
    }

    /// The client, who is away, comes for that moment and then to stay; what it got on the first of
    /// the two flows.
    fn flicker(self, lab: &mut Lab, client: &mut Client) -> Vec<Sip> {
        client.connect(lab, self.shard, Transport::Wss);
        let register = client.prove(lab);
        client.take(lab);
        lab.hold = true;
        client.send(lab, &register.text());
        lab.release_first(self.messages);
        let heard = client.take(lab);
        client.lose(lab, End::Reset);
        lab.release();
        client.come_back(lab, 0, End::Reset);
        heard
    }
}

fn statuses(all: &[Sip]) -> Vec<u16> {
    all.iter().map(Sip::status).filter(|status| *status >= 200).collect()
}

#[test]
fn a_response_waits_for_the_flow_after_the_next() {
    let mut missed = 0;
    for moment in Moment::all() {
        let (mut lab, mut caller, callee) = two(moment.shards, Known::ByRegId);
        caller.send(&mut lab, &of_user(&caller, "MESSAGE", &callee.user, "n").text());
        let got = callee.take_method(&mut lab, "MESSAGE");
        caller.lose(&mut lab, End::Reset);
        callee.send(&mut lab, &got.response(200, "t", &[]));
        let mut heard = moment.flicker(&mut lab, &mut caller);
        missed += usize::from(heard.is_empty());
        heard.extend(caller.take(&mut lab));
        assert_eq!(statuses(&heard), [200], "{moment:?}");
        lab.finish();
    }
    assert!(missed > 0, "it was never late");
}

/// A request of which nothing is heard is sent toward two flows at most: the second may have got it,
/// so after that its sender is told.
#[test]
fn a_request_arrives_or_its_sender_is_told() {
    let mut arrived = 0;
    for moment in Moment::all() {
        for method in ["MESSAGE", "INVITE"] {
            let (mut lab, caller, mut callee) = two(moment.shards, Known::ByRegId);
            let draft = match method {
                "INVITE" => invite(&caller, &callee, "n"),
                _ => of_user(&caller, method, &callee.user, "n"),
            };
            callee.lose(&mut lab, End::Reset);
            caller.send(&mut lab, &draft.text());
            let heard = moment.flicker(&mut lab, &mut callee);
            let late = callee.take(&mut lab);
            assert!(heard.len() + late.len() <= 2, "{moment:?}: {heard:#?} {late:#?}");
            if let Some(request) = late.first() {
                assert_eq!(request.method(), method, "{moment:?}");
                callee.send(&mut lab, &request.response(486, "t", &[]));
                arrived += 1;
            }
            let got = caller.take(&mut lab);
            let told = statuses(&got);
            assert_eq!(told, [if late.is_empty() { 480 } else { 486 }], "{moment:?} {method}");
            if method == "INVITE" {
                let last = got.last().expect("an answer");
                caller.send(&mut lab, &draft.method("ACK").to(last.header("To")).text());
            }
            callee.take(&mut lab);
            lab.finish();
        }
    }
    assert!(arrived > 0, "none came by the second flow");
}

/// A call that rings or is answered goes on, whoever of the two flickers.
#[test]
fn a_call_goes_on_with_who_was_away_twice() {
    for moment in Moment::all() {
        for (is_caller, is_answered) in [(true, false), (true, true), (false, false), (false, true)]
        {
            let (mut lab, caller, callee) = two(moment.shards, Known::ByRegId);
            let mut talk = Talk::ring(&mut lab, caller, callee);
            if is_answered {
                talk.answer(&mut lab);
            }
            let client = if is_caller { &mut talk.caller } else { &mut talk.callee };
            client.lose(&mut lab, End::Reset);
            moment.flicker(&mut lab, client);
            client.take(&mut lab);
            if !is_answered {
                talk.answer(&mut lab);
            }
            for method in ["INFO", "INVITE", "BYE"] {
                talk.exchange(&mut lab, method, !is_caller);
            }
            lab.finish();
        }
    }
}

/// What is said to a call meanwhile: the answer to a caller, the BYE to a callee.
#[test]
fn what_is_said_meanwhile_arrives_once() {
    for moment in Moment::all() {
        let (mut lab, caller, callee) = two(moment.shards, Known::ByRegId);
        let mut talk = Talk::ring(&mut lab, caller, callee);
        talk.caller.lose(&mut lab, End::Reset);
        talk.say_200(&mut lab);
        let mut heard = moment.flicker(&mut lab, &mut talk.caller);
        heard.extend(talk.caller.take(&mut lab));
        assert_eq!(statuses(&heard), [200], "{moment:?}");
        talk.say_200(&mut lab);
        talk.acknowledge(&mut lab);

        talk.callee.lose(&mut lab, End::Reset);
        let bye = talk.by_caller(&mut lab, "BYE");
        talk.caller.send(&mut lab, &bye.text());
        moment.flicker(&mut lab, &mut talk.callee);
        let late = talk.callee.take(&mut lab);
        assert!(late.len() <= 1, "{moment:?}: {late:#?}");
        if let Some(bye) = late.first() {
            talk.callee.send(&mut lab, &bye.response(200, "", &[]));
        }
        lab.pass(Duration::from_millis(100));
        let told = statuses(&talk.caller.take(&mut lab));
        assert_eq!(told, [if late.is_empty() { 480 } else { 200 }], "{moment:?}");
        lab.finish();
    }
}
