//! What becomes of the bindings of a user who is gone from the users file or has another password:
//! whoever registered them could not do so any more (RFC 3261 §10.3 step 3). Absent on purpose: the
//! file, and bindings that somebody else registered for the same address of record, by a token, a
//! time-limited password or in a server's name.

use smallvec::SmallVec;

use crate::base::slab::SlabKey;
use crate::base::users::UserMark;

use super::binding::Binding;
use super::location::Location;

impl Location {
    /// Event: the user with that canonical address of record is known as `mark` alone from here on;
    /// `None`: there is none any more, and nobody remembers the address. What was registered under
    /// another mark is shown to `gone` and removed. Returns how many that were.
    pub fn end_user(
        &mut self,
        aor: &[u8],
        mark: Option<UserMark>,
        mut gone: impl FnMut(&Binding),
    ) -> usize {
        let is_former = |binding: &Binding| {
            let user = binding.facts.user;
            user.is_some() && Some(user) != mark
        };
        let former = self.of_aor(self.owner(aor)).filter(|(_, binding)| is_former(binding));
        let former: SmallVec<[SlabKey; 4]> = former.map(|(key, _)| key).collect();
        for key in &former {
            gone(self.get(*key));
            self.remove(*key);
        }
        if mark.is_none() {
            self.forget_known(aor);
        }
        former.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::Desk;
    use super::*;
    use crate::base::users::UserId;

    const ALICE: &str = "sip:alice@example.com";
    const AOR: &[u8] = b"alice@example.com";

    fn mark(bits: u64) -> UserMark {
        UserId::from_bits(bits << 32).mark()
    }

    /// A Contact that a user with that mark registered.
    fn register(desk: &mut Desk, user: UserMark, host: &str) {
        desk.user = user;
        desk.register(ALICE, (host, 1), &format!("Contact: <sip:a@{host}>\n")).unwrap();
    }

    fn end(desk: &mut Desk, mark: Option<UserMark>) -> usize {
        let mut seen = 0;
        let ended = desk.location.end_user(AOR, mark, |_| seen += 1);
        assert_eq!(seen, ended);
        ended
    }

    #[test]
    fn another_password_ends_what_the_old_one_registered() {
        let mut desk = Desk::new();
        register(&mut desk, mark(1), "old");
        register(&mut desk, UserMark::FORMER, "restored");
        register(&mut desk, mark(2), "new");
        register(&mut desk, UserMark::NONE, "token");
        assert_eq!(end(&mut desk, Some(mark(2))), 2);
        assert_eq!(desk.contacts(ALICE), ["sip:a@token", "sip:a@new"]);
        assert_eq!(end(&mut desk, Some(mark(2))), 0, "once");
        desk.user = mark(3);
        desk.register(ALICE, ("new", 2), "Contact: <sip:a@new>\n").unwrap();
        assert_eq!(end(&mut desk, Some(mark(3))), 0, "who registers again is there");
        assert_eq!(end(&mut desk, None), 1);
        assert!(desk.location.was_known(AOR), "somebody else is there");
    }

    #[test]
    fn nobody_remembers_who_is_gone() {
        let mut desk = Desk::new();
        register(&mut desk, mark(1), "h");
        assert_eq!(end(&mut desk, Some(mark(2))), 1);
        assert!(desk.location.is_empty() && desk.location.was_known(AOR), "with a password");
        assert_eq!(end(&mut desk, None), 0);
        assert!(!desk.location.was_known(AOR));
        register(&mut desk, mark(1), "h");
        assert_eq!((end(&mut desk, None), desk.location.aors()), (1, 0));
        assert!(!desk.location.was_known(AOR) && desk.location.by_aor.is_empty());
    }
}
