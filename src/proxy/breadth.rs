//! Max-Breadth (RFC 5393 §5.3): how many branches of one request, in all proxies that it passes, may
//! live at a time. It is divided among parallel branches, and what a branch held is free again when
//! it has ended. Absent on purpose: which targets are tried when.

use crate::base::limits::BREADTH_MAX;
use crate::sip::{HeaderName, Message};

/// What the request may use. One without the header field, or with one that is no number, has
/// [`BREADTH_MAX`]; a higher value is cut to that.
pub fn incoming(message: Message<'_>) -> u8 {
    let Some(header) = message.header(HeaderName::MaxBreadth) else { return BREADTH_MAX };
    let is_number = !header.value.is_empty() && header.value.iter().all(u8::is_ascii_digit);
    let number = || std::str::from_utf8(header.value).ok()?.parse().ok();
    if is_number { number().unwrap_or(BREADTH_MAX).min(BREADTH_MAX) } else { BREADTH_MAX }
}

/// What the branch at `position` of `parallel` ones gets of `free`. All of it is given away but one
/// for each of the `waiting` targets that come later, as far as there is so much: so they can start
/// while a branch that was cancelled has no final response yet. Each branch gets at least 1 when
/// `free` is not less than `parallel`.
pub fn share(free: u8, parallel: usize, waiting: usize, position: usize) -> u8 {
    let free = usize::from(free);
    let spare = free - waiting.min(free.saturating_sub(parallel));
    (spare / parallel + usize::from(position < spare % parallel)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Parsed, parse};

    #[test]
    fn what_is_no_number_or_too_much_counts_as_the_maximum() {
        for (line, expected) in [
            ("", 60),
            ("Max-Breadth: 0\r\n", 0),
            ("Max-Breadth: 7\r\n", 7),
            ("max-breadth: 060\r\n", 60),
            ("Max-Breadth: 61\r\n", 60),
            ("Max-Breadth: 99999999999999999999\r\n", 60),
            ("Max-Breadth: +1\r\n", 60),
            ("Max-Breadth: 1;a\r\n", 60),
            ("Max-Breadth:\r\n", 60),
        ] {
            let text = format!(
                "MESSAGE sip:a@b SIP/2.0\r\n{line}Via: SIP/2.0/UDP a\r\nFrom: <sip:a@b>;tag=1\r\n\
                 To: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 MESSAGE\r\n\r\n"
            );
            let mut parsed = Parsed::default();
            parse(text.as_bytes(), &mut parsed).unwrap();
            assert_eq!(incoming(parsed.view(text.as_bytes())), expected, "{line:?}");
        }
    }

    #[test]
    fn shares_add_up_and_leave_one_for_each_that_waits() {
        for free in 1..=60u8 {
            for parallel in 1..=usize::from(free).min(16) {
                for waiting in 0..16 {
                    let shares: Vec<u8> =
                        (0..parallel).map(|at| share(free, parallel, waiting, at)).collect();
                    let left = waiting.min(usize::from(free) - parallel);
                    let sum: usize = shares.iter().map(|share| usize::from(*share)).sum();
                    assert_eq!(sum + left, usize::from(free));
                    assert!(shares.iter().all(|it| *it >= 1 && shares[0] - it <= 1));
                }
            }
        }
    }
}
