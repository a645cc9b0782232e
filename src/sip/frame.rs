//! Messages out of a stream (RFC 3261 §18.3, RFC 5626 §3.5.1): Content-Length decides, CRLFs
//! between messages are keep-alives. Sizes are checked before anybody has to make room. A stream
//! that is out of step cannot be repaired: every error ends it.

use super::body::looks_like_sip;
use super::grammar::{LWS, is, number};
use super::header::HeaderName;
use crate::base::limits::Limits;

/// What is at the start of the buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Not whole yet: call again when the buffer holds `at_least` bytes, this message's first byte
    /// being the first of them.
    NeedMore {
        /// Bytes from the start of the buffer, more than there are now. Never beyond the limits.
        at_least: usize,
    },
    /// CRLF CRLF, 4 bytes: a ping, to be answered by one CRLF.
    Ping,
    /// One CRLF, 2 bytes: a pong, or nothing. See [`Scan::completes_ping`].
    Crlf,
    /// One whole message.
    Message {
        /// In bytes.
        len: usize,
    },
}

/// Why a stream cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FrameError {
    /// The header section is beyond `header_bytes_max` (513).
    HeaderTooLarge,
    /// The message is beyond `message_bytes_max` (513).
    MessageTooLarge,
    /// No Content-Length (RFC 3261 §20.14) (400).
    MissingLength,
    /// A Content-Length that is no number below 2^32 (400).
    BadLength,
    /// Two Content-Lengths (400).
    DoubleLength,
    /// Not SIP: no answer.
    NotSip,
}

/// How far the message at the start of a buffer was looked through, so that no byte is looked at
/// twice however slowly they come. To be kept with the buffer; [`next`] resets it when it yields
/// something.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Scan {
    /// No line end is before this offset but those that were handled.
    searched: u32,
    /// Start of the line being read.
    line: u32,
    /// Where the value of the Content-Length starts, 0 when there was none.
    length_at: u32,
    /// Length of the header section with its empty line, 0 when not reached.
    headers: u32,
    /// Length of the whole message, 0 when not known.
    total: u32,
    /// There was more than one Content-Length.
    is_doubled: bool,
    /// Lines before this one: 0 is the start line.
    started: bool,
    /// The frame before was a CRLF that was all there was.
    after_crlf: bool,
    /// That CRLF and the one just yielded make a ping.
    completes_ping: bool,
}

impl Scan {
    /// Whether the [`Frame::Crlf`] just yielded is the second half of a ping whose first half,
    /// having come alone, was yielded before.
    pub fn completes_ping(&self) -> bool {
        self.completes_ping
    }

    /// Length of the header section with its empty line, once it was found: after an error what can
    /// be parsed to answer it.
    pub fn headers_len(&self) -> Option<usize> {
        (self.headers > 0).then_some(self.headers as usize)
    }
}

/// Looks at the start of `bytes`, which is where a frame starts. `scan` belongs to this buffer and
/// is only read and written here.
pub fn next(bytes: &[u8], limits: &Limits, scan: &mut Scan) -> Result<Frame, FrameError> {
    if scan.searched == 0
        && let Some(frame) = keep_alive(bytes, scan)?
    {
        return Ok(frame);
    }
    if scan.headers == 0 {
        search(bytes, limits, scan)?;
        if scan.headers == 0 {
            let at_least = bytes.len() + 1;
            return Ok(Frame::NeedMore { at_least });
        }
        let total = content_length(bytes, scan)?.saturating_add(u64::from(scan.headers));
        if total > limits.message_bytes_max.min(u32::MAX as usize) as u64 {
            return Err(FrameError::MessageTooLarge);
        }
        scan.total = total as u32;
    }
    let len = scan.total as usize;
    if bytes.len() < len {
        return Ok(Frame::NeedMore { at_least: len });
    }
    *scan = Scan::default();
    Ok(Frame::Message { len })
}

/// CRLFs before a message. `None`: a message starts.
fn keep_alive(bytes: &[u8], scan: &mut Scan) -> Result<Option<Frame>, FrameError> {
    let second_half = scan.after_crlf;
    scan.completes_ping = false;
    let frame = match bytes {
        [] => return Ok(Some(Frame::NeedMore { at_least: 1 })),
        [b'\r'] => return Ok(Some(Frame::NeedMore { at_least: 2 })),
        [b'\r', b'\n', ..] if second_half => {
            *scan = Scan { completes_ping: true, ..Scan::default() };
            Frame::Crlf
        }
        [b'\r', b'\n', b'\r'] => return Ok(Some(Frame::NeedMore { at_least: 4 })),
        [b'\r', b'\n', b'\r', b'\n', ..] => Frame::Ping,
        [b'\r', b'\n', rest @ ..] => {
            *scan = Scan { after_crlf: rest.is_empty(), ..Scan::default() };
            Frame::Crlf
        }
        [b'\r', ..] => return Err(FrameError::NotSip),
        _ => {
            scan.after_crlf = false;
            return Ok(None);
        }
    };
    Ok(Some(frame))
}

