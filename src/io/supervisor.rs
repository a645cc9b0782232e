//! The control thread: binds listeners, starts the shards, writes their reports to the log, watches
//! them, and ends the process in order. An ordinary tokio-uring program; nothing that a message
//! waits for happens here.
//!
//! SIGTERM or SIGINT drains: no new flows or dialogs, living transactions get
//! `limits.drain_timeout`, then flows are closed. A second one ends the process at once. SIGHUP is
//! answered in the log: there is no reload yet.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rtrb::{Consumer, Producer, RingBuffer};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::clock::Clock;
use super::driver::{Command, Station};
use super::guests::Guest;
use super::link::{Doorbell, mesh};
use super::listen::{BindError, bind_all};
use super::log_line::{self, Report};
use super::protocol::Protocol;
use super::publish::{Phase, Published, RunState};
use super::ring::{Ring, RingError};
use super::shard::{self, News, Notice, Plan};
use super::store::{Running, Store};
use super::sys;
use super::tls::TlsMaterial;
use crate::base::config::Config;
use crate::base::id::ShardId;
use crate::base::limits::{
    COMMANDS_ENTRIES, CONTROL_INTERVAL, DESCRIPTORS_SPARE, EVENTS_ENTRIES, Limits, STOP_TIME,
};
use crate::base::time::Time;
use crate::engine::Engine;

/// What the tasks of the control thread may know and do.
#[derive(Clone)]
pub struct Runtime {
    /// The configuration in force, ports resolved.
    pub config: Arc<Config>,
    /// Each shard's numbers.
    pub published: Vec<Arc<Published>>,
    /// What the process is doing.
    pub state: Arc<RunState>,
    commands: Rc<RefCell<Vec<Inbox>>>,
    is_drain_asked: Rc<Cell<bool>>,
}

impl Runtime {
    /// Lets a shard host a task beside its driver. False: too many commands wait for that shard.
    pub fn host(&self, shard: ShardId, guest: Guest) -> bool {
        self.commands.borrow_mut()[shard.index()].send(Command::Host(guest))
    }

    /// Does what SIGTERM does.
    pub fn drain(&self) {
        self.is_drain_asked.set(true);
    }
}

/// Why the process cannot run, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A listener cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Not even the listeners would fit.
    #[error(
        "too few descriptors: the limit is {limit}, at least {needed} are needed, and one more a \
         flow; raise it (`ulimit -n`, systemd: LimitNOFILE=)"
    )]
    Descriptors {
        /// The limit in force.
        limit: u64,
        /// What the listeners and the rings take.
        needed: u64,
    },
    /// The system refused something else.
    #[error("{what}: {error}")]
    System {
        /// What we wanted.
        what: &'static str,
        /// The system's words.
        error: io::Error,
    },
    /// A shard could not start or failed for good.
    #[error("shard {shard} failed: {why}")]
    Shard {
        /// Which.
        shard: u16,
        /// Why.
        why: String,
    },
}

/// Runs the proxy on `shards` threads (see [`super::shard_count`]) and the calling thread until a
/// signal ends it.
///
/// `secret` keys tokens and placement. `admin` makes the task that the control thread hosts.
/// `ready` is called once every shard takes traffic, with the ports that the system chose for those
/// configured as 0.
pub fn run<F: Future<Output = ()> + 'static>(
    config: Config,
    shards: u16,
    tls: TlsMaterial,
    secret: [u8; 32],
    store: Option<Store>,
    admin: impl FnOnce(Runtime) -> F,
    ready: impl FnOnce(&Config),
) -> Result<(), StartError> {
    run_protocol::<Engine, F>(config, shards, tls, secret, store, admin, ready)
}

pub(super) fn run_protocol<P: Protocol, F: Future<Output = ()> + 'static>(
    config: Config,
    shards: u16,
    tls: TlsMaterial,
    secret: [u8; 32],
    store: Option<Store>,
    admin: impl FnOnce(Runtime) -> F,
    ready: impl FnOnce(&Config),
) -> Result<(), StartError> {
    Ring::probe()?;
    look_after_descriptors(&config, shards)?;
    let mut supervisor = Supervisor::start::<P>(config, shards, tls, secret, store)?;
    let started = supervisor.await_up();
    let control = tokio_uring::builder();
    control.start(async move {
        if let Err(error) = started {
            supervisor.stop_all();
            supervisor.end_store();
            return Err(error);
        }
        let result = supervisor.control(admin, ready).await;
        supervisor.end_store();
        supervisor.collect_reports();
        result
    })
}

/// The control side of a shard's inbox.
struct Inbox {
    commands: Producer<Command>,
    bell: Arc<Doorbell>,
}

impl Inbox {
    fn send(&mut self, command: Command) -> bool {
        let is_taken = self.commands.push(command).is_ok();
        self.bell.ring();
        is_taken
    }
}

