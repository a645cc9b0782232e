//! A shard's thread: pinned to its CPU, started by tokio-uring, its one task is the driver. A panic
//! ends the incarnation, not the thread: links, listening sockets and numbers stay, flows end, and
//! a fresh driver begins.

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::Poll;
use std::thread::{Builder, JoinHandle};

use super::driver::Driver;
use super::protocol::Protocol;
use super::station::Station;
use super::store::Keeper;
use super::sys;
use crate::base::config::Config;
use crate::base::id::ShardId;
use crate::base::limits::{SHARD_RESTARTS_MAX, SHARD_RESTARTS_TIME};
use crate::base::time::Time;
use crate::engine::{Mishap, Setup};

/// What a shard is made with.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which.
    pub shard: ShardId,
    /// Of how many.
    pub shards: u16,
    /// The CPU to pin it to; `None`: wherever the system likes.
    pub cpu: Option<usize>,
    /// Which run of the process this is.
    pub epoch: u32,
    /// Key of tokens, placement and branches.
    pub secret: [u8; 32],
}

/// What a shard tells the supervisor.
#[derive(Debug)]
pub struct Notice {
    /// Who.
    pub shard: ShardId,
    /// What.
    pub what: News,
}

/// The news in a [`Notice`].
#[derive(Debug)]
pub enum News {
    /// It takes traffic.
    Up,
    /// It failed and was started anew.
    Restarted {
        /// What failed, and on which message.
        mishap: Mishap,
        /// Requests that it left without an answer.
        lost: u64,
    },
    /// It cannot go on.
    Failed(String),
    /// It ended because it was told to.
    Stopped,
}

/// Starts a shard's thread.
pub fn spawn<P: Protocol>(
    plan: Plan,
    station: Station,
    notices: Sender<Notice>,
) -> io::Result<JoinHandle<()>> {
    let name = format!("shard-{}", plan.shard.0);
    Builder::new().name(name).spawn(move || {
        if let Some(cpu) = plan.cpu {
            // Unpinned it is only slower.
            let _ = sys::pin(cpu);
        }
        let mut rings = tokio_uring::uring_builder();
        rings.setup_coop_taskrun().setup_single_issuer().setup_cqsize(4 * RUNTIME_ENTRIES);
        let mut builder = tokio_uring::builder();
        builder.entries(RUNTIME_ENTRIES).uring_builder(&rings);
        builder.start(serve::<P>(plan, station, notices));
    })
}

/// Submissions of the runtime's own ring, which serves guests only.
const RUNTIME_ENTRIES: u32 = 64;

async fn serve<P: Protocol>(plan: Plan, mut station: Station, notices: Sender<Notice>) {
    let tell = |what| {
        // Nobody listens any more once the process ends.
        let _ = notices.send(Notice { shard: plan.shard, what });
    };
    let (clock, mut restarts) = (station.clock, Restarts::default());
    for incarnation in 0..=u8::MAX {
        let setup = match plan.setup(incarnation, &station.config) {
            Ok(setup) => setup,
            Err(error) => return tell(News::Failed(format!("no randomness: {error}"))),
        };
        let mut driver = match Driver::<P>::new(setup, station) {
            Ok(driver) => driver,
            Err((error, _)) => return tell(News::Failed(error.to_string())),
        };
        if incarnation == 0 {
            driver.restore();
            tell(News::Up);
        }
        let mishap = match catch(driver.run()).await {
            Ok(Ok(())) => {
                let station = driver.dismantle();
                station.keeper.into_iter().for_each(|mut keeper| keeper.finish());
                return tell(News::Stopped);
            }
            Ok(Err(error)) => {
                Mishap { words: format!("the ring failed: {error}"), message: Box::default() }
            }
            Err(panic) => Mishap::of(panic),
        };
        let lost = driver.count_lost();
        // Before any peer can see it.
        let ended_at = clock.now();
        station = driver.dismantle();
        station.keeper.iter_mut().for_each(Keeper::start_again);
        station.ended_at = Some(ended_at);
        let words = mishap.words.clone();
        tell(News::Restarted { mishap, lost });
        if !restarts.permits(ended_at) {
            let often = SHARD_RESTARTS_MAX + 1;
            return tell(News::Failed(format!("it failed {often} times within an hour: {words}")));
        }
    }
    tell(News::Failed("it failed 256 times, after which flows would be named again".to_owned()));
}

/// When a shard was started anew, as far as it counts.
#[derive(Debug, Default)]
struct Restarts(VecDeque<Time>);

impl Restarts {
    /// Notes a failure. False: it fails too often to be started anew.
    fn permits(&mut self, now: Time) -> bool {
        while self.0.front().is_some_and(|at| now.saturating_since(*at) >= SHARD_RESTARTS_TIME) {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len() <= SHARD_RESTARTS_MAX
    }
}

impl Plan {
    fn setup(&self, incarnation: u8, config: &Arc<Config>) -> io::Result<Setup> {
        let mut seed = [0; 32];
        sys::random(&mut seed)?;
        Ok(Setup {
            shard: self.shard,
            shards: self.shards,
            incarnation,
            epoch: self.epoch,
            seed,
            secret: self.secret,
            config: Arc::clone(config),
        })
    }
}

/// Awaits a future and turns its panic into an error.
async fn catch<F: Future>(future: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        // The driver is dismantled after a panic; nothing of its state is trusted again.
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// How many shards to run: `configured`, or one per CPU that this process may use (affinity set and
/// cgroup quota).
pub fn shard_count(configured: u16) -> u16 {
    let most = usize::from(crate::base::id::SHARDS_MAX);
    match configured {
        0 => std::thread::available_parallelism().map_or(1, |count| count.get().min(most) as u16),
        count => count.min(most as u16),
    }
}

/// The CPU of each shard: pinned only when every shard has one of its own and no quota takes part
/// of it away.
pub fn placement(shards: u16) -> Vec<Option<usize>> {
    let cpus = sys::affinity();
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let pins = usize::from(shards) <= cpus.len() && usable >= cpus.len();
    (0..usize::from(shards)).map(|shard| pins.then(|| cpus[shard])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_follow_the_configuration_or_the_machine() {
        assert_eq!(shard_count(3), 3);
        assert!((1..=crate::base::id::SHARDS_MAX).contains(&shard_count(0)));
        assert_eq!(shard_count(u16::MAX), crate::base::id::SHARDS_MAX);
    }

    #[test]
    fn what_fails_rarely_goes_on_and_what_fails_often_does_not() {
        let mut restarts = Restarts::default();
        let mut now = Time::ZERO;
        for _ in 0..1000 {
            assert!(restarts.permits(now));
            now += SHARD_RESTARTS_TIME / SHARD_RESTARTS_MAX as u32;
        }
        now += SHARD_RESTARTS_TIME;
        for _ in 0..SHARD_RESTARTS_MAX {
            assert!(restarts.permits(now));
        }
        assert!(!restarts.permits(now));
    }

    #[test]
    fn pinned_shards_have_a_cpu_each() {
        let places = placement(1000);
        assert!(places.len() == 1000 && places.iter().all(Option::is_none));
        let usable = shard_count(0);
        let places: Vec<usize> = placement(usable).into_iter().flatten().collect();
        let distinct: std::collections::BTreeSet<&usize> = places.iter().collect();
        assert_eq!(distinct.len(), places.len());
    }
}
