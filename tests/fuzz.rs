//! Every entry for fuzzing, in every run of the tests: its whole corpus, each sample of it bent at
//! random, and noise. The seed is fixed, so that a failure comes again; `FUZZ_SEED` is another one,
//! `FUZZ_SECONDS` goes on for so long an entry, `FUZZ_FILE` runs one file. `fuzz/` has the same
//! entries for cargo-fuzz.

use std::fmt::Write;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sipring::base::metrics::Counters;
use sipring::base::rng::Rng;
use sipring::engine::fuzz::counted;

type Entry = fn(&[u8]);

/// What gets into the middle of samples: separators, numbers at their bounds, words that decide.
const WORDS: [&[u8]; 40] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\n",
    b"\0",
    b",",
    b";",
    b":",
    b"=",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"@",
    b"?",
    b"%",
    b"%00",
    b"%41",
    b"[",
    b"]",
    b"[::1]",
    b"[::ffff:1.2.3.4]",
    b"*",
    b"0",
    b"-1",
    b"255",
    b"65535",
    b"65536",
    b"4294967295",
    b"4294967296",
    b"18446744073709551616",
    b"Content-Length: 1\r\n",
    b"l:0\r\n",
    b"Via: SIP/2.0/UDP h\r\n",
    b"SIP/2.0",
    b"sips:",
    b"tel:",
    b"\xc3\xa9",
    b"\xff",
    b"z9hG4bK",
];

/// The longest input that is made here.
const BYTES_MAX: usize = 8192;

macro_rules! entries {
    ($($name:ident: $entry:path, $bent:literal, $noise:literal;)+) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), $entry, $bent, $noise);
        })+

        /// Name and path of every entry.
        const ENTRIES: &[(&str, &str)] =
            &[$((stringify!($name), stringify!($entry))),+];
    };
}

// Name of test and corpus, entry, how often each sample is bent, pieces of noise.
entries! {
    message: sipring::sip::fuzz::message, 12, 300;
    stream: sipring::sip::fuzz::stream, 12, 300;
    uri: sipring::sip::fuzz::uri, 100, 1000;
    value: sipring::sip::fuzz::value, 100, 1000;
    frames: sipring::ws::fuzz::frames, 100, 1000;
    upgrade: sipring::ws::fuzz::upgrade, 20, 300;
    token: sipring::flow::fuzz::token, 50, 300;
    stun: sipring::flow::fuzz::stun, 100, 1000;
    contact: sipring::registrar::fuzz::contact, 100, 1000;
    credentials: sipring::auth::fuzz::credentials, 100, 1000;
    users: sipring::auth::fuzz::users, 40, 300;
    jwt: sipring::auth::fuzz::jwt, 40, 300;
    jwks: sipring::auth::fuzz::jwks, 40, 300;
    config: sipring::io::config_file::fuzz::config, 40, 200;
    operations: sipring::engine::fuzz::operations, 12, 60;
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus")
}

/// What is in a folder, in the order of names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.sort_unstable();
    files
}

fn file_name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

fn run(name: &str, entry: Entry, bent: usize, noise: usize) {
    if let Ok(file) = std::env::var("FUZZ_FILE") {
        let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        return entry(&bytes);
    }
    let mut paths = files(&corpus().join(name));
    if name == "message" {
        paths.extend(files(&corpus().join("../torture")));
    }
    let samples: Vec<Vec<u8>> = paths.iter().map(|it| fs::read(it).expect("a sample")).collect();
    assert!(samples.len() >= 3, "{name} has {} samples", samples.len());
    for sample in &samples {
        check(name, entry, sample);
    }
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number("FUZZ_SEED").unwrap_or(1).to_be_bytes());
    let mut rng = Rng::new(seed);
    let end = number("FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    loop {
        for sample in &samples {
            for _ in 0..bent {
                check(name, entry, &bend(&mut rng, sample, &samples));
            }
        }
        for _ in 0..noise {
            let mut bytes = vec![0; rng.below(200) as usize];
            rng.fill(&mut bytes);
            check(name, entry, &bytes);
        }
        if end.is_none_or(|end| Instant::now() >= end) {
            return;
        }
    }
}

/// One input. When it fails it is shown whole, and how to run it again.
fn check(name: &str, entry: Entry, bytes: &[u8]) {
    // The hook has told what and where.
    if catch_unwind(|| entry(bytes)).is_err() {
        panic!("{}", replay(name, bytes));
    }
}

