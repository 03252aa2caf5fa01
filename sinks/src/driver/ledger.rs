//! The account of a sink: what waits in memory and what became of everything else, under one lock.
//!
//! The lock is held for a few moves of pointers, never over I/O.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use netsonde_framework::Record;
use tokio::sync::Notify;

use crate::settings::Queue;
use crate::sink::{REASONS, Reason};

/// What has become of a sink's events. `received` equals `delivered`, all of `dropped` and [`Counts::queued`] together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Events that were pushed, and those that the disk buffer held at the start.
    pub received: u64,
    /// The part of `received` that the disk buffer held at the start.
    pub restored: u64,
    /// Events that arrived.
    pub delivered: u64,
    /// Events that were dropped, for each of [`REASONS`].
    pub dropped: [(&'static str, u64); REASONS.len()],
    /// How often a batch had to be sent again.
    pub retries: u64,
    /// Events that wait in memory.
    pub queue_events: u64,
    /// Their size.
    pub queue_bytes: u64,
    /// Events that wait in the disk buffer.
    pub buffer_events: u64,
    /// The size of its files.
    pub buffer_bytes: u64,
    /// Whether the last delivery failed.
    pub failing: bool,
    /// When a delivery last worked, seconds since 1970.
    pub last_success: Option<u64>,
    /// Why a delivery last failed.
    pub last_error: Option<String>,
    /// Why the disk buffer took less than it was given when it was last written; `None` while it takes everything.
    pub buffer_error: Option<String>,
}

impl Counts {
    /// How many were dropped for this reason.
    pub fn dropped_for(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize].1
    }

    /// How many were dropped.
    pub fn lost(&self) -> u64 {
        self.dropped.iter().map(|(_, count)| count).sum()
    }

    /// How many wait, in memory or in the disk buffer.
    pub fn queued(&self) -> u64 {
        self.queue_events + self.buffer_events
    }
}

/// What the callers of a driver and its thread share.
#[derive(Debug)]
pub(super) struct Shared {
    ledger: Mutex<Ledger>,
    /// Something was pushed or asked for.
    pub(super) wake: Notify,
}

impl Shared {
    pub(super) fn new(limits: Queue) -> Self {
        Self { ledger: Mutex::new(Ledger::new(limits)), wake: Notify::new() }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The account.
#[derive(Debug)]
pub(super) struct Ledger {
    limits: Queue,
    queue: VecDeque<Arc<Record>>,
    bytes: usize,
    received: u64,
    restored: u64,
    delivered: u64,
    dropped: [u64; REASONS.len()],
    buffer_events: u64,
    buffer_bytes: u64,
    retries: u64,
    failing: bool,
    last_success: Option<u64>,
    last_error: Option<String>,
    pub(super) buffer_error: Option<String>,
    /// Nothing is taken, moved or counted any more.
    closed: bool,
    /// The thread is to end by then.
    pub(super) stop_by: Option<Instant>,
    /// The sink is to open its files anew.
    pub(super) reopen: bool,
}

/// How many bytes of the queue's limit a record takes.
pub(super) fn size(record: &Record) -> usize {
    record.json.len() + size_of::<Record>()
}

impl Ledger {
    fn new(limits: Queue) -> Self {
        Self {
            limits,
            queue: VecDeque::new(),
            bytes: 0,
            received: 0,
            restored: 0,
            delivered: 0,
            dropped: [0; REASONS.len()],
            buffer_events: 0,
            buffer_bytes: 0,
            retries: 0,
            failing: false,
            last_success: None,
            last_error: None,
            buffer_error: None,
            closed: false,
            stop_by: None,
            reopen: false,
        }
    }

    pub(super) fn push(&mut self, records: &[Arc<Record>]) {
        for record in records {
            self.received += 1;
            let bytes = self.bytes.saturating_add(size(record));
            if self.closed {
                self.dropped[Reason::Stopped as usize] += 1;
            } else if self.queue.len() >= self.limits.events || bytes > self.limits.bytes {
                self.dropped[Reason::QueueFull as usize] += 1;
            } else {
                self.bytes = bytes;
                self.queue.push_back(Arc::clone(record));
            }
        }
    }

    /// The first events of the queue in memory, which stay there: at most so many, and so many bytes but for one event.
    pub(super) fn front(&self, events: usize, bytes: usize) -> Vec<Arc<Record>> {
        let mut sum = 0;
        let fitting = self.queue.iter().take(events).enumerate().take_while(|(n, record)| {
            sum += size(record);
            *n == 0 || sum <= bytes
        });
        fitting.map(|(_, record)| Arc::clone(record)).collect()
    }

    /// Events and bytes in memory.
    pub(super) fn in_memory(&self) -> (usize, usize) {
        (self.queue.len(), self.bytes)
    }

    /// The first `count` events of the queue in memory, no more than there are.
    fn pop(&mut self, count: usize) -> u64 {
        let gone = self.queue.drain(..count.min(self.queue.len()));
        let (mut events, mut bytes) = (0, 0);
        for record in gone {
            events += 1;
            bytes += size(&record);
        }
        self.bytes -= bytes;
        events
    }

    /// The first `count` in memory have arrived.
    pub(super) fn delivered(&mut self, count: usize) {
        self.delivered += self.pop(count);
    }

    /// The first `count` in memory are given up.
    pub(super) fn dropped(&mut self, count: usize, reason: Reason) {
        self.dropped[reason as usize] += self.pop(count);
    }

    /// The first `count` in memory are on disk now.
    pub(super) fn buffered(&mut self, count: usize, buffer_bytes: u64) {
        self.buffer_events += self.pop(count);
        self.buffer_bytes = buffer_bytes;
    }

    /// The disk buffer held these at the start; so many more were damaged.
    pub(super) fn restored(&mut self, events: u64, damaged: u64, buffer_bytes: u64) {
        self.restored = events + damaged;
        self.received += events + damaged;
        self.buffer_events = events;
        self.buffer_bytes = buffer_bytes;
        self.dropped[Reason::BufferCorrupt as usize] += damaged;
    }

    /// `events` left the disk buffer, whose files are so large now: they have arrived, or are dropped.
    pub(super) fn unbuffered(&mut self, events: u64, dropped: Option<Reason>, buffer_bytes: u64) {
        self.buffer_bytes = buffer_bytes;
        if self.closed {
            return;
        }
        let events = events.min(self.buffer_events);
        self.buffer_events -= events;
        match dropped {
            Some(reason) => self.dropped[reason as usize] += events,
            None => self.delivered += events,
        }
    }

    /// A delivery has worked.
    pub(super) fn succeeded(&mut self) {
        self.failing = false;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.last_success = now.ok().map(|since| since.as_secs());
    }

    /// A delivery has failed; `again` if it is tried once more.
    pub(super) fn failed(&mut self, why: String, again: bool) {
        if !self.closed {
            self.failing = true;
            self.retries += u64::from(again);
            self.last_error = Some(why);
        }
    }

    /// Ends the account: what still waits in memory is dropped.
    pub(super) fn close(&mut self) {
        self.dropped(usize::MAX, Reason::Stopped);
        self.closed = true;
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            received: self.received,
            restored: self.restored,
            delivered: self.delivered,
            dropped: std::array::from_fn(|n| (REASONS[n], self.dropped[n])),
            retries: self.retries,
            queue_events: self.queue.len() as u64,
            queue_bytes: self.bytes as u64,
            buffer_events: self.buffer_events,
            buffer_bytes: self.buffer_bytes,
            failing: self.failing,
            last_success: self.last_success,
            last_error: self.last_error.clone(),
            buffer_error: self.buffer_error.clone(),
        }
    }
}
