//! What a REGISTER is going to change (RFC 3261 §10.3 steps 6 and 7): made while everything can
//! still be refused, then carried out without a way to fail. Absent on purpose: the answer.

use smallvec::SmallVec;

use crate::base::id::{DatagramPath, FlowId, FlowRef};
use crate::base::limits::{NONCE_FRESH, VALUES_MAX};
use crate::base::slab::SlabKey;
use crate::sip::HeaderName;

use super::answer::number_line;
use super::binding::{Binding, Way};
use super::contact::Wanted;
use super::keep::{keep, remove};
use super::location::Location;
use super::paths::{PathClaim, seconds};
use super::register::{Registered, Reject, Sender, reject};
use super::terms::{check_target, grant, read_contact};

/// Retry-After of a table that is full, in seconds.
const RETRY_AFTER_SECONDS: u64 = 30;
/// The changes of one REGISTER.
#[derive(Default)]
pub(super) struct Plan<'a> {
    changes: SmallVec<[Change<'a>; 2]>,
    /// Bindings that go without a Contact of their own (`*`).
    removals: SmallVec<[SlabKey; 2]>,
}

/// One Contact value's effect.
pub(super) struct Change<'a> {
    pub(super) wanted: Wanted<'a>,
    /// Granted; 0 removes.
    pub(super) seconds: u64,
    /// The bindings that it means, claimed by no other change.
    pub(super) meant: SmallVec<[SlabKey; 2]>,
}

