//! Reads the sources and enforces how they are written: imports go downward, the world stays in
//! `io`, files stay short. Each rule is tried on a planted fault first, so that none can pass by
//! never looking.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file, tests included.
const FILE_LINES_MAX: usize = 600;
/// Lines of a file before its tests that are worth a remark.
const CODE_LINES_LISTED: usize = 450;
/// Characters of a line.
const COLUMNS_MAX: usize = 110;

/// The rooms of each level, from the bottom. A room may use lower levels and itself, never its
/// siblings.
const LEVELS: [&[&str]; 7] = [
    &["base"],
    &["sip", "ws"],
    &["flow", "transaction", "registrar", "auth", "resolve"],
    &["proxy"],
    &["engine"],
    &["io", "admin"],
    &["main", "lib"],
];

/// What only `io` may name: a path that has all these segments in a row.
const WORLD: [&str; 11] = [
    "Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::thread",
    "std::fs",
    "tokio",
    "tokio_uring",
    "rustls",
    "libc",
];

/// What of [`WORLD`] `admin` may name: it is a server on the control thread's runtime.
const WORLD_IN_ADMIN: [&str; 4] = ["tokio", "tokio_uring", "TcpListener", "TcpStream"];

const MARKS: [&str; 6] = ["TODO", "FIXME", "XXX", "dbg!", "todo!", "unimplemented!"];

/// One source file, named by its path below `src/`.
struct Source {
    name: String,
    text: String,
}

