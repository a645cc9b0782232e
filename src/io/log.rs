//! Log lines on standard error, as text or JSON. Whoever logs never waits: finished lines go
//! through a bounded queue to a thread of their own; what does not fit is counted, and the count is
//! logged as soon as there is room. Absent on purpose: files, rotation, RUST_LOG.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use super::config_file::{LogConfig, LogFormat, LogLevel};
use crate::base::limits::{LOG_FLUSH_TIMEOUT, LOG_LINE_BYTES_MAX, LOG_LINES_MAX};

/// Keeps the log alive; dropping it writes what is queued and ends the writer.
#[derive(Debug)]
pub struct LogGuard {
    lines: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
    level: Level,
}

/// What is logged, which may change while running.
#[derive(Clone, Debug)]
pub struct Level(Option<reload::Handle<Targets, Registry>>);

impl Level {
    /// One that nothing listens to.
    #[cfg(test)]
    pub fn fixed() -> Level {
        Level(None)
    }

    /// From here on lines of this level and those above it are written.
    pub fn set(&self, level: LogLevel) {
        let Some(handle) = &self.0 else { return };
        // It is gone only when another subscriber was there first.
        let _ = handle.reload(filter(level));
    }
}

/// Makes this process log to standard error. The first call of a process counts; a later one has no
/// effect.
pub fn start(config: LogConfig) -> io::Result<LogGuard> {
    let is_terminal = io::stderr().is_terminal();
    let (lines, dropped) = spawn_writer(io::stderr(), LOG_LINES_MAX)?;
    let writer = LineWriter { lines: lines.clone(), dropped: dropped.clone() };
    let (filter, level) = reload::Layer::new(filter(config.level));
    let registry = tracing_subscriber::registry().with(filter);
    let lines_layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(writer);
    // An error says that a subscriber is there already: tests in one process share it.
    let _ = match config.format {
        LogFormat::Text => registry.with(lines_layer.compact().with_ansi(is_terminal)).try_init(),
        LogFormat::Json => registry.with(lines_layer.json().flatten_event(true)).try_init(),
    };
    Ok(LogGuard { lines, dropped, level: Level(Some(level)) })
}

/// Counts lines that found the queue full.
#[derive(Clone, Debug)]
pub struct LinesDropped(Arc<AtomicU64>);

impl LinesDropped {
    /// How many since the start.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl LogGuard {
    /// The handle to change what is logged.
    pub fn level(&self) -> Level {
        self.level.clone()
    }

    /// How many lines found the queue full.
    pub fn lines_dropped(&self) -> LinesDropped {
        LinesDropped(self.dropped.clone())
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (done, finished) = sync_channel(1);
        if self.lines.send(Entry::End(done)).is_ok() {
            // Whoever reads standard error may have stopped: the process ends all the same.
            let _ = finished.recv_timeout(LOG_FLUSH_TIMEOUT);
        }
    }
}

/// What other crates say is for developers: below warnings it shows at `trace` only.
fn filter(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let others = if level == LogLevel::Trace { own } else { own.min(LevelFilter::WARN) };
    Targets::new().with_target("sipring", own).with_default(others)
}

enum Entry {
    Line(Vec<u8>),
    End(SyncSender<()>),
}

