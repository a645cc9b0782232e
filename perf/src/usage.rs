//! What processes cost, as the kernel's `/proc` tells it: CPU time of all their threads and
//! children, and their share of memory.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// CPU time of processes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// All of it, as the scheduler counts it.
    pub total: Duration,
    /// Ticks in user space, by which the total is split.
    user_ticks: u64,
    system_ticks: u64,
}

impl Cpu {
    /// Of these processes and all that descend from them, so far. Threads that have ended are not
    /// in it.
    pub fn of(pids: &[u32]) -> Result<Cpu> {
        let mut sum = Cpu::default();
        for pid in family(pids)? {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"))
                .with_context(|| format!("process {pid}"))?;
            for task in tasks {
                let path = task?.path();
                // A thread may end while this is read.
                let Ok(schedstat) = fs::read_to_string(path.join("schedstat")) else { continue };
                let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
                let nanoseconds = schedstat.split(' ').next().unwrap_or_default();
                sum.total += Duration::from_nanos(nanoseconds.parse()?);
                let (user, system) = ticks(&stat).context("the fields of stat")?;
                sum.user_ticks += user;
                sum.system_ticks += system;
            }
        }
        Ok(sum)
    }

    /// What was used between `earlier` and this.
    pub fn since(&self, earlier: &Cpu) -> Cpu {
        Cpu {
            total: self.total.saturating_sub(earlier.total),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
        }
    }

    /// Adds what was used at another time.
    pub fn add(&mut self, other: &Cpu) {
        self.total += other.total;
        self.user_ticks += other.user_ticks;
        self.system_ticks += other.system_ticks;
    }

    /// Time in user space, and in the kernel: the total, split as the ticks are.
    pub fn split(&self) -> (Duration, Duration) {
        let ticks = self.user_ticks + self.system_ticks;
        let share = if ticks == 0 { 0.0 } else { self.user_ticks as f64 / ticks as f64 };
        let user = self.total.mul_f64(share);
        (user, self.total.saturating_sub(user))
    }
}

/// User and system ticks, fields 14 and 15 of `stat`; the name before them may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// These processes and their descendants.
fn family(pids: &[u32]) -> Result<BTreeSet<u32>> {
    let mut found: BTreeSet<u32> = BTreeSet::new();
    let mut waiting = pids.to_vec();
    while let Some(pid) = waiting.pop() {
        if !found.insert(pid) {
            continue;
        }
        ensure!(PathBuf::from(format!("/proc/{pid}")).exists(), "there is no process {pid}");
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let Ok(children) = fs::read_to_string(task?.path().join("children")) else { continue };
            waiting.extend(children.split_ascii_whitespace().filter_map(|c| c.parse::<u32>().ok()));
        }
    }
    Ok(found)
}

/// Bytes of memory that are the processes' own, and their share of what they share (PSS).
pub fn memory(pids: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for pid in family(pids)? {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        sum += 1024 * kilobytes.context("a line Pss")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_and_split() {
        let own = [std::process::id()];
        let before = Cpu::of(&own).unwrap();
        let mut sum = 0u64;
        while Cpu::of(&own).unwrap().since(&before).total < Duration::from_millis(30) {
            sum = (0..200_000).fold(sum, |sum, value| std::hint::black_box(sum ^ value));
        }
        let used = Cpu::of(&own).unwrap().since(&before);
        let (user, system) = used.split();
        assert_eq!(user + system, used.total);
        assert!(used.total < Duration::from_secs(60), "{used:?}");
    }

    #[test]
    fn children_belong_to_the_family() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = family(&[std::process::id()]).unwrap();
        let is_there = found.contains(&child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_there, "{found:?} without {}", child.id());
    }

    #[test]
    fn a_name_with_brackets_and_spaces_is_skipped() {
        let stat = "7 (a) b) S 1 1 1 0 -1 4194560 1 2 3 4 55 66 0 0 20 0 1 0";
        assert_eq!(ticks(stat), Some((55, 66)));
    }

    #[test]
    fn memory_is_plausible_and_a_missing_process_is_an_error() {
        assert!(memory(&[std::process::id()]).unwrap() > 100_000);
        assert!(memory(&[u32::MAX - 1]).is_err());
    }
}
