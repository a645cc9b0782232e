//! Who is at a host and port: the contacts of living bindings and the accepted flows, for requests
//! that carry no token of ours. One shard knows each host and port (see
//! [`crate::proxy::place::index_shard`]). Only servers that the configuration names may ask: nobody
//! else reaches a client by address.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::base::hash::KeyedHash;
use crate::base::id::{FlowId, FlowRef, StreamPath, Transport};
use crate::base::limits::INDEX_ENTRIES_MAX;
use crate::sip::{Scheme, Uri};

/// Something that can be found by host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A registered Contact (canonical form), its address of record (keyed hash) and the flow it is
    /// bound to; none when it is to be taken out.
    Contact { contact: Box<[u8]>, owner: u64, flow: Option<FlowRef> },
    /// A flow that a client opened to us.
    Accepted(StreamPath),
}

impl Entry {
    /// A Contact of one address of record is one entry, whatever flow it is bound to; a flow is one
    /// entry.
    fn means_the_same(&self, other: &Entry) -> bool {
        match (self, other) {
            (
                Entry::Contact { contact, owner, .. },
                Entry::Contact { contact: other, owner: other_owner, .. },
            ) => owner == other_owner && contact == other,
            (Entry::Accepted(path), Entry::Accepted(other)) => path.flow == other.flow,
            _ => false,
        }
    }
}

/// The part of the index that one shard holds.
#[derive(Debug)]
pub(super) struct Index {
    by_host: HashMap<Box<[u8]>, SmallVec<[Entry; 1]>, KeyedHash>,
}

impl Index {
    pub fn new(hash: KeyedHash) -> Index {
        Index { by_host: HashMap::with_hasher(hash) }
    }

