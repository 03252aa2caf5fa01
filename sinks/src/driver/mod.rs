//! The driver of a running sink: one bounded queue, one thread, one account of every event.
//!
//! [`Driver::push`] may be called from any thread and never waits. The thread has a small tokio runtime of its own, so
//! a sink that blocks stalls nobody else. At every moment received = delivered + dropped + queued.

mod backoff;
mod buffer;
mod causes;
mod ledger;
mod store;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use netsonde_framework::Record;
use serde_json::Value;

pub use ledger::Counts;
use ledger::Shared;
use worker::Worker;

use crate::sink::{Context, Opened, SinkError, SinkSpec};

/// How much longer than asked for [`Driver::stop`] waits for the thread to notice.
const GRACE: Duration = Duration::from_millis(250);

/// A running sink.
#[derive(Debug)]
pub struct Driver {
    name: &'static str,
    shared: Arc<Shared>,
    /// Disconnected when the thread has ended.
    ended: mpsc::Receiver<()>,
}

impl Driver {
    /// Opens the sink of `spec` with these settings and starts its thread.
    pub fn start(spec: &'static SinkSpec, args: &Value, context: &Context) -> Result<Self, SinkError> {
        Self::run(spec.name, (spec.open)(args, context)?)
    }

    /// Starts the thread of an opened sink.
    fn run(name: &'static str, Opened { sink, delivery }: Opened) -> Result<Self, SinkError> {
        delivery.check()?;
        let shared = Arc::new(Shared::new(delivery.queue.clone()));
        let worker = Worker::new(name, Arc::clone(&shared), sink, &delivery)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|why| SinkError::Open(format!("cannot start tokio: {why}")))?;
        let (end, ended) = mpsc::channel::<()>();
        std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || {
                let _end = end;
                worker.work(&runtime);
                // A look-up of a name that hangs is not waited for.
                runtime.shutdown_background();
            })
            .map_err(SinkError::Thread)?;
        Ok(Self { name, shared, ended })
    }

    /// The name of its [`SinkSpec`].
    pub fn spec_name(&self) -> &'static str {
        self.name
    }

    /// Takes events. Never waits; what finds no room is dropped and counted (`queue_full`).
    pub fn push(&self, records: &[Arc<Record>]) {
        self.shared.ledger().push(records);
        self.shared.wake.notify_one();
    }

    /// What has become of the events so far.
    pub fn counts(&self) -> Counts {
        self.shared.ledger().counts()
    }

    /// SIGHUP: the sink opens its files anew, after the delivery that is under way.
    pub fn reopen(&self) {
        self.shared.ledger().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Delivers what it can within this time. The rest stays in the disk buffer, or is dropped and counted (`stopped`).
    ///
    /// A sink whose thread is stuck in the kernel is left behind; what it still does is not counted.
    pub fn stop(self, within: Duration) -> Counts {
        self.shared.ledger().stop_by = Some(Instant::now() + within);
        self.shared.wake.notify_one();
        if self.ended.recv_timeout(within + GRACE) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(sink = self.name, "the sink is stuck and left behind");
        }
        let mut ledger = self.shared.ledger();
        ledger.close();
        ledger.counts()
    }
}

impl Drop for Driver {
    /// Without [`Driver::stop`], nothing more is delivered.
    fn drop(&mut self) {
        let mut ledger = self.shared.ledger();
        let now = Instant::now();
        ledger.stop_by = Some(ledger.stop_by.map_or(now, |by| by.min(now)));
        drop(ledger);
        self.shared.wake.notify_one();
    }
}
