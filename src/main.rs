//! The command line: `sipring`, `sipring --config FILE`, `sipring check FILE`. Exit status 0: ended
//! as asked; 1: something failed while starting or running; 2: the configuration or the command
//! line is faulty.

use std::error::Error;
use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use sipring::admin::{self, Source};
use sipring::base::config::{Config, Listener};
use sipring::base::id::Transport;
use sipring::base::metrics::{Counters, Gauges, StoreNumbers};
use sipring::io::config_file::{self, Fault, Loaded, Severity};
use sipring::io::log::LinesDropped;
use sipring::io::reload::{self, Reload};
use sipring::io::store::{Store, Tally};
use sipring::io::{self, Runtime, Start, log, secret, systemd};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration or the command line is faulty; clap uses the same number.
const FAULTY: u8 = 2;

/// SIP/WebSocket edge proxy and registrar. Without arguments it serves on loopback, for trying it
/// out.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Configuration file (TOML).
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Judge a configuration file: every fault with its line and a hint.
    Check {
        /// Configuration file (TOML).
        file: PathBuf,
        /// Try to bind every address, too.
        #[arg(long)]
        bind: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Check { file, bind }) => check(&file, bind),
        None => run(arguments.config.as_deref()),
    }
}

fn check(file: &Path, bind: bool) -> ExitCode {
    let loaded = match config_file::load(file) {
        Ok((loaded, faults)) => {
            report(&faults);
            loaded
        }
        Err(faults) => {
            report(&faults);
            return ExitCode::from(FAULTY);
        }
    };
    let failures = if bind { config_file::try_addresses(&loaded) } else { Vec::new() };
    for failure in &failures {
        eprintln!("{}: error: {failure}", file.display());
    }
    if !failures.is_empty() {
        return ExitCode::from(FAULTY);
    }
    println!(
        "{}: fine: {} listeners, {} upstreams, {} routes",
        file.display(),
        loaded.config.listeners.len(),
        loaded.config.upstreams.len(),
        loaded.config.routes.len()
    );
    ExitCode::SUCCESS
}

