//! Instructions of whole transactions, frame or datagram in to frame or datagram out, under
//! callgrind: unlike times they are the same from run to run, whatever else the machine does, so
//! that one table, `perf/counts.txt`, holds for everybody.
//!
//!     cargo bench --bench counts                 # every kind against the table
//!     cargo bench --bench counts -- --write      # puts what was counted into the table
//!     cargo bench --bench counts -- message      # kinds whose name has that in it
//!
//! Above the table by more than its tolerance is a failure; below it by more is said, so that the
//! table can be made tighter. Valgrind shows every program the same processor with AVX2, if the
//! machine has that: elsewhere there is nothing to compare with. The profiles stay beside the build
//! for `callgrind_annotate`.

#[path = "../tests/lab/mod.rs"]
mod lab;
mod stage;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use std::{env, fs, thread};

use stage::Stage;
use stage::password::{Passwords, Proof};
use stage::phones::Phones;
use stage::script::Play;
use stage::scripts;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Registered clients, a pair a transaction, one pair after the other.
const CLIENTS: usize = 100;
/// Virtual time of a round.
const STEP: Duration = Duration::from_millis(64);
/// Rounds before the counted ones: what lingers for 32 seconds (Timers J and L) has begun to end.
const WARM_UP: u32 = 600;
const ROUNDS: u32 = 500;
/// What is counted besides [`scripts::KINDS`]: REGISTERs over UDP, with a 401 before or without, and
/// over WSS with the answer to an old challenge in each.
const REGISTERS: [&str; 3] = ["register again udp", "register asked udp", "register kept wss"];
/// Lines that a new table begins with.
const HEADING: &str = "\
# Instructions of one transaction: shards, kind, count. Kept by `cargo bench --bench counts`, which
# fails when a count is above by more than the tolerance, and writes this file with `-- --write`.
# Counted on x86-64 with AVX2; another compiler counts otherwise.
";

/// One kind of transaction, on so many shards.
#[derive(Clone, Copy)]
struct Case {
    shards: u16,
    kind: &'static str,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|it| it != "--bench").collect();
    if let [play, shards, kind] = arguments.as_slice()
        && play == "--play"
    {
        run(shards.parse().expect("a number of shards"), kind);
        return ExitCode::SUCCESS;
    }
    #[cfg(target_arch = "x86_64")]
    let is_comparable = is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let is_comparable = false;
    if !is_comparable {
        println!("not counted: the table is of x86-64 with AVX2");
        return ExitCode::SUCCESS;
    }
    let writes = arguments.iter().any(|it| it == "--write");
    let wanted = arguments.iter().find(|it| !it.starts_with("--"));
    let counted = count_all(&cases(wanted));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("perf/counts.txt");
    if writes {
        let table = Table { tolerance: Table::read(&path).tolerance, counts: counted };
        fs::write(&path, table.text()).expect("the table can be written");
        return ExitCode::SUCCESS;
    }
    if counted.is_empty() || !Table::read(&path).judge(&counted) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What valgrind sees.
fn run(shards: u16, kind: &str) {
    match kind {
        "register again udp" | "register asked udp" => {
            let mut phones = Phones::new(shards, CLIENTS, kind == "register asked udp");
            phones.stage.step = STEP;
            play(|| phones.round());
        }
        "register kept wss" => {
            // MD5 is the second that is offered.
            let mut clients = Passwords::new(shards, CLIENTS, Proof::Digest(1));
            clients.stage.step = STEP;
            play(|| clients.round());
        }
        _ => {
            let (_, script) =
                scripts::KINDS.iter().find(|(name, _)| *name == kind).expect("a kind");
            let mut script = Play::new(Stage::new(shards), CLIENTS, &script());
            script.stage.step = STEP;
            play(|| script.round());
        }
    }
}

fn play(mut round: impl FnMut()) {
    for _ in 0..WARM_UP {
        round();
    }
    counted_rounds(&mut round);
}

/// The part that callgrind counts, which knows it by this name.
#[inline(never)]
fn counted_rounds(round: &mut impl FnMut()) {
    for _ in 0..ROUNDS {
        round();
    }
}

fn kinds() -> impl Iterator<Item = &'static str> {
    scripts::KINDS.iter().map(|(name, _)| *name).chain(REGISTERS)
}

