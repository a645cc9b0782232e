//! One binding as bytes for a store that outlives the process: what of it means something to
//! another run. Absent on purpose: its name and its expiry, which the store keeps beside it, and
//! the file (`io/store`).
//!
//! ```text
//! kind  way  transport  flags  cseq  registration  reg-id  q  listener  [local  remote]
//! aor  contact  call-id  params  path  instance's place in params
//! ```
//!
//! Numbers are little endian, texts have their length before them. A listener is its address: its
//! position in the configuration may be another one next time.

use std::net::{IpAddr, SocketAddr};

use crate::base::id::Transport;
use crate::base::limits::BINDING_BYTES_MAX;
use crate::sip::{NameAddr, Uri};

use super::binding::{Binding, DraftParts, Tenure, Way};

/// The kind of record of a binding that a client registered here.
const REGISTERED: u8 = 1;
/// The Contact URI has `ob`.
const OB: u8 = 1;
/// It is the shadow of a binding that a registrar behind us holds.
const SHADOW: u8 = 2;
/// Its client had proved who it is.
const PROVED: u8 = 4;
/// A user of the users file registered it.
const LISTED: u8 = 8;
/// Largest value of q, in thousandths.
const Q_MAX: u16 = 1000;

/// Why bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// Of a kind that is not known.
    Kind,
    /// Too short, too long, or not what a binding can hold.
    Form,
}

/// How requests got to the binding, as far as that outlives a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Recorded {
    Path,
    Dial,
    Datagram { local: SocketAddr, remote: SocketAddr },
    Lost,
}

/// What a record says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) way: Recorded,
    pub(super) transport: Transport,
    pub(super) ob: bool,
    pub(super) shadow: bool,
    pub(super) proved: bool,
    pub(super) listed: bool,
    pub(super) cseq: u32,
    pub(super) registration: u32,
    pub(super) reg_id: u32,
    pub(super) q: u16,
    pub(super) listener: SocketAddr,
    pub(super) aor: &'a [u8],
    pub(super) contact: &'a [u8],
    pub(super) call_id: &'a [u8],
    pub(super) params: &'a [u8],
    pub(super) path: &'a [u8],
    pub(super) instance: Option<(usize, usize)>,
}

impl Binding {
    /// Appends its record. `listener` is the address that its listener is bound to. Refreshing a
    /// binding changes bytes of its record, not their number.
    pub fn record_into(&self, listener: SocketAddr, out: &mut Vec<u8>) {
        let facts = &self.facts;
        let way = match &facts.way {
            Way::Path => 0,
            Way::Dial => 1,
            Way::Stream(_) if facts.tenure == Tenure::Dialable => 1,
            Way::Datagram(_) => 2,
            Way::Stream(_) | Way::Suspended(_) | Way::Lost => 3,
        };
        let flags = (u8::from(facts.ob) * OB)
            | (u8::from(self.is_shadow()) * SHADOW)
            | (u8::from(facts.client.is_some()) * PROVED)
            | (u8::from(facts.user.is_some()) * LISTED);
        out.extend_from_slice(&[REGISTERED, way, facts.transport as u8, flags]);
        for number in [facts.cseq, facts.registration, facts.reg_id] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&facts.q.to_le_bytes());
        address_into(listener, out);
        if let Way::Datagram(path) = &facts.way {
            address_into(path.local, out);
            address_into(path.remote, out);
        }
        let (from, to) = self.instance_span();
        let parts = [self.aor(), self.contact(), self.call_id(), self.params(), self.path_text()];
        for part in parts {
            // A part is below BINDING_BYTES_MAX, which fits.
            out.extend_from_slice(&(part.len() as u16).to_le_bytes());
            out.extend_from_slice(part);
        }
        out.extend_from_slice(&from.to_le_bytes());
        out.extend_from_slice(&to.to_le_bytes());
    }
}

/// The address of record of a record, which decides who owns it.
pub fn aor_of(bytes: &[u8]) -> Result<&[u8], RecordError> {
    Record::read(bytes).map(|record| record.aor)
}

