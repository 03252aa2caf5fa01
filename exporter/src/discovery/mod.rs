//! Which network namespaces there are and whose they are: a thread that scans the machine and publishes each new
//! picture. Scrapes take the last picture and never wait for a scan.

mod identity;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netsonde_framework::{Namespace, Topology};
use netsonde_probes::os::{Changes, Found, Host, Scan, Unreadable};

/// What is known of the last scan.
#[derive(Debug, Clone, Default)]
pub struct Last {
    pub unreadable: Unreadable,
    pub seconds: f64,
    pub scans: u64,
    pub failures: u64,
    pub at: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    topology: Arc<Topology>,
    last: Last,
    interval: Duration,
}

/// The last picture of the machine's namespaces.
#[derive(Debug, Clone)]
pub struct Discovery {
    host: Host,
    state: Arc<Mutex<State>>,
}

impl Discovery {
    /// Scans once, on the calling thread.
    pub fn new(host: Host) -> anyhow::Result<Self> {
        let discovery = Self { host, state: Arc::default() };
        discovery.scan()?;
        Ok(discovery)
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
        self.lock().interval
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
        Arc::new(Topology::new(topology.iter().map(|(_, ns)| Arc::clone(ns)).filter(|ns| live(ns)).collect()))
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
        state.topology = Arc::new(picture(found));
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

/// Labels what was found. Two namespaces never get the same labels: the younger one's pod gets its inode number.
fn picture(mut found: Vec<Found>) -> Topology {
    found.sort_by_key(|f| f.netns.key);
    let mut taken = std::collections::HashSet::new();
    let namespaces = found.into_iter().map(|f| {
        let (origin, mut identity) = identity::of(&f);
        if !taken.insert(identity.clone()) {
            identity.pod = format!("{}~{}", identity.pod, f.netns.inode);
            taken.insert(identity.clone());
        }
        Arc::new(Namespace {
            key: f.netns.key,
            inode: f.netns.inode,
            identity,
            origin,
            processes: f.processes,
        })
    });
    Topology::new(namespaces.collect())
}