impl<'a> Plan<'a> {
    /// `Contact: *`.
    pub(super) fn remove_all(
        sender: &Sender<'a>,
        location: &Location,
        out: &mut Registered,
    ) -> Result<Plan<'a>, Reject> {
        let mut plan = Plan::default();
        let mut is_late = false;
        for (key, binding) in location.of_aor(out.owner()) {
            is_late |= binding.is_live(sender.context.now) && !sender.may_change(binding);
            plan.removals.push(key);
        }
        if is_late { Err(out_of_order(sender, out)) } else { Ok(plan) }
    }

    /// Contact values.
    pub(super) fn of_contacts(
        sender: &Sender<'a>,
        location: &Location,
        out: &mut Registered,
    ) -> Result<Plan<'a>, Reject> {
        let settings = &sender.context.config.registrar;
        let values_max = (settings.contacts_max.max(1) * 2).min(VALUES_MAX);
        let mut plan = Plan::default();
        for (index, value) in sender.request.values(HeaderName::Contact).enumerate() {
            if index == values_max {
                return Err(reject(sender.context, 400, "Too many Contacts", out));
            }
            let wanted = read_contact(sender, value.text, out)?;
            let seconds = grant(sender, &wanted, out)?;
            if seconds > 0 {
                check_target(sender, &wanted, out)?;
            }
            plan.forget_repeated(&wanted);
            plan.add(sender, location, wanted, seconds, out)?;
        }
        plan.check(sender, location, out)?;
        if plan.needs_fresh_nonce(sender, location) {
            return Err(reject(sender.context, 401, "Show that you are at that address", out));
        }
        Ok(plan)
    }

    /// Every binding of the address of record goes that no later REGISTER has made.
    pub(super) fn of_all(sender: &Sender<'a>, location: &Location, out: &Registered) -> Plan<'a> {
        let all = location.of_aor(out.owner());
        let older = all.filter(|(_, binding)| !sender.is_overtaken(binding));
        let removals = older.map(|(key, _)| key).collect();
        Plan { changes: SmallVec::new(), removals }
    }

    /// The bindings that a Contact means and no change has claimed.
    pub(super) fn unclaimed(
        &self,
        location: &Location,
        wanted: &Wanted<'_>,
        out: &Registered,
    ) -> SmallVec<[SlabKey; 2]> {
        let all = location.of_aor(out.owner());
        let meant = all.filter(|(_, binding)| wanted.means(binding)).map(|(key, _)| key);
        let is_free = |key: &SlabKey| !self.changes.iter().any(|it| it.meant.contains(key));
        meant.filter(is_free).collect()
    }

    /// Of Contacts that mean the same in one request the last one counts.
    pub(super) fn forget_repeated(&mut self, wanted: &Wanted<'_>) {
        self.changes.retain(|earlier| !earlier.wanted.repeats(wanted));
    }

    /// One more change.
    pub(super) fn push(&mut self, change: Change<'a>) {
        self.changes.push(change);
    }

    /// Whether a reg-id was understood in it.
    pub(super) fn has_reg_id(&self) -> bool {
        self.changes.iter().any(|change| change.wanted.reg_id != 0)
    }

    fn add(
        &mut self,
        sender: &Sender<'a>,
        location: &Location,
        wanted: Wanted<'a>,
        seconds: u64,
        out: &mut Registered,
    ) -> Result<(), Reject> {
        let mut meant = SmallVec::new();
        let mut is_late = false;
        for (key, binding) in location.of_aor(out.owner()) {
            if !binding.is_live(sender.context.now) || !wanted.means(binding) {
                continue;
            }
            is_late |= !sender.may_change(binding);
            if !self.changes.iter().any(|earlier| earlier.meant.contains(&key)) {
                meant.push(key);
            }
        }
        if is_late {
            return Err(out_of_order(sender, out));
        }
        self.changes.push(Change { wanted, seconds, meant });
        Ok(())
    }

    /// The rules about all Contacts together.
    fn check(
        &self,
        sender: &Sender<'a>,
        location: &Location,
        out: &mut Registered,
    ) -> Result<(), Reject> {
        let context = sender.context;
        let lasting = || self.changes.iter().filter(|change| change.seconds > 0);
        if lasting().count() > 1 && lasting().any(|change| change.wanted.reg_id != 0) {
            return Err(reject(context, 400, "More than one Contact with a reg-id", out));
        }
        // Those whose client was lost hold no place of those that are there.
        let reached = |change: &Change<'_>| {
            let is_there = |key: &&SlabKey| !location.get(**key).is_away();
            change.meant.iter().filter(is_there).count()
        };
        let new = lasting().filter(|change| reached(change) == 0).count();
        if new == 0 {
            return Ok(());
        }
        let all = location.reached(out.owner(), context.now);
        let live = all.filter(|binding| !binding.is_away()).count();
        let gone: usize = self.changes.iter().map(reached).sum();
        if live - gone + lasting().count() > context.config.registrar.contacts_max {
            return Err(reject(context, 403, "Too many bindings", out));
        }
        if location.room() < lasting().filter(|change| change.meant.is_empty()).count() {
            number_line("Retry-After", RETRY_AFTER_SECONDS, &mut out.headers);
            return Err(reject(context, 500, "Location table full", out));
        }
        if context.source.stream().is_some_and(|flow| !location.has_flow_room(flow, new)) {
            number_line("Retry-After", RETRY_AFTER_SECONDS, &mut out.headers);
            return Err(reject(context, 480, "Too many bindings of one flow", out));
        }
        Ok(())
    }

    /// The one Contact that stays. Several are not all of the device that sent them.
    fn only(&self) -> Option<&Change<'a>> {
        let mut lasting = self.changes.iter().filter(|change| change.seconds > 0);
        lasting.next().filter(|_| lasting.next().is_none())
    }

    /// Whether the client is new on an association where, since it answered a nonce there, another
    /// may have come and gone.
    fn needs_fresh_nonce(&self, sender: &Sender<'_>, location: &Location) -> bool {
        let context = sender.context;
        let (FlowRef::Datagram(path), Some(heard)) = (context.source, context.answers) else {
            return false;
        };
        let age = u64::from(seconds(context.now).saturating_sub(heard));
        if !sender.is_direct || sender.has_path || age <= NONCE_FRESH.as_secs() {
            return false;
        }
        let is_there = |key: &SlabKey| match &location.get(*key).facts.way {
            Way::Datagram(former) => **former == path,
            way => matches!(way, Way::Dial | Way::Path),
        };
        self.only().is_some_and(|change| !change.meant.first().is_some_and(is_there))
    }

    /// What the client's Contact says of who is at the other end of the association that it came by.
    fn claim(
        &self,
        sender: &Sender<'_>,
        aor: &[u8],
        former: Option<DatagramPath>,
    ) -> Option<PathClaim> {
        match (sender.context.source, sender.context.answers, self.only()) {
            (FlowRef::Datagram(path), Some(heard), Some(change)) => {
                Some(PathClaim::new(path, heard, aor, &change.wanted, former))
            }
            _ => None,
        }
    }

    /// Makes the changes.
    pub(super) fn commit(self, sender: &Sender<'_>, location: &mut Location, out: &mut Registered) {
        let mut former: SmallVec<[FlowId; 2]> = SmallVec::new();
        let meant = self.changes.iter().flat_map(|change| change.meant.iter());
        for key in meant.chain(&self.removals) {
            former.extend(location.get(*key).stream());
        }
        for key in self.removals.iter().copied() {
            remove(location, key, out);
        }
        for change in &self.changes {
            let mut meant = change.meant.iter().copied();
            let first = (change.seconds > 0).then(|| meant.next());
            let was_at = first.flatten().and_then(|key| was_at(location.get(key), change));
            if let Some(first) = first
                && keep(sender, location, change, first, out)
            {
                out.claim = self.claim(sender, out.aor(), was_at);
            }
            for key in meant {
                remove(location, key, out);
            }
        }
        former.sort_unstable();
        former.dedup();
        former.retain(|flow| Some(*flow) != out.bound && !location.holds_flow(*flow));
        out.released = former;
    }
}