impl<'a> Record<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Record<'a>, RecordError> {
        let mut rest = Rest(bytes);
        let [kind, way, transport, flags] = rest.array().ok_or(RecordError::Form)?;
        if kind != REGISTERED {
            return Err(RecordError::Kind);
        }
        let record = rest.record(way, transport, flags).ok_or(RecordError::Form)?;
        if rest.0.is_empty() && record.is_sound() { Ok(record) } else { Err(RecordError::Form) }
    }

    /// What is written into messages is what a parser of ours took once.
    fn is_sound(&self) -> bool {
        let parts = [self.aor, self.contact, self.call_id, self.params, self.path];
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let is_clean = |part: &[u8]| !part.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        let is_hop = |value: &[u8]| {
            NameAddr::parse(value).is_ok_and(|address| Uri::parse(address.uri).is_ok())
        };
        let has_place = self.instance.is_none_or(|(from, to)| from < to && to <= self.params.len());
        bytes <= BINDING_BYTES_MAX
            && parts[..4].iter().all(|part| is_clean(part))
            && (self.path.is_empty() || self.path.split(|byte| *byte == b'\n').all(is_hop))
            && self.aor.contains(&b'@')
            && Uri::parse(self.contact).is_ok()
            && !self.call_id.is_empty()
            && (self.params.is_empty() || self.params[0] == b';')
            && has_place
            && (self.instance.is_some() || self.reg_id == 0)
            && self.q <= Q_MAX
    }

    pub(super) fn parts(&self) -> DraftParts<'a> {
        DraftParts {
            aor: self.aor,
            contact: self.contact,
            call_id: self.call_id,
            params: self.params,
            instance: self.instance,
            path: self.path,
        }
    }
}

/// Bytes that have not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn long(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.short()?;
        let (head, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        Some(head)
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let [family] = self.array()?;
        let ip = match family {
            4 => IpAddr::from(self.array::<4>()?),
            6 => IpAddr::from(self.array::<16>()?),
            _ => return None,
        };
        Some(SocketAddr::new(ip, self.short()?))
    }

    fn record(&mut self, way: u8, transport: u8, flags: u8) -> Option<Record<'a>> {
        let transport = *Transport::ALL.get(usize::from(transport))?;
        let [cseq, registration, reg_id] = [self.long()?, self.long()?, self.long()?];
        let (q, listener) = (self.short()?, self.address()?);
        let way = match way {
            0 => Recorded::Path,
            1 => Recorded::Dial,
            2 => Recorded::Datagram { local: self.address()?, remote: self.address()? },
            3 => Recorded::Lost,
            _ => return None,
        };
        let [aor, contact, call_id, params, path] =
            [self.text()?, self.text()?, self.text()?, self.text()?, self.text()?];
        let place = (usize::from(self.short()?), usize::from(self.short()?));
        let instance = (place != (0, 0)).then_some(place);
        Some(Record {
            way,
            transport,
            ob: flags & OB != 0,
            shadow: flags & SHADOW != 0,
            proved: flags & PROVED != 0,
            listed: flags & LISTED != 0,
            cseq,
            registration,
            reg_id,
            q,
            listener,
            aor,
            contact,
            call_id,
            params,
            path,
            instance,
        })
    }
}

