//! Reads the sources and enforces how they are written: imports go downward, the world stays in
//! `io`, files stay short. Each rule is tried on a planted fault first, so that none can pass by
//! never looking.

mod readme;
mod source;

use std::path::Path;

use source::{Source, code, source, sources, words};

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
        for source in sources(&root.join(folder)).iter().filter(|s| s.name != "tidy/main.rs") {
            for rule in [opens_with_a_description, is_narrow, has_no_marks] {
                rule(source, &mut faults);
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
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

fn level_of(room: &str) -> Option<usize> {
    LEVELS.iter().position(|rooms| rooms.contains(&room))
}

fn code_lines(text: &str) -> usize {
    text.lines().position(|line| line == "#[cfg(test)]").unwrap_or(text.lines().count())
}