/// Where the binding of a Contact that stays the same led, if that is an address for datagrams. One
/// that has another Contact was started anew: it knows nothing of the dialogs of the former.
fn was_at(binding: &Binding, change: &Change<'_>) -> Option<DatagramPath> {
    match &binding.facts.way {
        Way::Datagram(path) if binding.contact() == change.wanted.address.uri => Some(**path),
        _ => None,
    }
}

fn out_of_order(sender: &Sender<'_>, out: &mut Registered) -> Reject {
    reject(sender.context, 500, "CSeq not higher than before", out)
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Desk, ROOM, stream};
    use crate::base::id::Transport;

    const ALICE: &str = "sip:alice@example.com";

    #[test]
    fn updates_in_one_call_have_to_come_in_order() {
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 5), "Contact: <sip:a@h>;q=0.1\n").unwrap();
        for (call, expires, is_taken) in [
            (("c", 5), 60, false),
            (("c", 4), 60, false),
            (("c", 4), 0, false),
            (("c", 6), 60, true),
            (("d", 1), 60, true),
            (("d", 1), 0, false),
            (("c", 1), 0, true),
        ] {
            let lines = format!("Contact: <sip:a@h>;expires={expires}\n");
            if is_taken {
                desk.register(ALICE, call, &lines).unwrap();
                assert_eq!(desk.listed().len(), usize::from(expires > 0), "{call:?}");
            } else {
                assert_eq!(desk.refused(ALICE, call, &lines), 500, "{call:?}");
            }
        }
    }

    #[test]
    fn all_contacts_change_or_none() {
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 5), "Contact: <sip:a@h1>\n").unwrap();
        for (lines, status) in [
            ("Contact: <sip:b@h>, <sip:a@h1>;expires=5\n", 423),
            ("Contact: <sip:a@h1>;expires=0, <sip:b@h>;q=2\n", 400),
            ("Contact: <sip:a@h1>;expires=0, <sip:x@192.0.2.100>\n", 400),
            ("Contact: <sip:a@h1>;expires=0, <not a uri>\n", 400),
            ("Contact: <sip:1@h>, <sip:2@h>, <sip:3@h>, <sip:4@h>\n", 403),
            ("Contact: <sip:1@h>, <sip:2@h>;reg-id=1;+sip.instance=\"<urn:x:1>\"\n", 400),
        ] {
            assert_eq!(desk.refused(ALICE, ("c", 6), lines), status, "{lines}");
        }
        assert_eq!(desk.refused(ALICE, ("c", 5), "Contact: <sip:b@h>, <sip:a@h1>\n"), 500);
        assert_eq!(desk.contacts(ALICE), ["sip:a@h1"]);
    }

    #[test]
    fn contacts_compare_by_the_uri_rules() {
        for (second, is_same) in [
            ("sip:a@h", true),
            ("sip:%61@H", true),
            ("sip:a@h;unknown=1", true),
            ("sip:A@h", false),
            ("sip:a@h:5060", false),
            ("sip:a@h;transport=udp", false),
            ("sips:a@h", false),
            ("sip:a@[2001:db8::1]", false),
        ] {
            let mut desk = Desk::new();
            desk.register(ALICE, ("c", 1), "Contact: <sip:a@h>\n").unwrap();
            desk.register(ALICE, ("c", 2), &format!("Contact: <{second}>\n")).unwrap();
            assert_eq!(desk.contacts(ALICE).len(), if is_same { 1 } else { 2 }, "{second}");
            assert_eq!(desk.contacts(ALICE)[0], second);
        }
    }

    #[test]
    fn ipv6_contacts_compare_by_address() {
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 1), "Contact: <sip:a@[2001:db8::1]:5080>\n").unwrap();
        desk.register(ALICE, ("c", 2), "Contact: <sip:a@[2001:DB8:0::1]:5080>\n").unwrap();
        assert_eq!(desk.contacts(ALICE), ["sip:a@[2001:DB8:0::1]:5080"]);
    }

    #[test]
    fn a_contact_repeated_in_one_request_counts_once() {
        let mut desk = Desk::new();
        let lines = "Contact: <sip:a@h>;q=0.1, <sip:b@h>, <sip:%61@h>;q=0.2\n";
        desk.register(ALICE, ("c", 1), lines).unwrap();
        assert_eq!(desk.listed(), ["<sip:%61@h>;q=0.2;expires=3600", "<sip:b@h>;expires=3600"]);
    }

    #[test]
    fn instance_and_reg_id_replace_whatever_the_contact() {
        let line = |uri: &str, reg_id: u32, instance: &str| {
            format!("Contact: <{uri}>;reg-id={reg_id};+sip.instance=\"<urn:uuid:{instance}>\"\n")
        };
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 1), &line("sip:a@1.invalid", 1, "AA")).unwrap();
        desk.source = stream(2, Transport::Wss);
        desk.register(ALICE, ("d", 1), &line("sip:a@2.invalid", 1, "aa")).unwrap();
        assert_eq!(desk.contacts(ALICE), ["sip:a@2.invalid"]);
        assert!(desk.out.added().eq([&b"a@2.invalid"[..]]));
        assert!(desk.out.removed().eq([&b"a@1.invalid"[..]]));
        assert_eq!(desk.out.bound, desk.source.stream());
        assert_eq!(desk.out.released.as_slice(), [stream(1, Transport::Wss).stream().unwrap()]);
        // The same Contact over a second flow, and by a second instance.
        desk.register(ALICE, ("e", 1), &line("sip:a@2.invalid", 2, "aa")).unwrap();
        desk.register(ALICE, ("f", 1), &line("sip:a@2.invalid", 1, "bb")).unwrap();
        assert_eq!(desk.contacts(ALICE).len(), 3);
        // Without a reg-id it is the URI that counts (RFC 3261 §10.3).
        desk.register(ALICE, ("g", 1), "Contact: <sip:a@2.invalid>;expires=0\n").unwrap();
        assert!(desk.location.is_empty());
    }

    #[test]
    fn contacts_max_counts_what_would_be_there() {
        let mut desk = Desk::new();
        let lines = "Contact: <sip:1@h>, <sip:2@h>, <sip:3@h>, <sip:4@h>\n";
        desk.register(ALICE, ("c", 1), lines).unwrap();
        assert_eq!(desk.refused(ALICE, ("c", 2), "Contact: <sip:5@h>\n"), 403);
        desk.register(ALICE, ("c", 2), "Contact: <sip:4@h>;expires=0, <sip:5@h>\n").unwrap();
        // A lower bound keeps nobody from refreshing.
        desk.config.registrar.contacts_max = 1;
        desk.register(ALICE, ("c", 3), "Contact: <sip:5@h>\n").unwrap();
        assert_eq!(desk.contacts(ALICE).len(), 4);
        let many = ["<sip:1@h>"; 9].join(",");
        assert_eq!(desk.refused(ALICE, ("c", 9), &format!("Contact: {many}\n")), 400);
    }

    #[test]
    fn a_full_table_says_when_to_come_back() {
        let mut desk = Desk::new();
        for user in 0..ROOM {
            desk.register(&format!("sip:{user}@example.com"), ("c", 1), "Contact: <sip:a@h>\n")
                .unwrap();
        }
        assert_eq!(desk.refused(ALICE, ("c", 1), "Contact: <sip:a@h>\n"), 500);
        assert!(desk.headers().contains("Retry-After: 30\r\n"));
        desk.register("sip:0@example.com", ("c", 2), "Contact: <sip:a@h>\n").unwrap();
    }

    #[test]
    fn a_binding_too_long_to_keep_is_refused() {
        let mut desk = Desk::new();
        let lines = format!("Contact: <sip:a@h>;x=\"{}\"\n", "y".repeat(9_000));
        assert_eq!(desk.refused(ALICE, ("c", 1), &lines), 400);
    }
}
