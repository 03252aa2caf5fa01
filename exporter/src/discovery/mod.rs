//! Which network namespaces there are and whose they are: a thread that scans the machine and publishes each new
//! picture. Scrapes take the last picture and never wait for a scan. Another thread asks the container runtime whose
//! they are, where there is one, and a third one the API server for pods of other nodes, where that is wanted.

pub mod cluster;
pub mod cri;
mod identity;
mod join;
mod picture;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cluster::Cluster;
use cri::{Network, Runtime, Wanted};
use netsonde_framework::{Namespace, Topology};
use netsonde_probes::os::{Changes, Host, Scan, Unreadable};
use picture::{Notes, Painter, Told};

/// How long the start waits for the container runtime's first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
/// Between scans while a namespace waits for the name of its pod.
const IMPATIENT: Duration = Duration::from_millis(100);

/// What is known of the last scan.
#[derive(Debug, Clone, Default)]
pub struct Last {
    pub unreadable: Unreadable,
    pub seconds: f64,
    pub scans: u64,
    pub failures: u64,
    pub at: Option<Instant>,
    pub notes: Notes,
}

#[derive(Debug, Default)]
struct State {
    topology: Arc<Topology>,
    painter: Painter,
    last: Last,
    interval: Duration,
}

/// The last picture of the machine's namespaces.
#[derive(Debug, Clone)]
pub struct Discovery {
    host: Host,
    runtime: Option<Runtime>,
    cluster: Cluster,
    state: Arc<Mutex<State>>,
}

impl Discovery {
    /// Scans once, on the calling thread, without any container runtime.
    pub fn new(host: Host) -> anyhow::Result<Self> {
        let discovery = Self { host, runtime: None, cluster: Cluster::default(), state: Arc::default() };
        discovery.scan()?;
        Ok(discovery)
    }

    /// Asks the runtime and scans once. A frozen tree has no runtime.
    pub fn with_runtime(host: Host, wanted: Wanted) -> anyhow::Result<Self> {
        if !host.is_live() {
            return Self::new(host);
        }
        let runtime = Runtime::start(host.clone(), wanted)?;
        runtime.first(FIRST_ANSWER);
        let discovery =
            Self { host, runtime: Some(runtime), cluster: Cluster::default(), state: Arc::default() };
        discovery.scan()?;
        Ok(discovery)
    }

    /// The container runtime; `None` where none is ever asked.
    pub fn runtime(&self) -> Option<&Runtime> {
        self.runtime.as_ref()
    }

    /// The pods of the cluster, for those of other nodes.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Goes on scanning on a thread of its own: each `interval`, and at once when a namespace came or went.
    pub fn follow(&self, changes: Changes) -> std::io::Result<()> {
        let discovery = self.clone();
        thread::Builder::new().name("discovery".into()).spawn(move || {
            while changes.wait(discovery.interval()) {
                // A runtime makes a namespace in several steps; one scan a moment later sees them all.
                thread::sleep(Duration::from_millis(20));
                if let Err(error) = discovery.scan() {
                    tracing::warn!(error = %error, "cannot look for namespaces; the last known ones stay");
                }
            }
        })?;
        Ok(())
    }

    fn interval(&self) -> Duration {
        let state = self.lock();
        if state.last.notes.curious > 0 { state.interval.min(IMPATIENT) } else { state.interval }
    }

    /// How long to wait between scans.
    pub fn set_interval(&self, interval: Duration) {
        self.lock().interval = interval;
    }

    /// The namespaces that can be read now: those that went since the last scan are left out.
    pub fn topology(&self) -> Arc<Topology> {
        let topology = Arc::clone(&self.lock().topology);
        let live = |ns: &Namespace| self.host.netns(ns.key).is_some();
        if topology.iter().all(|(_, ns)| live(ns)) {
            return topology;
        }
        let namespaces = topology.iter().map(|(_, ns)| Arc::clone(ns)).filter(|ns| live(ns)).collect();
        Arc::new(Topology::new(namespaces).with_guests(topology.guests().to_vec()))
    }

    /// The machine that is looked at.
    pub fn host(&self) -> Host {
        self.host.clone()
    }

    /// The last picture as it is, with namespaces that have gone since.
    pub fn known(&self) -> Arc<Topology> {
        Arc::clone(&self.lock().topology)
    }

    /// What is known of the last scan.
    pub fn last(&self) -> Last {
        self.lock().last.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scan(&self) -> std::io::Result<()> {
        let start = Instant::now();
        let told = self.runtime.as_ref().map(Runtime::record).unwrap_or_default();
        let told = Told { connected: told.connected, sandboxes: told.sandboxes };
        self.host.tell_pods(told.sandboxes.iter().any(|sandbox| sandbox.network == Some(Network::Host)));
        let scanned = self.host.scan();
        let mut state = self.lock();
        state.last.scans += 1;
        state.last.seconds = start.elapsed().as_secs_f64();
        let Scan { found, unreadable } = match scanned {
            Ok(scan) => scan,
            Err(error) => {
                state.last.failures += 1;
                return Err(error);
            }
        };
        // Processes come and go; only another cause is news.
        let before = &state.last.unreadable;
        if unreadable.why != before.why || unreadable.namespaces != before.namespaces {
            tell(&unreadable);
        }
        state.last.unreadable = unreadable;
        state.last.at = Some(Instant::now());
        if state.last.notes.curious == 0 && state.painter.is_same(&found, &told) {
            return Ok(());
        }
        if self.runtime.as_ref().is_some_and(|runtime| !runtime.is_wanted()) {
            state.painter.forget_pods();
        }
        let (topology, notes) = state.painter.paint(&found, &told, start);
        state.last.notes = notes;
        // Whoever keeps something for a picture need not do it again for the same one.
        if *state.topology != topology {
            state.topology = Arc::new(topology);
        }
        drop(state);
        if let Some(runtime) = self.runtime.as_ref().filter(|_| notes.curious > 0) {
            runtime.ask();
        }
        Ok(())
    }
}

fn tell(unreadable: &Unreadable) {
    let Unreadable { processes, namespaces, why } = unreadable;
    if *namespaces > 0 {
        let why = why.as_deref().unwrap_or_default();
        tracing::warn!(
            namespaces,
            why,
            "some network namespaces cannot be entered; CAP_SYS_ADMIN lets netsonde"
        );
    } else if *processes > 0 {
        let why = why.as_deref().unwrap_or_default();
        tracing::info!(
            processes,
            why,
            "some processes are hidden; their namespaces are found only by name (CAP_SYS_PTRACE)"
        );
    }
}