fn run(file: Option<&Path>) -> ExitCode {
    let loaded = match file.map(config_file::load) {
        None => config_file::embedded(),
        Some(Ok((loaded, faults))) => {
            let serious = faults.into_iter().filter(|fault| fault.severity >= Severity::Warning);
            report(&serious.collect::<Vec<_>>());
            loaded
        }
        Some(Err(faults)) => {
            report(&faults);
            return ExitCode::from(FAULTY);
        }
    };
    match start(loaded, file) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sipring: error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that can fail before a shard runs, then the shards, until the process is told to end.
fn start(loaded: Loaded, file: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let control = &loaded.control;
    let secret = match &control.secret_file {
        Some(path) => secret::load_or_create(path)?,
        None => secret::generate()?,
    };
    let tls = reload::material(&loaded)?;
    let admin = match control.admin {
        Some(address) => {
            let bound = TcpListener::bind(address);
            Some(bound.map_err(|error| format!("cannot bind admin {address}: {error}"))?)
        }
        None => None,
    };
    let log = log::start(control.log)?;
    let store = control.store.as_ref().map(Store::open).transpose()?;
    for warning in tls.warnings() {
        tracing::warn!("{warning}");
    }
    let reload = file.map(|file| Reload::new(file, &loaded, log.level()));
    let is_embedded = file.is_none();
    let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let ready = move |config: &Config| {
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(version, listeners = config.listeners.len(), "ready");
        print!("{}", listening(config, admin_address));
        if is_embedded {
            print!("{}", how_to_try(config, admin_address));
        }
        systemd::ready();
    };
    let shards = io::shard_count(control.shards);
    let start = Start { config: loaded.config, shards, tls, secret, store, reload };
    serve(start, admin, log.lines_dropped(), ready)
}

fn report(faults: &[Fault]) {
    for fault in faults {
        eprintln!("{fault}");
    }
    let errors = faults.iter().filter(|fault| fault.severity == Severity::Error).count();
    if errors > 0 {
        eprintln!("{errors} {}", if errors == 1 { "error" } else { "errors" });
    }
}

/// What is open, one address a line.
fn listening(config: &Config, admin: Option<SocketAddr>) -> String {
    let mut text = format!("sipring {} listens on\n", env!("CARGO_PKG_VERSION"));
    for listener in &config.listeners {
        let url = match listener.transport {
            Transport::Ws | Transport::Wss => {
                format!("   {}://{}{}", listener.transport.name(), listener.address, listener.path)
            }
            _ => String::new(),
        };
        let _ = writeln!(text, "  {:<5} {}{url}", listener.transport.name(), listener.address);
    }
    if let Some(admin) = admin {
        let _ = writeln!(text, "  admin {admin}   http://{admin}/metrics");
    }
    text
}

/// Lines to copy for the first minutes with the embedded configuration.
fn how_to_try(config: &Config, admin: Option<SocketAddr>) -> String {
    let address = |transport: Transport| {
        let is_it = |listener: &&Listener| listener.transport == transport;
        config.listeners.iter().find(is_it).map(|listener| listener.address)
    };
    let mut text = format!("\nAnybody may register in {}.\n", config.node.domains.join(", "));
    if let Some(wss) = address(Transport::Wss) {
        let _ = write!(
            text,
            "\nBrowser: open https://{wss}/healthz once and accept the certificate, then with JsSIP:\n\
             \x20 const ua = new JsSIP.UA({{\n\
             \x20   sockets: [new JsSIP.WebSocketInterface('wss://{wss}/')],\n\
             \x20   uri: 'sip:alice@example.com', register: true }});\n\
             \x20 ua.on('newMessage', e => console.log(e.request.body));\n\
             \x20 ua.start();\n"
        );
    }
    if let Some(udp) = address(Transport::Udp) {
        let _ = write!(
            text,
            "\nA message to her:\n\
             \x20 printf '%s\\r\\n' 'MESSAGE sip:alice@example.com SIP/2.0' \\\n\
             \x20   'Via: SIP/2.0/UDP 127.0.0.1:5099;branch=z9hG4bK1;rport' 'Max-Forwards: 70' \\\n\
             \x20   'From: <sip:bob@example.com>;tag=1' 'To: <sip:alice@example.com>' \\\n\
             \x20   'Call-ID: 1' 'CSeq: 1 MESSAGE' 'Content-Type: text/plain' 'Content-Length: 2' \\\n\
             \x20   '' hi | head -c -2 | nc -u -w 2 {} {}\n\
             \nCalls from sipp (a phone takes them; a browser refuses plain RTP with 488):\n\
             \x20 sipp {udp} -sn uac -s alice -m 1\n",
            udp.ip(),
            udp.port()
        );
    }
    if let Some(admin) = admin {
        let _ = write!(text, "\nNumbers:\n  curl http://{admin}/metrics\n");
    }
    text.push_str("\nCtrl-C ends it.\n");
    text
}

/// Runs the shards and, beside them, what operators ask.
fn serve(
    start: Start,
    admin: Option<TcpListener>,
    log_lines_dropped: LinesDropped,
    ready: impl FnOnce(&Config),
) -> Result<(), Box<dyn Error>> {
    let started = since_epoch(SystemTime::now());
    let tally = start.store.as_ref().map(|store| Arc::clone(store.tally()));
    let operate = move |runtime: Runtime| async move {
        tokio::task::spawn_local(announce_the_end());
        let Some(listener) = admin else { return };
        let numbers = Numbers { runtime, tally, started, log_lines_dropped };
        if let Err(error) = admin::serve(listener, Rc::new(numbers)).await {
            tracing::error!(%error, "admin: ended");
        }
    };
    Ok(io::run(start, operate, ready)?)
}

fn since_epoch(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Tells systemd that the drain began. The runtime hears the same signals and does the draining.
async fn announce_the_end() {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else { return };
    std::future::poll_fn(|context| {
        let ended = [terminate.poll_recv(context), interrupt.poll_recv(context)];
        if ended.iter().any(Poll::is_ready) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    systemd::stopping();
}

/// What the admin pages show.
struct Numbers {
    runtime: Runtime,
    tally: Option<Arc<Tally>>,
    started: f64,
    log_lines_dropped: LinesDropped,
}

impl Source for Numbers {
    fn shards(&self) -> Vec<(Counters, Gauges)> {
        let published = self.runtime.published.iter();
        published.map(|one| (Counters::from_values(one.counters()), one.gauges())).collect()
    }

    fn phase(&self) -> admin::Phase {
        match self.runtime.state.phase() {
            io::Phase::Starting => admin::Phase::Starting,
            io::Phase::Ready => admin::Phase::Ready,
            io::Phase::Draining => admin::Phase::Draining,
        }
    }

    fn started(&self) -> f64 {
        self.started
    }

    fn store(&self) -> Option<StoreNumbers> {
        self.tally.as_ref().map(|tally| tally.numbers())
    }

    fn log_lines_dropped(&self) -> u64 {
        self.log_lines_dropped.count()
    }

    fn reloads(&self) -> admin::Reloads {
        let io::Reloads { taken, refused, last } = self.runtime.reloads.get();
        admin::Reloads { taken, refused, last: last.map_or(self.started, since_epoch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        let parse = |words: &[&str]| Arguments::try_parse_from(words);
        assert!(parse(&["sipring"]).is_ok_and(|a| a.config.is_none() && a.command.is_none()));
        assert!(parse(&["sipring", "--config", "a.toml"]).is_ok_and(|a| a.config.is_some()));
        assert!(parse(&["sipring", "check", "a.toml", "--bind"]).is_ok());
        assert!(parse(&["sipring", "check"]).is_err());
        assert!(parse(&["sipring", "--config", "a.toml", "check", "b.toml"]).is_err());
    }

    #[test]
    fn the_embedded_default_says_where_it_listens_and_how_to_try_it() {
        let loaded = config_file::embedded();
        let text = listening(&loaded.config, loaded.control.admin);
        for line in [
            "udp   127.0.0.1:5060",
            "tcp   127.0.0.1:5060",
            "tls   127.0.0.1:5061",
            "ws    127.0.0.1:8080   ws://127.0.0.1:8080/",
            "wss   127.0.0.1:8443   wss://127.0.0.1:8443/",
            "admin 127.0.0.1:9090   http://127.0.0.1:9090/metrics",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let text = how_to_try(&loaded.config, loaded.control.admin);
        for part in ["wss://127.0.0.1:8443/", "nc -u -w 2 127.0.0.1 5060", "curl http://127"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
