//! What can be wrong with a message (RFC 3261 §16.3, §18.3, §21.4.1): the peer's fault, as a small
//! value that is either answered or counted. Absent on purpose: texts built at run time.

/// A fault and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// What is wrong.
    pub kind: ParseErrorKind,
    /// Offset of the fault in bytes: within the message, or within the text that was given to a
    /// value's `parse`.
    pub at: u32,
}

impl ParseError {
    pub(super) fn new(kind: ParseErrorKind, at: usize) -> ParseError {
        ParseError { kind, at: u32::try_from(at).unwrap_or(u32::MAX) }
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $phrase:literal,)*) => {
        /// The kinds of fault. [`ParseErrorKind::phrase`] serves as the reason phrase of the 400
        /// that answers it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u8)]
        pub enum ParseErrorKind { $($(#[$doc])* $kind,)* }

        impl ParseErrorKind {
            /// Names the fault, fit for a reason phrase and a log line.
            pub fn phrase(self) -> &'static str {
                match self { $(ParseErrorKind::$kind => $phrase,)* }
            }

            #[cfg(test)]
            pub(super) const ALL: &[ParseErrorKind] = &[$(ParseErrorKind::$kind,)*];
        }
    };
}

kinds! {
    /// The start line is neither a request line nor a status line (RFC 3261 §7.1, §7.2).
    StartLine = "Malformed Start Line",
    /// The method is not a token.
    Method = "Malformed Method",
    /// The Request-URI is empty, holds characters that no URI has, or has no scheme.
    RequestUri = "Malformed Request-URI",
    /// The Request-URI carries header fields, which it must not (RFC 3261 §19.1.1).
    RequestUriHeaders = "Header Fields in Request-URI",
    /// A SIP version other than 2.0: to be answered 505.
    Version = "Version Not Supported",
    /// The status code is not three digits from 100 to 699.
    Status = "Malformed Status Code",
    /// A header line without a colon, or whose name is not a token.
    HeaderName = "Malformed Header Field Name",
    /// A CR that no LF follows.
    BareCr = "Bare CR in Header",
    /// An LF that no CR precedes.
    BareLf = "Bare LF in Header",
    /// A NUL outside a quoted pair.
    Nul = "NUL in Header",
    /// The message ends before the empty line.
    Unterminated = "Header Section Not Terminated",
    /// More header lines than `HEADERS_MAX`, or a message beyond 4 GiB.
    TooManyHeaders = "Too Many Header Fields",
    /// More values of one kind than `VALUES_MAX`.
    TooManyValues = "Too Many Header Field Values",
    /// No Via.
    MissingVia = "Missing Via",
    /// No From.
    MissingFrom = "Missing From",
    /// No To.
    MissingTo = "Missing To",
    /// No Call-ID, or an empty one.
    MissingCallId = "Missing Call-ID",
    /// No CSeq.
    MissingCSeq = "Missing CSeq",
    /// More than one From.
    DuplicateFrom = "Multiple From",
    /// More than one To.
    DuplicateTo = "Multiple To",
    /// More than one Call-ID.
    DuplicateCallId = "Multiple Call-ID",
    /// More than one CSeq.
    DuplicateCSeq = "Multiple CSeq",
    /// More than one Max-Forwards.
    DuplicateMaxForwards = "Multiple Max-Forwards",
    /// More than one Content-Length.
    DuplicateContentLength = "Multiple Content-Length",
    /// The CSeq is not a number below 2^32 and a method.
    CSeq = "Malformed CSeq",
    /// The CSeq's method is not the request's.
    CSeqMethod = "CSeq Method Mismatch",
    /// The Max-Forwards is not a number from 0 to 255.
    MaxForwards = "Malformed Max-Forwards",
    /// The Content-Length is not a number below 2^32.
    ContentLength = "Malformed Content-Length",
    /// The Expires is not a number.
    Expires = "Malformed Expires",
    /// The Content-Length is larger than the body that came (RFC 3261 §18.3).
    BodyShort = "Body Shorter Than Content-Length",
    /// The Content-Length is not the length of the body of a WebSocket message (RFC 7118 §5).
    BodyLength = "Content-Length Differs From Body",
    /// A Via value that is not of the grammar.
    Via = "Malformed Via",
    /// An address that is neither name-addr nor addr-spec.
    Address = "Malformed Address",
    /// A display name with characters that need quotes.
    DisplayName = "Unquoted Display Name",
    /// A quoted string without its end.
    Quote = "Unterminated Quoted String",
    /// A URI with header fields that is not between angle brackets (RFC 3261 §20).
    Brackets = "URI Needs Angle Brackets",
    /// A header field parameter that is not of the grammar.
    Parameter = "Malformed Header Field Parameter",
    /// A URI without a scheme or with characters that no URI has.
    Uri = "Malformed URI",
    /// The user or password of a SIP URI.
    UriUser = "Malformed User in URI",
    /// The host of a SIP URI.
    UriHost = "Malformed Host in URI",
    /// The port of a SIP URI or sent-by.
    Port = "Malformed Port",
    /// A percent sign that two hexadecimal digits do not follow.
    Escape = "Malformed Escape in URI",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_differ_and_fit_a_reason_phrase() {
        for (i, kind) in ParseErrorKind::ALL.iter().enumerate() {
            let phrase = kind.phrase();
            assert!(!phrase.is_empty() && phrase.bytes().all(|b| (0x20..0x7f).contains(&b)));
            assert!(ParseErrorKind::ALL[..i].iter().all(|other| other.phrase() != phrase));
        }
    }
}
