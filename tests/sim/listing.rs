//! What a 200 to a REGISTER says (RFC 3261 §10.3 step 8): all bindings that there are and no other,
//! each for about as long as was asked. A Contact of a REGISTER that was refused is in none.

use sipring::base::time::Time;

use crate::check::{Aim, Asked, Books};
use crate::checker::{Checker, Violation};
use crate::message::{Sip, inside, param};

impl Books {
    pub fn judge_listing(&self, asked: &Asked, sip: &Sip, now: Time) -> Result<(), Violation> {
        let (Aim::Register(wish), Some((reached, _))) = (&asked.aim, asked.reached) else {
            return Ok(());
        };
        let is_first = asked.final_status == 0 && !asked.forgotten;
        // A registrar behind the proxy answers for itself.
        let is_ours = self.edge.registrar.is_none();
        if sip.status() != 200 || !is_first || self.lenient || !is_ours {
            return Ok(());
        }
        let wrong = |checker, text: String| Err(Violation { checker, text });
        let lines: Vec<&str> = sip.all("Contact").flat_map(|line| line.split(", ")).collect();
        for line in &lines {
            let contact = inside(line);
            if !self.registrar.may_list(wish.user, contact, reached, now) {
                return wrong(Checker::Listed, format!("nobody registered {line}"));
            }
            let granted = param(line, "expires").and_then(|it| it.parse::<u32>().ok());
            let is_own = contact == wish.contact;
            let fits = |granted: u32| granted <= wish.expires && granted >= wish.expires * 9 / 10;
            if is_own && !granted.is_some_and(fits) {
                return wrong(Checker::Granted, format!("{line} for {} s", wish.expires));
            }
        }
        let mut sure = self.registrar.must_get(wish.user, reached, now);
        match sure.find(|it| !lines.iter().any(|line| inside(line) == it.wish.contact)) {
            Some(missed) => wrong(Checker::Listed, format!("{missed:?} is not in {lines:?}")),
            None => Ok(()),
        }
    }
}
