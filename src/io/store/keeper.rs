//! A shard's side of the store: gathers what changed, hands it over when its time has come, hears
//! what is durable, and gets what former runs left. Never waits, but at the start, before the shard
//! takes traffic.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, sync_channel};
use std::time::Duration;

use super::batch::Batch;
use super::shelf::Shelf;
use super::worker::{Page, Request};
use crate::base::limits::STORE_PAGES;
use crate::base::time::Time;

/// One shard's end of the store.
pub struct Keeper {
    shard: usize,
    shelf: Arc<Shelf>,
    delay: Duration,
    batch: Box<Batch>,
    /// When the batch is to be handed over; `None` while it is empty or finds no room.
    due: Option<Time>,
    /// The batch was due and found the one before.
    is_late: bool,
    /// The last change that the shard was told to be durable.
    told: u64,
    pages: Option<Receiver<Page>>,
    /// A page that was seen before the shard slept.
    seen: Option<Page>,
    requests: Sender<Request>,
}

impl Keeper {
    pub(super) fn new(
        shard: usize,
        shelf: Arc<Shelf>,
        delay: Duration,
        requests: Sender<Request>,
    ) -> Keeper {
        Keeper {
            shard,
            shelf,
            delay,
            batch: Box::default(),
            due: None,
            is_late: false,
            told: 0,
            pages: None,
            seen: None,
            requests,
        }
    }

    /// A binding has come or changed.
    pub fn put(&mut self, now: Time, serial: u64, id: u64, is_new: bool, at: Time, record: &[u8]) {
        self.batch.put(serial, id, is_new, at, record);
        self.gathered(now);
    }

    /// A binding is gone.
    pub fn remove(&mut self, now: Time, serial: u64, id: u64) {
        self.batch.remove(serial, id);
        self.gathered(now);
    }

    fn gathered(&mut self, now: Time) {
        self.shelf.note_gathered(self.batch.len());
        if !self.is_late {
            self.due.get_or_insert(now + self.delay);
        }
    }

    /// When [`Keeper::hand_over`] wants to be called.
    pub fn next_deadline(&self) -> Option<Time> {
        self.due
    }

    /// At the end of a turn: hands over what is due, if it finds room.
    pub fn hand_over(&mut self, now: Time) {
        if !self.is_late && self.due.is_none_or(|due| due > now) {
            return;
        }
        self.due = None;
        self.is_late = !self.shelf.leave(&mut self.batch);
        if !self.is_late {
            self.shelf.note_gathered(0);
            let _ = self.requests.send(Request::Look);
        }
    }

    /// What became durable since the last call.
    pub fn take_durable(&mut self) -> Option<u64> {
        if !self.delay.is_zero() {
            return None;
        }
        let durable = self.shelf.durable();
        let is_news = durable > self.told;
        self.told = self.told.max(durable);
        is_news.then_some(durable)
    }

    /// Before the shard sleeps: whether a call of another method would do something at once.
    pub fn has_news(&mut self) -> bool {
        self.seen = self.next_page();
        if self.seen.is_some() {
            return true;
        }
        let is_durable = self.delay.is_zero() && self.shelf.durable() > self.told;
        is_durable || self.is_late && self.shelf.has_room()
    }

    /// The next page of what former runs left, if it is here.
    pub fn next_page(&mut self) -> Option<Page> {
        if let Some(page) = self.seen.take() {
            return Some(page);
        }
        match self.pages.as_ref()?.try_recv() {
            Ok(page) => Some(page),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.pages = None;
                None
            }
        }
    }

    /// The same before the shard takes traffic: waits that long. An error is the end of pages.
    pub fn await_page(&mut self, most: Duration) -> Result<Option<Page>, EndOfPages> {
        match self.pages.as_ref().ok_or(EndOfPages)?.recv_timeout(most) {
            Ok(page) => Ok(Some(page)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                self.pages = None;
                Err(EndOfPages)
            }
        }
    }

    /// The shard's table is lost and has to come back: first what it had gathered goes out.
    pub fn start_again(&mut self) {
        self.finish();
        self.ask_for_records();
        let _ = self.requests.send(Request::Begin);
    }

    pub(super) fn ask_for_records(&mut self) {
        let (pages, inbox) = sync_channel(STORE_PAGES);
        self.pages = Some(inbox);
        let _ = self.requests.send(Request::Read { shard: self.shard, pages });
    }

    /// The shard ends: everything that it had gathered goes out.
    pub fn finish(&mut self) {
        if !self.batch.is_empty() {
            self.shelf.leave_all(&mut self.batch);
            self.shelf.note_gathered(0);
        }
        (self.due, self.is_late) = (None, false);
        let _ = self.requests.send(Request::Look);
    }
}

/// All pages have come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndOfPages;
