//! The thread of a driver: takes a batch when it is due, delivers it, and settles what became of it.
//!
//! A batch stays at the head of the queue (or of the disk buffer) until the sink has taken it, so order is kept and a
//! retry needs no room of its own. While a delivery is under way, what is pushed goes on to the disk buffer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::time::sleep_until;

use super::backoff::Backoff;
use super::ledger::Shared;
use super::store::{Store, Taken};
use crate::settings::{BatchLimits, Delivery};
use crate::sink::{Reason, Refusal, Sink, SinkError};

/// How long the thread sleeps where nothing is to be done.
const IDLE: Duration = Duration::from_hours(1);

/// The thread's own state.
pub(super) struct Worker {
    name: &'static str,
    sink: Box<dyn Sink>,
    store: Store,
    limits: BatchLimits,
    backoff: Backoff,
    /// At most so many events in the next batch: less than the limit after a batch was too large.
    most: usize,
    /// No delivery before that.
    not_before: Option<Instant>,
    /// Since when something waits.
    since: Option<Instant>,
    /// That it must end has been seen.
    stopping: bool,
}

impl Worker {
    pub(super) fn new(
        name: &'static str,
        shared: Arc<Shared>,
        sink: Box<dyn Sink>,
        delivery: &Delivery,
    ) -> Result<Self, SinkError> {
        let (limits, backoff) = (delivery.batch, Backoff::new(delivery.retry.clone()));
        let store = Store::open(name, shared, delivery)?;
        let most = limits.events;
        Ok(Self { name, sink, store, limits, backoff, most, not_before: None, since: None, stopping: false })
    }

    /// Works until the driver is stopped.
    pub(super) fn work(mut self, runtime: &Runtime) {
        let name = self.name;
        let shared = Arc::clone(&self.store.shared);
        let run = AssertUnwindSafe(|| runtime.block_on(self.run()));
        if std::panic::catch_unwind(run).is_err() {
            let why = "the thread of this sink has panicked; nothing is delivered until a restart";
            tracing::error!(sink = name, "{why}");
            shared.ledger().failed(why.to_owned(), false);
        }
    }

    async fn run(&mut self) {
        loop {
            self.store.spill();
            let (stop_by, reopen) = {
                let mut ledger = self.store.shared.ledger();
                (ledger.stop_by, std::mem::take(&mut ledger.reopen))
            };
            if reopen {
                self.sink.reopen().await;
            }
            let now = Instant::now();
            if stop_by.is_some() && !self.stopping {
                // One more try at once, whatever the pause.
                self.stopping = true;
                self.not_before = None;
            }
            if self.stopping && (self.store.is_empty() || stop_by.is_some_and(|by| now >= by)) {
                break;
            }
            let wait_until = self.due(now);
            if stop_by.is_some_and(|by| wait_until >= by) {
                break;
            }
            if wait_until > now {
                tokio::select! {
                    () = self.store.shared.wake.notified() => {}
                    () = sleep_until(wait_until.into()) => {}
                }
                continue;
            }
            let taken = match self.store.front(self.most, self.limits.bytes) {
                Ok(Some(taken)) => taken,
                Ok(None) => continue,
                Err(why) => {
                    self.store.failed(&why, true);
                    self.not_before = Some(Instant::now() + self.backoff.next(None));
                    continue;
                }
            };
            self.since = None;
            let (done, result) = self.deliver(&taken).await;
            if !self.settle(&taken, done, result) {
                break;
            }
        }
        self.store.spill();
        self.store.shared.ledger().close();
    }

    /// When the next batch is to go out.
    fn due(&mut self, now: Instant) -> Instant {
        let (events, bytes) = self.store.waiting();
        if events == 0 {
            self.since = None;
            return now + IDLE;
        }
        let since = *self.since.get_or_insert(now);
        let full = events >= self.most || bytes >= self.limits.bytes || self.stopping;
        let ready = if full { now } else { since + self.limits.age };
        self.not_before.map_or(ready, |not_before| ready.max(not_before))
    }

    /// How far the sink came with the batch, and what it said if the time to stop did not come first.
    async fn deliver(&mut self, taken: &Taken) -> (usize, Option<Result<(), Refusal>>) {
        let mut done = 0;
        let result = {
            let mut delivery = self.sink.deliver(&taken.records, &mut done);
            loop {
                let stop_by = self.store.shared.ledger().stop_by;
                let deadline = stop_by.unwrap_or_else(|| Instant::now() + IDLE);
                tokio::select! {
                    biased;
                    result = &mut delivery => break Some(result),
                    () = self.store.shared.wake.notified() => {
                        // A batch from memory must stay at its head.
                        if taken.on_disk {
                            self.store.spill();
                        }
                    }
                    () = sleep_until(deadline.into()) => {
                        if stop_by.is_some() {
                            break None;
                        }
                    }
                }
            }
        };
        (done.min(taken.records.len()), result)
    }

    /// Counts what became of a batch. False where nothing more can be done.
    fn settle(&mut self, taken: &Taken, done: usize, result: Option<Result<(), Refusal>>) -> bool {
        let Some(result) = result else {
            self.store.remove(taken, done, None);
            return false;
        };
        let rest = taken.records.len() - done;
        self.not_before = None;
        let refusal = match result {
            Ok(()) => {
                self.store.remove(taken, taken.records.len(), None);
                self.backoff.reset();
                self.most = (self.most + self.most / 8 + 1).min(self.limits.events);
                self.store.succeeded();
                return true;
            }
            Err(refusal) => refusal,
        };
        self.store.remove(taken, done, None);
        if done > 0 {
            // It works, if not for all: no reason for longer pauses.
            self.backoff.reset();
            self.store.shared.ledger().succeeded();
        }
        let why = refusal.why().to_owned();
        let again = !matches!(refusal, Refusal::Drop { .. })
            && (rest > 1 || !matches!(refusal, Refusal::Split { .. }));
        self.store.failed(&why, again);
        match refusal {
            Refusal::Retry { after, .. } => {
                self.not_before = Some(Instant::now() + self.backoff.next(after));
                // What is on disk can wait for the next start.
                return !(self.stopping && self.store.lasts());
            }
            Refusal::Split { .. } if rest > 1 => self.most = rest / 2,
            Refusal::Split { .. } => self.store.remove(taken, rest, Some(Reason::TooLarge)),
            Refusal::Drop { reason, .. } => self.store.remove(taken, rest, Some(reason)),
        }
        self.backoff.reset();
        true
    }
}
