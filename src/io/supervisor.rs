//! The control thread: binds listeners, starts the shards, writes their reports to the log, watches
//! them, and ends the process in order. An ordinary tokio-uring program; nothing that a message
//! waits for happens here.
//!
//! SIGTERM or SIGINT drains: no new flows or dialogs, living transactions get
//! `limits.drain_timeout`, then flows are closed over `limits.drain_spread`. A second one ends the
//! process at once. SIGHUP reads the configuration again (see `reload`).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rtrb::{Consumer, RingBuffer};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use super::clock::Clock;
use super::commands::{Command, Inbox};
use super::guests::Guest;
use super::in_force::{InForce, Reloads, look_after_descriptors};
use super::link::{mesh, spill_max};
use super::listen::{BindError, bind_all};
use super::log_line::{self, Report};
use super::protocol::Protocol;
use super::publish::{Phase, Published, RunState};
use super::reload::Reload;
use super::ring::{Ring, RingError};
use super::shard::{self, News, Notice, Plan};
use super::station::Station;
use super::store::{Running, Store};
use super::sys;
use super::tls::TlsMaterial;
use crate::base::config::Config;
use crate::base::id::ShardId;
use crate::base::limits::{COMMANDS_ENTRIES, CONTROL_INTERVAL, EVENTS_ENTRIES, STOP_TIME};
use crate::base::time::Time;
use crate::engine::Engine;

/// What the tasks of the control thread may know and do.
#[derive(Clone)]
pub struct Runtime {
    /// Each shard's numbers.
    pub published: Vec<Arc<Published>>,
    /// What the process is doing.
    pub state: Arc<RunState>,
    /// What came of reading the configuration again.
    pub reloads: Rc<Cell<Reloads>>,
    commands: Rc<RefCell<Vec<Inbox>>>,
    is_drain_asked: Rc<Cell<bool>>,
    is_reload_asked: Rc<Cell<bool>>,
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

    /// Does what SIGHUP does.
    pub fn reload(&self) {
        self.is_reload_asked.set(true);
    }
}

/// What a process is started with.
pub struct Start {
    /// What decides what happens to a message.
    pub config: Config,
    /// Threads (see [`super::shard_count`]).
    pub shards: u16,
    /// Certificates and ticket keys.
    pub tls: TlsMaterial,
    /// The key of tokens and placement.
    pub secret: [u8; 32],
    /// Where bindings are kept; `None`: in memory only.
    pub store: Option<Store>,
    /// How the configuration is read again; `None`: there is no file.
    pub reload: Option<Reload>,
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

/// Runs the proxy on the threads of its shards and the calling thread until a signal ends it.
///
/// `admin` makes the task that the control thread hosts. `ready` is called once every shard takes
/// traffic, with the ports that the system chose for those configured as 0.
pub fn run<F: Future<Output = ()> + 'static>(
    start: Start,
    admin: impl FnOnce(Runtime) -> F,
    ready: impl FnOnce(&Config),
) -> Result<(), StartError> {
    run_protocol::<Engine, F>(start, admin, ready)
}

pub(super) fn run_protocol<P: Protocol, F: Future<Output = ()> + 'static>(
    start: Start,
    admin: impl FnOnce(Runtime) -> F,
    ready: impl FnOnce(&Config),
) -> Result<(), StartError> {
    Ring::probe()?;
    look_after_descriptors(&start.config, start.shards)?;
    let mut supervisor = Supervisor::start::<P>(start)?;
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

struct Supervisor {
    runtime: Runtime,
    in_force: InForce,
    reports: Vec<Consumer<Report>>,
    notices: Receiver<Notice>,
    threads: Vec<JoinHandle<()>>,
    store: Option<Running>,
    has_stopped: Vec<bool>,
    clock: Clock,
}

impl Supervisor {
    fn start<P: Protocol>(start: Start) -> Result<Supervisor, StartError> {
        let Start { mut config, shards, tls, secret, store, reload } = start;
        let system = |what| move |error| StartError::System { what, error };
        let sockets = bind_all(&mut config, shards)?;
        let links = mesh(shards, spill_max(&config.limits)).map_err(system("eventfd"))?;
        let (config, tls, clock) = (Arc::new(config), Arc::new(tls), Clock::start());
        let mut epoch = [0; 4];
        sys::random(&mut epoch).map_err(system("random numbers"))?;
        let (sender, notices) = channel();
        let bells: Vec<_> = links.iter().map(|links| Arc::clone(links.bell())).collect();
        let started = store.map(|store| store.start(clock, &secret, &bells)).transpose();
        let (store, keepers) = started.map_err(system("the store's thread"))?.unzip();
        let mut keepers = keepers.into_iter().flatten();
        let mut supervisor = Supervisor {
            runtime: Runtime {
                published: Vec::new(),
                state: Arc::default(),
                reloads: Rc::default(),
                commands: Rc::default(),
                is_drain_asked: Rc::default(),
                is_reload_asked: Rc::default(),
            },
            in_force: InForce::new(&config, &tls, shards, reload, clock.now()),
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
            supervisor.runtime.commands.borrow_mut().push(Inbox::new(commands, bell));
            supervisor.runtime.published.push(Arc::clone(&published));
            supervisor.reports.push(reports);
            let plan = Plan {
                shard: ShardId(number as u16),
                shards,
                cpu: placement[number],
                epoch: u32::from_ne_bytes(epoch),
                secret,
            };
            let (config, tls) = (Arc::clone(&config), Arc::clone(&tls));
            let station = Station {
                links,
                inbox,
                reports: reporter,
                published,
                sockets,
                keeper: keepers.next(),
                clock,
                config,
                tls,
                is_draining: false,
                ended_at: None,
                unclaimed: Vec::new(),
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
        listen_for_signals(&signals, &self.runtime.is_reload_asked).map_err(|error| {
            let what = "signal handlers";
            StartError::System { what, error }
        })?;
        tokio_uring::spawn(admin(self.runtime.clone()));
        self.runtime.state.enter(Phase::Ready);
        ready(self.in_force.config());
        let mut interval = tokio::time::interval(CONTROL_INTERVAL);
        let mut end = End::Running;
        loop {
            interval.tick().await;
            self.collect_reports();
            if let Err(error) = self.look_after_shards() {
                self.stop_all();
                return Err(error);
            }
            if end == End::Running {
                let is_asked = self.runtime.is_reload_asked.replace(false);
                let mut inboxes = self.runtime.commands.borrow_mut();
                self.in_force.look_after(self.clock.now(), is_asked, &mut inboxes);
                self.runtime.reloads.set(self.in_force.reloads());
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
                let time = self.in_force.config().limits.drain_timeout;
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
                let spread = self.in_force.config().limits.drain_spread;
                self.send_all(|| Command::Stop { spread });
                End::Stopping(now + spread + 2 * STOP_TIME)
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
            News::Restarted { mishap, lost } => {
                log_line::write_mishap(shard, &mishap, lost);
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
        self.send_all(|| Command::Stop { spread: Duration::ZERO });
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

fn listen_for_signals(count: &Rc<Cell<u32>>, reload: &Rc<Cell<bool>>) -> io::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut stream, count) = (signal(kind)?, Rc::clone(count));
        tokio_uring::spawn(async move {
            while stream.recv().await.is_some() {
                count.set(count.get() + 1);
            }
        });
    }
    let (mut stream, reload) = (signal(SignalKind::hangup())?, Rc::clone(reload));
    tokio_uring::spawn(async move {
        while stream.recv().await.is_some() {
            reload.set(true);
        }
    });
    Ok(())
}
