//! A source file as the rules see it: its room, the paths that it uses, its code without comments
//! and strings. Absent on purpose: a parser. What is read here is rustfmt's output.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file, named by its path below `src/`.
pub struct Source {
    pub name: String,
    pub text: String,
}

impl Source {
    /// The folder below `src/`, or the file's own name.
    pub fn room(&self) -> &str {
        self.name.split('/').next().unwrap_or("").trim_end_matches(".rs")
    }

    /// The first part of a path that starts at the crate's root, which is a room or a name of
    /// `lib.rs`.
    pub fn room_in<'a>(&self, path: &'a str) -> Option<&'a str> {
        let from_root = match path.strip_prefix("crate::") {
            Some(rest) => rest,
            None => {
                let rest = path.trim_start_matches("super::");
                let steps = (path.len() - rest.len()) / "super::".len();
                let is_at_top = !self.name.contains('/') || self.name.ends_with("/mod.rs");
                let steps_to_root = if is_at_top { 1 } else { 2 };
                (steps >= steps_to_root).then_some(rest)?
            }
        };
        from_root.split("::").next()
    }

    /// Every path in the code, `use` trees taken apart: `std::{a, b::C}` is `std::a` and
    /// `std::b::C`.
    pub fn paths(&self) -> Vec<String> {
        let code = code(&self.text);
        let mut found = Vec::new();
        let mut rest = code.as_str();
        while let Some(start) = rest.find(|c: char| c.is_alphabetic() || c == '_') {
            rest = &rest[start..];
            let used = take_path(rest, "", &mut found);
            rest = &rest[used.max(1)..];
            rest = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        }
        found
    }
}

/// Reads one path or `use` tree at the start of `text` and tells how long it is.
fn take_path(text: &str, prefix: &str, found: &mut Vec<String>) -> usize {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut path = prefix.to_owned();
    let mut at = 0;
    loop {
        let part = text[at..].find(|c| !is_part(c)).unwrap_or(text.len() - at);
        path.push_str(&text[at..at + part]);
        at += part;
        if !text[at..].starts_with("::") {
            found.push(path);
            return at;
        }
        path.push_str("::");
        at += 2;
        if text[at..].starts_with('{') {
            return at + take_tree(&text[at..], &path, found);
        }
        if !text[at..].starts_with(is_part) {
            found.push(path);
            return at;
        }
    }
}

/// Reads `{a, b::{c, d}}` at the start of `text` and tells how long it is.
fn take_tree(text: &str, prefix: &str, found: &mut Vec<String>) -> usize {
    let mut at = 1;
    while at < text.len() {
        let next = text[at..].chars().next().unwrap_or('}');
        if next == '}' {
            return at + 1;
        }
        if next.is_alphabetic() || next == '_' {
            at += take_path(&text[at..], prefix, found);
        } else {
            at += next.len_utf8();
        }
    }
    at
}

/// The text with comments and the insides of strings blanked, line for line.
pub fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let used = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if next == '"' {
            string_end(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") || rest.starts_with("'\\\\'") {
            4
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        out.extend(rest[..used].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[used..];
    }
    out
}

/// Length of the string literal that `text` starts with, quotes included.
fn string_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The words of a line.
pub fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// A file that is not there.
pub fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

/// Every Rust file below `root`; none when there is no such folder.
pub fn sources(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path: PathBuf = entry.expect("the folder can be read").path();
            let is_foreign = path.ends_with("node_modules") || path.ends_with("target");
            if path.is_dir() && !is_foreign {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("below the root").display().to_string();
                let text = fs::read_to_string(&path).expect("the file can be read");
                found.push(Source { name, text });
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}
