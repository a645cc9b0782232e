//! The first story: a WSS client is found, whatever its Contact says.

mod lab;

use lab::phone::Phone;
use lab::{CORE, Lab};
use sipring::base::id::Transport;

#[test]
fn a_notify_for_a_wss_client_arrives_and_its_answer_returns() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        let browser = Phone::connect(&mut lab, shards - 1, Transport::Wss, "203.0.113.5:40001");
        browser.register(&mut lab, "alice", "<sip:x7@df7jal23ls0d.invalid;transport=ws>");
        let core: Phone = Phone::connect(&mut lab, 0, Transport::Udp, CORE);
        core.send(
            &mut lab,
            "NOTIFY sip:alice@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bKn1\r\n\
Max-Forwards: 70\r\nFrom: <sip:core@example.com>;tag=c\r\nTo: <sip:alice@example.com>\r\nCall-ID: n1\r\n\
CSeq: 1 NOTIFY\r\nEvent: keep-alive\r\nContent-Length: 2\r\n\r\nhi",
        );
        let notify = browser.take_one(&mut lab);
        assert_eq!(notify.uri(), "sip:x7@df7jal23ls0d.invalid;transport=ws");
        assert!(notify.header("Via").starts_with("SIP/2.0/WSS 192.0.2.1:8443;branch=z9hG4bK"));
        browser.send(&mut lab, &notify.response(200, "b", &[]));
        let answer = core.take_one(&mut lab);
        assert_eq!((answer.status(), answer.all("Via").count()), (200, 1), "{answer:#?}");
    }
}

#[test]
fn a_call_between_two_browsers_keeps_its_way_by_token() {
    for shards in 1..=3 {
        let mut lab = Lab::new(shards, lab::config());
        let alice = Phone::connect(&mut lab, 0, Transport::Wss, "203.0.113.5:40001");
        let bob = Phone::connect(&mut lab, shards - 1, Transport::Wss, "203.0.113.6:40002");
        alice.register(&mut lab, "alice", "<sip:a@aa.invalid;transport=ws>");
        bob.register(&mut lab, "bob", "<sip:b@bb.invalid;transport=ws>");
        alice.send(
            &mut lab,
            &format!(
                "INVITE sip:bob@example.com SIP/2.0\r\n{}\r\nMax-Forwards: 70\r\nFrom: <sip:alice@example.com>;tag=a\r\n\
To: <sip:bob@example.com>\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\nContact: <sip:a@aa.invalid;transport=ws;ob>\r\n\
Content-Length: 0\r\n\r\n",
                alice.via("i1")
            ),
        );
        let invite = bob.take_one(&mut lab);
        assert_eq!(alice.take_one(&mut lab).status(), 100);
        bob.send(&mut lab, &invite.response(180, "b", &[]));
        assert_eq!(alice.take_one(&mut lab).status(), 180);
        bob.send(
            &mut lab,
            &invite.response(200, "b", &["Contact: <sip:b@bb.invalid;transport=ws>"]),
        );
        let answer = alice.take_one(&mut lab);
        assert_eq!(answer.status(), 200);
        let route = answer.record_route();
        assert_eq!(route.len(), 1, "one listener, one value");
        let request = |method: &str,
                       cseq: u32,
                       from: (&str, &str),
                       to: (&str, &str),
                       uri: &str,
                       via: String| {
            format!(
                "{method} {uri} SIP/2.0\r\n{via}\r\nMax-Forwards: 70\r\nRoute: {}\r\nFrom: <sip:{}@example.com>;tag={}\r\n\
To: <sip:{}@example.com>;tag={}\r\nCall-ID: c1\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n",
                route[0], from.0, from.1, to.0, to.1
            )
        };
        let ack = request(
            "ACK",
            1,
            ("alice", "a"),
            ("bob", "b"),
            "sip:b@bb.invalid;transport=ws",
            alice.via("k1"),
        );
        alice.send(&mut lab, &ack);
        assert_eq!(bob.take_one(&mut lab).method(), "ACK");
        let bye = request(
            "BYE",
            9,
            ("bob", "b"),
            ("alice", "a"),
            "sip:a@aa.invalid;transport=ws;ob",
            bob.via("b1"),
        );
        bob.send(&mut lab, &bye);
        let bye = alice.take_one(&mut lab);
        assert_eq!((bye.method(), bye.find("Route")), ("BYE", None));
        alice.send(&mut lab, &bye.response(200, "", &[]));
        assert_eq!(bob.take_one(&mut lab).status(), 200);
        lab.pass(std::time::Duration::from_secs(40));
        for engine in &lab.engines {
            let gauges = engine.gauges();
            assert_eq!((gauges.server_transactions, gauges.client_transactions), (0, 0));
        }
    }
}
