//! Links: what shards say to each other travels in bounded rings, one pair of lanes a direction.
//! The *work* lane refuses when it is full; the *duty* lane spills into a queue on the sender's
//! side that is flushed each turn. A shard that sleeps is woken once a batch. Absent on purpose:
//! what the messages mean (`engine/mesh`).

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::sys;
use crate::base::id::ShardId;
use crate::base::limits::{LINK_DUTY_ENTRIES, LINK_ENTRIES_MIN, LINK_WORK_ENTRIES, Limits};

/// How a sleeping shard is woken.
#[derive(Debug)]
pub struct Doorbell {
    is_asleep: AtomicBool,
    event: OwnedFd,
}

impl Doorbell {
    /// A doorbell of a shard that is awake.
    pub fn new() -> std::io::Result<Doorbell> {
        Ok(Doorbell { is_asleep: AtomicBool::new(false), event: sys::event_fd()? })
    }

    /// The descriptor that becomes readable when it is rung.
    pub fn event(&self) -> &OwnedFd {
        &self.event
    }

    /// For senders, after their messages are in the rings: wakes the owner if it sleeps.
    pub fn ring(&self) {
        // Orders our message before our look at the flag; `fall_asleep` orders its flag before its
        // last look at the rings. One of the two sees the other.
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            sys::signal(&self.event);
        }
    }

    /// For the owner, before it waits: `is_idle` looks at every ring once more. False: do not wait.
    pub fn fall_asleep(&self, is_idle: impl FnOnce() -> bool) -> bool {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let is_idle = is_idle();
        if !is_idle {
            self.wake_up();
        }
        is_idle
    }

    /// For the owner, when it is awake again.
    pub fn wake_up(&self) {
        self.is_asleep.store(false, Ordering::Relaxed);
    }
}

struct Outgoing<T> {
    work: Producer<T>,
    duty: Producer<T>,
    /// Duty that found its lane full, oldest first.
    spill: VecDeque<T>,
    bell: Arc<Doorbell>,
    /// Whether something was sent since the bell was last rung.
    is_touched: bool,
}

struct Incoming<T> {
    work: Consumer<T>,
    duty: Consumer<T>,
    from: ShardId,
}

/// One shard's ends of all its links.
pub struct Links<T> {
    /// By shard; none to ourselves.
    outgoing: Vec<Option<Outgoing<T>>>,
    incoming: Vec<Incoming<T>>,
    /// Whose turn it is to be read first.
    first: usize,
    bell: Arc<Doorbell>,
    spill_max: usize,
    touched: Vec<ShardId>,
}

/// A message that was not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum SendError<T> {
    /// The work lane is full: here it is back.
    Refused(T),
    /// Not even the queue behind the duty lane has room: a fault of ours, the message is lost.
    Lost,
}

/// The bound of duty that waits for one shard: it follows from how many flows and transactions there
/// may be.
pub fn spill_max(limits: &Limits) -> usize {
    limits.flows_max + 4 * limits.transactions_max
}

/// Links every shard with every other. `spill_max` bounds the duty that waits for one shard.
pub fn mesh<T>(shards: u16, spill_max: usize) -> std::io::Result<Vec<Links<T>>> {
    let count = usize::from(shards);
    let bells = (0..count).map(|_| Ok(Arc::new(Doorbell::new()?)));
    let bells: Vec<Arc<Doorbell>> = bells.collect::<std::io::Result<_>>()?;
    let mut links: Vec<Links<T>> =
        bells.iter().map(|bell| Links::new(bell, count, spill_max)).collect();
    for from in 0..count {
        for to in (0..count).filter(|&to| to != from) {
            let (work_in, work_out) = RingBuffer::new(lane_entries(LINK_WORK_ENTRIES, count));
            let (duty_in, duty_out) = RingBuffer::new(lane_entries(LINK_DUTY_ENTRIES, count));
            let bell = Arc::clone(&bells[to]);
            let (spill, is_touched) = (VecDeque::new(), false);
            let outgoing = Outgoing { work: work_in, duty: duty_in, spill, bell, is_touched };
            links[from].outgoing[to] = Some(outgoing);
            let from = ShardId(from as u16);
            links[to].incoming.push(Incoming { work: work_out, duty: duty_out, from });
        }
    }
    Ok(links)
}

/// Entries of one lane: memory grows with the square of the shards, so lanes shrink with their
/// number.
fn lane_entries(most: usize, shards: usize) -> usize {
    (2 * most / shards.next_power_of_two()).clamp(LINK_ENTRIES_MIN, most)
}

impl<T> Links<T> {
    fn new(bell: &Arc<Doorbell>, shards: usize, spill_max: usize) -> Links<T> {
        Links {
            outgoing: (0..shards).map(|_| None).collect(),
            incoming: Vec::new(),
            first: 0,
            bell: Arc::clone(bell),
            spill_max,
            touched: Vec::new(),
        }
    }

    /// Our own doorbell.
    pub fn bell(&self) -> &Arc<Doorbell> {
        &self.bell
    }

