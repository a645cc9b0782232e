//! Responses whose request came on a connection that is gone by now (RFC 3261 §18.2.2).

mod lab;

use lab::Lab;
use lab::phone::Phone;
use sipring::base::event::CloseReason;
use sipring::base::id::Transport;

const SERVER: &str = "198.51.100.8:33001";

fn notify(via_host: &str) -> String {
    format!(
        "NOTIFY sip:alice@example.com SIP/2.0\r\nVia: SIP/2.0/TCP {via_host};branch=z9hG4bKn1\r\n\
Max-Forwards: 70\r\nFrom: <sip:core@example.com>;tag=c\r\nTo: <sip:alice@example.com>\r\n\
Call-ID: n1\r\nCSeq: 1 NOTIFY\r\nContent-Length: 0\r\n\r\n"
    )
}

/// A server sends a NOTIFY on its connection, which then ends before the answer comes.
fn answer_after_close(lab: &mut Lab, from: Transport, remote: &str) {
    let browser = Phone::connect(lab, 0, Transport::Wss, "203.0.113.5:40001");
    browser.register(lab, "alice", "<sip:a@aa.invalid;transport=ws>");
    let sender = Phone::connect(lab, lab.engines.len() as u16 - 1, from, remote);
    sender.send(lab, &notify("198.51.100.8:5066"));
    let notify = browser.take_one(lab);
    lab.close(sender.flow.expect("a stream"), CloseReason::Peer);
    browser.send(lab, &notify.response(200, "t", &[]));
}

#[test]
fn a_server_whose_connection_ended_gets_its_answer_by_a_new_one() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        answer_after_close(&mut lab, Transport::Tcp, SERVER);
        assert_eq!(lab.opens.len(), 1, "one connection to the port of sent-by");
        let target = lab.opens[0].2.clone();
        assert_eq!((target.remote, target.secure), ("198.51.100.8:5066".parse().unwrap(), false));
        let flow = lab.complete_open(0);
        let bytes = std::mem::take(&mut lab.wires.get_mut(&flow).unwrap().bytes);
        let answer = lab::text::Sip::read(&bytes);
        assert_eq!((answer.status(), answer.all("Via").count()), (200, 1));
    }
}

#[test]
fn a_client_whose_connection_ended_is_never_dialled() {
    for (transport, remote) in
        [(Transport::Tcp, "203.0.113.9:33001"), (Transport::Wss, "203.0.113.9:33002")]
    {
        let mut lab = Lab::new(2, lab::config());
        answer_after_close(&mut lab, transport, remote);
        assert!(lab.opens.is_empty() && lab.datagrams.is_empty());
        assert_eq!(lab.count(|counters| counters.dropped_response_flow_gone), 1);
    }
}

#[test]
fn a_call_of_a_server_whose_connection_ended_rings_on() {
    let mut lab = Lab::new(2, lab::config());
    let browser = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    browser.register(&mut lab, "alice", "<sip:a@aa.invalid;transport=ws>");
    let sender = Phone::connect(&mut lab, 1, Transport::Tcp, SERVER);
    sender.send(&mut lab, &notify("198.51.100.8:5066").replace("NOTIFY", "INVITE"));
    let invite = browser.take_one(&mut lab);
    browser.send(&mut lab, &invite.response(180, "t", &[]));
    lab.close(sender.flow.expect("a stream"), CloseReason::Peer);
    assert!(browser.take(&mut lab).is_empty(), "no CANCEL");
    browser.send(&mut lab, &invite.response(200, "t", &["Contact: <sip:a@aa.invalid>"]));
    let flow = lab.complete_open(0);
    let bytes = std::mem::take(&mut lab.wires.get_mut(&flow).unwrap().bytes);
    assert_eq!(lab::text::Sip::read(&bytes).status(), 200);
}

/// A server that got two requests on two of our connections answers both on the first.
#[test]
fn a_server_that_we_dialled_may_answer_on_another_connection_of_ours() {
    let mut config = lab::config();
    config.upstreams[0].targets[0].transport = Transport::Tcp;
    let mut lab = Lab::new(2, config);
    let browser = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
    let mut requests = Vec::new();
    for number in 0..20 {
        browser.send(
            &mut lab,
            &format!(
                "MESSAGE sip:9{number}@example.com SIP/2.0\r\n{}\r\nMax-Forwards: 70\r\n\
From: <sip:a@example.com>;tag=a\r\nTo: <sip:9@example.com>\r\nCall-ID: m{number}\r\n\
CSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n",
                browser.via(&format!("m{number}"))
            ),
        );
        while !lab.opens.is_empty() {
            lab.complete_open(0);
        }
        let flows: Vec<_> = lab.wires.keys().copied().collect();
        for flow in flows.into_iter().filter(|flow| Some(*flow) != browser.flow) {
            let bytes = std::mem::take(&mut lab.wires.get_mut(&flow).unwrap().bytes);
            if !bytes.is_empty() {
                requests.push((flow, lab::text::Sip::read(&bytes)));
            }
        }
    }
    let first = requests[0].0;
    assert!(requests.iter().any(|(flow, _)| *flow != first), "both shards have a connection");
    for (_, request) in &requests {
        lab.data(first, request.response(200, "t", &[]).as_bytes());
    }
    let answers = browser.take(&mut lab);
    assert!(answers.len() == 20 && answers.iter().all(|answer| answer.status() == 200));
}
