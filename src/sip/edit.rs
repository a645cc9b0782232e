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
