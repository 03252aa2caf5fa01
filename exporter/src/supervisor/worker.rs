//! One probe on a thread of its own.
//!
//! The probe is built, used and dropped on this thread and nowhere else. Between scrapes it refreshes what the
//! probe wants refreshed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netsonde_framework::{
    Catalogue, CollectError, HookStatus, Limits, Probe, ProbeInfo, Samples, StartError, Topology, View,
};
use rustix::time::{ClockId, clock_gettime};

use crate::discovery::Discovery;

/// Numbers scrapes and refreshes; no two have the same.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// What one probe gave to one scrape.
#[derive(Debug)]
pub struct Collected {
    pub probe: &'static str,
    pub samples: Samples,
    pub error: Option<CollectError>,
    pub wall: Duration,
    pub cpu: Duration,
}

struct Ask {
    topology: Arc<Topology>,
    scrape: u64,
    limits: Limits,
    reply: Sender<Collected>,
}

/// A handle to the thread; dropping it stops the probe.
pub struct Worker {
    asks: SyncSender<Ask>,
    answered: Arc<AtomicU64>,
    hooks: Arc<Mutex<Vec<HookStatus>>>,
}

/// A probe that takes longer to start is reported as failed and left to finish on its own.
const START_WITHIN: Duration = Duration::from_secs(20);

impl Worker {
    pub fn start(
        info: &'static ProbeInfo,
        args: &serde_json::Value,
        catalogue: Arc<Catalogue>,
        discovery: Discovery,
        scrapes: Arc<Counter>,
    ) -> Result<Self, StartError> {
        let (asks, inbox) = sync_channel(1);
        let (started, outcome) = sync_channel(1);
        let answered = Arc::new(AtomicU64::new(0));
        let hooks = Arc::new(Mutex::new(Vec::new()));
        let (args, answered_there, hooks_there) = (args.clone(), Arc::clone(&answered), Arc::clone(&hooks));
        thread::Builder::new()
            .name(info.name.into())
            .spawn(move || {
                let built = catch_unwind(AssertUnwindSafe(|| catalogue.start(info.name, &args)))
                    .unwrap_or_else(|panic| Err(StartError::Failed(message(&*panic))));
                let (probe, result) = match built {
                    Ok(probe) => (Some(probe), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                if started.send(result).is_err() {
                    return;
                }
                if let Some(probe) = probe {
                    let mut here = Here {
                        info,
                        probe,
                        discovery,
                        scrapes,
                        seen: Arc::default(),
                        hooks: hooks_there,
                        refreshed: Ok(()),
                    };
                    here.work(&inbox, &answered_there);
                }
            })
            .map_err(|error| StartError::Failed(format!("cannot start a thread: {error}")))?;
        outcome.recv_timeout(START_WITHIN).map_err(|_| {
            StartError::Failed(format!("did not start within {} s", START_WITHIN.as_secs()))
        })??;
        Ok(Self { asks, answered, hooks })
    }

    /// Asks for samples; `false` when the thread is gone.
    pub fn ask(
        &self,
        topology: Arc<Topology>,
        scrape: u64,
        limits: Limits,
        reply: Sender<Collected>,
    ) -> bool {
        self.asks.try_send(Ask { topology, scrape, limits, reply }).is_ok()
    }

    /// Whether this scrape's question was answered, in time or not.
    pub fn has_answered(&self, scrape: u64) -> bool {
        self.answered.load(Ordering::Acquire) >= scrape
    }

    pub fn hooks(&self) -> Vec<HookStatus> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the thread owns.
struct Here {
    info: &'static ProbeInfo,
    probe: Box<dyn Probe>,
    discovery: Discovery,
    scrapes: Arc<Counter>,
    seen: Arc<Topology>,
    hooks: Arc<Mutex<Vec<HookStatus>>>,
    /// How the last refresh went; told with the next scrape.
    refreshed: Result<(), CollectError>,
}

impl Here {
    fn work(&mut self, inbox: &Receiver<Ask>, answered: &AtomicU64) {
        self.publish_hooks();
        let mut due = self.probe.interval().map(|_| Instant::now());
        loop {
            let wait = due.map_or(Duration::from_hours(1), |d| d.saturating_duration_since(Instant::now()));
            match inbox.recv_timeout(wait) {
                Ok(ask) => {
                    let scrape = ask.scrape;
                    let broken = self.answer(&ask);
                    answered.store(scrape, Ordering::Release);
                    if broken {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    // A probe that panicked is not touched again; the next scrape tells and ends it.
                    let broken = matches!(self.refreshed, Err(CollectError::Broken(_)));
                    if let Some(interval) = self.probe.interval().filter(|_| !broken) {
                        self.refresh();
                        due = Some(Instant::now() + interval);
                    } else {
                        due = None;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Gives `true` when the probe panicked and must not be used again.
    fn answer(&mut self, ask: &Ask) -> bool {
        let (wall, cpu) = (Instant::now(), thread_cpu());
        self.forget(&ask.topology);
        let mut samples = Samples::new(self.info.metrics, ask.limits);
        let view = View { topology: &ask.topology, scrape: ask.scrape };
        let refreshed = std::mem::replace(&mut self.refreshed, Ok(()));
        let result = match refreshed {
            Err(CollectError::Broken(why)) => Err(Box::new(why) as Box<dyn std::any::Any + Send>),
            refreshed => catch_unwind(AssertUnwindSafe(|| self.probe.collect(&view, &mut samples)))
                .map(|collected| collected.and(refreshed)),
        };
        let broken = result.is_err();
        let error = match result {
            Ok(result) => result.err(),
            Err(panic) => {
                // Half of a collection is not a smaller truth.
                samples = Samples::new(self.info.metrics, ask.limits);
                Some(CollectError::Broken(message(&*panic)))
            }
        };
        self.publish_hooks();
        let (wall, cpu) = (wall.elapsed(), thread_cpu().saturating_sub(cpu));
        // The scrape may have given up waiting.
        let _ = ask.reply.send(Collected { probe: self.info.name, samples, error, wall, cpu });
        broken
    }

    fn refresh(&mut self) {
        let topology = self.discovery.topology();
        self.forget(&topology);
        let view = View { topology: &topology, scrape: self.scrapes.next() };
        self.refreshed = catch_unwind(AssertUnwindSafe(|| self.probe.refresh(&view)))
            .unwrap_or_else(|panic| Err(CollectError::Broken(message(&*panic))));
    }

    fn forget(&mut self, topology: &Arc<Topology>) {
        if !Arc::ptr_eq(&self.seen, topology) {
            let gone = self.seen.gone(topology);
            if !gone.is_empty() {
                self.probe.forget(&gone);
            }
            self.seen = Arc::clone(topology);
        }
    }

    fn publish_hooks(&self) {
        let mut shown = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown != self.probe.hooks() {
            *shown = self.probe.hooks().to_vec();
        }
    }
}

fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    format!("panicked: {text}")
}
