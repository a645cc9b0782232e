//! SIP as one user of the load speaks it: the requests that it sends, shaped as JsSIP shapes them,
//! and of what arrives only as much as decides what to do next.

use std::fmt::Write;

/// One user: everything that stays the same over the life of its connection.
#[derive(Clone, Debug)]
pub struct User {
    number: usize,
    domain: String,
}

impl User {
    /// User `number` of `domain`.
    pub fn new(number: usize, domain: &str) -> User {
        User { number, domain: domain.to_owned() }
    }

    /// A REGISTER (RFC 3261 §10.2, RFC 5626 §4.2) with that CSeq number and expiry in seconds.
    pub fn register(&self, cseq: u32, expires: u32) -> String {
        let User { number, domain } = self;
        let [host, contact, call, branch, instance] =
            ["host", "contact", "call", "branch", "instance"].map(|what| self.random(what));
        let mut out = String::with_capacity(1024);
        let _ = write!(
            out,
            "REGISTER sip:{domain} SIP/2.0\r\n\
             Via: SIP/2.0/WSS {host:.12}.invalid;branch=z9hG4bK{branch:.10}{cseq}\r\n\
             Max-Forwards: 69\r\n\
             To: <sip:user{number:05}@{domain}>\r\n\
             From: <sip:user{number:05}@{domain}>;tag={call:.10}\r\n\
             Call-ID: {call}{host:.6}\r\n\
             CSeq: {cseq} REGISTER\r\n\
             Contact: <sip:{contact:.8}@{host:.12}.invalid;transport=ws>;+sip.ice;reg-id=1;\
             +sip.instance=\"<urn:uuid:{}>\";expires={expires}\r\n\
             Expires: {expires}\r\n\
             Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY,SUBSCRIBE\r\n\
             Supported: path,gruu,outbound\r\n\
             User-Agent: sipring-perf\r\n\
             Content-Length: 0\r\n\r\n",
            uuid(&instance, number)
        );
        out
    }

    /// 16 hexadecimal digits that look random and are the same in every run: a hash of the number
    /// and `what`.
    fn random(&self, what: &str) -> String {
        let seed = what.bytes().fold(self.number as u64, |sum, byte| mix(sum ^ u64::from(byte)));
        format!("{:016x}", mix(seed))
    }
}

/// An RFC 4122 version 4 UUID out of 16 digits and a number.
fn uuid(digits: &str, number: &usize) -> String {
    format!(
        "{}-{}-4{}-8{}-{number:012x}",
        &digits[..8],
        &digits[8..12],
        &digits[12..15],
        &digits[13..]
    )
}

/// One step of SplitMix64: a bijection that scatters its input.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What arrived, as far as this program cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A response with this status.
    Response(u16),
    /// A request.
    Request,
    /// CRLF, or something that is not SIP.
    Other,
}

/// Looks at the start line of a message.
pub fn look(message: &[u8]) -> Arrival {
    let line = message.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let Ok(line) = str::from_utf8(line) else { return Arrival::Other };
    if let Some(rest) = line.strip_prefix("SIP/2.0 ") {
        let status = rest.split(' ').next().and_then(|digits| digits.parse().ok());
        return status.map_or(Arrival::Other, Arrival::Response);
    }
    if line.ends_with(" SIP/2.0") { Arrival::Request } else { Arrival::Other }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_register_is_complete_and_its_own() {
        let text = User::new(42, "example.com").register(1, 3600);
        let text = text.as_str();
        assert!(text.starts_with("REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/WSS "));
        assert!(text.ends_with("Content-Length: 0\r\n\r\n"));
        assert!(text.contains("\r\nTo: <sip:user00042@example.com>\r\n"));
        assert!(
            text.contains(".invalid;transport=ws>;+sip.ice;reg-id=1;+sip.instance=\"<urn:uuid:")
        );
        for line in text.trim_end().split("\r\n").skip(1) {
            assert!(line.split_once(": ").is_some(), "{line}");
        }
        assert_eq!(text, User::new(42, "example.com").register(1, 3600));
    }

    #[test]
    fn users_do_not_share_what_must_be_unique() {
        for prefix in ["Call-ID: ", "Contact: ", "Via: "] {
            let values: HashSet<String> = (0..20_000)
                .map(|number| {
                    let text = User::new(number, "example.com").register(1, 3600);
                    text.split("\r\n").find(|line| line.starts_with(prefix)).unwrap().to_owned()
                })
                .collect();
            assert_eq!(values.len(), 20_000, "{prefix}");
        }
    }

    #[test]
    fn start_lines_are_told_apart() {
        for (text, expected) in [
            ("SIP/2.0 200 OK\r\n", Arrival::Response(200)),
            ("SIP/2.0 423 Interval Too Brief\r\n", Arrival::Response(423)),
            ("SIP/2.0 x\r\n", Arrival::Other),
            ("OPTIONS sip:a@b SIP/2.0\r\n", Arrival::Request),
            ("\r\n\r\n", Arrival::Other),
            ("", Arrival::Other),
        ] {
            assert_eq!(look(text.as_bytes()), expected, "{text:?}");
        }
    }
}
