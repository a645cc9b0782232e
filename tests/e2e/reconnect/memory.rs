//! Idle clients whose connections are all lost and who all come back: the process holds what it held
//! before.

use std::time::{Duration, Instant};

use super::client::{Client, setup};
use crate::loss::{ENDS, End, Known};
use crate::support::phone::PATIENCE;
use crate::support::server::Server;

const CLIENTS: u64 = 24;
/// Bytes that a client may leave behind each time that it comes back: far less than a TLS session.
const EACH_MAX: u64 = 4096;

/// All of them lose their connections and come back. `closed` counts the flows that have ended.
fn round(server: &Server, clients: &mut [Client], end: End, closed: &mut u64) {
    *closed += CLIENTS;
    let mut kept = Vec::new();
    for client in clients.iter_mut() {
        let link = client.phone.detach();
        match end {
            End::Fin => link.finish(),
            End::Reset => {
                link.reset();
                continue;
            }
            End::Silent => {}
        }
        kept.push(link);
    }
    if end != End::Silent {
        server.wait_metric("sipring_flows_closed_total", *closed, PATIENCE);
    }
    for client in clients.iter_mut() {
        client.phone.reconnect();
        client.log_in();
    }
    server.wait_metric("sipring_flows_closed_total", *closed, PATIENCE);
    for gauge in ["sipring_flows", "sipring_bindings", "sipring_aors"] {
        becomes(server, gauge, CLIENTS);
    }
}

/// Waits until a gauge has that value.
#[track_caller]
fn becomes(server: &Server, gauge: &str, value: u64) {
    let deadline = Instant::now() + PATIENCE;
    while server.metric(gauge) != value {
        let now = server.metric(gauge);
        assert!(Instant::now() < deadline, "{gauge} is {now}, not {value}\n{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn clients_that_come_back_take_no_memory_for_good() {
    let users: Vec<String> = (0..CLIENTS).map(|n| format!("u{n}")).collect();
    let server = setup(&users).start();
    let mut clients: Vec<Client> =
        users.iter().map(|user| Client::new(&server, user, Known::ByRegId)).collect();
    let mut closed = 0;
    let mut rounds = |count: usize| {
        for end in ENDS.repeat(count) {
            round(&server, &mut clients, end, &mut closed);
        }
        server.own_memory()
    };
    // Until what is kept for reuse is full.
    let before = rounds(8);
    let times = 4;
    let after = rounds(times);
    let each = after.saturating_sub(before) / (CLIENTS * (times * ENDS.len()) as u64);
    println!("{before} bytes, {after} after {times} rounds more: {each} a client");
    assert!(each < EACH_MAX, "{before} bytes before, {after} after: {each} a client");
}
