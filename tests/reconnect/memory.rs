//! Clients that come back find the tables as they left them: nothing stays of the flows that they
//! lost. (`tests/allocations` counts the bytes.)

use std::time::Duration;

use sipring::engine::Resources;

use crate::client::{Client, GRACE, lab_of, of_user, two};
use crate::lab::Lab;
use crate::lab::loss::{ENDS, End, KNOWN, Known};
use crate::talk::Talk;

const CLIENTS: u16 = 120;
/// Until no transaction lingers (RFC 3261 §17.2.2, Timer J over streams is 0).
const REST: Duration = Duration::from_secs(40);

/// What all shards hold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tables {
    flows: u64,
    bindings: u64,
    aors: u64,
    transactions: u64,
    resources: Resources,
}

fn tables(lab: &Lab) -> Tables {
    let mut all =
        Tables { flows: 0, bindings: 0, aors: 0, transactions: 0, resources: Resources::default() };
    for engine in &lab.engines {
        let (gauges, of_shard) = (engine.gauges(), engine.resources());
        all.flows += gauges.flows.iter().sum::<u64>();
        all.bindings += gauges.bindings;
        all.aors += gauges.aors;
        all.transactions += gauges.server_transactions + gauges.client_transactions;
        let sum = &mut all.resources;
        sum.timers += of_shard.timers;
        sum.transaction_keys += of_shard.transaction_keys;
        sum.flow_marks += of_shard.flow_marks;
        sum.connections += of_shard.connections;
        sum.connects += of_shard.connects;
        sum.index_hosts += of_shard.index_hosts;
        sum.clients += of_shard.clients;
        sum.waits += of_shard.waits;
        sum.wait_bytes += of_shard.wait_bytes;
        sum.held += of_shard.held;
        sum.stored += of_shard.stored;
        sum.blocks += of_shard.blocks;
    }
    all
}

fn crowd(shards: u16, known: Known) -> (Lab, Vec<Client>) {
    let users: Vec<String> = (0..CLIENTS).map(|n| format!("user{n}")).collect();
    let names: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut lab = lab_of(shards, &names);
    let clients =
        (0..).zip(&users).map(|(n, user)| Client::new(&mut lab, n % shards, user, known)).collect();
    lab.pass(REST);
    (lab, clients)
}

#[test]
fn all_are_lost_and_all_come_back() {
    for shards in [1, 2, 3] {
        for known in KNOWN {
            let (mut lab, mut clients) = crowd(shards, known);
            let before = tables(&lab);
            let count = u64::from(CLIENTS);
            assert_eq!((before.flows, before.bindings, before.aors), (count, count, count));
            assert_eq!(before.resources.clients as u64, count);
            for (round, end) in (0..).zip(ENDS.repeat(2)) {
                clients.iter().for_each(|it| it.lose(&mut lab, end));
                lab.pass(Duration::from_secs(1));
                let away = tables(&lab);
                assert_eq!(away.bindings, count, "{end:?}");
                if end != End::Silent {
                    assert_eq!((away.flows, away.resources.blocks), (0, 0), "{end:?}");
                }
                for (n, client) in (0..).zip(&mut clients) {
                    client.connect(&mut lab, (n + round) % shards, client.phone.transport);
                    client.log_in(&mut lab);
                }
                lab.pass(REST);
                let after = tables(&lab);
                assert_eq!(after, before, "{end:?}, round {round}, {shards} shards, {known:?}");
            }
        }
    }
}

/// Nobody comes back: nothing is left but that they are known.
#[test]
fn all_are_lost_and_nobody_comes_back() {
    for shards in [1, 2, 3] {
        let (mut lab, clients) = crowd(shards, Known::ByRegId);
        clients.iter().for_each(|it| it.lose(&mut lab, End::Reset));
        lab.pass(GRACE + REST);
        let after = tables(&lab);
        assert_eq!((after.flows, after.bindings, after.aors, after.transactions), (0, 0, 0, 0));
        assert_eq!(after.resources, Resources::default());
    }
}

/// What waits for a client shows among the resources of its shard, and is gone when the client is
/// there.
#[test]
fn what_waits_is_counted_while_it_waits() {
    for shards in [1, 2, 3] {
        let (mut lab, caller, callee) = two(shards, Known::ByRegId);
        let mut talk = Talk::ring(&mut lab, caller, callee);
        let calm = tables(&lab).resources;
        assert_eq!((calm.waits, calm.wait_bytes, calm.held), (0, 0, 0));
        // The INVITE itself waits for the caller; so do a response and a request.
        talk.caller.lose(&mut lab, End::Reset);
        assert_eq!(tables(&lab).resources.waits, 1);
        talk.say_200(&mut lab);
        let draft = of_user(&talk.callee, "MESSAGE", &talk.caller.user, "n").body("waits");
        talk.callee.send(&mut lab, &draft.text());
        let waits = tables(&lab).resources;
        assert_eq!((waits.waits, waits.held), (3, 1));
        assert!(waits.wait_bytes > draft.text().len(), "{waits:?}");
        assert!(waits.blocks > calm.blocks, "{waits:?}");
        talk.caller.come_back(&mut lab, shards - 1, End::Reset);
        // They come from two shards, in any order.
        let mut got = talk.caller.take(&mut lab);
        got.sort_by_key(|it| it.status());
        let [message, ok] = &got[..] else { panic!("{got:#?}") };
        assert_eq!((message.method(), ok.status()), ("MESSAGE", 200));
        talk.caller.send(&mut lab, &message.response(200, "", &[]));
        let done = tables(&lab).resources;
        assert_eq!((done.waits, done.wait_bytes, done.held), (0, 0, 0));
        lab.finish();
    }
}
