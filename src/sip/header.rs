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

/// A known name as words, and its place in [`TABLE`].
#[derive(Clone, Copy)]
struct Entry {
    /// The first eight bytes in lower case, zeros where the name is shorter.
    first: u64,
    text: &'static str,
    name: HeaderName,
}

/// Slots of the table, a power of two that leaves most of them empty.
const SLOTS: usize = 256;

/// Known names by the hash of their first word and length; a taken slot moves a name to the next
/// one.
static TABLE: [Option<Entry>; SLOTS] = table();

const fn table() -> [Option<Entry>; SLOTS] {
    let mut table = [None; SLOTS];
    let mut at = 0;
    while at < TEXTS.len() {
        let (text, name) = TEXTS[at];
        let first = first_word(text.as_bytes());
        let mut slot = slot(first, text.len());
        while table[slot].is_some() {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = Some(Entry { first, text, name });
        at += 1;
    }
    table
}

const fn slot(first: u64, len: usize) -> usize {
    let mixed = (first ^ len as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as usize % SLOTS
}

/// The first eight bytes of `text` in lower case, zeros where it is shorter.
const fn first_word(text: &[u8]) -> u64 {
    let mut word = [0; 8];
    let mut at = 0;
    while at < text.len() && at < word.len() {
        word[at] = text[at];
        at += 1;
    }
    lower(u64::from_le_bytes(word))
}

/// Sets the case bit of every byte from `@` on. Of the bytes that this makes equal none but letters
/// are in known names.
const fn lower(word: u64) -> u64 {
    word | (word & 0x4040_4040_4040_4040) >> 1
}

impl HeaderName {
    /// How many known names there are.
    pub(super) const KNOWN: usize = HeaderName::Other as usize;

    /// The name that `text` is, in any case and form.
    pub fn classify(text: &[u8]) -> HeaderName {
        match text {
            [] => HeaderName::Other,
            [letter] => compact(*letter),
            _ => long(first_word(text), text),
        }
    }

    /// The name that `text` is, whose first eight bytes (or more than there are) were loaded into
    /// `word`.
    #[inline]
    pub(super) fn classify_word(word: u64, text: &[u8]) -> HeaderName {
        match text.len() {
            1 => compact(text[0]),
            len @ 2..8 => long(lower(word & !(u64::MAX << (8 * len))), text),
            _ => long(lower(word), text),
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
fn long(first: u64, text: &[u8]) -> HeaderName {
    let mut slot = slot(first, text.len());
    while let Some(entry) = &TABLE[slot] {
        if entry.first == first && entry.text.len() == text.len() && same_rest(entry.text, text) {
            return entry.name;
        }
        slot = (slot + 1) % SLOTS;
    }
    HeaderName::Other
}

/// Whether the bytes after the eighth are equal in any case. The last eight may overlap the first.
#[inline]
fn same_rest(known: &str, text: &[u8]) -> bool {
    let (Some(ours), Some(theirs)) = (known.as_bytes().last_chunk(), text.last_chunk()) else {
        return true;
    };
    lower(u64::from_le_bytes(*ours)) == lower(u64::from_le_bytes(*theirs))
        && (text.len() <= 16 || known.as_bytes()[8..].eq_ignore_ascii_case(&text[8..]))
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
