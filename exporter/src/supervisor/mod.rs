//! The probes that run: one thread each, started and stopped by [`Supervisor::reconcile`], asked in turn at a scrape.
//!
//! A probe that panics or hangs costs that probe. It is started anew with growing delays, or reported `stuck`.

mod bell;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use netsonde_config::Wanted;
use netsonde_framework::{Catalogue, CollectError, Limits, ProbeInfo, StartError, Topology};

use crate::discovery::Discovery;
use crate::events::{Bus, Peers};
pub use worker::Collected;
use worker::{Common, Worker};

/// How a probe is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It works.
    Running,
    /// This kernel or these rights cannot do it.
    Unsupported(String),
    /// It failed and will be started again.
    Failed(String),
    /// It has not answered for a while.
    Stuck,
}

impl State {
    /// Every value of the `state` label.
    pub const ALL: [&'static str; 4] = ["running", "unsupported", "failed", "stuck"];

    pub fn text(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Unsupported(_) => "unsupported",
            Self::Failed(_) => "failed",
            Self::Stuck => "stuck",
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Unsupported(why) | Self::Failed(why) => Some(why),
            Self::Stuck => Some("it has not answered since an earlier scrape"),
            Self::Running => None,
        }
    }
}

/// What is counted of a probe for as long as the configuration names it.
#[derive(Debug, Default, Clone)]
pub struct Record {
    pub success: bool,
    pub wall: Duration,
    pub cpu: Duration,
    pub series: usize,
    pub refused: u64,
    pub failures: BTreeMap<&'static str, u64>,
    pub restarts: u64,
    pub last_error: Option<String>,
}

struct Running {
    info: &'static ProbeInfo,
    wanted: Wanted,
    worker: Option<Worker>,
    state: State,
    record: Record,
    /// The scrape that it was last asked for and since when, until its answer is here.
    busy: Option<(u64, Instant)>,
    retry: Option<(Instant, u32)>,
}

/// A scrape's harvest.
#[derive(Debug)]
pub struct Gathered {
    pub topology: Arc<Topology>,
    pub collected: Vec<Collected>,
}

/// Gives up waiting for one probe and asks the next; the slow one may still answer until the deadline.
const PATIENCE: Duration = Duration::from_millis(250);
const STUCK_AFTER: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_mins(5);

pub struct Supervisor {
    common: Common,
    probes: Vec<Running>,
    limits: Limits,
}

impl Supervisor {
    pub fn new(catalogue: Arc<Catalogue>, discovery: Discovery, bus: Arc<Bus>) -> Self {
        let peers = Arc::new(Peers::new(discovery.host(), discovery.cluster().clone()));
        let (scrapes, running) = Default::default();
        let common = Common { catalogue, discovery, scrapes, bus, peers, running };
        Self { common, probes: Vec::new(), limits: Limits::default() }
    }

    /// Makes the running probes be `wanted`. New and changed ones start before anything is dropped; if the settings
    /// of one are refused, nothing changes.
    pub fn reconcile(&mut self, wanted: &[Wanted], limits: Limits) -> Result<(), String> {
        let mut fresh = Vec::new();
        let mut refused = Vec::new();
        for want in wanted {
            if self.probes.iter().any(|p| p.wanted == *want && !matches!(p.state, State::Failed(_))) {
                continue;
            }
            match self.start(want) {
                Ok(running) => fresh.push(running),
                Err(why) => refused.push(format!("{}: {why}", want.name)),
            }
        }
        if !refused.is_empty() {
            return Err(refused.join("; "));
        }
        self.limits = limits;
        let mut before = std::mem::take(&mut self.probes);
        for want in wanted {
            let new = fresh.iter().position(|p| p.wanted == *want).map(|i| fresh.swap_remove(i));
            let old = before.iter().position(|p| p.wanted.name == want.name).map(|i| before.swap_remove(i));
            self.probes.extend(match (new, old) {
                (Some(mut new), Some(old)) => {
                    // What was counted goes on: a changed setting is no restart of the counters.
                    new.record = Record { success: false, ..old.record };
                    Some(new)
                }
                (new, old) => new.or(old),
            });
        }
        self.probes.sort_by_key(|p| p.info.name);
        Ok(())
    }

    fn start(&self, want: &Wanted) -> Result<Running, String> {
        let Some(info) = self.common.catalogue.find(&want.name) else {
            return Err("there is no such probe".into());
        };
        let started = Worker::start(info, &want.args, &self.common);
        let (worker, state, retry) = match started {
            Ok(worker) => (Some(worker), State::Running, None),
            Err(StartError::Settings(why)) => return Err(why),
            Err(StartError::Unsupported(why)) => {
                tracing::warn!(probe = info.name, why, "this probe cannot run here; it is off");
                (None, State::Unsupported(why), None)
            }
            Err(StartError::Failed(why)) => {
                tracing::warn!(probe = info.name, why, "this probe did not start; it is tried again");
                (None, State::Failed(why), Some((Instant::now() + RETRY_FIRST, 1)))
            }
        };
        Ok(Running {
            info,
            wanted: want.clone(),
            worker,
            state,
            record: Record::default(),
            busy: None,
            retry,
        })
    }

