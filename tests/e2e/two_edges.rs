//! Two edges and a registrar behind them, three processes: a client keeps a flow to each edge, and a
//! request for it takes the one that lives (RFC 5626 §3.3, §5.3, §7).

use super::support::phone::PATIENCE;
use super::support::{Dialog, Phone, Server, Setup, Transport, still};

const EDGES: [&str; 2] = ["127.0.34.1", "127.0.34.2"];
const REGISTRAR: &str = "127.0.34.3";
const INSTANCE: &str = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000a95a0e128>\"";

struct Town {
    /// The client's flows, one to each edge.
    flows: [Phone; 2],
    /// Of the registrar.
    caller: Phone,
    edges: [Server; 2],
    _registrar: Server,
}

impl Town {
    /// The client registers by both edges, by the first one last: that is the one to be tried first.
    fn new(transport: Transport) -> Town {
        let networks = EDGES.map(|host| format!("{host}/32"));
        let networks = networks.each_ref().map(String::as_str);
        let registrar = Setup::new().host(REGISTRAR).from(&networks).start();
        let target = format!("sip:{};transport=udp", registrar.address(Transport::Udp));
        let from = format!("{REGISTRAR}/32");
        let edges = EDGES.map(|host| {
            let setup = Setup::new().host(host).from(&[&from]).target(target.clone());
            setup.route("domain = \"example.com\"\nto = \"upstream:core\"").start()
        });
        let mut flows = edges.each_ref().map(|edge| Phone::connect(transport, edge, "alice"));
        for at in [1, 0] {
            let phone = &mut flows[at];
            let contact = format!("<{};ob>;reg-id={};{INSTANCE}", phone.contact, at + 1);
            phone.contact += ";ob";
            let answer = phone.register(&contact);
            assert!(answer.one("path").contains(EDGES[at]), "{answer:?}");
            assert_eq!(answer.values("require"), ["outbound"], "{answer:?}");
        }
        let caller = Phone::connect(Transport::Tcp, &registrar, "caller");
        Town { flows, caller, edges, _registrar: registrar }
    }
}

#[test]
fn a_request_takes_the_flow_to_the_other_edge_when_one_is_gone() {
    for transport in [Transport::Wss, Transport::Tcp] {
        let Town { flows: [mut first, mut second], mut caller, edges, _registrar } =
            Town::new(transport);
        caller.send(&caller.draft("MESSAGE", "sip:alice@example.com").build());
        assert_eq!(first.serve("MESSAGE").uri(), first.contact);
        caller.status(200);
        still(&mut [&mut second]);
        let closed = edges[0].metric("sipring_flows_closed_total");
        first.reset();
        edges[0].wait_metric("sipring_flows_closed_total", closed + 1, PATIENCE);
        caller.send(&caller.draft("MESSAGE", "sip:alice@example.com").build());
        let heard = second.request("MESSAGE");
        assert_eq!(heard.uri(), second.contact);
        assert_eq!(heard.all("route").count(), 0, "{heard:?}");
        second.answer(&heard, 200);
        caller.status(200);
        edges[0].wait_metric("sipring_requests_flow_gone_total", 1, PATIENCE);
        // When both are gone it is the user who is away.
        let closed = edges[1].metric("sipring_flows_closed_total");
        second.reset();
        edges[1].wait_metric("sipring_flows_closed_total", closed + 1, PATIENCE);
        let answer = caller.ask(&caller.draft("MESSAGE", "sip:alice@example.com"));
        assert_eq!(answer.status(), 480, "{answer:?}");
    }
}

#[test]
fn a_call_over_the_other_edge_goes_through_to_its_end() {
    let Town { flows: [first, mut second], mut caller, edges, _registrar } =
        Town::new(Transport::Wss);
    let closed = edges[0].metric("sipring_flows_closed_total");
    first.reset();
    edges[0].wait_metric("sipring_flows_closed_total", closed + 1, PATIENCE);
    let invite = caller.draft("INVITE", "sip:alice@example.com");
    caller.send(&invite.build());
    caller.status(100);
    let heard = second.request("INVITE");
    let ok = second.response(&heard, 200);
    second.respond(&heard, &ok);
    let answer = caller.status(200);
    let mut from_caller = Dialog::of_caller(&answer);
    caller.send(&from_caller.draft(&caller, "ACK").build());
    second.request("ACK");
    caller.send(&from_caller.draft(&caller, "INFO").build());
    second.serve("INFO");
    caller.status(200);
    let mut from_callee = Dialog::of_callee(&heard, &ok.message());
    second.send(&from_callee.draft(&second, "BYE").build());
    caller.serve("BYE");
    second.status(200);
    still(&mut [&mut caller, &mut second]);
}
