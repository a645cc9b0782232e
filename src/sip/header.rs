//! Header field names (RFC 3261 §7.3.1, §7.3.3, §20 and extensions): which one a line has, without
//! allocation. Names that sipring never looks at are [`HeaderName::Other`]; their lines pass
//! untouched.

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A header field name that sipring knows, compact forms included.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum HeaderName { $($(#[$doc])* $name,)* /** Any other name. */ Other }

        const TEXTS: &[(&str, HeaderName)] = &[$(($text, HeaderName::$name),)*];
    };
}

names! {
    Via = "Via",
    From = "From",
    To = "To",
    CallId = "Call-ID",
    CSeq = "CSeq",
    Contact = "Contact",
    Route = "Route",
    RecordRoute = "Record-Route",
    MaxForwards = "Max-Forwards",
    ContentLength = "Content-Length",
    ContentType = "Content-Type",
    Expires = "Expires",
    Require = "Require",
    ProxyRequire = "Proxy-Require",
    Supported = "Supported",
    Unsupported = "Unsupported",
    Allow = "Allow",
    Path = "Path",
    ServiceRoute = "Service-Route",
    Authorization = "Authorization",
    ProxyAuthorization = "Proxy-Authorization",
    WwwAuthenticate = "WWW-Authenticate",
    ProxyAuthenticate = "Proxy-Authenticate",
    PAssertedIdentity = "P-Asserted-Identity",
    PPreferredIdentity = "P-Preferred-Identity",
    RetryAfter = "Retry-After",
    Reason = "Reason",
    Warning = "Warning",
    MinExpires = "Min-Expires",
    Event = "Event",
    SubscriptionState = "Subscription-State",
    UserAgent = "User-Agent",
    Server = "Server",
    Accept = "Accept",
    Timestamp = "Timestamp",
    MaxBreadth = "Max-Breadth",
    FlowTimer = "Flow-Timer",
    ReferTo = "Refer-To",
    SessionExpires = "Session-Expires",
    Identity = "Identity",
    Date = "Date",
}

/// The longest known name, in bytes.
const LONGEST: usize = 20;

/// How many known names there may be of one length.
const SAME_LENGTH: usize = 8;

/// Known names by their length.
static BY_LENGTH: [[Option<(&str, HeaderName)>; SAME_LENGTH]; LONGEST + 1] = by_length();

const fn by_length() -> [[Option<(&'static str, HeaderName)>; SAME_LENGTH]; LONGEST + 1] {
    let mut table = [[None; SAME_LENGTH]; LONGEST + 1];
    let mut at = 0;
    while at < TEXTS.len() {
        let length = TEXTS[at].0.len();
        let mut slot = 0;
        while table[length][slot].is_some() {
            slot += 1;
        }
        table[length][slot] = Some(TEXTS[at]);
        at += 1;
    }
    table
}

impl HeaderName {
    /// How many known names there are.
    pub(super) const KNOWN: usize = HeaderName::Other as usize;

    /// The name that `text` is, in any case and form.
    #[inline]
    pub fn classify(text: &[u8]) -> HeaderName {
        match text {
            [letter] => compact(*letter),
            _ if text.len() <= LONGEST => long(text),
            _ => HeaderName::Other,
        }
    }

    /// The name in its long form, as the RFCs write it; empty for [`HeaderName::Other`].
    pub fn as_str(self) -> &'static str {
        TEXTS.get(self as usize).map_or("", |(text, _)| text)
    }
}

/// Compact forms (RFC 3261 §7.3.3 and extensions): `e s b d u j n a` stand for names that are not
/// looked at.
fn compact(letter: u8) -> HeaderName {
    match letter.to_ascii_lowercase() {
        b'v' => HeaderName::Via,
        b'f' => HeaderName::From,
        b't' => HeaderName::To,
        b'i' => HeaderName::CallId,
        b'm' => HeaderName::Contact,
        b'l' => HeaderName::ContentLength,
        b'c' => HeaderName::ContentType,
        b'k' => HeaderName::Supported,
        b'o' => HeaderName::Event,
        b'r' => HeaderName::ReferTo,
        b'x' => HeaderName::SessionExpires,
        b'y' => HeaderName::Identity,
        _ => HeaderName::Other,
    }
}

#[inline]
fn long(text: &[u8]) -> HeaderName {
    for entry in &BY_LENGTH[text.len()] {
        let Some((known, name)) = entry else { break };
        if known.as_bytes().eq_ignore_ascii_case(text) {
            return *name;
        }
    }
    HeaderName::Other
}

const _: () = {
    assert!(TEXTS.len() == HeaderName::KNOWN);
    // The index of a message keeps a bit for each.
    assert!(HeaderName::KNOWN <= 64);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_every_case() {
        for &(text, name) in TEXTS {
            assert_eq!(HeaderName::classify(text.as_bytes()), name);
            assert_eq!(HeaderName::classify(text.to_lowercase().as_bytes()), name);
            assert_eq!(HeaderName::classify(text.to_uppercase().as_bytes()), name);
            assert_eq!(name.as_str(), text);
        }
    }

    #[test]
    fn compact_forms() {
        use HeaderName::*;
        let known = "vVfFtTiImMlLcCkKoOrRxXyY";
        let names =
            [Via, From, To, CallId, Contact, ContentLength, ContentType, Supported, Event, ReferTo];
        for (at, letter) in known.bytes().enumerate() {
            let expected = names.get(at / 2).copied();
            let name = HeaderName::classify(&[letter]);
            assert_eq!(name, expected.unwrap_or([SessionExpires, Identity][(at / 2) % 2]));
        }
        for letter in "esbdujnaqw1".bytes() {
            assert_eq!(HeaderName::classify(&[letter]), Other);
        }
    }

    #[test]
    fn near_misses_are_other() {
        for text in [
            "",
            "C%6Fntact",
            "Vi",
            "Viaa",
            "From ",
            "P-Preferred-Identity-Plus",
            "X-Very-Long-Header-Name",
        ] {
            assert_eq!(HeaderName::classify(text.as_bytes()), HeaderName::Other, "{text}");
        }
    }
}
