//! The container runtime: who it is, how it answers, and the sandboxes that it knows.
//!
//! A thread of its own asks; everybody else takes what was known last and never waits. When the runtime is down, slow
//! or restarted, the last known set stays, its age is told, and the thread goes on trying.

mod connect;
mod follow;
mod sandbox;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use netsonde_probes::os::Host;
pub use sandbox::{Network, Sandbox};
use tokio::sync::Notify;

/// Which runtime to ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Nobody.
    #[default]
    Off,
    /// Whoever answers at the usual places.
    Auto,
    /// The one that listens here.
    Socket(PathBuf),
}

impl Wanted {
    /// From the setting `discovery.cri`, which has been validated.
    pub fn new(setting: &str) -> Self {
        match setting {
            "off" => Self::Off,
            "auto" => Self::Auto,
            path => Self::Socket(path.into()),
        }
    }
}

/// What is known of the runtime.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Where it listens; `None` until one has answered.
    pub socket: Option<PathBuf>,
    /// Its name and version.
    pub name: String,
    pub version: String,
    /// Whether it answers now.
    pub connected: bool,
    /// Whose events wake us: `containerd`, `cri`, or `none`, when it is asked now and then.
    pub events: &'static str,
    /// When it last gave a whole list.
    pub listed: Option<Instant>,
    pub lists: u64,
    /// Calls that failed, by what was asked.
    pub failures: BTreeMap<&'static str, u64>,
    pub last_error: Option<String>,
    /// The sandboxes that are ready.
    pub sandboxes: Arc<[Arc<Sandbox>]>,
}

#[derive(Debug, Default)]
struct State {
    wanted: Wanted,
    record: Record,
    /// Whether the first try is over, however it ended.
    tried: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    tried: Condvar,
    /// The list is wanted again.
    ask: Notify,
    /// The setting has changed.
    reconsider: Notify,
    host: Host,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle to the thread that asks the runtime. The thread ends with the process.
#[derive(Debug, Clone)]
pub struct Runtime(Arc<Shared>);

impl Runtime {
    /// Starts the thread.
    pub fn start(host: Host, wanted: Wanted) -> std::io::Result<Self> {
        let state = State { wanted, ..State::default() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            tried: Condvar::new(),
            ask: Notify::new(),
            reconsider: Notify::new(),
            host,
        });
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name("runtime".into())
            .stack_size(512 * 1024)
            .spawn(move || tokio.block_on(follow::follow(&theirs)))?;
        Ok(Self(shared))
    }

    /// Waits until the runtime has been asked once, so that the first page has the names of pods.
    pub fn first(&self, at_most: Duration) {
        let state = self.0.lock();
        let not_yet = |state: &mut State| !state.tried;
        let _ = self.0.tried.wait_timeout_while(state, at_most, not_yet);
    }

    /// Asks another runtime, or nobody.
    pub fn set(&self, wanted: Wanted) {
        let mut state = self.0.lock();
        if state.wanted != wanted {
            state.wanted = wanted;
            self.0.reconsider.notify_one();
        }
    }

    /// Asks again soon: there is a namespace that may be a new pod's.
    pub fn ask(&self) {
        self.0.ask.notify_one();
    }

    /// What is known now.
    pub fn record(&self) -> Record {
        self.0.lock().record.clone()
    }

    /// Whether somebody is to be asked.
    pub fn is_wanted(&self) -> bool {
        self.0.lock().wanted != Wanted::Off
    }
}
