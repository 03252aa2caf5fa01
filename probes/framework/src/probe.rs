//! The trait behind which every probe stands, and the static that describes it.
//!
//! A probe exists only while it works: building it attaches, dropping it detaches. It is synchronous and owned
//! by one thread; it never starts threads or tasks of its own.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::event::{Emitter, EventDef};
use crate::metric::MetricDef;
use crate::samples::Samples;
use crate::topology::{NetnsKey, Topology};

/// What a probe sees in one scrape.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The namespaces, as of this scrape.
    pub topology: &'a Topology,
    /// The number of this scrape; what two probes share is read once for each number.
    pub scrape: u64,
}

/// A source of metrics, events or both.
pub trait Probe: Send {
    /// Appends the current value of every series. Never called twice at once.
    ///
    /// What is absent in a namespace (a file, a module) is no error: the series is left out. An error of one
    /// namespace must not cost the others their values; return it after having collected those.
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError>;

    /// How often [`Probe::refresh`] wants to be called, for what is too dear to read at each scrape.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// Reads what `collect` later only reports. Called on the probe's own thread, between scrapes.
    fn refresh(&mut self, _view: &View<'_>) -> Result<(), CollectError> {
        Ok(())
    }

    /// Becomes readable when the kernel has records for [`Probe::drain`].
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Turns the kernel's records into events: a bounded number of them, so that a scrape does not wait long. Called
    /// again at once while [`Probe::wake`] stays readable, and once more 25 ms after the last records.
    fn drain(&mut self, _events: &mut Emitter) -> Result<(), CollectError> {
        Ok(())
    }

    /// Drops what is kept for namespaces that are gone.
    fn forget(&mut self, _gone: &[NetnsKey]) {}

    /// How each kernel hook fared.
    fn hooks(&self) -> &[HookStatus] {
        &[]
    }
}

/// How one kernel hook fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookStatus {
    /// The kernel's name for the place.
    pub name: &'static str,
    /// What became of it.
    pub state: HookState,
    /// The ways to get there, best first, each as mechanism and place: `fentry udp_send_skb`. None where there is
    /// nothing to choose.
    pub rungs: Vec<String>,
    /// The one that holds.
    pub rung: Option<String>,
    /// How often the kernel passed over it since the probe started, because the same place came up on a CPU that was there
    /// already.
    pub missed: u64,
}

impl HookStatus {
    /// Of something that there is one way to.
    pub const fn new(name: &'static str, state: HookState) -> Self {
        Self { name, state, rungs: Vec::new(), rung: None, missed: 0 }
    }
}

/// What became of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookState {
    /// Attached, and by which mechanism.
    Attached(&'static str),
    /// This kernel cannot do it.
    Unsupported(String),
    /// It should have worked.
    Failed(String),
    /// Attached, but it sees nothing of what must have come by.
    Silent(String),
}

impl HookState {
    /// The word for it.
    pub const fn text(&self) -> &'static str {
        match self {
            Self::Attached(_) => "attached",
            Self::Unsupported(_) => "unsupported",
            Self::Failed(_) => "failed",
            Self::Silent(_) => "silent",
        }
    }

    /// By which mechanism it is attached, or why not.
    pub fn how(&self) -> &str {
        match self {
            Self::Attached(how) => how,
            Self::Unsupported(why) | Self::Failed(why) | Self::Silent(why) => why,
        }
    }
}

/// Everything there is to say of a probe, apart from how it is built.
#[derive(Debug, Clone, Copy)]
pub struct ProbeInfo {
    /// Folder, configuration key, `probe` label and anchor in the documentation.
    pub name: &'static str,
    /// Other spellings that a configuration may use.
    pub aliases: &'static [&'static str],
    /// One line: what it tells.
    pub about: &'static str,
    /// The operator's page, Markdown.
    pub guide: &'static str,
    /// Its metrics.
    pub metrics: &'static [&'static MetricDef],
    /// Its events.
    pub events: &'static [&'static EventDef],
    /// The rights and kernel features it needs, one a line, for `netsonde probes` and the documentation.
    pub needs: &'static [&'static str],
    /// Whether it runs when the configuration names no probes.
    pub default_on: bool,
    /// JSON Schema of its `args`.
    pub settings: fn() -> serde_json::Value,
}

/// A probe's description and how to build it from the resources `R` that its crate shares.
#[derive(Debug)]
pub struct ProbeSpec<R: 'static> {
    /// The description.
    pub info: ProbeInfo,
    /// Builds it from validated `args` (an object). It works from then on, until it is dropped.
    pub start: fn(args: &serde_json::Value, resources: &R) -> Started,
}

/// A probe that works, or why it does not.
pub type Started = Result<Box<dyn Probe>, StartError>;

/// Why a probe could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// This kernel or these rights cannot do it; it is not tried again until the configuration changes.
    #[error("{0}")]
    Unsupported(String),
    /// The settings are wrong; the message names the setting.
    #[error("{0}")]
    Settings(String),
    /// It should have worked; it is tried again with backoff.
    #[error("{0}")]
    Failed(String),
}

impl StartError {
    /// Reads `args` into the probe's settings.
    pub fn settings<T: serde::de::DeserializeOwned>(args: &serde_json::Value) -> Result<T, Self> {
        serde::Deserialize::deserialize(args).map_err(|e: serde_json::Error| Self::Settings(e.to_string()))
    }
}

/// Why part of a collection is missing. The `reason` label of `netsonde_probe_failures_total`.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A file could not be read.
    #[error("cannot read {what}: {source}")]
    Read {
        /// The file.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A file or message has a form that this version does not know.
    #[error("cannot parse {what}: {why}")]
    Parse {
        /// The file or message, with its line where there is one.
        what: String,
        /// What was found.
        why: String,
    },
    /// A netlink request failed.
    #[error("netlink {what}: {source}")]
    Netlink {
        /// The request.
        what: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A dump changed while it was read, again and again.
    #[error("netlink {what}: the dump was interrupted {tries} times")]
    Interrupted {
        /// The request.
        what: &'static str,
        /// How often it was tried.
        tries: u32,
    },
    /// Several namespaces failed; the first one's error stands for all.
    #[error("{count} namespaces failed, the first ({first_namespace}): {first}")]
    Namespaces {
        /// How many.
        count: usize,
        /// The pod label of the first.
        first_namespace: String,
        /// Its error.
        first: Box<CollectError>,
    },
    /// The probe panicked or its thread is gone.
    #[error("{0}")]
    Broken(String),
}

impl CollectError {
    /// The closed set of values of the `reason` label.
    pub const REASONS: &'static [&'static str] =
        &["read", "parse", "netlink", "interrupted", "panic", "timeout"];

    /// The value of the `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Parse { .. } => "parse",
            Self::Netlink { .. } => "netlink",
            Self::Interrupted { .. } => "interrupted",
            Self::Namespaces { first, .. } => first.reason(),
            Self::Broken(_) => "panic",
        }
    }
}

/// Gathers the errors of single namespaces while the others go on.
#[derive(Debug, Default)]
pub struct Failures {
    count: usize,
    first: Option<(String, CollectError)>,
}

impl Failures {
    /// Notes that namespace `pod` failed.
    pub fn add(&mut self, pod: &str, error: CollectError) {
        self.count += 1;
        self.first.get_or_insert_with(|| (pod.to_owned(), error));
    }

    /// `Ok` when nothing failed.
    pub fn finish(self) -> Result<(), CollectError> {
        match self.first {
            None => Ok(()),
            Some((first_namespace, first)) => {
                Err(CollectError::Namespaces { count: self.count, first_namespace, first: Box::new(first) })
            }
        }
    }
}
