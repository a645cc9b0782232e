//! What the registrar should know, in the simplest form that can be right: for every user, which
//! peers may get requests at a moment, and which surely have to. Between the two lies what is on
//! its way.

use std::collections::BTreeMap;
use std::time::Duration;

use sipring::base::time::Time;

use crate::world::End;

/// What one REGISTER asks for.
#[derive(Clone, Debug)]
pub struct Wish {
    pub user: usize,
    pub contact: String,
    /// Instance with reg-id.
    pub instance: Option<String>,
    /// Seconds; 0 removes.
    pub expires: u32,
    pub secure: bool,
    /// It may be dialled when its flow is gone.
    pub dialable: bool,
}

/// One Contact by one REGISTER.
#[derive(Clone, Debug)]
pub struct Bound {
    pub wish: Wish,
    pub end: End,
    serial: u32,
    refused: bool,
    /// It may be in force from here to there …
    maybe: (Time, Time),
    /// … and it surely is from here to there.
    sure: (Time, Time),
    /// It may be in the table until then, in force or not.
    kept: Time,
}

const NEVER: Time = Time::from_nanos(u64::MAX);

/// How long a Contact that is out of force is remembered: longer than a request is repeated.
const MEMORY: Duration = Duration::from_secs(64);

/// All that was registered, by user.
#[derive(Default)]
pub struct Registrar {
    bound: BTreeMap<usize, Vec<Bound>>,
    /// Who registered by which peer.
    users: BTreeMap<End, usize>,
    /// Until when a peer's queue last had no room for some request.
    crowded: BTreeMap<End, Time>,
}

impl Wish {
    /// RFC 5626 §6: instance and reg-id name the binding, else the Contact does.
    fn means(&self, bound: &Bound) -> bool {
        match (&self.instance, &bound.wish.instance) {
            (Some(mine), Some(other)) => mine == other,
            _ => self.contact == bound.wish.contact,
        }
    }
}

impl Bound {
    /// When it came to be in force at the earliest.
    pub fn since(&self) -> Time {
        self.maybe.0
    }
}

impl Registrar {
    /// A REGISTER reached the proxy: what it means is in doubt until the answer.
    pub fn asked(&mut self, serial: u32, wish: &Wish, end: End, now: Time) {
        self.users.insert(end, wish.user);
        let all = self.bound.entry(wish.user).or_default();
        all.retain(|it| it.maybe.1.max(it.kept) + MEMORY > now);
        for bound in all.iter_mut().filter(|it| wish.means(it)) {
            bound.sure.1 = bound.sure.1.min(now);
        }
        if wish.expires > 0 {
            let (maybe, sure) = ((now, NEVER), (NEVER, NEVER));
            all.push(Bound {
                wish: wish.clone(),
                end,
                serial,
                refused: false,
                maybe,
                sure,
                kept: NEVER,
            });
        }
    }

    /// Its answer left the proxy. `slack` is the longest time until all shards know.
    pub fn answered(&mut self, serial: u32, wish: &Wish, status: u16, now: Time, slack: Duration) {
        let accepted = (200..300).contains(&status);
        let all = self.bound.entry(wish.user).or_default();
        for bound in all.iter_mut().filter(|it| wish.means(it)) {
            let own = bound.serial == serial;
            if own && accepted && bound.sure.0 == NEVER {
                // The registrar may grant up to a tenth less, and counted before its answer left.
                let least = Duration::from_secs(u64::from(wish.expires) * 9 / 10);
                let least = least.saturating_sub(slack);
                let most = Duration::from_secs(u64::from(wish.expires)) + slack;
                bound.sure = (now, bound.sure.1.min(now + least));
                bound.maybe.1 = bound.maybe.1.min(now + most);
                bound.kept = bound.kept.min(now + most);
            }
            bound.refused |= own && !accepted;
            if own && !accepted || !own && accepted && bound.serial < serial {
                bound.maybe.1 = bound.maybe.1.min(now + slack);
                bound.kept = bound.kept.min(now + slack);
            }
        }
    }

    /// The peer's flow ended; its client may come back for the `grace`.
    pub fn ended(&mut self, end: End, now: Time, slack: Duration, grace: Duration) {
        let Some(user) = self.users.remove(&end) else { return };
        for bound in self.bound.entry(user).or_default().iter_mut().filter(|it| it.end == end) {
            bound.sure.1 = bound.sure.1.min(now);
            bound.maybe.1 = bound.maybe.1.min(now + slack);
            if !bound.wish.dialable {
                bound.kept = bound.kept.min(now + slack + grace);
            }
        }
    }

    /// Something happened to the peer (or to everybody) that may keep requests from it.
    pub fn doubt(&mut self, end: Option<End>, now: Time) {
        for bound in
            self.bound.values_mut().flatten().filter(|it| end.is_none_or(|end| it.end == end))
        {
            bound.sure.1 = bound.sure.1.min(now);
        }
    }

    /// Whether a request finds room in the peer's queue from here on, however large it is.
    pub fn has_room(&mut self, end: End, has_room: bool, now: Time) {
        if !has_room {
            self.crowded.insert(end, NEVER);
        } else if let Some(until) = self.crowded.get_mut(&end).filter(|until| **until == NEVER) {
            *until = now;
        }
    }

