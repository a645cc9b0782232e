//! On what terms a Contact is registered (RFC 3261 §10.3 steps 6 and 7, RFC 5626 §6, RFC 5627 §5.1):
//! whether it may be, and for how long. Absent on purpose: the bindings that there are.

use crate::base::config::Registrar;
use crate::base::limits::BINDING_BYTES_MAX;
use crate::sip::Scheme;

use super::answer::number_line;
use super::contact::{ContactError, Wanted};
use super::register::{Registered, Reject, STAR_MISUSED, Sender, reject};

/// Expiries above this are granted up to a tenth shorter, so that clients that came at once do not
/// return at once.
const SPREAD_ABOVE_SECONDS: u64 = 600;
/// Requests for less than this may be refused as too brief (RFC 3261 §10.3 step 7).
const BRIEF_SECONDS: u64 = 3600;
/// Why what exceeds [`BINDING_BYTES_MAX`] is refused.
const TOO_LONG: &str = "Contact, Call-ID and Path too long";

/// Reads a Contact value and drops a reg-id that does not count (RFC 5626 §6).
pub(super) fn read_contact<'a>(
    sender: &Sender<'a>,
    text: &'a [u8],
    out: &mut Registered,
) -> Result<Wanted<'a>, Reject> {
    let context = sender.context;
    if text == b"*" {
        return Err(reject(context, 400, STAR_MISUSED, out));
    }
    let mut wanted = Wanted::parse(text).map_err(|error| {
        let why = match error {
            ContactError::Syntax(error) => error.kind.phrase(),
            ContactError::Q => "Malformed q in Contact",
            ContactError::Length => TOO_LONG,
        };
        reject(context, 400, why, out)
    })?;
    if wanted.reg_id != 0 && !sender.takes_outbound {
        if sender.supports_outbound {
            return Err(reject(context, 439, "First hop lacks outbound support", out));
        }
        wanted.reg_id = 0;
    }
    let bytes = out.aor.len() + out.path.len() + text.len() + sender.call_id.len();
    // One byte for the semicolon that parameters may lack before them.
    if bytes + 1 > BINDING_BYTES_MAX {
        return Err(reject(context, 400, TOO_LONG, out));
    }
    Ok(wanted)
}

/// What a Contact may not lead to: us, or the address of record itself, be it as a GRUU (RFC 5627
/// §5.1); an instance has a SIP URI.
pub(super) fn check_target(
    sender: &Sender<'_>,
    wanted: &Wanted<'_>,
    out: &mut Registered,
) -> Result<(), Reject> {
    let context = sender.context;
    if (context.names_us)(&wanted.uri) {
        return Err(reject(context, 400, "Contact names this server", out));
    }
    if !matches!(wanted.uri.scheme, Scheme::Sip | Scheme::Sips) {
        return match wanted.instance {
            Some(_) => Err(reject(context, 403, "An instance needs a SIP URI", out)),
            None => Ok(()),
        };
    }
    // With header fields it is another URI (RFC 3261 §19.1.4, RFC 4475 §3.3.14).
    let is_plain = wanted.uri.port.is_none() && wanted.uri.headers_raw.is_empty();
    if !is_plain || !context.config.is_our_domain(wanted.uri.host) {
        return Ok(());
    }
    let mut target = Vec::new();
    if context.gruu_key.read(&wanted.uri, &mut target).is_none() {
        wanted.uri.aor_into(&mut target);
    }
    match target == out.aor {
        true => Err(reject(context, 403, "Contact is the address of record", out)),
        false => Ok(()),
    }
}

/// The seconds that a Contact is granted; 0 when it is to be removed.
pub(super) fn grant(
    sender: &Sender<'_>,
    wanted: &Wanted<'_>,
    out: &mut Registered,
) -> Result<u64, Reject> {
    let context = sender.context;
    let Registrar { expires_default, expires_min, expires_max, .. } = context.config.registrar;
    let requested = match wanted.expires.or(sender.expires) {
        Some(seconds) => u64::from(seconds),
        None => expires_default.as_secs(),
    };
    if requested == 0 {
        return Ok(0);
    }
    if requested < expires_min.as_secs() && requested < BRIEF_SECONDS {
        number_line("Min-Expires", expires_min.as_secs(), &mut out.headers);
        return Err(reject(context, 423, "Expiry too brief", out));
    }
    let most = context.longest.map_or(expires_max, |longest| longest.min(expires_max));
    let granted = requested.min(most.as_secs().max(1));
    if granted <= SPREAD_ABOVE_SECONDS {
        return Ok(granted);
    }
    Ok(granted - context.random % (granted / 10 + 1))
}

#[cfg(test)]
mod tests {
    use super::super::harness::Desk;

    const ALICE: &str = "sip:alice@example.com";

    #[test]
    fn expiry_is_taken_from_parameter_header_default_and_bounded() {
        for (lines, expected) in [
            ("Contact: <sip:a@h>\n", Ok(3600)),
            ("Contact: <sip:a@h>\nExpires: 300\n", Ok(300)),
            ("Contact: <sip:a@h>;expires=100\nExpires: 300\n", Ok(100)),
            ("Contact: <sip:a@h>;expires=30\n", Ok(30)),
            ("Contact: <sip:a@h>;expires=29\n", Err(423)),
            ("Contact: <sip:a@h>;expires=1\nExpires: 300\n", Err(423)),
            ("Contact: <sip:a@h>\nExpires: 1\n", Err(423)),
            ("Contact: <sip:a@h>;expires=99999999999\n", Ok(7200)),
            ("Contact: <sip:a@h>;expires=soon\n", Ok(3600)),
        ] {
            let mut desk = Desk::new();
            let got = desk.register(ALICE, ("c", 1), lines).map_err(|reject| reject.status);
            assert_eq!(got, expected.map(|_| ()), "{lines}");
            match expected {
                Ok(seconds) => assert_eq!(desk.listed(), [format!("<sip:a@h>;expires={seconds}")]),
                Err(_) => assert!(desk.headers().contains("Min-Expires: 30\r\n")),
            }
        }
    }

    #[test]
    fn long_expiries_are_spread_downward() {
        let mut desk = Desk::new();
        for (cseq, (requested, random, granted)) in [
            (600, 99, 600),
            (601, 7, 594),
            (3600, 0, 3600),
            (3600, 360, 3240),
            (3600, 361, 3600),
            (9000, u64::MAX, 7200 - u64::MAX % 721),
        ]
        .into_iter()
        .enumerate()
        {
            desk.random = random;
            let lines = format!("Contact: <sip:a@h>;expires={requested}\n");
            desk.register(ALICE, ("c", cseq as u32 + 1), &lines).unwrap();
            assert_eq!(desk.listed(), [format!("<sip:a@h>;expires={granted}")]);
        }
    }
}