struct Supervisor {
    runtime: Runtime,
    reports: Vec<Consumer<Report>>,
    notices: Receiver<Notice>,
    threads: Vec<JoinHandle<()>>,
    store: Option<Running>,
    has_stopped: Vec<bool>,
    clock: Clock,
}

impl Supervisor {
    fn start<P: Protocol>(
        mut config: Config,
        shards: u16,
        tls: TlsMaterial,
        secret: [u8; 32],
        store: Option<Store>,
    ) -> Result<Supervisor, StartError> {
        let system = |what| move |error| StartError::System { what, error };
        let sockets = bind_all(&mut config, shards)?;
        let spill_max = config.limits.flows_max + 4 * config.limits.transactions_max;
        let links = mesh(shards, spill_max).map_err(system("eventfd"))?;
        let (config, tls, clock) = (Arc::new(config), Arc::new(tls), Clock::start());
        let mut epoch = [0; 4];
        sys::random(&mut epoch).map_err(system("random numbers"))?;
        let (sender, notices) = channel();
        let bells: Vec<_> = links.iter().map(|links| Arc::clone(links.bell())).collect();
        let (store, keepers) = match store.map(|store| store.start(clock, &secret, &bells)) {
            Some(started) => {
                let (running, keepers) = started.map_err(system("the store's thread"))?;
                (Some(running), keepers)
            }
            None => (None, Vec::new()),
        };
        let mut keepers = keepers.into_iter();
        let mut supervisor = Supervisor {
            runtime: Runtime {
                config: Arc::clone(&config),
                published: Vec::new(),
                state: Arc::default(),
                commands: Rc::default(),
                is_drain_asked: Rc::default(),
            },
            reports: Vec::new(),
            notices,
            threads: Vec::new(),
            store,
            has_stopped: vec![false; usize::from(shards)],
            clock,
        };
        let placement = shard::placement(shards);
        for (number, (links, sockets)) in links.into_iter().zip(sockets).enumerate() {
            let (commands, inbox) = RingBuffer::new(COMMANDS_ENTRIES);
            let (reporter, reports) = RingBuffer::new(EVENTS_ENTRIES);
            let published = Arc::new(Published::default());
            let bell = Arc::clone(links.bell());
            supervisor.runtime.commands.borrow_mut().push(Inbox { commands, bell });
            supervisor.runtime.published.push(Arc::clone(&published));
            supervisor.reports.push(reports);
            let plan = Plan {
                shard: ShardId(number as u16),
                shards,
                cpu: placement[number],
                epoch: u32::from_ne_bytes(epoch),
                secret,
                config: Arc::clone(&config),
            };
            let (tls, is_draining) = (Arc::clone(&tls), false);
            let station = Station {
                links,
                inbox,
                reports: reporter,
                published,
                sockets,
                keeper: keepers.next(),
                clock,
                tls,
                is_draining,
            };
            let thread = shard::spawn::<P>(plan, station, Sender::clone(&sender));
            supervisor.threads.push(thread.map_err(system("a shard's thread"))?);
        }
        Ok(supervisor)
    }

    /// Waits until every shard takes traffic, or one cannot.
    fn await_up(&mut self) -> Result<(), StartError> {
        let mut waiting = self.threads.len();
        while waiting > 0 {
            match self.notices.recv() {
                Ok(Notice { what: News::Up, .. }) => waiting -= 1,
                Ok(notice) => self.follow(notice)?,
                Err(_) => return Err(self.vanished()),
            }
        }
        Ok(())
    }

