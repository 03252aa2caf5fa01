//! One probe on a thread of its own.
//!
//! The probe is built, used and dropped on this thread and nowhere else. Between scrapes it refreshes what the
//! probe wants refreshed, and drains its events into its [`Desk`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netsonde_framework::{
    Catalogue, CollectError, HookStatus, Limits, Probe, ProbeInfo, Samples, StartError, Topology, View,
};
use rustix::time::{ClockId, clock_gettime};

use super::bell::Bell;
use crate::discovery::Discovery;
use crate::events::{Bus, Desk, Peers};

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

/// What every worker uses.
#[derive(Clone)]
pub struct Common {
    pub catalogue: Arc<Catalogue>,
    pub discovery: Discovery,
    pub scrapes: Arc<Counter>,
    pub bus: Arc<Bus>,
    pub peers: Arc<Peers>,
    /// Held by each thread as long as it lives.
    pub running: Arc<()>,
}

struct Ask {
    topology: Arc<Topology>,
    scrape: u64,
    limits: Limits,
    reply: Sender<Collected>,
}

/// A handle to the thread; dropping it stops the probe.
pub struct Worker {
    /// Taken when the worker is dropped, before the bell rings.
    asks: Option<SyncSender<Ask>>,
    bell: Arc<Bell>,
    answered: Arc<AtomicU64>,
    hooks: Arc<Mutex<Vec<HookStatus>>>,
}

/// A probe that takes longer to start is reported as failed and left to finish on its own.
const START_WITHIN: Duration = Duration::from_secs(20);

impl Worker {
    pub fn start(
        info: &'static ProbeInfo,
        args: &serde_json::Value,
        common: &Common,
    ) -> Result<Self, StartError> {
        let (asks, inbox) = sync_channel(1);
        let bell =
            Bell::new().map_err(|error| StartError::Failed(format!("cannot make an eventfd: {error}")))?;
        let bell = Arc::new(bell);
        let (started, outcome) = sync_channel(1);
        let answered = Arc::new(AtomicU64::new(0));
        let hooks = Arc::new(Mutex::new(Vec::new()));
        let (args, answered_there, hooks_there) = (args.clone(), Arc::clone(&answered), Arc::clone(&hooks));
        let (common, bell_there) = (common.clone(), Arc::clone(&bell));
        thread::Builder::new()
            .name(info.name.into())
            .spawn(move || {
                let built = catch_unwind(AssertUnwindSafe(|| common.catalogue.start(info.name, &args)))
                    .unwrap_or_else(|panic| Err(StartError::Failed(message(&*panic))));
                let (probe, result) = match built {
                    Ok(probe) => (Some(probe), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                if started.send(result).is_err() {
                    return;
                }
                if let Some(probe) = probe {
                    let Common { discovery, scrapes, bus, peers, running: _running, .. } = common;
                    let desk = Desk::new(info.name, bus, discovery.clone(), peers);
                    let mut here = Here {
                        info,
                        probe,
                        discovery,
                        scrapes,
                        desk,
                        seen: Arc::default(),
                        hooks: hooks_there,
                        between: Ok(()),
                    };
                    here.work(&inbox, &bell_there, &answered_there);
                }
            })
            .map_err(|error| StartError::Failed(format!("cannot start a thread: {error}")))?;
        outcome.recv_timeout(START_WITHIN).map_err(|_| {
            StartError::Failed(format!("did not start within {} s", START_WITHIN.as_secs()))
        })??;
        Ok(Self { asks: Some(asks), bell, answered, hooks })
    }

    /// Asks for samples; `false` when the thread is gone.
    pub fn ask(
        &self,
        topology: Arc<Topology>,
        scrape: u64,
        limits: Limits,
        reply: Sender<Collected>,
    ) -> bool {
        let ask = Ask { topology, scrape, limits, reply };
        let sent = self.asks.as_ref().is_some_and(|asks| asks.try_send(ask).is_ok());
        self.bell.ring();
        sent
    }

    /// Whether this scrape's question was answered, in time or not.
    pub fn has_answered(&self, scrape: u64) -> bool {
        self.answered.load(Ordering::Acquire) >= scrape
    }

    pub fn hooks(&self) -> Vec<HookStatus> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.asks = None;
        self.bell.ring();
    }
}

/// After records were drained, the kernel side does not wake the reader for 20 ms: it looks again by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// What the thread owns.
struct Here {
    info: &'static ProbeInfo,
    probe: Box<dyn Probe>,
    discovery: Discovery,
    scrapes: Arc<Counter>,
    desk: Desk,
    seen: Arc<Topology>,
    hooks: Arc<Mutex<Vec<HookStatus>>>,
    /// How the work between scrapes went; told with the next one.
    between: Result<(), CollectError>,
}

impl Here {
    fn work(&mut self, inbox: &Receiver<Ask>, bell: &Bell, answered: &AtomicU64) {
        self.publish_hooks();
        let mut due = self.probe.interval().map(|_| Instant::now());
        // Until then records may come without a wakeup, whatever else ends a wait meanwhile.
        let mut look_again: Option<Instant> = None;
        loop {
            // A probe that panicked is not touched again; the next scrape tells and ends it.
            let broken = matches!(self.between, Err(CollectError::Broken(_)));
            let now = Instant::now();
            let until = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
            let wait = [until(due), until(look_again), self.desk.due()].into_iter().flatten().min();
            let records = if broken { None } else { self.probe.wake() };
            let readable = bell.wait(records, wait);
            match inbox.try_recv() {
                Ok(ask) => {
                    let scrape = ask.scrape;
                    let broken = self.answer(&ask);
                    answered.store(scrape, Ordering::Release);
                    if broken {
                        return;
                    }
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    // What the kernel has told already is not lost.
                    if !broken {
                        self.drain();
                    }
                    self.desk.close();
                    return;
                }
            }
            let broken = matches!(self.between, Err(CollectError::Broken(_)));
            if readable && !broken {
                self.drain();
                look_again = Some(Instant::now() + LOOK_AGAIN);
            } else if look_again.is_some_and(|at| at <= Instant::now()) {
                look_again = None;
            }
            self.desk.tell();
            if due.is_some_and(|at| at <= Instant::now()) {
                due = self.probe.interval().filter(|_| !broken).map(|interval| {
                    self.refresh();
                    Instant::now() + interval
                });
            }
        }
    }

    /// Gives `true` when the probe panicked and must not be used again.
    fn answer(&mut self, ask: &Ask) -> bool {
        let (wall, cpu) = (Instant::now(), thread_cpu());
        self.forget(&ask.topology);
        let mut samples = Samples::new(self.info.metrics, ask.limits);
        let view = View { topology: &ask.topology, scrape: ask.scrape };
        let between = std::mem::replace(&mut self.between, Ok(()));
        let result = match between {
            Err(CollectError::Broken(why)) => Err(Box::new(why) as Box<dyn std::any::Any + Send>),
            between => catch_unwind(AssertUnwindSafe(|| self.probe.collect(&view, &mut samples)))
                .map(|collected| collected.and(between)),
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
        self.between = catch_unwind(AssertUnwindSafe(|| self.probe.refresh(&view)))
            .unwrap_or_else(|panic| Err(CollectError::Broken(message(&*panic))));
    }

    fn drain(&mut self) {
        let emitter = self.desk.emitter();
        let drained = catch_unwind(AssertUnwindSafe(|| self.probe.drain(emitter)))
            .unwrap_or_else(|panic| Err(CollectError::Broken(message(&*panic))));
        // An error of a refresh is not hidden by a drain that went well.
        if drained.is_err() {
            self.between = drained;
        }
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
