//! The messages of RFC 4475 and RFC 5118, bit-exact (but for the empty line that RFC 4475's `baddn`
//! lacks), and for each of them what a reader finds in it and what becomes of it on each kind of
//! transport. Where the RFCs leave a choice, the row says what was chosen and why.

#![allow(dead_code, reason = "each run uses its part")]

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes to whoever registered that address of record, and the response comes back.
    Forwarded(&'static str),
    /// The same, and what follows on the stream is no SIP, which ends the connection.
    ForwardedThenClosed(&'static str),
    /// This final response, with its usual phrase.
    Answered(u16),
    /// Two requests on a stream, each with its final response; what follows is no SIP, which ends
    /// the connection.
    AnsweredBothThenClosed(u16, u16),
    /// 400 with this phrase.
    Refused(&'static str),
    /// 400 with this phrase and the end of the connection.
    RefusedAndClosed(&'static str),
    /// No answer; counted under `dropped_` and this.
    Dropped(&'static str),
    /// A stream waits for the rest of the body.
    Unfinished,
}

use Outcome::*;

/// One message and its verdicts.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Its name in the RFC and as a file.
    pub name: &'static str,
    /// Where it is described.
    pub section: &'static str,
    original: &'static [u8],
    /// The Content-Length is corrected before it is sent.
    pub is_mended: bool,
    /// Port of the topmost Via's sent-by, where an answer over UDP goes.
    pub reply_port: u16,
    /// What the parser says after the rules of datagrams: the phrase that names the fault.
    pub parser: Result<(), &'static str>,
    /// As a datagram.
    pub datagram: Outcome,
    /// As the bytes of a TCP stream.
    pub stream: Outcome,
    /// As a WebSocket message.
    pub web: Outcome,
    /// Why, where it is a matter of judgement.
    pub why: &'static str,
}

impl Sample {
    const fn new(name: &'static str, section: &'static str, original: &'static [u8]) -> Sample {
        let outcome = Answered(0);
        Sample {
            name,
            section,
            original,
            is_mended: false,
            reply_port: 5060,
            parser: Ok(()),
            datagram: outcome,
            stream: outcome,
            web: outcome,
            why: "",
        }
    }

    const fn all(self, outcome: Outcome) -> Sample {
        Sample { datagram: outcome, stream: outcome, web: outcome, ..self }
    }

    /// Well-formed, and forwarded.
    const fn to(self, user: &'static str) -> Sample {
        self.all(Forwarded(user))
    }

    /// Well-formed, and answered.
    const fn answered(self, status: u16) -> Sample {
        self.all(Answered(status))
    }

    /// Malformed, and told so.
    const fn refused(self, phrase: &'static str) -> Sample {
        Sample { parser: Err(phrase), ..self.all(Refused(phrase)) }
    }

    /// Malformed, and without an answer.
    const fn malformed(self, phrase: &'static str) -> Sample {
        Sample { parser: Err(phrase), ..self.all(Dropped("malformed")) }
    }

    /// Another version: 505, whatever else is wrong with it.
    const fn version_refused(self) -> Sample {
        Sample { parser: Err("Version Not Supported"), ..self.all(Answered(505)) }
    }

    /// A response that nobody waits for.
    const fn stray(self) -> Sample {
        self.all(Dropped("stray_response"))
    }

    const fn stream(self, stream: Outcome) -> Sample {
        Sample { stream, ..self }
    }

    const fn web(self, web: Outcome) -> Sample {
        Sample { web, ..self }
    }

    const fn replies_to(self, reply_port: u16) -> Sample {
        Sample { reply_port, ..self }
    }

    const fn mended(self) -> Sample {
        Sample { is_mended: true, ..self }
    }

    const fn because(self, why: &'static str) -> Sample {
        Sample { why, ..self }
    }

    /// The message as it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        if !self.is_mended {
            return self.original.to_vec();
        }
        let text = std::str::from_utf8(self.original).expect("these are UTF-8");
        let (head, body) = text.split_once("\r\n\r\n").expect("an empty line");
        let (before, rest) = head.split_once("Content-Length: ").expect("a Content-Length");
        let rest = rest.trim_start_matches(|digit: char| digit.is_ascii_digit());
        format!("{before}Content-Length: {}{rest}\r\n\r\n{body}", body.len()).into_bytes()
    }

    /// Whether it is a request with that method.
    pub fn is(&self, method: &str) -> bool {
        self.original.starts_with(format!("{method} ").as_bytes())
    }

    /// Messages with equal keys are one transaction to whoever gets both.
    pub fn key(&self) -> String {
        let text = String::from_utf8_lossy(self.original);
        let method = text.split(' ').next().expect("a start line").to_string();
        let line = text.split("\r\n").find(|line| line.to_ascii_lowercase().starts_with("via"));
        method + line.unwrap_or(self.name)
    }
}

macro_rules! sample {
    ($name:literal, $section:literal) => {
        Sample::new($name, $section, include_bytes!(concat!("../data/torture/", $name, ".dat")))
    };
}

/// Domains that the proxy serves, so that what is well-formed gets as far as it can. One of them is
/// what Route of the short tortuous INVITE names.
pub const DOMAINS: &[&str] = &[
    "example.com",
    "example.net",
    "example.org",
    "host.example.net",
    "chair-dnrc.example.com",
    "services.example.com",
    "registrar.example.com",
    "[2001:db8::10]",
    "[2001:db8::c000:201]",
];

/// Addresses of record that somebody registers who answers.
pub fn users() -> Vec<&'static str> {
    let mut users: Vec<&str> = Vec::new();
    for sample in SAMPLES {
        for outcome in [sample.datagram, sample.stream, sample.web] {
            if let Forwarded(user) | ForwardedThenClosed(user) = outcome
                && !users.contains(&user)
            {
                users.push(user);
            }
        }
    }
    users
}

