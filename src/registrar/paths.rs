//! Who is at an address for datagrams. Over UDP a flow is the association of two addresses (RFC
//! 5626 §2), and an address translator gives a port to another client when the first has left (RFC
//! 4787 §4.3): a binding of the first would lead to the second until it expires. So a client that
//! shows on an association that it hears us there ends the bindings of other users on it which
//! evidently are another device's. Two users of one phone, or of one server with many lines, share
//! it in peace. Absent on purpose: proof of who somebody is (`auth`), other shards, and bindings of
//! the same user, which are its own to remove.

use std::net::{IpAddr, SocketAddr};

use crate::base::id::DatagramPath;
use crate::base::limits::PATH_CANDIDATES_MAX;
use crate::base::time::Time;
use crate::sip::{Scheme, Uri};

use super::binding::{Binding, Way, is_same_instance};
use super::contact::Wanted;
use super::links::{self, List};
use super::location::Location;

/// A client has registered on an association and shown that it hears what is sent there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathClaim {
    path: DatagramPath,
    /// The second of the process' clock since which it has heard us there at some time.
    heard: u32,
    /// Its canonical address of record.
    aor: Box<[u8]>,
    contact: Box<[u8]>,
    instance: Option<Box<[u8]>>,
    /// Where its binding led before, if that was another address for datagrams.
    former: Option<Box<DatagramPath>>,
}

impl PathClaim {
    pub(super) fn new(
        path: DatagramPath,
        heard: u32,
        aor: &[u8],
        wanted: &Wanted<'_>,
        former: Option<DatagramPath>,
    ) -> PathClaim {
        PathClaim {
            path,
            heard,
            aor: aor.into(),
            contact: wanted.address.uri.into(),
            instance: wanted.instance.map(Into::into),
            former: former.map(Box::new),
        }
    }

    /// Whether requests for the binding would reach the client of this claim, who is not meant.
    pub fn ends(&self, binding: &Binding) -> bool {
        let is_there = match &binding.facts.way {
            Way::Datagram(path) => **path == self.path,
            _ => binding.datagrams_to() == Some(self.path.remote),
        };
        is_there
            && binding.facts.since <= self.heard
            && binding.aor() != &*self.aor
            && self.device().is_evidently_other(&Device::of(binding), self.path.remote)
    }

    /// The address.
    pub(super) fn path(&self) -> DatagramPath {
        self.path
    }

    /// The address that it left.
    pub(super) fn former(&self) -> Option<DatagramPath> {
        self.former.as_deref().copied()
    }

    /// When it was there, in seconds of the process' clock.
    pub(super) fn heard(&self) -> u32 {
        self.heard
    }

    /// The canonical address of record of who is there.
    pub fn aor(&self) -> &[u8] {
        &self.aor
    }

    /// Whether it is evidently another device's than `other`, which came by the same address, and
    /// another user's.
    pub(super) fn is_other_than(&self, other: &PathClaim) -> bool {
        self.aor != other.aor && self.device().is_evidently_other(&other.device(), self.path.remote)
    }

    fn device(&self) -> Device<'_> {
        Device { instance: self.instance.as_deref(), place: Place::of(&self.contact) }
    }
}

/// What a Contact tells of the device that it belongs to.
struct Device<'a> {
    instance: Option<&'a [u8]>,
    /// `None` when it is not a SIP URI.
    place: Option<Place<'a>>,
}

impl<'a> Device<'a> {
    fn of(binding: &'a Binding) -> Device<'a> {
        Device { instance: binding.instance(), place: Place::of(binding.contact()) }
    }

    /// Whether two clients that registered from `remote` cannot be one device. The same host and
    /// port are one, whatever the instances: a server before us registers many users from one
    /// address, and may pass on what their phones call themselves. Else instances decide (RFC 5626
    /// §4.1). Without them it is two places behind the translator; `remote` itself is none of these,
    /// but what a phone has learnt of it, perhaps only for one of its users yet.
    fn is_evidently_other(&self, other: &Device<'_>, remote: SocketAddr) -> bool {
        let (Some(one), Some(two)) = (self.place, other.place) else { return false };
        if one == two {
            return false;
        }
        match (self.instance, other.instance) {
            (Some(one), Some(two)) => !is_same_instance(one, two),
            _ => one != remote && two != remote,
        }
    }
}

/// The host and port of a Contact.
#[derive(Clone, Copy)]
struct Place<'a> {
    host: &'a [u8],
    ip: Option<IpAddr>,
    port: u16,
}

