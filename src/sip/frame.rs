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
        [b'\r', b'\n', rest @ ..] if second_half => {
            *scan = Scan { completes_ping: true, ..Scan::default() };
            let _ = rest;
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
            note_length(bytes, line, at - 1, scan)?;
        }
    }
    scan.searched = reach.max(1) as u32;
    if bytes.len() >= max { Err(FrameError::HeaderTooLarge) } else { Ok(()) }
}

/// Notes the line at `start..end` when it is a Content-Length.
#[inline]
fn note_length(bytes: &[u8], start: usize, end: usize, scan: &mut Scan) -> Result<(), FrameError> {
    if !matches!(bytes[start] | 0x20, b'c' | b'l') {
        return Ok(());
    }
    let line = &bytes[start..end];
    let Some(colon) = memchr::memchr(b':', line) else { return Ok(()) };
    if HeaderName::classify(line[..colon].trim_ascii_end()) != HeaderName::ContentLength {
        return Ok(());
    }
    if scan.length_at != 0 {
        return Err(FrameError::DoubleLength);
    }
    scan.length_at = (start + colon + 1) as u32;
    Ok(())
}

/// Reads the Content-Length where it was noted; its value may be on the next lines.
fn content_length(bytes: &[u8], scan: &Scan) -> Result<u64, FrameError> {
    if scan.length_at == 0 {
        return Err(FrameError::MissingLength);
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
