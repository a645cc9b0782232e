//! What the readme names is there: files and their functions, tests, counters and gauges, the keys
//! of the configuration. Absent on purpose: whether what it says of them is true.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::level_of;
use crate::source::{Source, source, sources};

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands in code quotes, each with what stands between it and the next.
fn quotes(text: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = text.split('`').collect();
    let quoted = parts.iter().enumerate().skip(1).step_by(2);
    quoted.map(|(at, quoted)| (*quoted, parts.get(at + 1).copied().unwrap_or(""))).collect()
}

#[test]
fn the_readme_names_files_and_functions_that_exist() {
    let src = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let (names, faults) = names(&file("README.md"), &src);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(names > 80, "only {names} files and functions were found in the readme");
    let planted = [source("sip/parse.rs", "//! A.\npub fn parse() {}")];
    assert_eq!(self::names("`sip/parse` `parse`, `parse(`", &planted), (2, Vec::new()));
    assert_eq!(self::names("`sip/prase`", &planted).1.len(), 1);
    assert_eq!(self::names("`sip/parse` `prase`", &planted).1.len(), 1);
    assert_eq!(self::names("`sip/parse`\n   `prase`", &planted).1.len(), 1);
}

/// `room/file` is a source file, and a name right behind it is a function there: how many there
/// are, and those that do not exist.
fn names(readme: &str, sources: &[Source]) -> (usize, Vec<String>) {
    let (mut names, mut faults) = (0, Vec::new());
    let quotes = quotes(readme);
    for (at, (quoted, between)) in quotes.iter().enumerate() {
        let Some((room, _)) = quoted.split_once('/') else { continue };
        if level_of(room).is_none() || quoted.ends_with('/') {
            continue;
        }
        names += 1;
        let folder = format!("{quoted}/");
        let is_it = |s: &&Source| s.name == format!("{quoted}.rs") || s.name.starts_with(&folder);
        let files: Vec<&Source> = sources.iter().filter(is_it).collect();
        if files.is_empty() {
            faults.push(format!("README.md: there is no {quoted}"));
            continue;
        }
        let next = quotes.get(at + 1).filter(|_| between.trim().is_empty());
        let Some((function, _)) = next.filter(|(name, _)| !name.contains('/')) else { continue };
        names += 1;
        let definitions = [format!("fn {function}("), format!("fn {function}<")];
        let is_defined = |s: &&Source| definitions.iter().any(|d| s.text.contains(d));
        if !files.iter().any(is_defined) {
            faults.push(format!("README.md: {quoted} has no function {function}"));
        }
    }
    (names, faults)
}

#[test]
fn the_readme_names_the_series_that_are_served() {
    let served = Served { rows: file("src/base/metrics.rs"), pages: file("src/admin/metrics.rs") };
    let (named, faults) = served.judge(&file("README.md"));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    assert!(named > 15, "only {named} series were found in the readme");
    let served =
        Served { rows: "\n    waits;\n    tokens_bad;".into(), pages: "\"sipring_aors\"".into() };
    let good = "`sipring_aors`, `sipring_waits_total`. Counters: `waits`, `tokens_…`.";
    assert_eq!(served.judge(good), (4, Vec::new()));
    for bad in ["`sipring_aor`", "`sipring_wait_total`", "Counters: `wait`.", "Counters: `toks_…`."]
    {
        let bad = format!("`sipring_aors`. {bad}");
        assert_eq!(served.judge(&bad).1.len(), 1, "{bad}");
    }
    assert_eq!(served.judge("").1, ["README.md: nothing is said of sipring_aors"]);
}

/// The sources of what `/metrics` shows: the rows of counters, and what is written beside them.
struct Served {
    rows: String,
    pages: String,
}