    /// Whether a request may have found no room there at some moment since.
    pub fn was_crowded(&self, end: End, since: Time) -> bool {
        self.crowded.get(&end).is_some_and(|until| *until >= since)
    }

    /// Who may get a request that the proxy looked at between `from` and `until`.
    pub fn may_get(&self, user: usize, from: Time, until: Time) -> impl Iterator<Item = &Bound> {
        let all = self.bound.get(&user).into_iter().flatten();
        all.filter(move |it| it.maybe.0 <= until && it.maybe.1 >= from)
    }

    /// Whether the client of a Contact came over TLS when it was registered last before.
    pub fn was_secure(&self, bound: &Bound) -> bool {
        let all = self.bound.get(&bound.wish.user).into_iter().flatten();
        let mut before = all.filter(|it| it.serial < bound.serial && bound.wish.means(it));
        // What of a grant that did not leave in time is in force, nobody knows.
        let last = before.rfind(|it| !it.refused);
        last.filter(|it| it.sure.0 != NEVER).is_some_and(|it| it.wish.secure)
    }

    /// Whoever surely is registered.
    pub fn all_sure(&self, now: Time) -> impl Iterator<Item = &Bound> {
        let all = self.bound.values().flatten();
        all.filter(move |it| it.sure.0 <= now && it.sure.1 > now)
    }

    /// How many Contacts may be in the table, or were until `since`.
    pub fn count_since(&self, since: Time) -> usize {
        self.bound.values().flatten().filter(|it| it.kept >= since).count()
    }

    /// Whether a Contact may have been in the table between `from` and `until`.
    pub fn may_list(&self, user: usize, contact: &str, from: Time, until: Time) -> bool {
        let mut all = self.bound.get(&user).into_iter().flatten();
        all.any(|it| it.wish.contact == contact && it.maybe.0 <= until && it.kept >= from)
    }

    /// Who surely was registered before `from` and until after `until`. What the proxy reads at one
    /// moment, a request and the REGISTER behind it in one segment, has an order that times do not
    /// tell.
    pub fn must_get(&self, user: usize, from: Time, until: Time) -> impl Iterator<Item = &Bound> {
        let all = self.bound.get(&user).into_iter().flatten();
        all.filter(move |it| it.sure.0 < from && it.sure.1 > until)
    }
}

#[test]
fn a_request_of_the_same_moment_may_have_come_before() {
    let end = End::Datagram("203.0.113.2:5060".parse().unwrap());
    let contact = "sip:c2@203.0.113.2".to_string();
    let wish =
        Wish { user: 0, contact, instance: None, expires: 60, secure: false, dialable: false };
    let at = |millis| Time::ZERO + Duration::from_millis(millis);
    let mut registrar = Registrar::default();
    registrar.asked(0, &wish, end, at(100));
    registrar.answered(0, &wish, 200, at(100), Duration::ZERO);
    assert_eq!(registrar.may_get(0, at(100), at(100)).count(), 1);
    assert_eq!(registrar.must_get(0, at(100), at(200)).count(), 0);
    assert_eq!(registrar.must_get(0, at(101), at(200)).count(), 1);
}

#[test]
fn a_queue_without_room_excuses_what_came_meanwhile_and_nothing_later() {
    let end = End::Datagram("203.0.113.2:5060".parse().unwrap());
    let at = |millis| Time::ZERO + Duration::from_millis(millis);
    let mut registrar = Registrar::default();
    registrar.has_room(end, true, at(100));
    assert!(!registrar.was_crowded(end, at(0)));
    registrar.has_room(end, false, at(200));
    assert!(registrar.was_crowded(end, at(100)) && registrar.was_crowded(end, at(300)));
    registrar.has_room(end, true, at(400));
    registrar.has_room(end, true, at(500));
    assert!(registrar.was_crowded(end, at(300)) && !registrar.was_crowded(end, at(450)));
}

#[test]
fn the_last_grant_tells_how_a_client_was_registered() {
    let at = |millis| Time::ZERO + Duration::from_millis(millis);
    let end = End::Datagram("203.0.113.2:5060".parse().unwrap());
    let contact = "sip:c2@h.invalid".to_string();
    let wish =
        Wish { user: 0, contact, instance: None, expires: 60, secure: true, dialable: false };
    let plain = Wish { secure: false, ..wish.clone() };
    let was_secure = |registrar: &Registrar| {
        registrar.was_secure(registrar.bound[&0].last().expect("a Contact"))
    };
    let mut registrar = Registrar::default();
    registrar.asked(0, &wish, end, at(100));
    registrar.answered(0, &wish, 200, at(110), Duration::ZERO);
    registrar.asked(1, &plain, end, at(200));
    registrar.answered(1, &plain, 401, at(210), Duration::ZERO);
    registrar.asked(2, &plain, end, at(300));
    assert!(was_secure(&registrar), "what was refused changes nothing");
    registrar.asked(3, &plain, end, at(400));
    assert!(!was_secure(&registrar), "what was not answered may be in force");
}
