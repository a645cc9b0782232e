//! After the process, or one shard of it, was started anew: tokens lead to clients that have
//! registered again, never to a slot that somebody else has by now.

use std::time::Duration;

use crate::client::{Client, config, lab_of};
use crate::lab::loss::Known;
use crate::lab::{Lab, user_of};
use crate::talk::Talk;

fn answered(lab: &mut Lab, users: &[String; 2], shards: u16) -> Talk {
    let caller = Client::new(lab, 0, &users[0], Known::ByRegId);
    let callee = Client::new(lab, shards - 1, &users[1], Known::ByContact);
    caller.take(lab);
    callee.take(lab);
    let mut talk = Talk::ring(lab, caller, callee);
    talk.answer(lab);
    talk
}

#[test]
fn a_call_goes_on_in_the_next_run_of_the_process() {
    for shards in [1, 2, 3] {
        let users = [0, 1].map(|n| user_of(n as u16 % shards, shards, n));
        let names = [users[0].as_str(), users[1].as_str()];
        let mut old = lab_of(shards, &names);
        let mut talk = answered(&mut old, &users, shards);
        let mut lab = Lab::with_epoch(shards, config(&names), 2);
        // The slots of before are taken by others.
        let strangers: Vec<Client> = (0..shards)
            .map(|shard| {
                let by = sipring::base::id::Transport::Wss;
                Client::offline(&mut lab, shard, "nobody", Known::ByContact, by)
            })
            .collect();
        talk.caller.connect(&mut lab, shards - 1, talk.caller.phone.transport);
        talk.caller.log_in(&mut lab);
        talk.caller.take(&mut lab);
        let early = talk.by_caller(&mut lab, "INFO");
        talk.caller.send(&mut lab, &early.text());
        talk.caller.take_status(&mut lab, 480);
        talk.callee.connect(&mut lab, 0, talk.callee.phone.transport);
        talk.callee.log_in(&mut lab);
        talk.callee.take(&mut lab);
        for method in ["INVITE", "INFO", "MESSAGE"] {
            talk.exchange(&mut lab, method, true);
            talk.exchange(&mut lab, method, false);
        }
        talk.exchange(&mut lab, "BYE", false);
        for stranger in strangers {
            stranger.heard_nothing(&mut lab);
        }
        lab.finish();
    }
}

#[test]
fn a_call_goes_on_after_a_shard_failed() {
    for shard in [0, 1] {
        let users = [0, 1].map(|n| user_of(n, 2, usize::from(n)));
        let names = [users[0].as_str(), users[1].as_str()];
        let mut lab = lab_of(2, &names);
        let mut talk = answered(&mut lab, &users, 2);
        lab.restart(shard, config(&names));
        lab.pass(Duration::from_secs(2));
        for client in [&mut talk.caller, &mut talk.callee] {
            client.connect(&mut lab, shard, client.phone.transport);
            client.log_in(&mut lab);
            client.take(&mut lab);
        }
        talk.exchange(&mut lab, "INFO", true);
        talk.exchange(&mut lab, "INFO", false);
        talk.exchange(&mut lab, "BYE", true);
    }
}
