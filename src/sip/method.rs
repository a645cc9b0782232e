//! Methods (RFC 3261 §7.1; RFC 3262, 3311, 3428, 3515, 3903, 6086, 6665). Case-sensitive; any token
//! is a method.

/// What a request asks for, or what a response answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Method<'a> {
    /// INVITE.
    Invite,
    /// ACK.
    Ack,
    /// BYE.
    Bye,
    /// CANCEL.
    Cancel,
    /// REGISTER.
    Register,
    /// OPTIONS.
    Options,
    /// MESSAGE (RFC 3428).
    Message,
    /// NOTIFY (RFC 6665).
    Notify,
    /// SUBSCRIBE (RFC 6665).
    Subscribe,
    /// INFO (RFC 6086).
    Info,
    /// UPDATE (RFC 3311).
    Update,
    /// PRACK (RFC 3262).
    Prack,
    /// REFER (RFC 3515).
    Refer,
    /// PUBLISH (RFC 3903).
    Publish,
    /// Any other token, as written.
    Other(&'a [u8]),
}

impl<'a> Method<'a> {
    /// The method that `text` names. Whether it is a token is not looked at.
    #[inline]
    pub fn parse(text: &'a [u8]) -> Method<'a> {
        match text {
            b"INVITE" => Method::Invite,
            b"ACK" => Method::Ack,
            b"BYE" => Method::Bye,
            b"CANCEL" => Method::Cancel,
            b"REGISTER" => Method::Register,
            b"OPTIONS" => Method::Options,
            b"MESSAGE" => Method::Message,
            b"NOTIFY" => Method::Notify,
            b"SUBSCRIBE" => Method::Subscribe,
            b"INFO" => Method::Info,
            b"UPDATE" => Method::Update,
            b"PRACK" => Method::Prack,
            b"REFER" => Method::Refer,
            b"PUBLISH" => Method::Publish,
            other => Method::Other(other),
        }
    }

    /// As it is written in a message.
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Method::Invite => b"INVITE",
            Method::Ack => b"ACK",
            Method::Bye => b"BYE",
            Method::Cancel => b"CANCEL",
            Method::Register => b"REGISTER",
            Method::Options => b"OPTIONS",
            Method::Message => b"MESSAGE",
            Method::Notify => b"NOTIFY",
            Method::Subscribe => b"SUBSCRIBE",
            Method::Info => b"INFO",
            Method::Update => b"UPDATE",
            Method::Prack => b"PRACK",
            Method::Refer => b"REFER",
            Method::Publish => b"PUBLISH",
            Method::Other(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_reads_back() {
        let names = "INVITE ACK BYE CANCEL REGISTER OPTIONS MESSAGE NOTIFY \
                     SUBSCRIBE INFO UPDATE PRACK REFER PUBLISH";
        for name in names.split(' ') {
            let method = Method::parse(name.as_bytes());
            assert!(!matches!(method, Method::Other(_)), "{name}");
            assert_eq!(method.as_bytes(), name.as_bytes());
        }
    }

    #[test]
    fn others_keep_their_text() {
        for name in ["invite", "IN%56ITE", "RE%47IST%45R", "!x", "INVITES", ""] {
            assert_eq!(Method::parse(name.as_bytes()), Method::Other(name.as_bytes()));
        }
    }
}