    async fn control<F: Future<Output = ()> + 'static>(
        &mut self,
        admin: impl FnOnce(Runtime) -> F,
        ready: impl FnOnce(&Config),
    ) -> Result<(), StartError> {
        let signals = Rc::new(Cell::new(0));
        listen_for_signals(&signals).map_err(|error| {
            let what = "signal handlers";
            StartError::System { what, error }
        })?;
        tokio_uring::spawn(admin(self.runtime.clone()));
        self.runtime.state.enter(Phase::Ready);
        ready(&self.runtime.config);
        let mut interval = tokio::time::interval(CONTROL_INTERVAL);
        let mut end = End::Running;
        loop {
            interval.tick().await;
            self.collect_reports();
            if let Err(error) = self.look_after_shards() {
                self.stop_all();
                return Err(error);
            }
            let asked = signals.get() + u32::from(self.runtime.is_drain_asked.get());
            end = self.approach(end, asked);
            if end == End::Over {
                return Ok(());
            }
        }
    }

    /// One step toward the end, if any is due.
    fn approach(&mut self, end: End, asked: u32) -> End {
        let now = self.clock.now();
        match end {
            End::Running if asked > 0 => {
                let time = self.runtime.config.limits.drain_timeout;
                info!(drain_timeout_ms = time.as_millis() as u64, "draining");
                self.runtime.state.enter(Phase::Draining);
                self.send_all(|| Command::Drain);
                End::Draining(now + time)
            }
            End::Draining(_) | End::Stopping(_) if asked > 1 => {
                warn!("second signal: ending at once");
                self.collect_reports();
                std::process::exit(1);
            }
            End::Draining(until) => {
                let is_quiet = self.runtime.published.iter().all(|one| one.is_quiet());
                if !is_quiet && now < until {
                    return end;
                }
                if !is_quiet {
                    warn!("transactions are left at the end of the drain");
                }
                self.send_all(|| Command::Stop);
                End::Stopping(now + 2 * STOP_TIME)
            }
            End::Stopping(until) => {
                let is_over = self.has_stopped.iter().all(|&stopped| stopped) || now >= until;
                if is_over { End::Over } else { end }
            }
            End::Running | End::Over => end,
        }
    }

    fn look_after_shards(&mut self) -> Result<(), StartError> {
        while let Ok(notice) = self.notices.try_recv() {
            self.follow(notice)?;
        }
        let mut threads = self.threads.iter().zip(&self.has_stopped);
        if threads.any(|(thread, &has_stopped)| thread.is_finished() && !has_stopped) {
            // Its last words may have come after the look above.
            while let Ok(notice) = self.notices.try_recv() {
                self.follow(notice)?;
            }
            let mut threads = self.threads.iter().zip(&self.has_stopped);
            if threads.any(|(thread, &has_stopped)| thread.is_finished() && !has_stopped) {
                return Err(self.vanished());
            }
        }
        Ok(())
    }

    fn follow(&mut self, notice: Notice) -> Result<(), StartError> {
        let Notice { shard: ShardId(shard), what } = notice;
        match what {
            News::Up => Ok(()),
            News::Stopped => {
                self.has_stopped[usize::from(shard)] = true;
                Ok(())
            }
            News::Restarted(why) => {
                error!(shard, %why, "shard failed: its flows ended, it was started anew");
                Ok(())
            }
            News::Failed(why) => {
                error!(shard, %why, "shard failed for good");
                Err(StartError::Shard { shard, why })
            }
        }
    }

    fn vanished(&self) -> StartError {
        let position = self.threads.iter().position(JoinHandle::is_finished).unwrap_or_default();
        StartError::Shard { shard: position as u16, why: "its thread ended".to_owned() }
    }

    fn collect_reports(&mut self) {
        for (shard, reports) in self.reports.iter_mut().enumerate() {
            for _ in 0..EVENTS_ENTRIES {
                let Ok(report) = reports.pop() else { break };
                log_line::write(shard as u16, &report);
            }
        }
    }

    fn send_all(&mut self, command: impl Fn() -> Command) {
        for (shard, inbox) in self.runtime.commands.borrow_mut().iter_mut().enumerate() {
            if !inbox.send(command()) {
                error!(shard, "shard does not take commands");
            }
        }
    }

    /// Once the shards have ended: what they left is written.
    fn end_store(&mut self) {
        if let Some(store) = self.store.take() {
            store.end();
        }
    }

    /// Ends what runs, because something cannot.
    fn stop_all(&mut self) {
        self.send_all(|| Command::Stop);
        let until = self.clock.now() + 2 * STOP_TIME;
        while self.clock.now() < until && !self.threads.iter().all(JoinHandle::is_finished) {
            // Nothing else runs on this thread any more.
            let _ = self.notices.recv_timeout(CONTROL_INTERVAL);
        }
        self.collect_reports();
    }
}

/// How far the end of the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Running,
    /// Until when transactions may live.
    Draining(Time),
    /// Until when flows may take to close.
    Stopping(Time),
    Over,
}

fn listen_for_signals(count: &Rc<Cell<u32>>) -> io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut stream, count) = (signal(kind)?, Rc::clone(count));
        tokio_uring::spawn(async move {
            while stream.recv().await.is_some() {
                count.set(count.get() + 1);
            }
        });
    }
    let mut stream = signal(SignalKind::hangup())?;
    tokio_uring::spawn(async move {
        while stream.recv().await.is_some() {
            warn!("SIGHUP: reload is not supported yet; restart to apply a new configuration");
        }
    });
    Ok(())
}

fn look_after_descriptors(config: &Config, shards: u16) -> Result<(), StartError> {
    let limit = sys::raise_descriptor_limit()
        .map_err(|error| StartError::System { what: "limit of open descriptors", error })?;
    let sockets = config.listeners.len() as u64 * u64::from(shards);
    let needed = sockets + DESCRIPTORS_SPARE;
    if limit < needed {
        return Err(StartError::Descriptors { limit, needed });
    }
    let wanted = config.limits.flows_max as u64 * u64::from(shards) + needed;
    let advice = "the limit of open descriptors allows fewer flows than limits.flows_max: raise it \
                  (`ulimit -n`, systemd: LimitNOFILE=) or lower flows_max";
    if limit >= wanted {
        return Ok(());
    }
    // Who set a number wants it; the default is only a bound.
    if config.limits.flows_max == Limits::default().flows_max {
        info!(limit, wanted, "{advice}");
    } else {
        warn!(limit, wanted, "{advice}");
    }
    Ok(())
}