fn address_into(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Desk, canonical_aor, datagram, stream};
    use super::*;
    use crate::base::rng::Rng;

    const ALICE: &str = "sip:alice@example.com";
    const INSTANCE: &str = "+sip.instance=\"<urn:uuid:1>\"";

    fn listener() -> SocketAddr {
        "[2001:db8::1]:5060".parse().unwrap()
    }

    /// The record of the binding of one Contact line.
    fn record_of(desk: &mut Desk, contact: &str) -> Vec<u8> {
        desk.register(ALICE, ("call", 7), &format!("Contact: {contact}\n")).unwrap();
        let mut record = Vec::new();
        let aor = canonical_aor(ALICE);
        let binding = desk.location.lookup(&aor, desk.now).next().unwrap();
        binding.record_into(listener(), &mut record);
        record
    }

    #[test]
    fn a_record_tells_what_outlives_a_run() {
        let udp = datagram("192.0.2.1:4000");
        let tcp = stream(1, Transport::Tcp);
        let local = "192.0.2.100:5060".parse().unwrap();
        let remote = "192.0.2.1:4000".parse().unwrap();
        for (source, contact, way) in [
            (stream(1, Transport::Wss), "<sip:a@x.invalid;ob>", Recorded::Lost),
            (tcp, "<sip:a@192.0.2.1:5070>", Recorded::Dial),
            (tcp, "<sip:a@10.0.0.1:5070>", Recorded::Lost),
            (udp, "<sip:a@10.0.0.1>", Recorded::Datagram { local, remote }),
        ] {
            let mut desk = Desk::new();
            desk.source = source;
            let line = format!("{contact};q=0.25;reg-id=3;{INSTANCE};x");
            let plain = !matches!(way, Recorded::Dial);
            let bytes = record_of(&mut desk, if plain { &line } else { contact });
            let record = Record::read(&bytes).unwrap();
            assert_eq!((record.way, record.transport), (way, source.transport()), "{contact}");
            assert_eq!((record.cseq, record.call_id), (7, &b"call"[..]));
            assert_eq!(record.aor, b"alice@example.com");
            assert_eq!(format!("<{}>", String::from_utf8_lossy(record.contact)), contact);
            assert_eq!((record.ob, record.listener), (contact.contains(";ob"), listener()));
            if plain {
                assert_eq!((record.q, record.reg_id), (250, 3));
                assert_eq!(record.params, format!(";reg-id=3;{INSTANCE};x").as_bytes());
                let (from, to) = record.instance.unwrap();
                assert_eq!(&record.params[from..to], b"<urn:uuid:1>");
            }
        }
        let mut desk = Desk::new();
        let bytes =
            record_of(&mut desk, "<sip:a@x>\nSupported: path\nPath: <sip:p;lr>, <sip:q;lr>");
        let record = Record::read(&bytes).unwrap();
        assert_eq!((record.way, record.path), (Recorded::Path, &b"<sip:p;lr>\n<sip:q;lr>"[..]));
    }

    #[test]
    fn a_refresh_changes_no_lengths() {
        let mut desk = Desk::new();
        let first = record_of(&mut desk, "<sip:a@x.invalid>;expires=60");
        desk.pass(30);
        desk.register(ALICE, ("call", 90_000), "Contact: <sip:a@x.invalid>\n").unwrap();
        let mut second = Vec::new();
        let aor = canonical_aor(ALICE);
        let binding = desk.location.lookup(&aor, desk.now).next().unwrap();
        binding.record_into(listener(), &mut second);
        assert_eq!(first.len(), second.len());
        assert_ne!(first, second);
    }

    #[test]
    fn what_is_cut_or_longer_is_no_record() {
        let mut desk = Desk::new();
        desk.source = datagram("192.0.2.1:4000");
        let bytes = record_of(&mut desk, &format!("<sip:a@h>;reg-id=1;{INSTANCE}"));
        for end in 0..bytes.len() {
            assert!(Record::read(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert_eq!(aor_of(&[&bytes[..], b"x"].concat()), Err(RecordError::Form));
        let other = [&[2], &bytes[1..]].concat();
        assert_eq!(aor_of(&other), Err(RecordError::Kind));
        assert_eq!(aor_of(&bytes), Ok(&b"alice@example.com"[..]));
    }

    /// Nothing that a message could be broken with, whatever the bytes are.
    #[test]
    fn what_is_bent_is_refused_or_sound() {
        let mut desk = Desk::new();
        desk.source = datagram("192.0.2.1:4000");
        let bytes = record_of(&mut desk, &format!("<sip:a@h>;reg-id=1;{INSTANCE}"));
        let mut rng = Rng::new([3; 32]);
        let mut taken = 0;
        for round in 0..20_000 {
            let mut bent = bytes.clone();
            for _ in 0..1 + round % 3 {
                let at = rng.below(bent.len() as u64) as usize;
                bent[at] = rng.next_u64() as u8;
            }
            let Ok(record) = Record::read(&bent) else { continue };
            taken += 1;
            for part in [record.aor, record.contact, record.call_id, record.params] {
                assert!(!part.contains(&b'\r') && !part.contains(&b'\n'));
            }
            assert!(record.q <= 1000 && Uri::parse(record.contact).is_ok());
            super::super::binding::Draft::default().fill(&record.parts());
        }
        assert!((1_000..19_000).contains(&taken), "{taken}");
    }
}