fn cases(wanted: Option<&String>) -> Vec<Case> {
    let kinds = kinds().filter(|kind| wanted.is_none_or(|wanted| kind.contains(wanted.as_str())));
    kinds.flat_map(|kind| [1, 2].map(|shards| Case { shards, kind })).collect()
}

/// Counts them side by side, as many at once as there are processors.
fn count_all(cases: &[Case]) -> Vec<(Case, u64)> {
    let waiting = Mutex::new(cases.iter().enumerate().collect::<Vec<_>>());
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = waiting.lock().expect("no worker panics with it").pop();
            let Some((place, case)) = next else { break };
            let count = count(*case);
            done.lock().expect("no worker panics with it").push((place, (*case, count)));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |it| it.get()) {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().expect("no worker panics with it");
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, counted)| counted).collect()
}

/// Instructions of one round. Panics when valgrind is not there or finds nothing to count.
fn count(case: Case) -> u64 {
    let name = format!("callgrind.{}.{}", case.shards, case.kind.replace(' ', "-"));
    let profile = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let valgrind = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_rounds*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(env::current_exe().expect("this program has a path"))
        .args(["--play", &case.shards.to_string(), case.kind])
        .stdout(Stdio::null())
        .output()
        .expect("valgrind runs (Debian package valgrind)");
    let said = String::from_utf8_lossy(&valgrind.stderr);
    assert!(valgrind.status.success(), "{said}");
    let text = fs::read_to_string(&profile).expect("callgrind wrote its profile");
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: u64 = total.and_then(|it| it.trim().parse().ok()).expect("a profile has a total");
    assert!(total > 0, "nothing was counted: {said}");
    total / u64::from(ROUNDS)
}

/// What is expected.
struct Table {
    /// In percent.
    tolerance: f64,
    counts: Vec<(Case, u64)>,
}

impl Table {
    fn read(path: &Path) -> Table {
        let text = fs::read_to_string(path).expect("the table can be read");
        let mut table = Table { tolerance: 0.0, counts: Vec::new() };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some(percent) = line.strip_prefix("tolerance ") {
                table.tolerance = percent.parse().expect("a tolerance in percent");
                continue;
            }
            let (shards, rest) = line.split_once(' ').expect("shards, kind, count");
            let (kind, count) = rest.rsplit_once(' ').expect("shards, kind, count");
            let kind = kinds().find(|name| *name == kind);
            let kind = kind.unwrap_or_else(|| panic!("no such kind: {line}"));
            let case = Case { shards: shards.parse().expect("a number of shards"), kind };
            table.counts.push((case, count.parse().expect("a count")));
        }
        table
    }

    fn text(&self) -> String {
        let mut text = format!("{HEADING}tolerance {}\n", self.tolerance);
        for (case, count) in &self.counts {
            writeln!(text, "{} {} {count}", case.shards, case.kind).expect("a String takes all");
        }
        text
    }

    /// Prints every count beside the expected one. False when one is above it.
    fn judge(&self, counted: &[(Case, u64)]) -> bool {
        let mut is_good = true;
        for (case, count) in counted {
            let is_same = |it: &&(Case, u64)| (it.0.shards, it.0.kind) == (case.shards, case.kind);
            let Some((_, expected)) = self.counts.iter().find(is_same) else {
                println!("{} {}: {count}, not in the table", case.shards, case.kind);
                is_good = false;
                continue;
            };
            let percent = (*count as f64 / *expected as f64 - 1.0) * 100.0;
            let verdict = match percent {
                _ if percent > self.tolerance => "TOO MANY",
                _ if percent < -self.tolerance => "fewer: the table can be tighter",
                _ => "as expected",
            };
            is_good &= percent <= self.tolerance;
            let (shards, kind) = (case.shards, case.kind);
            println!("{shards} {kind}: {count} of {expected}, {percent:+.1} %, {verdict}");
        }
        is_good
    }
}