    /// Asks every probe for its samples and waits for them no longer than `deadline`.
    ///
    /// One probe works at a time, so a scrape uses one CPU and files that several probes read are read by the first.
    pub fn gather(&mut self, deadline: Instant) -> Gathered {
        self.retry();
        let topology = self.common.discovery.topology();
        let scrape = self.common.scrapes.next();
        let (reply, answers) = channel();
        let mut collected: Vec<Collected> = Vec::new();
        let mut asked = 0;
        for i in 0..self.probes.len() {
            let limits = self.limits;
            let probe = &mut self.probes[i];
            let Some(worker) = &probe.worker else { continue };
            if let Some((asked, since)) = probe.busy
                && !worker.has_answered(asked)
            {
                if since.elapsed() > STUCK_AFTER {
                    probe.state = State::Stuck;
                }
                probe.fail("timeout", "still busy with an earlier scrape".into());
                continue;
            }
            probe.busy = None;
            if probe.state == State::Stuck {
                probe.state = State::Running;
            }
            if !worker.ask(Arc::clone(&topology), scrape, limits, reply.clone()) {
                probe.broke("its thread has ended".into());
                continue;
            }
            probe.busy = Some((scrape, Instant::now()));
            asked += 1;
            let patience = (Instant::now() + PATIENCE).min(deadline);
            self.wait(&answers, patience, &mut collected, i);
        }
        drop(reply);
        while collected.len() < asked {
            let left = deadline.saturating_duration_since(Instant::now());
            match answers.recv_timeout(left) {
                Ok(answer) => self.take(answer, &mut collected),
                Err(_) => break,
            }
        }
        for probe in &mut self.probes {
            if probe.busy.is_some_and(|(asked, _)| asked == scrape) {
                probe.fail("timeout", "no answer before the scrape's deadline".into());
            }
        }
        collected.sort_by_key(|c| c.probe);
        Gathered { topology, collected }
    }

    /// Takes answers until this probe's is among them.
    fn wait(
        &mut self,
        answers: &Receiver<Collected>,
        until: Instant,
        collected: &mut Vec<Collected>,
        probe: usize,
    ) {
        while self.probes[probe].busy.is_some() {
            match answers.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(answer) => self.take(answer, collected),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, answer: Collected, collected: &mut Vec<Collected>) {
        let Some(probe) = self.probes.iter_mut().find(|p| p.info.name == answer.probe) else { return };
        probe.busy = None;
        probe.record.wall = answer.wall;
        probe.record.cpu += answer.cpu;
        probe.record.series = answer.samples.series();
        probe.record.refused += answer.samples.refused();
        probe.record.success = answer.error.is_none();
        match &answer.error {
            Some(error @ CollectError::Broken(why)) => {
                *probe.record.failures.entry(error.reason()).or_default() += 1;
                probe.broke(why.clone());
            }
            Some(error) => probe.fail(error.reason(), error.to_string()),
            None => probe.record.last_error = None,
        }
        collected.push(answer);
    }

    /// Starts again what failed, when its time has come.
    fn retry(&mut self) {
        let now = Instant::now();
        for i in 0..self.probes.len() {
            let Some((_, tries)) = self.probes[i].retry.filter(|(at, _)| *at <= now) else { continue };
            let wanted = self.probes[i].wanted.clone();
            match self.start(&wanted) {
                Ok(mut running) => {
                    running.record = self.probes[i].record.clone();
                    running.record.restarts += 1;
                    if running.worker.is_none() {
                        let delay = RETRY_FIRST.saturating_mul(1 << tries.min(16)).min(RETRY_LAST);
                        running.retry = Some((now + delay, tries + 1));
                    } else {
                        running.retry = None;
                    }
                    self.probes[i] = running;
                }
                Err(why) => self.probes[i].state = State::Failed(why),
            }
        }
    }

    /// Ends every probe and waits, no longer than `within`, until they have handed over their last events.
    pub fn stop(&mut self, within: Duration) {
        self.probes.clear();
        let end = Instant::now() + within;
        while Arc::strong_count(&self.common.running) > 1 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Name, state and record of every probe that the configuration names.
    pub fn records(
        &self,
    ) -> impl Iterator<Item = (&'static ProbeInfo, &State, &Record, Vec<netsonde_framework::HookStatus>)>
    {
        self.probes.iter().map(|p| {
            let hooks = p.worker.as_ref().map(Worker::hooks).unwrap_or_default();
            (p.info, &p.state, &p.record, hooks)
        })
    }
}

impl Running {
    fn fail(&mut self, reason: &'static str, why: String) {
        *self.record.failures.entry(reason).or_default() += 1;
        self.record.success = false;
        if self.record.last_error.as_ref() != Some(&why) {
            tracing::warn!(probe = self.info.name, reason, why, "a scrape of this probe is not whole");
            self.record.last_error = Some(why);
        }
    }

    fn broke(&mut self, why: String) {
        tracing::error!(probe = self.info.name, why, "this probe broke; it is started again");
        self.worker = None;
        self.busy = None;
        self.record.success = false;
        self.state = State::Failed(why);
        let tries = u32::try_from(self.record.restarts).unwrap_or(u32::MAX);
        let delay = RETRY_FIRST.saturating_mul(1 << tries.min(16)).min(RETRY_LAST);
        self.retry = Some((Instant::now() + delay, tries + 1));
    }
}