const USER: &str = "user@example.com";
const USER_6: &str = "user@[2001:db8::10]";
const SHORT: &str = "Body Shorter Than Content-Length";
const DIFFERS: &str = "Content-Length Differs From Body";
const WRONG_LENGTH: &str = "the RFC's own Content-Length is wrong; RFC 3261 §18.3 decides";

/// All of them.
pub const SAMPLES: &[Sample] = &[
    sample!("wsinv", "RFC 4475 §3.1.1.1").to("vivekg@chair-dnrc.example.com"),
    sample!("intmeth", "RFC 4475 §3.1.1.2")
        .to("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.\
        (doesn't-it)@example.com"),
    sample!("esc01", "RFC 4475 §3.1.1.3").to("sips%3Auser%40example.com@example.net"),
    sample!("escnull", "RFC 4475 §3.1.1.4").answered(200),
    sample!("esc02", "RFC 4475 §3.1.1.5")
        .answered(501)
        .because("a method of its own, not REGISTER, and it names us and no user"),
    sample!("lwsdisp", "RFC 4475 §3.1.1.6").to(USER),
    sample!("longreq", "RFC 4475 §3.1.1.7").to(USER),
    sample!("dblreq", "RFC 4475 §3.1.1.8")
        .answered(200)
        .stream(AnsweredBothThenClosed(200, 480))
        .web(Refused(DIFFERS))
        .because(
            "what follows in a datagram is discarded; on a stream it is the next request, whose \
            body is five bytes longer than it says",
        ),
    sample!("semiuri", "RFC 4475 §3.1.1.9").to("user;par=u%40example.net@example.com"),
    sample!("transports", "RFC 4475 §3.1.1.10").to(USER),
    sample!("mpart01", "RFC 4475 §3.1.1.11")
        .answered(403)
        .because("its Route names a host that is not configured: no relay for strangers"),
    sample!("unreason", "RFC 4475 §3.1.1.12").stray(),
    sample!("noreason", "RFC 4475 §3.1.1.13").stray(),
    sample!("badinv01", "RFC 4475 §3.1.2.1").refused("Malformed Header Field Parameter"),
    sample!("clerr", "RFC 4475 §3.1.2.2").refused(SHORT).stream(Unfinished).web(Refused(DIFFERS)),
    sample!("ncl", "RFC 4475 §3.1.2.3")
        .refused("Malformed Content-Length")
        .stream(RefusedAndClosed("Bad Content-Length")),
    sample!("scalar02", "RFC 4475 §3.1.2.4").refused("Malformed CSeq"),
    sample!("scalarlg", "RFC 4475 §3.1.2.5").malformed("Malformed CSeq"),
    sample!("quotbal", "RFC 4475 §3.1.2.6").refused("Unterminated Quoted String").replies_to(5050),
    sample!("ltgtruri", "RFC 4475 §3.1.2.7").refused("Malformed Request-URI"),
    sample!("lwsruri", "RFC 4475 §3.1.2.8").refused("Malformed Request-URI"),
    sample!("lwsstart", "RFC 4475 §3.1.2.9").refused("Malformed Request-URI").because(
        "it may be repaired; what is liberal in a start line is ambiguous for the next hop",
    ),
    sample!("trws", "RFC 4475 §3.1.2.10").refused("Malformed Start Line").because(
        "it may be repaired; what is liberal in a start line is ambiguous for the next hop",
    ),
    sample!("escruri", "RFC 4475 §3.1.2.11").refused("Header Fields in Request-URI"),
    sample!("baddate", "RFC 4475 §3.1.2.12").to(USER).because("nobody here looks at a Date"),
    sample!("regbadct", "RFC 4475 §3.1.2.13").refused("URI Needs Angle Brackets"),
    sample!("badaspec", "RFC 4475 §3.1.2.14").refused("Malformed URI").because(
        "it may be repaired; a proxy must not pass the error on, so it would have to rewrite To",
    ),
    sample!("baddn", "RFC 4475 §3.1.2.15").refused("Unquoted Display Name"),
    sample!("badvers", "RFC 4475 §3.1.2.16").version_refused(),
    sample!("mismatch01", "RFC 4475 §3.1.2.17").refused("CSeq Method Mismatch"),
    sample!("mismatch02", "RFC 4475 §3.1.2.18")
        .refused("CSeq Method Mismatch")
        .because("501 is for a server; a proxy does not judge methods"),
    sample!("bigcode", "RFC 4475 §3.1.2.19").malformed("Malformed Status Code"),
    sample!("badbranch", "RFC 4475 §3.2.1")
        .to(USER)
        .because("400 or the RFC 2543 transaction identifier: the latter serves the sender"),
    sample!("insuf", "RFC 4475 §3.3.1").malformed("Missing From").because(
        "ideally 400, but RFC 3261 §8.2.6.2 makes it of From, To and Call-ID, which are not there",
    ),
    sample!("unkscm", "RFC 4475 §3.3.2").answered(416),
    sample!("novelsc", "RFC 4475 §3.3.3").answered(416),
    sample!("unksm2", "RFC 4475 §3.3.4").answered(400),
    sample!("bext01", "RFC 4475 §3.3.5").answered(420),
    sample!("invut", "RFC 4475 §3.3.6").to(USER),
    sample!("regaut01", "RFC 4475 §3.3.7")
        .answered(200)
        .because("a registrar that does not authenticate ignores Authorization"),
    sample!("multi01", "RFC 4475 §3.3.8").refused("Multiple CSeq"),
    sample!("mcl01", "RFC 4475 §3.3.9")
        .refused("Multiple Content-Length")
        .stream(RefusedAndClosed("Two Content-Lengths")),
    sample!("bcast", "RFC 4475 §3.3.10").stray(),
    sample!("zeromf", "RFC 4475 §3.3.11").answered(483),
    sample!("cparam01", "RFC 4475 §3.3.12").answered(200),
    sample!("cparam02", "RFC 4475 §3.3.13").answered(200),
    sample!("regescrt", "RFC 4475 §3.3.14").answered(200),
    sample!("sdp01", "RFC 4475 §3.3.15").to(USER),
    sample!("inv2543", "RFC 4475 §3.4.1")
        .to("UserB@example.com")
        .stream(RefusedAndClosed("Missing Content-Length")),
    sample!("ipv6-good", "RFC 5118 §4.1").answered(200),
    sample!("ipv6-bad", "RFC 5118 §4.2").refused("Malformed Port"),
    sample!("port-ambiguous", "RFC 5118 §4.3")
        .answered(403)
        .because("well-formed, and not the address that is ours"),
    sample!("port-unambiguous", "RFC 5118 §4.4")
        .answered(403)
        .because("our address, and not a port of ours"),
    sample!("via-received-param-with-delim", "RFC 5118 §4.5")
        .answered(481)
        .because("a BYE that names us and no user is for ourselves, who keep no dialogs"),
    sample!("via-received-param-no-delim", "RFC 5118 §4.5").answered(200),
    sample!("ipv6-in-sdp", "RFC 5118 §4.6")
        .refused(SHORT)
        .stream(Unfinished)
        .web(Refused(DIFFERS))
        .because(WRONG_LENGTH),
    sample!("ipv6-in-sdp", "RFC 5118 §4.6").mended().to(USER_6),
    sample!("mult-ip-in-header", "RFC 5118 §4.7").to("user@host.example.net").replies_to(6050),
    sample!("mult-ip-in-sdp", "RFC 5118 §4.8")
        .to(USER_6)
        .stream(ForwardedThenClosed(USER_6))
        .web(Refused(DIFFERS))
        .because(WRONG_LENGTH),
    sample!("mult-ip-in-sdp", "RFC 5118 §4.8").mended().to(USER_6),
    sample!("ipv4-mapped-ipv6", "RFC 5118 §4.9")
        .to(USER)
        .stream(ForwardedThenClosed(USER))
        .web(Refused(DIFFERS))
        .replies_to(19823)
        .because(WRONG_LENGTH),
    sample!("ipv4-mapped-ipv6", "RFC 5118 §4.9").mended().to(USER).replies_to(19823),
    sample!("ipv6-bug-abnf-3-colons", "RFC 5118 §4.10")
        .to("user@[2001:db8::c000:201]")
        .because("the colon too many is tolerated, and gone in the Contact that is forwarded to"),
    sample!("ipv6-correct-abnf-2-colons", "RFC 5118 §4.10").to("user@[2001:db8::c000:201]"),
];