#[test]
fn the_sources_keep_the_rules() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(sources.len() > 20, "only {} files were found", sources.len());
    let mut faults = Vec::new();
    for source in &sources {
        for rule in RULES {
            rule(source, &mut faults);
        }
        let code = code_lines(&source.text);
        if code > CODE_LINES_LISTED && !source.name.ends_with("tests.rs") {
            println!("{}: {code} lines before its tests", source.name);
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn tests_and_benches_keep_the_rules_of_form() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = Vec::new();
    for folder in ["tests", "benches", "fuzz", "examples", "perf"] {
        // This file names what it forbids.
        for source in sources(&root.join(folder)).iter().filter(|s| s.name != "tidy.rs") {
            for rule in [opens_with_a_description, is_narrow, has_no_marks] {
                rule(source, &mut faults);
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_readme_names_files_and_functions_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("the readme can be read");
    let faults = readme_faults(&readme, &sources(&root.join("src")));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    let planted = [source("sip/parse.rs", "//! A.\npub fn parse() {}")];
    assert_eq!(readme_faults("`sip/parse` `parse`, `parse(`", &planted), [""; 0]);
    assert_eq!(readme_faults("`sip/prase`", &planted).len(), 1);
    assert_eq!(readme_faults("`sip/parse` `prase`", &planted).len(), 1);
    assert_eq!(readme_faults("`sip/parse`\n   `prase`", &planted).len(), 1);
}

/// In code quotes, `room/file` is a source file, and a name right behind it is a function there.
fn readme_faults(readme: &str, sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    let parts: Vec<&str> = readme.split('`').collect();
    for (position, quoted) in parts.iter().enumerate().skip(1).step_by(2) {
        let Some((room, _)) = quoted.split_once('/') else { continue };
        if level_of(room).is_none() || quoted.ends_with('/') {
            continue;
        }
        let folder = format!("{quoted}/");
        let is_it = |s: &&Source| s.name == format!("{quoted}.rs") || s.name.starts_with(&folder);
        let files: Vec<&Source> = sources.iter().filter(is_it).collect();
        if files.is_empty() {
            faults.push(format!("README.md: there is no {quoted}"));
            continue;
        }
        let is_adjacent = parts.get(position + 1).is_some_and(|between| between.trim().is_empty());
        let function = parts.get(position + 2).filter(|_| is_adjacent);
        if let Some(function) = function.filter(|name| !name.contains('/')) {
            let definitions = [format!("fn {function}("), format!("fn {function}<")];
            let is_defined = |s: &&Source| definitions.iter().any(|d| s.text.contains(d));
            if !files.iter().any(is_defined) {
                faults.push(format!("README.md: {quoted} has no function {function}"));
            }
        }
    }
    faults
}

type Rule = fn(&Source, &mut Vec<String>);

const RULES: [Rule; 8] = [
    imports_go_downward,
    the_world_stays_in_io,
    unsafe_stays_in_io,
    opens_with_a_description,
    is_short,
    is_narrow,
    has_no_marks,
    prints_in_main_only,
];

#[test]
fn each_rule_catches_a_planted_fault() {
    let long = "//! A.\n".to_owned() + &"// line\n".repeat(FILE_LINES_MAX);
    let wide = format!("//! A.\n// {}\n", "é".repeat(COLUMNS_MAX));
    #[rustfmt::skip]
    let planted: &[(Rule, &str, &str)] = &[
        (imports_go_downward, "sip/via.rs", "use crate::flow::Table;"),
        (imports_go_downward, "sip/via.rs", "use crate::ws::Frame;"),
        (imports_go_downward, "ws/frame.rs", "use crate::sip::Message;"),
        (imports_go_downward, "base/id.rs", "use crate::sip::Uri;"),
        (imports_go_downward, "base/id.rs", "use crate::{base::time::Time, sip::Uri};"),
        (imports_go_downward, "base/id.rs", "use crate::{\n    base::time::Time,\n    sip::Uri,\n};"),
        (imports_go_downward, "flow/table.rs", "use crate::transaction::Key;"),
        (imports_go_downward, "registrar/mod.rs", "fn f() -> crate::auth::User { todo() }"),
        (imports_go_downward, "resolve.rs", "use crate::flow::Table;"),
        (imports_go_downward, "proxy/route.rs", "use super::super::engine::Input;"),
        (imports_go_downward, "sip/mod.rs", "use super::proxy::Context;"),
        (imports_go_downward, "engine/mod.rs", "use crate::io::Ring;"),
        (imports_go_downward, "io/tls.rs", "use crate::admin::Source;"),
        (imports_go_downward, "flow/mod.rs", "mod tests {\n    use crate::proxy::Context;\n}"),
        (the_world_stays_in_io, "engine/mod.rs", "use std::time::Instant;"),
        (the_world_stays_in_io, "engine/mod.rs", "use std::time::{Duration, Instant};"),
        (the_world_stays_in_io, "engine/mod.rs", "use std::{time::SystemTime, mem};"),
        (the_world_stays_in_io, "flow/mod.rs", "let now = std::time::Instant::now();"),
        (the_world_stays_in_io, "flow/mod.rs", "use std::net::{IpAddr, UdpSocket};"),
        (the_world_stays_in_io, "flow/mod.rs", "use std::time;\nlet now = time::Instant::now();"),
        (the_world_stays_in_io, "sip/uri.rs", "std::thread::sleep(t);"),
        (the_world_stays_in_io, "sip/uri.rs", "use tokio::net::TcpStream;"),
        (the_world_stays_in_io, "ws/mask.rs", "use rustls::Error;"),
        (the_world_stays_in_io, "base/buf.rs", "libc::getpid()"),
        (the_world_stays_in_io, "admin/http.rs", "use std::thread;"),
        (unsafe_stays_in_io, "base/slab.rs", "unsafe { *p }"),
        (unsafe_stays_in_io, "base/slab.rs", "#![allow(unsafe_code)]"),
        (unsafe_stays_in_io, "io/ring.rs", "let x = 1;\n\nunsafe { *p };"),
        (opens_with_a_description, "sip/uri.rs", "use std::mem;"),
        (is_short, "sip/uri.rs", &long),
        (is_narrow, "sip/uri.rs", &wide),
        (has_no_marks, "sip/uri.rs", "// TODO: later"),
        (has_no_marks, "sip/uri.rs", "todo!()"),
        (has_no_marks, "sip/uri.rs", "dbg!(x);"),
        (prints_in_main_only, "io/log.rs", "println!(\"x\");"),
        (prints_in_main_only, "io/log.rs", "eprint!(\"x\");"),
    ];
    for (rule, name, text) in planted {
        let mut faults = Vec::new();
        rule(&source(name, text), &mut faults);
        assert!(!faults.is_empty(), "not caught in {name}: {text}");
    }
}

#[test]
fn no_rule_catches_what_is_allowed() {
    let innocent = [
        (
            "sip/via.rs",
            "//! A.\nuse crate::base::id::Transport;\nuse super::uri::Uri;\nuse crate::sip::Host;",
        ),
        (
            "flow/table.rs",
            "//! A.\nuse crate::sip::Via;\nuse crate::ws::Frame;\nuse crate::flow::Key;",
        ),
        ("engine/mod.rs", "//! A.\nuse std::time::Duration;\nuse std::net::{IpAddr, SocketAddr};"),
        (
            "engine/mod.rs",
            "//! Not like tokio, never `unsafe`, see [`crate::io`].\n// std::time::Instant",
        ),
        ("io/ring.rs", "//! A.\n// SAFETY: it is ours.\nunsafe { *p };\nuse std::thread;"),
        ("io/ring.rs", "//! A.\n// SAFETY: it is\n// ours.\nlet x = unsafe { *p };"),
        ("io/ring.rs", "//! A.\nf();\n// SAFETY: it is ours.\nlet x =\n    unsafe { *p };"),
        ("io/tls/x.rs", "//! A.\nuse super::super::ring::Ring;"),
        ("admin/http.rs", "//! A.\nuse tokio::net::TcpListener;\nuse crate::engine::Engine;"),
        ("main.rs", "//! A.\nuse sipring::io::run;\nprintln!();"),
        ("sip/uri.rs", "//! A.\nlet text = \"use crate::io; unsafe { tokio }\";"),
        ("io/driver.rs", "//! A.\nwriteln!(text, \"x\");"),
    ];
    for (name, text) in innocent {
        let mut faults = Vec::new();
        for rule in RULES {
            rule(&source(name, text), &mut faults);
        }
        assert!(faults.is_empty(), "{name}: {text}\n{}", faults.join("\n"));
    }
}

fn imports_go_downward(source: &Source, faults: &mut Vec<String>) {
    let Some(level) = level_of(source.room()) else {
        faults.push(format!("{}: no level knows the room `{}`", source.name, source.room()));
        return;
    };
    if level + 1 == LEVELS.len() {
        return;
    }
    for path in source.paths() {
        let Some(room) = source.room_in(&path) else { continue };
        let is_below = level_of(room).is_none_or(|used| used < level);
        if room != source.room() && !is_below {
            faults.push(format!("{}: `{room}` is not below: {path}", source.name));
        }
    }
}

fn the_world_stays_in_io(source: &Source, faults: &mut Vec<String>) {
    if ["io", "main"].contains(&source.room()) {
        return;
    }
    for path in source.paths() {
        let enclosed = format!("::{path}::");
        for name in WORLD {
            let is_at_home = source.room() == "admin" && WORLD_IN_ADMIN.contains(&name);
            if !is_at_home && enclosed.contains(&format!("::{name}::")) {
                faults.push(format!("{}: {path} belongs in io", source.name));
            }
        }
    }
}

fn unsafe_stays_in_io(source: &Source, faults: &mut Vec<String>) {
    let lines: Vec<&str> = source.text.lines().collect();
    for (number, line) in code(&source.text).lines().enumerate() {
        if line.contains("allow(unsafe_code)") && source.room() != "io" {
            faults.push(format!("{}:{}: unsafe is for io only", source.name, number + 1));
        }
        if !words(line).any(|word| word == "unsafe") {
            continue;
        }
        let statement = lines[..number].iter().rev().map(|line| line.trim());
        let reason = statement
            .take_while(|line| line.starts_with("//") || !ends_a_statement(line))
            .any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
        if source.room() != "io" {
            faults.push(format!("{}:{}: unsafe is for io only", source.name, number + 1));
        } else if !reason && !lines[number].contains("SAFETY:") {
            faults.push(format!("{}:{}: unsafe without SAFETY", source.name, number + 1));
        }
    }
}

fn ends_a_statement(line: &str) -> bool {
    line.is_empty() || line.ends_with([';', '{', '}'])
}

fn opens_with_a_description(source: &Source, faults: &mut Vec<String>) {
    if !source.text.starts_with("//! ") {
        faults.push(format!("{}: does not open with //!", source.name));
    }
}

fn is_short(source: &Source, faults: &mut Vec<String>) {
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        faults.push(format!("{}: {lines} lines, {FILE_LINES_MAX} allowed", source.name));
    }
}

fn is_narrow(source: &Source, faults: &mut Vec<String>) {
    for (number, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            faults.push(format!("{}:{}: {columns} columns", source.name, number + 1));
        }
    }
}

fn has_no_marks(source: &Source, faults: &mut Vec<String>) {
    for (number, line) in source.text.lines().enumerate() {
        for mark in MARKS {
            let is_there = line.match_indices(mark).any(|(start, _)| {
                !line[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_')
            });
            if is_there {
                faults.push(format!("{}:{}: {mark}", source.name, number + 1));
            }
        }
    }
}

fn prints_in_main_only(source: &Source, faults: &mut Vec<String>) {
    if source.room() == "main" {
        return;
    }
    for (number, line) in code(&source.text).lines().enumerate() {
        for name in ["println", "eprintln", "print", "eprint"] {
            if words(line).any(|word| word == name) && line.contains(&format!("{name}!")) {
                faults.push(format!("{}:{}: {name}!", source.name, number + 1));
            }
        }
    }
}

impl Source {
    /// The folder below `src/`, or the file's own name.
    fn room(&self) -> &str {
        self.name.split('/').next().unwrap_or("").trim_end_matches(".rs")
    }

    /// The first part of a path that starts at the crate's root, which is a room or a name of
    /// `lib.rs`.
    fn room_in<'a>(&self, path: &'a str) -> Option<&'a str> {
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
    fn paths(&self) -> Vec<String> {
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
fn code(text: &str) -> String {
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

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn level_of(room: &str) -> Option<usize> {
    LEVELS.iter().position(|rooms| rooms.contains(&room))
}

fn code_lines(text: &str) -> usize {
    text.lines().position(|line| line == "#[cfg(test)]").unwrap_or(text.lines().count())
}

fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

/// Every Rust file below `root`; none when there is no such folder.
fn sources(root: &Path) -> Vec<Source> {
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