/// The writing end, one clone a subscriber.
#[derive(Clone, Debug)]
struct LineWriter {
    lines: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

/// One line while it is being formatted; queued when it is complete.
struct Line<'a> {
    writer: &'a LineWriter,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Line<'a>;
    fn make_writer(&'a self) -> Line<'a> {
        Line { writer: self, bytes: Vec::with_capacity(256) }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = LOG_LINE_BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.bytes.len() == LOG_LINE_BYTES_MAX {
            self.bytes[LOG_LINE_BYTES_MAX - 1] = b'\n';
        }
        let line = std::mem::take(&mut self.bytes);
        if !line.is_empty() && self.writer.lines.try_send(Entry::Line(line)).is_err() {
            self.writer.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn spawn_writer(
    to: impl Write + Send + 'static,
    lines_max: usize,
) -> io::Result<(SyncSender<Entry>, Arc<AtomicU64>)> {
    let (lines, queue) = sync_channel(lines_max);
    let dropped = Arc::new(AtomicU64::new(0));
    let counter = dropped.clone();
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&queue, &counter, BufWriter::new(to)))?;
    Ok((lines, dropped))
}

/// Writes until the end is asked for; flushes whenever nothing waits. Errors of the output are
/// nobody's to hear: there is no other place to report them.
fn write_lines(queue: &Receiver<Entry>, dropped: &AtomicU64, mut to: BufWriter<impl Write>) {
    let mut reported = 0;
    loop {
        let entry = match queue.try_recv() {
            Ok(entry) => entry,
            Err(TryRecvError::Empty) => {
                let _ = to.flush();
                match queue.recv_timeout(Duration::from_secs(1)) {
                    Ok(entry) => entry,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            Err(TryRecvError::Disconnected) => return,
        };
        match entry {
            Entry::Line(line) => {
                let _ = to.write_all(&line);
            }
            Entry::End(done) => {
                let _ = to.flush();
                let _ = done.try_send(());
                return;
            }
        }
        let lost = dropped.load(Ordering::Relaxed);
        if lost > reported {
            let _ =
                writeln!(to, "{{\"level\":\"WARN\",\"log_lines_dropped\":{}}}", lost - reported);
            reported = lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// An output whose reader is slow: each write waits for the gate.
    #[derive(Clone)]
    struct Gated {
        gate: Arc<Mutex<()>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.gate.lock().expect("no panic under the gate");
            self.written.lock().expect("no panic while writing").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> Gated {
        Gated { gate: Arc::default(), written: Arc::default() }
    }

    fn log(writer: &LineWriter, text: &str) {
        writer.make_writer().write_all(text.as_bytes()).expect("a line never fails");
    }

    #[test]
    fn a_slow_reader_costs_lines_and_never_blocks() {
        let output = gated();
        let closed = output.gate.lock().expect("no panic under the gate");
        let (lines, dropped) = spawn_writer(output.clone(), 8).expect("a thread");
        let writer = LineWriter { lines: lines.clone(), dropped: dropped.clone() };
        let long = format!("{}\n", "x".repeat(9000));
        for _ in 0..100 {
            log(&writer, &long);
        }
        let lost = dropped.load(Ordering::Relaxed);
        assert!((80..=92).contains(&lost), "lost {lost}");
        drop(closed);
        assert_eq!(LinesDropped(dropped.clone()).count(), lost);
        drop(LogGuard { lines, dropped, level: Level::fixed() });
        let written = output.written.lock().expect("no panic while writing");
        let text = String::from_utf8_lossy(&written);
        let kept = text.lines().filter(|line| line.starts_with('x')).count() as u64;
        assert_eq!(kept + lost, 100);
        assert!(text.contains(&format!("\"log_lines_dropped\":{lost}")), "the loss is told");
    }

    #[test]
    fn other_crates_are_heard_from_warnings_up() {
        use tracing::Level;
        for (level, target, at, is_heard) in [
            (LogLevel::Debug, "sipring::io", Level::DEBUG, true),
            (LogLevel::Info, "sipring::io", Level::DEBUG, false),
            (LogLevel::Debug, "rustls::server", Level::DEBUG, false),
            (LogLevel::Debug, "rustls::server", Level::WARN, true),
            (LogLevel::Error, "rustls::server", Level::WARN, false),
            (LogLevel::Trace, "rustls::server", Level::DEBUG, true),
            (LogLevel::Off, "sipring", Level::ERROR, false),
        ] {
            assert_eq!(
                filter(level).would_enable(target, &at),
                is_heard,
                "{level:?} {target} {at}"
            );
        }
    }

    #[test]
    fn an_endless_line_is_cut() {
        let output = gated();
        let (lines, dropped) = spawn_writer(output.clone(), 8).expect("a thread");
        let writer = LineWriter { lines: lines.clone(), dropped: dropped.clone() };
        log(&writer, &"y".repeat(LOG_LINE_BYTES_MAX * 2));
        drop(LogGuard { lines, dropped, level: Level::fixed() });
        let written = output.written.lock().expect("no panic while writing");
        assert_eq!(written.len(), LOG_LINE_BYTES_MAX);
        assert_eq!(written.last(), Some(&b'\n'));
    }
}
