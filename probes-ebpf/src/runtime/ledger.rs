//! Counts by namespace: whose they are, and what becomes of those whose namespace is unknown or gone.
//!
//! Every key begins with the cookie of a namespace. A count that cannot be given to a namespace is never given to
//! another one: it is told apart, and stays counted when its key is removed.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use netsonde_framework::{CollectError, NetnsKey, NsId, View};

use super::maps::Counters;

/// How long a namespace may be unknown before its counts are closed. New ones are found within seconds.
const UNKNOWN_FOR: Duration = Duration::from_mins(1);

/// Counters with keys of `K` bytes, of which the first eight are the namespace's cookie.
#[derive(Debug)]
pub struct Ledger<const K: usize> {
    counters: Counters<K>,
    /// Since when a cookie is unknown.
    unknown: HashMap<u64, Instant>,
    gone: HashSet<u64>,
    /// What removed keys of unknown namespaces had counted.
    closed: u64,
}

/// The cookie that a key begins with.
pub fn cookie<const K: usize>(key: &[u8; K]) -> u64 {
    key.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

impl<const K: usize> Ledger<K> {
    /// Keeps the books of these counters.
    pub fn new(counters: Counters<K>) -> Self {
        Self { counters, unknown: HashMap::new(), gone: HashSet::new(), closed: 0 }
    }

    /// Hands each key with its namespace and count to `each`, and gives the count of what belongs to none.
    pub fn read(
        &mut self,
        view: &View<'_>,
        mut each: impl FnMut(NsId, &[u8; K], u64),
    ) -> Result<u64, CollectError> {
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
        Ok(unattributed + self.closed)
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