    /// Adds an entry under `host:port`; it replaces what means the same.
    pub fn add(&mut self, host: &[u8], entry: Entry) {
        match self.by_host.get_mut(host) {
            Some(entries) => {
                entries.retain(|it| !it.means_the_same(&entry));
                if entries.len() < INDEX_ENTRIES_MAX {
                    entries.push(entry);
                }
            }
            None => {
                self.by_host.insert(host.into(), SmallVec::from_buf([entry]));
            }
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, host: &[u8], entry: &Entry) {
        let Some(entries) = self.by_host.get_mut(host) else { return };
        entries.retain(|it| !it.means_the_same(entry));
        if entries.is_empty() {
            self.by_host.remove(host);
        }
    }

    /// Takes out what a shard had before it was started anew: its flows, and the Contacts of
    /// addresses of record that it owned, whose bindings nobody knows any more.
    pub fn forget(&mut self, is_gone: impl Fn(FlowId) -> bool, is_lost: impl Fn(u64) -> bool) {
        self.by_host.retain(|_, entries| {
            entries.retain(|entry| match entry {
                Entry::Contact { owner, flow, .. } => {
                    !is_lost(*owner) && !flow.and_then(FlowRef::stream).is_some_and(&is_gone)
                }
                Entry::Accepted(path) => !is_gone(path.flow),
            });
            !entries.is_empty()
        });
    }

    /// The flow of the one binding whose Contact has this canonical form; none when several have.
    pub fn contact(&self, host: &[u8], canonical: &[u8]) -> Option<FlowRef> {
        let mut found = None;
        for entry in self.by_host.get(host)? {
            let Entry::Contact { contact, flow: Some(flow), .. } = entry else { continue };
            if **contact == *canonical && found.replace(*flow).is_some() {
                return None;
            }
        }
        found
    }

    /// The accepted flow that `uri` means. RFC 7118 §4.2 names WS and WSS both `ws`, so
    /// `transport=ws` looks for WS and then for WSS; `sips:` and the non-standard `transport=wss`
    /// for WSS alone.
    pub fn accepted(&self, host: &[u8], uri: &Uri<'_>) -> Option<FlowRef> {
        let entries = self.by_host.get(host)?;
        let flow_of = |transport: Transport| -> Option<FlowRef> {
            entries.iter().rev().find_map(|entry| match entry {
                Entry::Accepted(path) if path.transport == transport => {
                    Some(FlowRef::Stream(*path))
                }
                _ => None,
            })
        };
        transports_of(uri).iter().find_map(|transport| flow_of(*transport))
    }

    /// Number of hosts and ports known.
    pub fn len(&self) -> usize {
        self.by_host.len()
    }
}

/// The transports that a URI may mean, in the order in which they are looked for.
fn transports_of(uri: &Uri<'_>) -> &'static [Transport] {
    let secure = uri.scheme == Scheme::Sips;
    let named = uri.param("transport").flatten().unwrap_or_default();
    let is = |name: &str| named.eq_ignore_ascii_case(name.as_bytes());
    match (secure, named.is_empty()) {
        (true, _) if is("ws") || is("wss") => &[Transport::Wss],
        (true, _) => &[Transport::Tls],
        (false, _) if is("ws") => &[Transport::Ws, Transport::Wss],
        (false, _) if is("wss") => &[Transport::Wss],
        (false, _) if is("tcp") => &[Transport::Tcp],
        (false, _) if is("tls") => &[Transport::Tls],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{ListenerId, ShardId};

    fn path(slot: u32, transport: Transport) -> StreamPath {
        StreamPath { flow: FlowId::new(ShardId(0), slot, 1), transport, listener: ListenerId(0) }
    }

    fn uri(text: &str) -> Uri<'_> {
        Uri::parse(text.as_bytes()).expect("a good URI")
    }

    #[test]
    fn ws_in_a_uri_finds_a_wss_flow_and_never_the_other_way_round() {
        let key = b"10.0.0.1:4000";
        let table = [
            (Transport::Wss, "sip:a@10.0.0.1:4000;transport=ws", true),
            (Transport::Ws, "sip:a@10.0.0.1:4000;transport=ws", true),
            (Transport::Wss, "sip:a@10.0.0.1:4000;transport=wss", true),
            (Transport::Ws, "sip:a@10.0.0.1:4000;transport=wss", false),
            (Transport::Ws, "sips:a@10.0.0.1:4000;transport=ws", false),
            (Transport::Wss, "sips:a@10.0.0.1:4000;transport=ws", true),
            (Transport::Wss, "sip:a@10.0.0.1:4000", false),
            (Transport::Wss, "sip:a@10.0.0.1:4000;transport=tcp", false),
            (Transport::Tcp, "sip:a@10.0.0.1:4000;transport=tcp", true),
        ];
        for (transport, text, expected) in table {
            let mut index = Index::new(KeyedHash::new([1; 16]));
            index.add(key, Entry::Accepted(path(3, transport)));
            assert_eq!(index.accepted(key, &uri(text)).is_some(), expected, "{transport:?} {text}");
        }
    }

    #[test]
    fn a_contact_is_found_only_while_exactly_one_binding_has_it() {
        let key = b"x.invalid:5060";
        let contact = b"u@x.invalid";
        let flow = |slot| FlowRef::Stream(path(slot, Transport::Wss));
        let entry = |slot, owner| Entry::Contact {
            contact: contact[..].into(),
            owner,
            flow: Some(flow(slot)),
        };
        let mut index = Index::new(KeyedHash::new([1; 16]));
        index.add(key, entry(1, 7));
        index.add(key, entry(2, 7));
        assert_eq!(index.contact(key, contact), Some(flow(2)), "a new flow replaces the old one");
        assert_eq!(index.contact(key, b"v@x.invalid"), None);
        index.add(key, entry(3, 8));
        assert_eq!(index.contact(key, contact), None, "two users have it");
        index.remove(key, &entry(1, 7));
        assert_eq!(index.contact(key, contact), Some(flow(3)));
        index.remove(key, &entry(3, 8));
        assert_eq!((index.contact(key, contact), index.len()), (None, 0));
    }
}