    /// Sends a message; its receiver is woken by [`Links::flush`].
    pub fn send(&mut self, to: ShardId, message: T, is_work: bool) -> Result<(), SendError<T>> {
        let outgoing = self.outgoing[to.index()].as_mut().expect("a shard has no link to itself");
        if !outgoing.is_touched {
            outgoing.is_touched = true;
            self.touched.push(to);
        }
        if is_work {
            let refused = |PushError::Full(message)| SendError::Refused(message);
            return outgoing.work.push(message).map_err(refused);
        }
        // What spilled goes first: a lane keeps its order.
        let message = if outgoing.spill.is_empty() {
            match outgoing.duty.push(message) {
                Ok(()) => return Ok(()),
                Err(PushError::Full(message)) => message,
            }
        } else {
            message
        };
        if outgoing.spill.len() >= self.spill_max {
            return Err(SendError::Lost);
        }
        outgoing.spill.push_back(message);
        Ok(())
    }

    /// Moves the bound of duty that waits for one shard.
    pub fn set_spill_max(&mut self, spill_max: usize) {
        self.spill_max = spill_max;
    }

    /// End of a turn: moves spilled duty on and wakes who was sent something. False: duty is left
    /// for later.
    pub fn flush(&mut self) -> bool {
        let mut is_done = true;
        let mut touched = std::mem::take(&mut self.touched);
        touched.retain(|to| {
            let outgoing = self.outgoing[to.index()].as_mut().expect("touched by send");
            while let Some(message) = outgoing.spill.pop_front() {
                if let Err(PushError::Full(message)) = outgoing.duty.push(message) {
                    outgoing.spill.push_front(message);
                    break;
                }
            }
            outgoing.bell.ring();
            outgoing.is_touched = !outgoing.spill.is_empty();
            is_done &= !outgoing.is_touched;
            outgoing.is_touched
        });
        self.touched = touched;
        is_done
    }

    /// The next message from any shard, in turn; of each shard duty before work.
    pub fn pop(&mut self) -> Option<(ShardId, T)> {
        let count = self.incoming.len();
        for step in 0..count {
            let position = (self.first + step) % count;
            let incoming = &mut self.incoming[position];
            if let Ok(message) = incoming.duty.pop().or_else(|_| incoming.work.pop()) {
                self.first = position + 1;
                return Some((incoming.from, message));
            }
        }
        None
    }

    /// Whether [`Links::pop`] would find something.
    pub fn has_incoming(&self) -> bool {
        self.incoming.iter().any(|incoming| !incoming.duty.is_empty() || !incoming.work.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);

    fn pair(spill_max: usize) -> (Links<usize>, Links<usize>) {
        let mut links = mesh(2, spill_max).unwrap();
        let b = links.pop().unwrap();
        (links.pop().unwrap(), b)
    }

    #[test]
    fn full_work_comes_back_and_full_duty_waits_in_order() {
        let (mut a, mut b) = pair(10);
        for number in 0..LINK_WORK_ENTRIES {
            assert_eq!(a.send(B, number, true), Ok(()));
        }
        assert_eq!(a.send(B, 77, true), Err(SendError::Refused(77)));
        for number in 0..LINK_DUTY_ENTRIES + 10 {
            assert_eq!(a.send(B, number, false), Ok(()));
        }
        assert_eq!(a.send(B, 78, false), Err(SendError::Lost));
        assert!(!a.flush());
        for number in 0..LINK_DUTY_ENTRIES + 10 {
            assert_eq!(b.pop(), Some((A, number)), "duty goes first, in order");
            a.flush();
        }
        assert!(a.flush());
        assert!((0..LINK_WORK_ENTRIES).all(|number| b.pop() == Some((A, number))));
        assert_eq!(b.pop(), None);
    }

    #[test]
    fn shards_are_read_in_turn() {
        let mut links = mesh::<usize>(3, 1).unwrap();
        let mut c = links.pop().unwrap();
        for shard in &mut links {
            shard.send(ShardId(2), 1, true).unwrap();
            shard.send(ShardId(2), 2, true).unwrap();
        }
        let order: Vec<u16> = std::iter::from_fn(|| c.pop()).map(|(from, _)| from.0).collect();
        assert_eq!(order, [0, 1, 0, 1]);
    }

    #[test]
    fn lanes_shrink_with_the_number_of_shards() {
        assert_eq!(lane_entries(LINK_WORK_ENTRIES, 1), LINK_WORK_ENTRIES);
        assert_eq!(lane_entries(LINK_WORK_ENTRIES, 16), LINK_WORK_ENTRIES / 8);
        assert_eq!(lane_entries(LINK_DUTY_ENTRIES, 1000), LINK_ENTRIES_MIN);
    }

    #[test]
    fn no_wake_is_lost_between_two_threads() {
        const COUNT: usize = 20_000;
        let (mut a, mut b) = pair(COUNT);
        let sender = std::thread::spawn(move || {
            for number in 0..COUNT {
                a.send(B, number, false).unwrap();
                if number % 3 == 0 {
                    a.flush();
                }
            }
            while !a.flush() {
                std::thread::yield_now();
            }
            a
        });
        let mut expected = 0;
        while expected < COUNT {
            while let Some((_, number)) = b.pop() {
                assert_eq!(number, expected);
                expected += 1;
            }
            let bell = Arc::clone(b.bell());
            if expected < COUNT && bell.fall_asleep(|| !b.has_incoming()) {
                let mut event = std::fs::File::from(bell.event().try_clone().unwrap());
                std::io::Read::read_exact(&mut event, &mut [0; 8]).unwrap();
                bell.wake_up();
            }
        }
        sender.join().unwrap();
    }
}