fn replay(name: &str, bytes: &[u8]) -> String {
    let mut octal = String::new();
    for byte in bytes {
        write!(octal, "\\{byte:03o}").expect("a String takes everything");
    }
    format!(
        "{name} fails with {} bytes: b\"{}\"\nagain: printf '{octal}' > found; \
FUZZ_FILE=found cargo test --test fuzz -- --exact {name}",
        bytes.len(),
        bytes.escape_ascii()
    )
}

/// A sample with one to four changes: bits, cuts, repeats, words, pieces of other samples.
fn bend(rng: &mut Rng, sample: &[u8], samples: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        let piece = |rng: &mut Rng, of: &[u8]| {
            let from = rng.below(of.len() as u64 + 1) as usize;
            let len = rng.below(64) as usize;
            of[from..(from + len).min(of.len())].to_vec()
        };
        match rng.below(8) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            2 if at < bytes.len() => bytes[at] = rng.next_u32() as u8,
            3 => {
                let end = (at + rng.below(32) as usize).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let copy = piece(rng, &bytes);
                bytes.splice(at..at, copy);
            }
            5 => {
                let other = &samples[rng.below(samples.len() as u64) as usize];
                let copy = piece(rng, other);
                bytes.splice(at..at, copy);
            }
            6 => {
                let other = &samples[rng.below(samples.len() as u64) as usize];
                let from = rng.below(other.len() as u64 + 1) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let word = WORDS[rng.below(WORDS.len() as u64) as usize];
                bytes.splice(at..at, word.iter().copied());
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

#[test]
fn every_entry_has_its_corpus_and_its_target() {
    let mut names: Vec<&str> = ENTRIES.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let folders: Vec<String> = files(&corpus()).iter().map(|it| file_name(it)).collect();
    assert_eq!(folders, names);
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let targets: Vec<String> =
        files(&fuzz.join("fuzz_targets")).iter().map(|it| file_name(it)).collect();
    assert_eq!(targets, names.iter().map(|name| format!("{name}.rs")).collect::<Vec<_>>());
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("the manifest");
    for (name, path) in ENTRIES {
        let target = fuzz.join(format!("fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(target).expect("the target");
        let call = format!("libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {path}(bytes));");
        assert!(text.contains(&call), "{name}: {text}");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = ")), "{name}");
    }
}

/// What only the world outside engines counts, what is a fault of theirs, and what nobody does by
/// chance (a signed token, a user whose password is changed: `tests/auth` does).
const NOT_OF_ENGINES: [&str; 35] = [
    "bindings_user_gone",
    "credentials_outlived",
    "flows_closed_expired",
    "tokens_accepted",
    "tokens_verified",
    "tokens_malformed",
    "tokens_algorithm",
    "tokens_key",
    "tokens_signature",
    "tokens_expired",
    "tokens_early",
    "tokens_foreign",
    "tokens_user",
    "tokens_scope",
    "tokens_put_off",
    "upgrades_by_token",
    "flows_refused",
    "tls_handshakes_failed",
    "tls_handshakes",
    "dropped_link_full",
    "receives_starved",
    "closes_forced",
    "turns",
    "turns_over_2ms",
    "turns_over_10ms",
    "turns_over_50ms",
    "handshakes_deferred",
    "datagrams_truncated",
    "datagrams_unsent",
    "events_dropped",
    "completions_stale",
    "shard_restarts",
    "requests_lost",
    "reconfigured",
    "link_messages_stale",
];

/// A run that never gets anywhere never fails: the corpus makes engines count all that they count.
#[test]
fn operations_reach_every_counter() {
    let mut sums = [0; Counters::COUNT];
    for sample in files(&corpus().join("operations")) {
        let counted = counted(&fs::read(sample).expect("a sample"));
        sums.iter_mut().zip(counted).for_each(|(sum, count)| *sum += count);
    }
    let silent: Vec<&str> = Counters::ROWS
        .iter()
        .zip(sums)
        .filter(|((name, _), sum)| *sum == 0 && !NOT_OF_ENGINES.contains(name))
        .map(|((name, _), _)| *name)
        .collect();
    assert_eq!(silent, [""; 0]);
}

#[test]
fn a_failing_input_is_shown_whole() {
    let text = replay("uri", b"a\"\0\r\n\xff'%");
    assert!(text.contains(r#"b"a\"\x00\r\n\xff\'%""#), "{text}");
    assert!(text.contains(r"printf '\141\042\000\015\012\377\047\045'"), "{text}");
}
