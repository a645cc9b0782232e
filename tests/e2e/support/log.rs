//! What a child prints, kept line by line, and the flows that it tells of.

use std::net::SocketAddr;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// What was printed so far.
#[derive(Default)]
pub struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

/// A flow by the name that the proxy gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub name: String,
    /// The shard that has it.
    pub shard: u16,
}

impl Log {
    /// One more line.
    pub fn add(&self, line: &str) {
        let mut text = self.text.lock().expect("log");
        text.push_str(line);
        text.push('\n');
        self.grown.notify_all();
    }

    /// All of it.
    pub fn text(&self) -> String {
        self.text.lock().expect("log").clone()
    }

    /// Where the next line will begin.
    pub fn len(&self) -> usize {
        self.text.lock().expect("log").len()
    }

    /// The first line from there on in which something is found, as soon as it is printed.
    pub fn find<T>(
        &self,
        mut from: usize,
        within: Duration,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut text = self.text.lock().expect("log");
        loop {
            if let Some(found) = text[from..].lines().find_map(&mut find) {
                return Some(found);
            }
            from = text.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            text = self.grown.wait_timeout(text, left).expect("log").0;
        }
    }
}

/// The flow of that peer, if the line tells that it was opened. Such lines are of level `debug`.
pub fn opened(line: &str, remote: SocketAddr) -> Option<Flow> {
    let is_mine =
        line.contains("flow opened") && field(line, "remote") == Some(&remote.to_string());
    let flow = || {
        let name = field(line, "flow")?.to_string();
        Some(Flow { name, shard: field(line, "shard")?.parse().ok()? })
    };
    is_mine.then(flow)?
}

/// Why that flow was closed, if the line tells it.
pub fn closed(line: &str, flow: &Flow) -> Option<String> {
    let is_mine = line.contains("flow closed") && field(line, "flow") == Some(&flow.name);
    is_mine.then(|| field(line, "why").map(|why| why.trim_matches('"').to_string()))?
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}
