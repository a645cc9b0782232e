//! The header lines of the answer to a REGISTER (RFC 3261 §10.3 step 8, RFC 3327 §5.3, RFC 5626
//! §6). Absent on purpose: status line, Via and the rest, which are copied from the request by
//! whoever builds the response.

use crate::base::decimal::write_number;
use crate::base::time::Time;

use super::binding::Binding;
use super::contact::Q_MAX;

/// One `Contact` line: the URI and the parameters as registered, q when it was given, and what is
/// left of the expiry in seconds, at least 1. `gruus` adds what the client asked for besides.
pub(super) fn contact_line(
    binding: &Binding,
    now: Time,
    gruus: impl FnOnce(&mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"Contact: <");
    out.extend_from_slice(binding.contact());
    out.push(b'>');
    out.extend_from_slice(binding.params());
    if binding.q() < Q_MAX {
        push_q(binding.q(), out);
    }
    gruus(out);
    out.extend_from_slice(b";expires=");
    write_number((binding.expires_at() - now).as_secs().max(1), out);
    out.extend_from_slice(b"\r\n");
}

/// One line of a name, a colon and a value.
pub(super) fn line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    push_unfolded(value, out);
    out.extend_from_slice(b"\r\n");
}

/// One line of a name, a colon and a number.
pub(super) fn number_line(name: &str, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    write_number(number, out);
    out.extend_from_slice(b"\r\n");
}

/// A Warning that says why (RFC 3261 §20.43: 399, miscellaneous). `why` has no quotes or
/// backslashes.
pub(super) fn warning_line(node: &str, why: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Warning: 399 ");
    out.extend_from_slice(node.as_bytes());
    out.extend_from_slice(b" \"");
    out.extend_from_slice(why.as_bytes());
    out.extend_from_slice(b"\"\r\n");
}

/// Copies bytes with a space for each line break, so that what was folded is one line again.
pub(super) fn push_unfolded(bytes: &[u8], out: &mut Vec<u8>) {
    if memchr::memchr2(b'\r', b'\n', bytes).is_none() {
        return out.extend_from_slice(bytes);
    }
    let one_line = |byte: &u8| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte };
    out.extend(bytes.iter().map(one_line));
}

fn push_q(q: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b";q=0.");
    let mut rest = q;
    for weight in [100, 10, 1] {
        out.push(b'0' + (rest / weight) as u8);
        rest %= weight;
        if rest == 0 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{Desk, stream};
    use super::super::location::Location;
    use super::*;
    use crate::base::hash::KeyedHash;
    use crate::base::id::Transport;

    const ALICE: &str = "sip:alice@example.com";

    #[test]
    fn q_is_written_shortest() {
        for (q, expected) in [(0, ";q=0.0"), (500, ";q=0.5"), (250, ";q=0.25"), (5, ";q=0.005")] {
            let mut out = Vec::new();
            push_q(q, &mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn what_was_folded_is_one_line() {
        let mut out = Vec::new();
        line("Path", b"<sip:a>,\r\n <sip:b>", &mut out);
        assert_eq!(out, b"Path: <sip:a>,   <sip:b>\r\n");
    }

    /// Ten thousand clients that register at once, as after a restart, do not refresh at once.
    #[test]
    fn refreshes_of_clients_that_came_at_once_are_spread() {
        use crate::base::rng::Rng;
        const CLIENTS: u32 = 10_000;
        let mut desk = Desk::new();
        desk.location = Location::new(KeyedHash::new([1; 16]), CLIENTS as usize);
        let mut rng = Rng::new([9; 32]);
        let mut by_second = std::collections::BTreeMap::new();
        for client in 0..CLIENTS {
            desk.random = rng.next_u64();
            desk.source = stream(client, Transport::Wss);
            let aor = format!("sip:user{client}@example.com");
            desk.register(&aor, ("c", 1), "Contact: <sip:a@h>;expires=3600\n").unwrap();
            let listed = desk.listed().remove(0);
            let seconds: u32 = listed.rsplit('=').next().unwrap().parse().unwrap();
            *by_second.entry(seconds).or_insert(0_u32) += 1;
        }
        let (first, last) = (by_second.keys().next(), by_second.keys().next_back());
        assert_eq!((first, last), (Some(&3240), Some(&3600)));
        // 361 seconds take 27.7 each on average; six deviations above that is 60.
        let most = by_second.values().max().unwrap();
        assert!(*most < 60, "{most} in one second");
        assert_eq!(by_second.len(), 361);
    }

    /// RFC 8599 §4: what a push service needs stands in the Contact URI, and comes back in it.
    #[test]
    fn push_parameters_are_kept_with_the_binding() {
        let uri = "sip:a@h;pn-provider=fcm;pn-param=project;pn-prid=token:%41;ob";
        let mut desk = Desk::new();
        desk.register(ALICE, ("c", 1), &format!("Contact: <{uri}>;expires=60\n")).unwrap();
        assert_eq!(desk.listed(), [format!("<{uri}>;expires=60")]);
        assert_eq!(desk.contacts(ALICE), [uri]);
    }
}
