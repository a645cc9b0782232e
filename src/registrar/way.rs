//! How requests get to a Contact (RFC 3261 §10, RFC 3327 §5.4, RFC 5626 §5.3, §6): on the flow that
//! it was registered by, by its Path, or by dialling it. Absent on purpose: the sending.

use crate::base::id::FlowRef;
use crate::sip::{Scheme, Uri};

use super::binding::Way;
use super::contact::Wanted;
use super::register::Sender;

/// How requests get to a Contact, and whether it can be dialled when its stream flow has ended. A
/// Contact on another host than its source is delivered on the flow all the same, unless the
/// configuration wants it resolved: address translation is the rule. What was registered through
/// another hop is never delivered on that hop's flow.
pub(super) fn way(sender: &Sender<'_>, wanted: &Wanted<'_>, ob: bool) -> (Way, bool) {
    let context = sender.context;
    if sender.has_path || !sender.is_direct {
        return (Way::Path, false);
    }
    let keeps_flow = wanted.reg_id != 0 || ob;
    let is_own = wanted.uri.host_ip() == Some(context.source_ip);
    let is_websocket = context.source.transport().is_websocket();
    let is_foreign = context.config.registrar.foreign_contacts && is_resolvable(&wanted.uri);
    if is_foreign && !is_own && !keeps_flow && !is_websocket {
        return (Way::Path, false);
    }
    match context.source {
        FlowRef::Stream(stream) => {
            (Way::Stream(stream.flow), is_own && !keeps_flow && !is_websocket)
        }
        FlowRef::Datagram(_) if is_own && !keeps_flow && is_sent_by_source(sender) => {
            (Way::Dial, false)
        }
        FlowRef::Datagram(path) => (Way::Datagram(Box::new(path)), false),
    }
}

/// Whether a Contact can be meant to be resolved at all.
fn is_resolvable(uri: &Uri<'_>) -> bool {
    const INVALID: &[u8] = b".invalid";
    let is_sip = matches!(uri.scheme, Scheme::Sip | Scheme::Sips);
    let start = uri.host.len().saturating_sub(INVALID.len());
    let is_websocket = uri.param("transport").flatten().is_some_and(|transport| {
        transport.eq_ignore_ascii_case(b"ws") || transport.eq_ignore_ascii_case(b"wss")
    });
    is_sip && !is_websocket && !uri.host[start..].eq_ignore_ascii_case(INVALID)
}

/// Whether the client's Via names the address that its datagram came from: no translation in
/// between.
fn is_sent_by_source(sender: &Sender<'_>) -> bool {
    let via = sender.request.top_via();
    via.is_ok_and(|via| via.sent_by_ip() == Some(sender.context.source_ip))
}

#[cfg(test)]
mod tests {
    use super::super::binding::BindingFlow;
    use super::super::harness::{Desk, datagram, stream};
    use crate::base::id::Transport;

    const ALICE: &str = "sip:alice@example.com";

    #[test]
    fn the_way_to_a_contact_follows_from_how_it_was_registered() {
        const OWN: &str = "Contact: <sip:a@192.0.2.1:5070>\n";
        const NAT: &str = "Contact: <sip:a@10.0.0.1:5070>\n";
        const OB: &str = "Contact: <sip:a@192.0.2.1:5070;ob>\n";
        const HOP: &str = "Via: SIP/2.0/UDP p;branch=z9hG4bK2\n";
        let path = format!("Supported: path\nPath: <sip:p;lr>\n{OWN}");
        let (udp, tcp, wss) =
            (datagram("192.0.2.1:5070"), stream(7, Transport::Tcp), stream(7, Transport::Wss));
        for (source, lines, expected) in [
            (udp, OWN, BindingFlow::Dial),
            (udp, NAT, BindingFlow::Flow(udp)),
            (udp, OB, BindingFlow::Flow(udp)),
            (udp, &format!("{HOP}{OWN}"), BindingFlow::Path),
            (udp, &path, BindingFlow::Path),
            (tcp, OWN, BindingFlow::Flow(tcp)),
            (tcp, NAT, BindingFlow::Flow(tcp)),
            (tcp, &format!("{HOP}{OWN}"), BindingFlow::Path),
            (wss, OWN, BindingFlow::Flow(wss)),
            (wss, &path, BindingFlow::Path),
        ] {
            let mut desk = Desk::new();
            desk.source = source;
            desk.register(ALICE, ("c", 1), lines).unwrap();
            assert_eq!(desk.flow(ALICE), expected, "{source:?} {lines}");
            assert_eq!(
                desk.out.bound.is_some(),
                expected == BindingFlow::Flow(desk.source) && desk.source.stream().is_some()
            );
        }
    }

    #[test]
    fn foreign_contacts_are_resolved_only_where_configured() {
        for (uri, source, expected) in [
            ("sip:a@198.51.100.1", datagram("192.0.2.1:9"), BindingFlow::Path),
            ("sip:a@host.example", stream(7, Transport::Tcp), BindingFlow::Path),
            (
                "sip:a@x.invalid",
                datagram("192.0.2.1:9"),
                BindingFlow::Flow(datagram("192.0.2.1:9")),
            ),
            ("sip:a@h;ob", datagram("192.0.2.1:9"), BindingFlow::Flow(datagram("192.0.2.1:9"))),
            (
                "sip:a@host.example",
                stream(7, Transport::Wss),
                BindingFlow::Flow(stream(7, Transport::Wss)),
            ),
        ] {
            let mut desk = Desk::new();
            desk.config.registrar.foreign_contacts = true;
            desk.source = source;
            desk.register(ALICE, ("c", 1), &format!("Contact: <{uri}>\n")).unwrap();
            assert_eq!(desk.flow(ALICE), expected, "{uri}");
        }
    }
}