impl<'a> Place<'a> {
    fn of(contact: &'a [u8]) -> Option<Place<'a>> {
        const DEFAULT: u16 = 5060;
        let uri = Uri::parse(contact).ok()?;
        let is_sip = matches!(uri.scheme, Scheme::Sip | Scheme::Sips);
        let port = uri.port.unwrap_or(DEFAULT);
        is_sip.then(|| Place { host: uri.host, ip: uri.host_ip(), port })
    }
}

impl PartialEq for Place<'_> {
    fn eq(&self, other: &Place<'_>) -> bool {
        let is_same_host = match (self.ip, other.ip) {
            (None, None) => self.host.eq_ignore_ascii_case(other.host),
            (one, two) => one == two,
        };
        is_same_host && self.port == other.port
    }
}

impl PartialEq<SocketAddr> for Place<'_> {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.ip == Some(other.ip()) && self.port == other.port()
    }
}

/// A clock of 136 years, the one that nonces have.
pub(super) fn seconds(now: Time) -> u32 {
    now.as_secs() as u32
}

impl Location {
    /// Event: somebody is at the other end of an association. The bindings in force of other users
    /// that lead there and were registered before, by what evidently is another device, are shown
    /// to `gone` and removed. Looks at no more than [`PATH_CANDIDATES_MAX`].
    pub fn end_others(
        &mut self,
        claim: &PathClaim,
        now: Time,
        mut gone: impl FnMut(&Binding),
    ) -> usize {
        let mut ended = 0;
        let mut next = self.remote_head(claim.path.remote);
        for _ in 0..PATH_CANDIDATES_MAX {
            let Some(binding) = self.bindings.get(next) else { break };
            let key = next;
            next = links::next(&self.bindings, List::Flow, key);
            if binding.is_live(now) && claim.ends(binding) {
                gone(binding);
                self.remove(key);
                ended += 1;
            }
        }
        ended
    }
}

