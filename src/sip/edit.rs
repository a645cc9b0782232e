//! What will differ when a message leaves: splices on its original bytes (RFC 3261 §16.6, §16.7).
//! Everything else is copied as it came. Absent on purpose: any understanding of what is written.

use super::build::ViaParams;
use super::message::Span;
use super::values::Value;
use super::via::Via;

/// A list of splices. Reused from message to message, it allocates only when it grows beyond what
/// it held before.
#[derive(Clone, Default, Debug)]
pub struct Edits {
    splices: Vec<Splice>,
    /// The new bytes of all splices.
    text: Vec<u8>,
    /// The lines of which values were removed.
    cut_lines: Vec<CutLine>,
}

#[derive(Clone, Copy, Debug)]
struct Splice {
    /// What goes; empty for an insertion.
    span: Span,
    /// What comes, in `Edits::text`.
    text: Span,
    /// Part of a line of which values are removed.
    cut: bool,
}

/// What was removed of one header line so far.
#[derive(Clone, Copy, Debug)]
struct CutLine {
    line: Span,
    /// How many values from the first on are gone without a gap.
    leading: u16,
    /// The value after the last removed one.
    next: u16,
}

impl Edits {
    /// Forgets all splices and keeps the memory.
    pub fn clear(&mut self) {
        self.splices.clear();
        self.text.clear();
        self.cut_lines.clear();
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.splices.is_empty()
    }

    /// Writes `with` in the place of `span`.
    pub fn replace(&mut self, span: Span, with: &[u8]) {
        self.replace_with(span, |out| out.extend_from_slice(with));
    }

    /// Leaves out `span`.
    pub fn remove(&mut self, span: Span) {
        self.replace_with(span, |_| {});
    }

    /// Writes `what` before the byte at offset `at`.
    pub fn insert(&mut self, at: u32, what: &[u8]) {
        self.replace_with(Span { start: at, end: at }, |out| out.extend_from_slice(what));
    }

    /// Writes what `f` appends in the place of `span`. `f` must only append.
    #[inline]
    pub fn replace_with(&mut self, span: Span, f: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        f(&mut self.text);
        assert!(self.text.len() >= start, "only appending is allowed");
        let text = Span::new(start, self.text.len());
        self.splices.push(Splice { span, text, cut: false });
    }

    /// Writes what `f` appends before the byte at offset `at`.
    pub fn insert_with(&mut self, at: u32, f: impl FnOnce(&mut Vec<u8>)) {
        self.replace_with(Span { start: at, end: at }, f);
    }

    /// Removes one value of a list; its whole line when no value of it remains. Several values of
    /// one line are removed in their order.
    pub fn remove_value(&mut self, value: &Value<'_>) {
        let index = value.index_in_line;
        let at = match self.cut_lines.iter().position(|cut| cut.line == value.line) {
            Some(at) => at,
            None => {
                self.cut_lines.push(CutLine { line: value.line, leading: 0, next: 0 });
                self.cut_lines.len() - 1
            }
        };
        let cut = &mut self.cut_lines[at];
        assert!(index >= cut.next, "values are removed once and in order");
        cut.next = index + 1;
        let mut span = Span { start: value.before, end: value.span.end };
        if cut.leading == index {
            cut.leading += 1;
            span = Span { start: value.span.start, end: value.after };
            if value.last_in_line {
                span = value.line;
                self.splices.retain(|splice| !(splice.cut && within(splice.span, value.line)));
            }
        }
        self.splices.push(Splice { span, text: Span::default(), cut: true });
    }

    /// Writes where a request came from into its topmost Via (RFC 3261 §18.2.1, RFC 3581 §4):
    /// `received` replaced or appended, `rport` filled in where the sender asked for it.
    pub fn note_source(&mut self, via: &Via<'_>, params: &ViaParams) {
        if let (Some(port), Some(span)) = (params.rport, via.rport_span) {
            self.replace_with(span, |out| ViaParams::write_rport(port, out));
        }
        if let Some(address) = params.received {
            match via.received_span {
                Some(span) => {
                    self.replace_with(span, |out| ViaParams::write_received(address, out))
                }
                None => self.insert_with(via.params_end, |out| {
                    out.push(b';');
                    ViaParams::write_received(address, out);
                }),
            }
        }
    }

    /// Appends `original` with all splices applied to `out`. Insertions at one place come in the
    /// order of their calls, before what replaces the bytes there. Splices that overlap are an
    /// error of the caller: a panic.
    pub fn write_to(&mut self, original: &[u8], out: &mut Vec<u8>) {
        // Stable, and for so few a plain insertion sort.
        self.splices.sort_by_key(|splice| (splice.span.start, !splice.span.is_empty()));
        out.reserve(original.len() + self.text.len());
        let mut copied = 0;
        for splice in &self.splices {
            let start = splice.span.start as usize;
            assert!(start >= copied && splice.span.end >= splice.span.start, "splices overlap");
            out.extend_from_slice(&original[copied..start]);
            out.extend_from_slice(splice.text.of(&self.text));
            copied = splice.span.end as usize;
        }
        out.extend_from_slice(&original[copied..]);
    }
}

