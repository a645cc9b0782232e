//! What is wrong with a configuration, where, and what to do about it. Everything that is found is
//! kept, so that one run shows all of it.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// How bad a [`Fault`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Probably not what was meant; the program starts.
    Warning,
    /// The program does not start.
    Error,
}

impl Severity {
    /// The word that is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One finding, printed as `FILE:LINE:COLUMN: error: MESSAGE` and a line with the hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How bad.
    pub severity: Severity,
    /// The configuration file, as it was named.
    pub file: String,
    /// Line, from 1; 0 when the file could not be read at all.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Fault {
    /// A fault of the file as a whole (it cannot be read).
    pub fn of_file(file: &str, message: String, hint: String) -> Fault {
        Fault {
            severity: Severity::Error,
            file: file.to_owned(),
            line: 0,
            column: 0,
            message,
            hint,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}: {}", self.severity.name(), self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n    hint: {}", self.hint) }
    }
}

/// The findings of one reading, by byte range. Shared by everything that reads the document.
#[derive(Debug, Default)]
pub(super) struct Faults {
    found: RefCell<Vec<Found>>,
    /// Of other files, which the document names.
    foreign: RefCell<Vec<Fault>>,
}

#[derive(Debug)]
struct Found {
    severity: Severity,
    at: Range<usize>,
    message: String,
    hint: String,
}

impl Faults {
    pub(super) fn error(
        &self,
        at: &Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(Severity::Error, at, message.into(), hint.into());
    }

    pub(super) fn warning(
        &self,
        at: &Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(Severity::Warning, at, message.into(), hint.into());
    }

    pub(super) fn note(
        &self,
        at: &Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(Severity::Note, at, message.into(), hint.into());
    }

    /// Adds what was found in another file.
    pub(super) fn foreign(&self, faults: Vec<Fault>) {
        self.foreign.borrow_mut().extend(faults);
    }

    fn push(&self, severity: Severity, at: &Range<usize>, message: String, hint: String) {
        self.found.borrow_mut().push(Found { severity, at: at.clone(), message, hint });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(|found| found.severity == Severity::Error)
            || self.foreign.borrow().iter().any(|fault| fault.severity == Severity::Error)
    }

    /// Everything that was found, in the order of the file; what was found in others follows.
    pub(super) fn into_list(self, file: &str, text: &str) -> Vec<Fault> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|found| found.at.start);
        found
            .into_iter()
            .map(|found| {
                let (line, column) = position(text, found.at.start);
                let Found { severity, message, hint, .. } = found;
                Fault { severity, file: file.to_owned(), line, column, message, hint }
            })
            .chain(self.foreign.into_inner())
            .collect()
    }
}

/// Line and column, both from 1, of a byte offset; an offset behind the end is the end.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let text = "a\nböc\n";
        for (offset, expected) in
            [(0, (1, 1)), (1, (1, 2)), (2, (2, 1)), (4, (2, 2)), (5, (2, 3)), (99, (3, 1))]
        {
            assert_eq!(position(text, offset), expected, "offset {offset}");
        }
    }

    #[test]
    fn faults_come_in_the_order_of_the_file() {
        let faults = Faults::default();
        faults.note(&(4..5), "second", "");
        assert!(!faults.has_errors());
        faults.error(&(0..1), "first", "do this");
        assert!(faults.has_errors());
        let list = faults.into_list("x.toml", "one\ntwo\n");
        assert_eq!(list[0].to_string(), "x.toml:1:1: error: first\n    hint: do this");
        assert_eq!(list[1].to_string(), "x.toml:2:1: note: second");
    }
}