/// The claim of a user's client without instance at an address, its Contact at `place`.
#[cfg(test)]
pub(super) fn claim(from: &str, user: u32, heard: u32, place: &str) -> PathClaim {
    use crate::base::id::FlowRef;
    let FlowRef::Datagram(path) = super::harness::datagram(from) else { panic!("a datagram's") };
    let (aor, contact) = (format!("{user}@example.com"), format!("sip:{user}@{place}"));
    let (aor, contact) = (aor.into_bytes().into(), contact.into_bytes().into());
    PathClaim { path, heard, aor, contact, instance: None, former: None }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Desk, datagram};
    use super::*;
    use crate::base::hash::KeyedHash;
    use crate::base::id::FlowRef;

    const HERE: &str = "203.0.113.1:4000";

    /// A client at `from` that shows since when it hears us there.
    fn register(desk: &mut Desk, user: usize, from: &str, place: &str, call: (&str, u32)) {
        desk.source = datagram(from);
        desk.source_ip = "203.0.113.1";
        desk.answers = Some(seconds(desk.now));
        let line = format!("Contact: <sip:{user}@{place}>\n");
        desk.register(&format!("sip:{user}@example.com"), call, &line).unwrap();
    }

    /// Whom the last claim ends.
    fn ended(desk: &mut Desk) -> Vec<String> {
        let claim = desk.out.claim.take().expect("a claim");
        let mut gone = Vec::new();
        let show = |it: &Binding| gone.push(String::from_utf8(it.aor().to_vec()).unwrap());
        let count = desk.location.end_others(&claim, desk.now, show);
        assert_eq!(count, gone.len());
        gone
    }

    #[test]
    fn a_binding_is_found_where_it_is_and_not_where_it_was() {
        let mut desk = Desk::new();
        register(&mut desk, 1, "203.0.113.1:4001", "10.0.0.1", ("c", 1));
        register(&mut desk, 1, HERE, "10.0.0.1", ("c", 2));
        assert!(desk.out.claim.is_some(), "it has moved");
        register(&mut desk, 1, HERE, "10.0.0.1", ("c", 3));
        assert!(desk.out.claim.is_none(), "a refresh says nothing new");
        register(&mut desk, 2, "203.0.113.1:4001", "10.0.0.2", ("d", 1));
        assert_eq!(ended(&mut desk), [""; 0]);
        register(&mut desk, 2, HERE, "10.0.0.2", ("d", 2));
        assert_eq!(ended(&mut desk), ["1@example.com"]);
        desk.register("sip:2@example.com", ("d", 3), "Contact: *\nExpires: 0\n").unwrap();
        assert!(desk.location.is_empty() && desk.location.by_flow.is_empty());
    }

    /// A translator may give one port to two clients that speak to two addresses of ours (RFC 4787
    /// §4.1): neither is where the other is.
    #[test]
    fn another_address_of_ours_is_another_association() {
        let mut desk = Desk::new();
        register(&mut desk, 1, HERE, "10.0.0.1", ("c", 1));
        let FlowRef::Datagram(path) = datagram(HERE) else { panic!("a datagram's") };
        let local = "192.0.2.101:5060".parse().unwrap();
        desk.source = FlowRef::Datagram(DatagramPath { local, ..path });
        let second = "Contact: <sip:2@10.0.0.2>\n";
        desk.register("sip:2@example.com", ("d", 1), second).unwrap();
        assert_eq!(ended(&mut desk), [""; 0]);
    }

    #[test]
    fn what_is_dialled_is_found_by_its_contact() {
        let mut desk = Desk::new();
        register(&mut desk, 1, "203.0.113.1:9", HERE, ("c", 1));
        let spelt = "Contact: <SIP:1@203.0.113.1:4000;x=y>\n";
        desk.register("sip:1@example.com", ("c", 2), spelt).unwrap();
        assert!(desk.out.claim.is_some(), "its Contact is written in another way");
        let other = "Contact: <sip:2@10.0.0.2>;+sip.instance=\"<urn:x:2>\"\n";
        desk.source = datagram(HERE);
        desk.register("sip:2@example.com", ("d", 1), other).unwrap();
        assert_eq!(ended(&mut desk), [""; 0], "nobody knows what the first is");
        let first = "Contact: <sip:1@203.0.113.1:4000>;+sip.instance=\"<urn:x:1>\"\n";
        desk.register("sip:1@example.com", ("c", 3), first).unwrap();
        desk.register("sip:2@example.com", ("d", 2), "Contact: *\nExpires: 0\n").unwrap();
        desk.register("sip:2@example.com", ("d", 3), other).unwrap();
        assert_eq!(ended(&mut desk), ["1@example.com"]);
        desk.register("sip:2@example.com", ("d", 4), "Contact: *\nExpires: 0\n").unwrap();
        assert!(desk.location.by_flow.is_empty());
    }

    #[test]
    fn what_was_registered_since_then_or_has_ended_is_left_alone() {
        let mut desk = Desk::new();
        register(&mut desk, 2, HERE, "10.0.0.2", ("d", 1));
        let early = desk.out.claim.take().unwrap();
        desk.pass(1);
        register(&mut desk, 1, HERE, "10.0.0.1", ("c", 1));
        assert_eq!(desk.location.end_others(&early, desk.now, |_| panic!("it is newer")), 0);
        desk.pass(3_600);
        register(&mut desk, 3, HERE, "10.0.0.3", ("e", 1));
        assert_eq!(ended(&mut desk), [""; 0]);
        assert_eq!(desk.location.len(), 3);
    }

    #[test]
    fn several_contacts_claim_nothing() {
        let mut desk = Desk::new();
        desk.source = datagram(HERE);
        desk.answers = Some(seconds(desk.now));
        let two = "Contact: <sip:1@10.0.0.1>, <sip:1@10.0.0.2>\n";
        desk.register("sip:1@example.com", ("c", 1), two).unwrap();
        assert!(desk.out.claim.is_none());
        let moved = "Contact: <sip:1@10.0.0.3>, <sip:1@10.0.0.2>;expires=0\n";
        desk.register("sip:1@example.com", ("c", 2), moved).unwrap();
        assert!(desk.out.claim.is_some());
    }

    #[test]
    fn a_server_with_many_users_costs_a_bounded_look() {
        let mut desk = Desk::new();
        desk.location = Location::new(KeyedHash::new([1; 16]), 1_000);
        for user in 0..=PATH_CANDIDATES_MAX {
            register(&mut desk, user, HERE, "10.0.0.1", ("c", 1));
            assert_eq!(ended(&mut desk), [""; 0]);
        }
        register(&mut desk, 999, HERE, "10.0.0.2", ("c", 1));
        // Its own stands before them.
        let gone = ended(&mut desk);
        assert_eq!(gone.len(), PATH_CANDIDATES_MAX - 1);
        assert!(!gone.contains(&"0@example.com".to_owned()));
    }
}