/// Goes on line by line until the empty line, noting the Content-Length.
fn search(bytes: &[u8], limits: &Limits, scan: &mut Scan) -> Result<(), FrameError> {
    let max = limits.header_bytes_max.min(limits.message_bytes_max);
    let reach = bytes.len().min(max);
    while let Some(found) = memchr::memchr(b'\n', &bytes[scan.searched as usize..reach]) {
        let at = scan.searched as usize + found;
        scan.searched = at as u32 + 1;
        // A bare LF ends nothing; parsing the message will name it.
        if at == 0 || bytes[at - 1] != b'\r' {
            continue;
        }
        let line = scan.line as usize;
        scan.line = scan.searched;
        if !scan.started {
            scan.started = true;
            if !looks_like_sip(&bytes[..at]) {
                return Err(FrameError::NotSip);
            }
        } else if at == line + 1 {
            scan.headers = scan.searched;
            return Ok(());
        } else {
            note_length(bytes, line, at - 1, scan);
        }
    }
    scan.searched = reach.max(1) as u32;
    if bytes.len() >= max { Err(FrameError::HeaderTooLarge) } else { Ok(()) }
}

/// Notes the line at `start..end` when it is a Content-Length.
#[inline]
fn note_length(bytes: &[u8], start: usize, end: usize, scan: &mut Scan) {
    if !matches!(bytes[start] | 0x20, b'c' | b'l') {
        return;
    }
    let line = &bytes[start..end];
    let Some(colon) = memchr::memchr(b':', line) else { return };
    if HeaderName::classify(line[..colon].trim_ascii_end()) != HeaderName::ContentLength {
        return;
    }
    scan.is_doubled |= scan.length_at != 0;
    scan.length_at = (start + colon + 1) as u32;
}