fn within(inner: Span, outer: Span) -> bool {
    inner.start >= outer.start && inner.end <= outer.end
}

#[cfg(test)]
mod tests {
    use super::super::{HeaderName, Parsed, parse};
    use super::*;

    fn written(original: &str, edit: impl FnOnce(&mut Edits)) -> String {
        let mut edits = Edits::default();
        edit(&mut edits);
        let mut out = b"> ".to_vec();
        edits.write_to(original.as_bytes(), &mut out);
        String::from_utf8(out).unwrap().split_off(2)
    }

    #[test]
    fn splices_are_applied_by_place() {
        let text = written("0123456789", |edits| {
            edits.replace(Span::new(8, 10), b"xy");
            edits.insert(4, b"B");
            edits.remove(Span::new(1, 3));
            edits.replace(Span::new(4, 5), b"f");
            edits.insert(4, b"C");
            edits.insert(0, b"A");
            edits.insert_with(10, |out| out.extend_from_slice(b"Z"));
        });
        assert_eq!(text, "A03BCf567xyZ");
        assert_eq!(written("same", |_| {}), "same");
    }

    #[test]
    fn cleared_edits_change_nothing() {
        let mut edits = Edits::default();
        edits.insert(0, b"x");
        assert!(!edits.is_empty());
        edits.clear();
        let mut out = Vec::new();
        edits.write_to(b"abc", &mut out);
        assert!(edits.is_empty() && out == b"abc");
    }

    #[test]
    #[should_panic(expected = "splices overlap")]
    fn overlapping_splices_are_a_bug() {
        written("0123456789", |edits| {
            edits.replace(Span::new(1, 4), b"x");
            edits.insert(2, b"y");
        });
    }

    #[test]
    fn values_are_removed_with_their_commas() {
        let cases: &[(&str, &[usize], &str)] = &[
            ("Route: <a>\r\n", &[0], ""),
            ("Route: <a> , <b>\r\n", &[0], "Route: <b>\r\n"),
            ("Route: <a> , <b>\r\n", &[1], "Route: <a>\r\n"),
            ("Route: <a> , <b>\r\n", &[0, 1], ""),
            ("Route: <a>,<b>,\r\n <c>\r\n", &[0, 1], "Route: <c>\r\n"),
            ("Route: <a>,<b>,<c>\r\n", &[1, 2], "Route: <a>\r\n"),
            ("Route: <a>,<b>,<c>\r\n", &[0, 2], "Route: <b>\r\n"),
            ("Route: <a>,<b>,<c>\r\n", &[1], "Route: <a>,<c>\r\n"),
            ("Route: <a>,<b>,<c>\r\n", &[0, 1, 2], ""),
            ("Route: <a>,<b>\r\nX: y\r\nRoute: <c>, <d>\r\n", &[0, 1, 2], "X: y\r\nRoute: <d>\r\n"),
        ];
        for (lines, which, expected) in cases {
            let original = format!("A sip:a SIP/2.0\r\n{lines}\r\n");
            let mut parsed = Parsed::default();
            let _ = parse(original.as_bytes(), &mut parsed);
            let message = parsed.view(original.as_bytes());
            let text = written(&original, |edits| {
                for (at, value) in message.values(HeaderName::Route).enumerate() {
                    if which.contains(&at) {
                        edits.remove_value(&value);
                    }
                }
            });
            assert_eq!(text, format!("A sip:a SIP/2.0\r\n{expected}\r\n"), "{lines:?} {which:?}");
        }
    }

    #[test]
    fn the_source_is_noted_in_the_via() {
        let params = ViaParams { received: Some("192.0.2.9".parse().unwrap()), rport: Some(7) };
        let cases = [
            ("SIP/2.0/UDP h;branch=b", "SIP/2.0/UDP h;branch=b;received=192.0.2.9"),
            ("SIP/2.0/UDP h;rport;branch=b", "SIP/2.0/UDP h;rport=7;branch=b;received=192.0.2.9"),
            ("SIP/2.0/UDP h;received=6.6.6.6;rport=1", "SIP/2.0/UDP h;received=192.0.2.9;rport=7"),
        ];
        for (text, expected) in cases {
            let via = Via::parse(text.as_bytes()).unwrap();
            assert_eq!(written(text, |edits| edits.note_source(&via, &params)), expected);
        }
    }
}
