//! Where a report was made, and of what: figures mean something only beside it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// A machine and what was built on it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Its processor, as the kernel names it.
    pub processor: String,
    /// CPUs that may be used.
    pub cpus: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Load average when the report began; what else ran there is in every figure.
    pub load_average: f64,
    /// Commit of the sources, with `+` when they were changed.
    pub commit: String,
    /// Day, as `date +%F` has it.
    pub day: String,
    /// First line of what each peer says about its version.
    pub peers: Vec<String>,
    /// The command that repeats it.
    pub command: String,
}

impl Machine {
    /// This one. `root` is the folder of the repository.
    pub fn look(root: &Path, peers: &[&str], command: String) -> Machine {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processor = text("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or(String::new(), |(_, name)| name.to_owned());
        let average = text("/proc/loadavg");
        let average = average.split(' ').next().and_then(|first| first.parse().ok());
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            first_line(command.arg("-C").arg(root).args(arguments))
        };
        let is_changed = !git(&["status", "--porcelain", "--untracked-files=no"]).is_empty();
        Machine {
            processor,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: average.unwrap_or_default(),
            commit: git(&["rev-parse", "--short", "HEAD"]) + if is_changed { "+" } else { "" },
            day: first_line(Command::new("date").arg("+%F")),
            peers: peers.iter().filter_map(|peer| version(peer)).collect(),
            command,
        }
    }
}

fn version(peer: &str) -> Option<String> {
    let flag = match peer {
        "kamailio" => "-v",
        "opensips" => "-V",
        _ => return None,
    };
    let binary = std::env::var(peer.to_uppercase()).unwrap_or_else(|_| peer.to_owned());
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    let line = first_line(Command::new(binary).arg(flag).env("PATH", path));
    Some(line.trim_start_matches("version: ").trim().to_owned())
}

/// The first line of what a command prints; empty when it cannot be run.
fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
}