impl Served {
    /// How many series the readme names, those of them that there are not, and those that it lacks.
    /// `sipring_NAME` is one by its name; what follows `Counters:`, up to the end of the sentence,
    /// are rows. A name that ends with `…` stands for all that begin so.
    fn judge(&self, readme: &str) -> (usize, Vec<String>) {
        let by_name = quotes(readme).into_iter().filter_map(|(it, _)| it.strip_prefix("sipring_"));
        let by_name = by_name.map(|name| (name, self.has(name)));
        let lists = readme.split("Counters:").skip(1);
        let lists = lists.map(|list| list.split_once(".\n").map_or(list, |(list, _)| list));
        let by_row = lists.flat_map(quotes).map(|(name, _)| (name, self.has_row(name)));
        let named: Vec<(&str, bool)> = by_name.chain(by_row).collect();
        let missing = named.iter().filter(|(_, is_there)| !is_there);
        let mut faults: Vec<String> =
            missing.map(|(name, _)| format!("README.md: there is no series {name}")).collect();
        let pages = self.pages.split("#[cfg(test)]").next().unwrap_or("");
        let literals = pages.split('"').skip(1).step_by(2);
        let silent = literals.filter(|it| it.starts_with("sipring_") && !it.contains('{'));
        let silent = silent.filter(|name| !readme.contains(*name));
        faults.extend(silent.map(|name| format!("README.md: nothing is said of {name}")));
        (named.len(), faults)
    }

    /// `NAME` and `NAME_total` stand for everything that the pattern `sipring_NAME` may be.
    fn has(&self, name: &str) -> bool {
        let base = name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(name);
        let in_store = base.strip_prefix("store_");
        name == "NAME_total"
            || self.has_row(base)
            || self.pages.contains(&format!("\"sipring_{base}\""))
            || in_store.is_some_and(|name| self.pages.contains(&format!("\"{name}\"")))
    }

    fn has_row(&self, name: &str) -> bool {
        self.rows.contains(&match name.strip_suffix('…') {
            Some(start) => format!("\n    {start}"),
            None => format!("\n    {name};"),
        })
    }
}

/// `table.key` of a TOML text, whether or not the key is commented out (`#key = `, without a space),
/// and of the tables the names alone.
fn keys(toml: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut table = "";
    for line in toml.lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        let key = line.split_once(" = ").map_or("", |(key, _)| key);
        if let Some(name) = line.strip_prefix('[') {
            table = name.trim_start_matches('[').split(']').next().unwrap_or("");
            found.insert(table.to_owned());
        } else if !key.is_empty() && key.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
        {
            found.insert(format!("{table}.{key}"));
        }
    }
    found
}

/// What stands in the first column of the tables between two headings.
fn first_column<'a>(readme: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    let (_, part) = readme.split_once(from).unwrap_or_else(|| panic!("no heading {from:?}"));
    let (part, _) = part.split_once(to).unwrap_or_else(|| panic!("no heading {to:?}"));
    let rows = part.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split_once(" |")).flat_map(|(cell, _)| quotes(cell));
    cells.map(|(quoted, _)| quoted).collect()
}

#[test]
fn the_readme_and_the_example_know_the_same_configuration() {
    let (readme, example) = (file("README.md"), keys(&file("examples/sipring.toml")));
    assert!(example.len() > 90, "only {} keys were found in the example", example.len());
    let tables: BTreeSet<&str> =
        example.iter().map(String::as_str).filter(|name| !name.contains('.')).collect();
    let listed = first_column(&readme, "\n## Configuration\n", "\n### Passwords\n");
    let listed: BTreeSet<&str> = listed.iter().map(|name| name.trim_matches(['[', ']'])).collect();
    assert_eq!(listed, tables, "the readme's tables, and the example's");
    let listed = first_column(&readme, "\n### Passwords\n", "\n## A registrar behind us\n");
    let known: BTreeSet<&str> = example.iter().filter_map(|it| it.strip_prefix("auth.")).collect();
    let of_auth: BTreeSet<&str> = listed.into_iter().collect();
    assert_eq!(of_auth, known, "the readme's keys of [auth], and the example's");
    let blocks = readme.split("```toml\n").skip(1).filter_map(|block| block.split_once("```"));
    let blocks: BTreeSet<String> = blocks.flat_map(|(block, _)| keys(block)).collect();
    assert!(blocks.contains("auth.method") && blocks.is_subset(&example), "{blocks:?}");
}
