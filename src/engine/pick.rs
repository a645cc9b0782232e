//! Which bindings of an address of record fit a request, in which order (RFC 3261 §16.5, RFC 5626
//! §7, RFC 5630 §5.3).

use smallvec::SmallVec;

use crate::base::config::Config;
use crate::base::hash::KeyedHash;
use crate::base::id::{ClientKey, DatagramPath, FlowRef, Transport};
use crate::proxy::route;
use crate::proxy::target::{Hop, TargetSet};
use crate::registrar::{Binding, BindingFlow};
use crate::sip::{NameAddr, Uri};

/// Warning codes of RFC 5630 §5.3.
pub(super) const SIPS_NOT_ALLOWED: (u16, &str) = (380, "SIPS Not Allowed");
const SIPS_REQUIRED: (u16, &str) = (381, "SIPS Required");

/// A Warning header's code and text: why a binding did not fit.
pub(super) type Warning = (u16, &'static str);

/// What a request asks of the bindings.
pub(super) struct Choice<'c> {
    /// What names users, if they prove who they are.
    pub users: Option<&'c KeyedHash>,
    /// It asks for `sips:`.
    pub sips: bool,
    /// Whether a `sips:` request may go to a `sip:` Contact over TLS.
    pub sips_to_sip: bool,
}

impl Choice<'_> {
    /// Adds the bindings that fit, each instance once, its further flows as alternatives, those that
    /// are lost last; says why one did not fit.
    pub(super) fn pick<'a>(
        &self,
        bindings: impl Iterator<Item = &'a Binding>,
        config: &Config,
        targets: &mut TargetSet,
    ) -> Option<Warning> {
        let mut seen = Seen::default();
        let mut refused = None;
        let mut lost: SmallVec<[&Binding; 4]> = SmallVec::new();
        let mut pick = |binding: &'a Binding| {
            let first = seen.first_of(binding);
            let added = self
                .judge(binding)
                .and_then(|strip| self.add(binding, strip, config, targets, first));
            match added {
                Ok(Some(index)) => seen.note(binding, index),
                Ok(None) => {}
                Err(warning) => refused = Some(warning),
            }
        };
        for binding in bindings {
            match binding.is_away() {
                true => lost.push(binding),
                false => pick(binding),
            }
        }
        lost.into_iter().for_each(pick);
        refused
    }

    /// RFC 5630 §5.3: a `sips:` request goes to a `sips:` Contact over TLS only; a `sip:` request
    /// to a `sips:` Contact goes over TLS with the scheme replaced. Tells whether to replace it.
    fn judge(&self, binding: &Binding) -> Result<bool, Warning> {
        let contact_is_sips =
            binding.contact().get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"sips:"));
        let secure = binding.transport().is_secure();
        match (self.sips, contact_is_sips, secure) {
            (true, _, false) => Err(SIPS_NOT_ALLOWED),
            (true, false, true) if !self.sips_to_sip => Err(SIPS_NOT_ALLOWED),
            (false, true, false) => Err(SIPS_REQUIRED),
            (false, true, true) => Ok(true),
            _ => Ok(false),
        }
    }

    /// Adds a binding's target and tells its index, or adds it as an alternative of `first`. Its
    /// Contact becomes the Request-URI exactly, but for the scheme when `strip` says so.
    fn add(
        &self,
        binding: &Binding,
        strip: bool,
        config: &Config,
        targets: &mut TargetSet,
        first: Option<usize>,
    ) -> Result<Option<usize>, Warning> {
        const UNRESOLVED: Warning = (399, "The contact cannot be reached");
        let contact = binding.contact();
        let mut route = Vec::new();
        for value in binding.path() {
            if !route.is_empty() {
                route.extend_from_slice(b", ");
            }
            route.extend_from_slice(value);
        }
        let hop = match binding.flow() {
            BindingFlow::Flow(flow) => Hop::Client(flow),
            BindingFlow::Suspended(path) => Hop::Lost(path),
            BindingFlow::Dial => dial(binding, config).ok_or(UNRESOLVED)?,
            BindingFlow::Path => by_path(binding, config).ok_or(UNRESOLVED)?,
            BindingFlow::Lost => return Err(UNRESOLVED),
        };
        if self.sips && !hop.transport().is_secure() {
            return Err(SIPS_NOT_ALLOWED);
        }
        let stripped;
        let uri = if strip {
            stripped = [b"sip:", &contact[5..]].concat();
            stripped.as_slice()
        } else {
            contact
        };
        let added = match first {
            None => targets.add(hop, uri, &route, binding.q()),
            Some(first) => {
                if targets.add_alternative(first, hop, uri, &route) {
                    targets.name_last(self.client(binding));
                }
                return Ok(None);
            }
        };
        if added.is_some() {
            targets.name_last(self.client(binding));
        }
        Ok(added)
    }

    /// Who is there; of a client that cannot be found again its user, by which the requests of a
    /// dialog are kept from whom they are not for, and from whom they are not.
    fn client(&self, binding: &Binding) -> ClientKey {
        let user = || self.users.map(|hash| ClientKey::of_user(hash.of(binding.aor())));
        let client = Some(binding.client()).filter(|it| it.is_some());
        client.or_else(user).unwrap_or_default()
    }
}

/// The Contact's own address: it is where its REGISTER came from. Over UDP that is a client of ours
/// by value, which a dialog token can name.
pub(super) fn dial(binding: &Binding, config: &Config) -> Option<Hop> {
    let transport = binding.transport();
    let remote = binding.dialled()?;
    if transport == Transport::Udp {
        let listener = binding.listener();
        let local = config.listener(listener).address;
        return Some(Hop::Client(FlowRef::Datagram(DatagramPath { listener, local, remote })));
    }
    Some(Hop::Dial { transport, remote })
}

/// The first hop of a Path (RFC 3327 §5.3). Whoever registers writes it: it leads to servers that
/// the configuration names and nowhere else, or we were a relay to any address for anybody.
fn by_path(binding: &Binding, config: &Config) -> Option<Hop> {
    let address = NameAddr::parse(binding.path().next()?).ok()?;
    let uri = Uri::parse(address.uri).ok()?;
    let dial = route::dial(config, &uri, None)?;
    Some(Hop::Dial { transport: dial.transport, remote: dial.remote })
}

/// Which target each instance has: its flows are tried in turn, never forked to (RFC 5626 §7).
/// Bindings come newest first.
#[derive(Default)]
struct Seen<'a>(SmallVec<[(&'a [u8], usize); 8]>);

impl<'a> Seen<'a> {
    /// The target of the binding's instance, if it has one.
    fn first_of(&self, binding: &Binding) -> Option<usize> {
        let is_same = |(instance, _): &&(&[u8], usize)| binding.is_of(instance);
        self.0.iter().find(is_same).map(|(_, index)| *index)
    }

    fn note(&mut self, binding: &'a Binding, index: usize) {
        if let Some(instance) = binding.instance() {
            self.0.push((instance, index));
        }
    }
}
