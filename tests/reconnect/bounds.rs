//! Waiting is bounded: what does not fit is answered as if the client did not come back.

use std::time::Duration;

use sipring::base::limits::{WAITER_BYTES_OF_CLIENT_MAX, WAITERS_OF_CLIENT_MAX};

use crate::client::{Client, lab_of, of_user, two};
use crate::lab::loss::{End, Known};

#[test]
fn only_so_many_wait_for_one_client() {
    for (body, most) in [(10, WAITERS_OF_CLIENT_MAX), (16_000, WAITER_BYTES_OF_CLIENT_MAX / 16_000)]
    {
        for shards in [1, 2] {
            let (mut lab, caller, mut callee) = two(shards, Known::ByRegId);
            callee.lose(&mut lab, End::Reset);
            for n in 0..WAITERS_OF_CLIENT_MAX + 10 {
                let draft = of_user(&caller, "MESSAGE", &callee.user, &format!("n{n}"));
                caller.send(&mut lab, &draft.body(&"x".repeat(body)).text());
            }
            let refused = caller.take(&mut lab);
            assert!(refused.iter().all(|it| it.status() == 480), "{refused:#?}");
            let waiting = WAITERS_OF_CLIENT_MAX + 10 - refused.len();
            assert!(waiting <= most && waiting + 1 >= most, "{waiting} of {most}");
            assert_eq!(lab.count(|it| it.waits_refused), refused.len() as u64);
            lab.pass(Duration::from_secs(1));
            callee.come_back(&mut lab, 0, End::Reset);
            let got = callee.take(&mut lab);
            assert_eq!(got.len(), waiting);
            for message in got {
                callee.send(&mut lab, &message.response(200, "t", &[]));
            }
            assert_eq!(caller.take(&mut lab).len(), waiting);
            lab.finish();
        }
    }
}

/// Pages that are loaded anew again and again leave no more bindings than there may be.
#[test]
fn only_so_many_bindings_wait() {
    let mut lab = lab_of(1, &["alice"]);
    let most = lab_config_contacts();
    for n in 0..3 * most {
        let by = sipring::base::id::Transport::Wss;
        let mut client = Client::offline(&mut lab, 0, "alice", Known::ByContact, by);
        client.contact = format!("sip:page{n}@y.invalid");
        client.log_in(&mut lab);
        client.lose(&mut lab, End::Fin);
    }
    assert_eq!(lab.engines[0].gauges().bindings, most as u64);
    lab.finish();
    assert_eq!(lab.engines[0].gauges().bindings, 0);
}

fn lab_config_contacts() -> usize {
    crate::lab::config().registrar.contacts_max
}