/// Reads the Content-Length where it was noted; its value may be on the next lines.
fn content_length(bytes: &[u8], scan: &Scan) -> Result<u64, FrameError> {
    if scan.length_at == 0 {
        return Err(FrameError::MissingLength);
    }
    // Told only now that the header section is whole: so it can be answered.
    if scan.is_doubled {
        return Err(FrameError::DoubleLength);
    }
    let headers = &bytes[..scan.headers as usize];
    let mut at = scan.length_at as usize;
    let skip = |at: &mut usize| {
        while *at < headers.len() && is(LWS, headers[*at]) {
            let folded = matches!(headers.get(*at + 2), Some(b' ' | b'\t'));
            match headers[*at] {
                b'\r' if folded => *at += 2,
                b'\r' | b'\n' => break,
                _ => *at += 1,
            }
        }
    };
    skip(&mut at);
    let start = at;
    while headers.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    let value = number(&headers[start..at]).filter(|&value| value <= u64::from(u32::MAX));
    skip(&mut at);
    match value {
        Some(value) if headers.get(at) == Some(&b'\r') => Ok(value),
        _ => Err(FrameError::BadLength),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "OPTIONS sip:a SIP/2.0\r\n";

    fn once(bytes: &[u8]) -> Result<Frame, FrameError> {
        next(bytes, &Limits::default(), &mut Scan::default())
    }

    #[test]
    fn keep_alives() {
        let cases: &[(&[u8], Frame)] = &[
            (b"", Frame::NeedMore { at_least: 1 }),
            (b"\r", Frame::NeedMore { at_least: 2 }),
            (b"\r\n", Frame::Crlf),
            (b"\r\n\r", Frame::NeedMore { at_least: 4 }),
            (b"\r\n\r\n", Frame::Ping),
            (b"\r\n\r\nOPT", Frame::Ping),
            (b"\r\nOPTIONS", Frame::Crlf),
        ];
        for (bytes, expected) in cases {
            assert_eq!(once(bytes), Ok(*expected), "{bytes:?}");
        }
        assert_eq!(once(b"\rx"), Err(FrameError::NotSip));
    }

    #[test]
    fn a_ping_may_come_in_halves() {
        let limits = Limits::default();
        let mut scan = Scan::default();
        for round in 0..4 {
            assert_eq!(next(b"\r\n", &limits, &mut scan), Ok(Frame::Crlf));
            assert_eq!(scan.completes_ping(), round % 2 == 1);
        }
        assert_eq!(next(b"\r\n", &limits, &mut scan), Ok(Frame::Crlf));
        assert_eq!(next(b"O", &limits, &mut scan), Ok(Frame::NeedMore { at_least: 2 }));
        assert!(!scan.completes_ping());
    }

    #[test]
    fn content_lengths() {
        let whole = |lines: &str, body: &str| {
            let text = format!("{HEAD}{lines}\r\n{body}");
            Ok(Frame::Message { len: text.len() })
        };
        let cases: &[(&str, &str, Result<Frame, FrameError>)] = &[
            ("Content-Length: 4\r\n", "body", whole("Content-Length: 4\r\n", "body")),
            ("L:0\r\n", "", whole("L:0\r\n", "")),
            ("X: y\r\nl \t:\r\n 2 \r\n\t\r\n", "bo", whole("X: y\r\nl \t:\r\n 2 \r\n\t\r\n", "bo")),
            ("Contact: l:9\r\nl: 1\r\n", "b", whole("Contact: l:9\r\nl: 1\r\n", "b")),
            ("", "", Err(FrameError::MissingLength)),
            ("X: y\r\n l: 4\r\n", "body", Err(FrameError::MissingLength)),
            ("l:\r\n", "", Err(FrameError::BadLength)),
            ("l: -1\r\n", "", Err(FrameError::BadLength)),
            ("l: 4 4\r\n", "body", Err(FrameError::BadLength)),
            ("l: 99999999999999999999999\r\n", "", Err(FrameError::BadLength)),
            ("l: 4294967295\r\n", "", Err(FrameError::MessageTooLarge)),
            ("l: 4\r\nContent-Length: 4\r\n", "body", Err(FrameError::DoubleLength)),
        ];
        for (lines, body, expected) in cases {
            let text = format!("{HEAD}{lines}\r\n{body}");
            assert_eq!(once(text.as_bytes()), *expected, "{lines:?}");
        }
    }

    #[test]
    fn sizes_are_bounded_before_the_bytes_are_there() {
        let limits = Limits { header_bytes_max: 100, message_bytes_max: 300, ..Limits::default() };
        let at = |text: &str| next(text.as_bytes(), &limits, &mut Scan::default());
        assert_eq!(at(&format!("{HEAD}{}", "x".repeat(80))), Err(FrameError::HeaderTooLarge));
        let long = format!("{HEAD}X: {}\r\nl: 0\r\n\r\n", "x".repeat(80));
        assert_eq!(at(&long), Err(FrameError::HeaderTooLarge));
        assert_eq!(at(&format!("{HEAD}l: 400\r\n\r\n")), Err(FrameError::MessageTooLarge));
        let head = format!("{HEAD}l: 200\r\n\r\n");
        let mut scan = Scan::default();
        let needed = Ok(Frame::NeedMore { at_least: head.len() + 200 });
        assert_eq!(next(head.as_bytes(), &limits, &mut scan), needed);
        assert_eq!(scan.headers_len(), Some(head.len()));
    }

    #[test]
    fn what_is_not_sip_is_refused_at_its_first_line() {
        for text in ["GET / HTTP/1.1\r\n", "\u{16}\u{3}\u{1}\r\n", "x\r\n"] {
            assert_eq!(once(text.as_bytes()), Err(FrameError::NotSip), "{text:?}");
        }
    }

    #[test]
    fn pipelined_bytes_come_out_whole_however_they_arrive() {
        let one = format!("{HEAD}Content-Length: 3\r\n\r\nabc");
        let stream = format!("{one}\r\n\r\n{HEAD}Content-Type:\r\n a\r\nl: 0\r\n\r\n{one}");
        for step in [1, 2, 3, 7, 50, stream.len()] {
            let (mut start, mut end, mut frames) = (0, 0, Vec::new());
            let mut scan = Scan::default();
            while start < stream.len() {
                match next(&stream.as_bytes()[start..end], &Limits::default(), &mut scan).unwrap() {
                    Frame::NeedMore { at_least } => {
                        assert!(at_least > end - start);
                        end = (end + step).min(stream.len());
                    }
                    Frame::Message { len } => {
                        frames.push(len);
                        start += len;
                    }
                    Frame::Ping => start += 4,
                    Frame::Crlf => start += 2,
                }
            }
            assert_eq!(frames, [one.len(), HEAD.len() + 27, one.len()], "step {step}");
        }
    }
}
