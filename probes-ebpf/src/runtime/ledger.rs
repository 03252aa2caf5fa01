//! A probe that counts: its programs, its counters, whose they are, and what becomes of those whose namespace is unknown
//! or gone.
//!
//! Every key begins with the cookie of a namespace. A count that cannot be given to a namespace is never given to
//! another one: it is told apart, and stays counted when its key is removed.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use netsonde_framework::{CollectError, HookStatus, NetnsKey, NsId, StartError, View};

use super::kernel::Kernel;
use super::maps::Counters;
use super::object::{Hook, Object, Setting};

/// How long a namespace may be unknown before its counts are closed. New ones are found within seconds.
const UNKNOWN_FOR: Duration = Duration::from_mins(1);

/// Running programs and their counters, with keys of `K` bytes, of which the first eight are the namespace's cookie.
#[derive(Debug)]
pub struct Ledger<const K: usize> {
    object: Object,
    counters: Counters<K>,
    /// Since when a cookie is unknown.
    unknown: HashMap<u64, Instant>,
    gone: HashSet<u64>,
    /// What removed keys of unknown namespaces had counted.
    closed: u64,
}

/// What is in no namespace's count.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    /// Its namespace is unknown or gone.
    pub unattributed: u64,
    /// It found the table in the kernel full.
    pub uncounted: u64,
}

/// The cookie that a key begins with.
fn cookie<const K: usize>(key: &[u8; K]) -> u64 {
    key.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

impl<const K: usize> Ledger<K> {
    /// Loads and attaches a probe's programs, whose counters are in the map of this name.
    pub fn open(
        kernel: &Kernel,
        bytes: &[u8],
        settings: &[Setting],
        hooks: &[Hook],
        map: &str,
    ) -> Result<Self, StartError> {
        let mut object = Object::load(kernel, bytes, settings, hooks)?;
        let counters = object.counters(map)?;
        Ok(Self { object, counters, unknown: HashMap::new(), gone: HashSet::new(), closed: 0 })
    }

    /// How each hook fared.
    pub fn hooks(&self) -> &[HookStatus] {
        self.object.hooks()
    }

    /// Hands each key with its namespace and count to `each`.
    pub fn read(
        &mut self,
        view: &View<'_>,
        mut each: impl FnMut(NsId, &[u8; K], u64),
    ) -> Result<Rest, CollectError> {
        let known: HashMap<u64, NsId> = view.topology.iter().map(|(id, ns)| (ns.key.0, id)).collect();
        let now = Instant::now();
        let mut unattributed = 0;
        let mut close = Vec::new();
        let mut seen = HashSet::new();
        self.counters.read(|key, count| {
            let netns = cookie(key);
            if let Some(id) = known.get(&netns) {
                each(*id, key, count);
            } else if self.gone.contains(&netns) {
                close.push(*key);
            } else {
                unattributed += count;
                seen.insert(netns);
                // Cookie 0 is no namespace at all; its keys are few and stay.
                let since = *self.unknown.entry(netns).or_insert(now);
                if netns != 0 && now.duration_since(since) > UNKNOWN_FOR {
                    self.closed += count;
                    unattributed -= count;
                    close.push(*key);
                }
            }
        })?;
        self.unknown.retain(|netns, _| seen.contains(netns));
        for key in close {
            self.counters.remove(&key);
        }
        Ok(Rest { unattributed: unattributed + self.closed, uncounted: self.object.uncounted()? })
    }

    /// The namespaces' rows are gone from the page; their keys are removed at the next reading.
    pub fn forget(&mut self, gone: &[NetnsKey]) {
        const REMEMBERED: usize = 4096;
        if self.gone.len() > REMEMBERED {
            self.gone.clear();
        }
        self.gone.extend(gone.iter().map(|key| key.0));
    }
}
