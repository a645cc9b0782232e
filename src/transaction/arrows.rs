//! Tests only: each machine's file lists the arrows of its figure, and each arrow has a test of its
//! own there, which is named in the list (RFC 3261 figures 5 to 8 as RFC 6026 and RFC 4320 changed
//! them).

use std::collections::BTreeSet;

/// The arrows that a machine's source lists: what they are, and the test of each.
fn arrows(source: &str) -> Vec<(&str, &str)> {
    let list = source.split_once("//! Its arrows, each with its test:").map(|(_, rest)| rest);
    let list = list.and_then(|rest| rest.split("//! ```").nth(1)).expect("a list of arrows");
    let lines = list.lines().skip(1).map(|line| line.trim_start_matches("//!").trim());
    lines
        .map(|line| line.rsplit_once("  ").map(|(arrow, test)| (arrow.trim(), test)).expect(line))
        .collect()
}

/// What is wrong with a machine's list.
fn faults(source: &str, count: usize) -> Vec<String> {
    let arrows = arrows(source);
    let mut faults = Vec::new();
    if arrows.len() != count {
        faults.push(format!("{} arrows, not {count}", arrows.len()));
    }
    let distinct: BTreeSet<&str> = arrows.iter().map(|(arrow, _)| *arrow).collect();
    let tests: BTreeSet<&str> = arrows.iter().map(|(_, test)| *test).collect();
    if distinct.len() != arrows.len() || tests.len() != arrows.len() {
        faults.push("an arrow or a test stands twice".to_owned());
    }
    for (arrow, test) in arrows {
        if source.matches(&format!("#[test]\n    fn {test}() {{")).count() != 1 {
            faults.push(format!("{arrow}: there is no test {test}"));
        }
        let state = arrow.trim_start_matches("→ ").split([' ', ':']).next().expect("a word");
        if !test.starts_with(&state.to_lowercase()) {
            faults.push(format!("{arrow}: {test} is not named for it"));
        }
    }
    faults
}

#[test]
fn every_arrow_of_every_figure_has_its_test() {
    for (name, source, count) in [
        ("client_invite", include_str!("client_invite.rs"), 15),
        ("client", include_str!("client.rs"), 12),
        ("server_invite", include_str!("server_invite.rs"), 17),
        ("server", include_str!("server.rs"), 13),
    ] {
        assert_eq!(faults(source, count), [""; 0], "{name}");
    }
}

#[test]
fn a_missing_test_is_noticed() {
    let source = include_str!("client.rs");
    assert_eq!(faults(source, 11).len(), 1);
    let test = "fn completed_ends_on_k()";
    assert_eq!(faults(&source.replace(test, "fn completed_stays()"), 12).len(), 1);
    let doubled = source.replace("completed_ends_on_k", "trying_sends_the_request");
    assert!(faults(&doubled, 12).len() > 1);
}
