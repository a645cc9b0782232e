//! The report: starts the floor, sipring and its peers in turn, puts the load on each, and makes
//! tables and plots of what that cost. `run` measures, `fill` puts the result into the documents.
//! One module a noun: `plan` says what is measured, `measure` does it, `results` holds it, `table`
//! and `plot` show it, `regions` puts it where it belongs.

mod capacity;
mod events;
mod machine;
mod measure;
mod plan;
mod plot;
mod regions;
mod results;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use machine::Machine;
use measure::{Setup, built};
use plan::{Server, Size, cells};
use results::Report;

/// Minutes after which no further run begins, so that all of it takes less than twenty, and two.
const FULL_MINUTES: f64 = 15.0;
const QUICK_MINUTES: f64 = 1.5;
/// Seconds that one run measures.
const FULL_SECONDS: f64 = 2.0;
const QUICK_SECONDS: f64 = 0.5;

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures, and writes report.json, report.md and the plots.
    Run(Measure),
    /// Replaces the regions between `<!-- perf:begin NAME -->` and `<!-- perf:end -->`: machine,
    /// costs, whole, capacity, plots.
    Fill(Fill),
}

#[derive(clap::Args)]
struct Measure {
    /// The small cells only, in two minutes; for trying it out.
    #[arg(long)]
    quick: bool,
    /// Folder of the results; perf/results, of a quick run perf/results/quick.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Servers that take turns, as perf/peers/start names them.
    #[arg(long, value_delimiter = ',', default_value = "floor,sipring,kamailio")]
    servers: Vec<String>,
    /// Measures to make, by their names in the results; all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Minutes after which no further run begins.
    #[arg(long)]
    minutes: Option<f64>,
    /// Seconds that one run measures.
    #[arg(long)]
    seconds: Option<f64>,
    /// Rounds at most.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// The load generator; the release build's.
    #[arg(long)]
    generator: Option<PathBuf>,
    /// First of ten ports for the servers.
    #[arg(long, default_value_t = 26_000)]
    port: u16,
}

#[derive(clap::Args)]
struct Fill {
    /// Folder of the results.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Documents; README.md and perf/README.md.
    documents: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let perf = Path::new(env!("CARGO_MANIFEST_DIR"));
    match Arguments::parse().command {
        Command::Run(arguments) => run(perf, &arguments),
        Command::Fill(arguments) => fill_in(perf, arguments),
    }
}

fn run(perf: &Path, arguments: &Measure) -> Result<()> {
    let root = perf.parent().context("perf is in the repository")?;
    let size = if arguments.quick { Size::Quick } else { Size::Full };
    let (minutes, seconds) = match size {
        Size::Full => (FULL_MINUTES, FULL_SECONDS),
        Size::Quick => (QUICK_MINUTES, QUICK_SECONDS),
    };
    let folder = if arguments.quick { "results/quick" } else { "results" };
    let folder = arguments.results.clone().unwrap_or(perf.join(folder));
    fs::create_dir_all(&folder)?;
    let mut wanted = cells(size);
    for name in &arguments.only {
        ensure!(wanted.iter().any(|cell| cell.measure == name), "there is no measure {name}");
    }
    wanted.retain(|cell| {
        arguments.only.is_empty() || arguments.only.iter().any(|it| it == cell.measure)
    });
    let names: Vec<&str> = arguments.servers.iter().map(String::as_str).collect();
    let command: Vec<String> = std::env::args().skip(2).collect();
    let command =
        ["perf/report".to_owned()].into_iter().chain(command).collect::<Vec<_>>().join(" ");
    let machine = Machine::look(root, &names, command);
    let minutes = arguments.minutes.unwrap_or(minutes);
    let setup = Setup {
        perf: perf.to_owned(),
        generator: arguments.generator.clone().unwrap_or(built(root, "sipring-perf")),
        servers: names.iter().map(|name| Server::single(name)).collect(),
        seconds: arguments.seconds.unwrap_or(seconds),
        deadline: Instant::now() + Duration::from_secs_f64(minutes * 60.0),
        rounds: arguments.rounds,
        cpus: machine.cpus,
        port: arguments.port,
    };
    let mut report = Report { machine, runs: Vec::new() };
    setup.measure(&wanted, |run| {
        report.runs.push(run);
        // After each: a run that is interrupted has its results.
        fs::write(folder.join("report.json"), serde_json::to_string_pretty(&report)?)?;
        Ok(())
    })?;
    show(&report, &folder)?;
    print!("{}", table::whole(&report));
    let has_measured = report.runs.iter().any(|run| run.measured.is_some());
    ensure!(has_measured, "nothing could be measured");
    Ok(())
}

/// Writes the table and the plots beside the results.
fn show(report: &Report, folder: &Path) -> Result<()> {
    fs::write(folder.join("report.md"), table::whole(report))?;
    for (name, svg) in plot::plots(report) {
        fs::write(folder.join(name), svg)?;
    }
    Ok(())
}

fn fill_in(perf: &Path, arguments: Fill) -> Result<()> {
    let root = perf.parent().context("perf is in the repository")?;
    let folder = arguments.results.unwrap_or(perf.join("results"));
    let file = folder.join("report.json");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let report: Report = serde_json::from_str(&text)?;
    show(&report, &folder)?;
    let documents = match arguments.documents {
        none if none.is_empty() => vec![root.join("README.md"), perf.join("README.md")],
        some => some,
    };
    for document in documents {
        let fill = || {
            let text = fs::read_to_string(&document)?;
            let images = images(&report, &folder, &document)?;
            let filled = regions::fill(&text, |name| match name {
                "machine" => Some(table::machine(&report)),
                "costs" => Some(table::costs(&report)),
                "whole" => Some(table::whole(&report)),
                "capacity" => Some(capacity::text(&report)),
                "plots" => Some(images.clone()),
                _ => None,
            })?;
            fs::write(&document, filled)?;
            anyhow::Ok(())
        };
        fill().with_context(|| format!("filling in {}", document.display()))?;
    }
    Ok(())
}

/// The plots as a document shows them: by paths from its own folder.
fn images(report: &Report, folder: &Path, document: &Path) -> Result<String> {
    let from = document.canonicalize()?;
    let from = from.parent().context("a document is in a folder")?;
    let folder = folder.canonicalize()?;
    let below = folder.strip_prefix(from).context("results are not below the document's folder")?;
    let lines = plot::plots(report).into_iter().map(|(name, _)| {
        let title = name.trim_end_matches(".svg").replace('-', " of ");
        format!("![{title}]({})\n", below.join(name).display())
    });
    Ok(lines.collect())
}
