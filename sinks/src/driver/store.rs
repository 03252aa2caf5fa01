//! Where the events of a sink wait: in memory, and in the disk buffer if there is one. Used by the driver's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use netsonde_framework::Record;

use super::buffer::Buffer;
use super::causes::Causes;
use super::ledger::Shared;
use crate::settings::Delivery;
use crate::sink::{Reason, Refusal, SinkError};

/// How often a disk buffer that cannot be written is tried.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// Where the events of a sink wait.
pub(super) struct Store {
    name: &'static str,
    pub(super) shared: Arc<Shared>,
    buffer: Option<Buffer>,
    /// The disk buffer could not be written; it is tried again then.
    disk_again: Option<Instant>,
    causes: Causes,
    /// The log says that something is wrong.
    told: bool,
}

/// A batch, and where its events still are.
pub(super) struct Taken {
    pub(super) records: Vec<Arc<Record>>,
    pub(super) on_disk: bool,
}

impl Store {
    /// Opens the disk buffer, if there is to be one, and counts what it holds.
    pub(super) fn open(
        name: &'static str,
        shared: Arc<Shared>,
        delivery: &Delivery,
    ) -> Result<Self, SinkError> {
        let mut store =
            Self { name, shared, buffer: None, disk_again: None, causes: Causes::default(), told: false };
        if let Some(settings) = &delivery.buffer {
            let (buffer, found) = Buffer::open(&settings.path, settings.max_bytes)?;
            if found.damaged > 0 {
                store.skipped(found.damaged);
            }
            store.shared.ledger().restored(found.events, found.damaged, buffer.bytes());
            store.buffer = Some(buffer);
        }
        Ok(store)
    }

    /// Whether what is not delivered outlasts this process.
    pub(super) fn lasts(&self) -> bool {
        self.buffer.is_some()
    }

    /// Moves what is in memory to the disk buffer, if there is one.
    pub(super) fn spill(&mut self) {
        if self.buffer.is_none() || self.disk_again.is_some_and(|at| Instant::now() < at) {
            return;
        }
        self.disk_again = None;
        // What is pushed meanwhile is for the next time.
        let (mut left, _) = self.shared.ledger().in_memory();
        while left > 0 {
            let records = self.shared.ledger().front(left.min(1000), 1 << 20);
            left = left.saturating_sub(records.len().max(1));
            let Some(buffer) = &mut self.buffer else { return };
            let appended = buffer.append(&records);
            let mut ledger = self.shared.ledger();
            ledger.buffered(appended.taken, buffer.bytes());
            let Err(refusal) = appended.end else {
                ledger.buffer_error = None;
                continue;
            };
            let why = refusal.why().to_owned();
            ledger.buffer_error = Some(why.clone());
            let dropped = match refusal {
                Refusal::Drop { reason: Reason::TooLarge, .. } => Some((1, Reason::TooLarge)),
                Refusal::Drop { reason, .. } => Some((records.len() - appended.taken, reason)),
                Refusal::Retry { .. } | Refusal::Split { .. } => None,
            };
            if let Some((count, reason)) = dropped {
                ledger.dropped(count, reason);
            }
            drop(ledger);
            self.tell(&why);
            if dropped.is_none() {
                self.disk_again = Some(Instant::now() + DISK_PAUSE);
                return;
            }
        }
    }

    /// Events and bytes that can be delivered.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let (events, bytes) = self.shared.ledger().in_memory();
        match &self.buffer {
            Some(buffer) if buffer.events() > 0 => (
                usize::try_from(buffer.events()).unwrap_or(usize::MAX),
                usize::try_from(buffer.waiting_bytes()).unwrap_or(usize::MAX),
            ),
            _ => (events, bytes),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting().0 == 0
    }

    /// The next batch. From memory where there is no disk buffer, and where it is empty but cannot be written.
    pub(super) fn front(&mut self, events: usize, bytes: usize) -> Result<Option<Taken>, String> {
        if let Some(buffer) = &mut self.buffer
            && buffer.events() > 0
        {
            let (records, damaged) = buffer.front(events, bytes)?;
            if damaged > 0 {
                self.shared.ledger().unbuffered(damaged, Some(Reason::BufferCorrupt), buffer.bytes());
                self.skipped(damaged);
            }
            return Ok((!records.is_empty()).then_some(Taken { records, on_disk: true }));
        }
        // What came since the last spill goes to the disk first: a batch from memory holds up spilling while it is delivered.
        if self.buffer.is_some() && self.disk_again.is_none() {
            return Ok(None);
        }
        let records = self.shared.ledger().front(events, bytes);
        Ok((!records.is_empty()).then_some(Taken { records, on_disk: false }))
    }

    /// The first `count` of what is left of a batch have arrived or are dropped.
    pub(super) fn remove(&mut self, taken: &Taken, count: usize, dropped: Option<Reason>) {
        if count == 0 {
            return;
        }
        let Some(buffer) = self.buffer.as_mut().filter(|_| taken.on_disk) else {
            let mut ledger = self.shared.ledger();
            return match dropped {
                Some(reason) => ledger.dropped(count, reason),
                None => ledger.delivered(count),
            };
        };
        let acknowledged = buffer.acknowledge(count);
        self.shared.ledger().unbuffered(count as u64, dropped, buffer.bytes());
        if let Err(why) = acknowledged {
            // They may be sent once more after a crash; nothing is lost.
            self.tell(&why);
        }
    }

    /// A delivery has worked.
    pub(super) fn succeeded(&mut self) {
        self.shared.ledger().succeeded();
        if std::mem::take(&mut self.told) {
            tracing::info!(sink = self.name, "events are delivered again");
        }
    }

    /// A delivery, or the disk buffer, has failed.
    pub(super) fn failed(&mut self, why: &str, again: bool) {
        self.shared.ledger().failed(why.to_owned(), again);
        self.tell(why);
    }

    fn skipped(&self, damaged: u64) {
        tracing::warn!(sink = self.name, damaged, "damaged events in the disk buffer are skipped");
    }

    fn tell(&mut self, why: &str) {
        if self.causes.tell(why, Instant::now()) {
            self.told = true;
            tracing::warn!(sink = self.name, why, "events cannot be delivered");
        }
    }
}
