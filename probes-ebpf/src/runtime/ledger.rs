//! A probe that counts: its programs, its counters, whose they are, and what becomes of those whose namespace is unknown
//! or gone.
//!
//! Every key begins with the cookie of a namespace, and every value with `struct tally` of include/count.h. A count
//! that cannot be given to a namespace is never given to another one: it is told apart, and stays counted when its key
//! is removed.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use netsonde_framework::{CollectError, HookStatus, NetnsKey, NsId, StartError, View};

use super::kernel::Kernel;
use super::ladder::Hook;
use super::maps::Counters;
use super::object::{Object, Setting};
use super::ring::Ring;
use super::table::{HISTOGRAMS, Table};

/// The numbers of `struct tally`.
pub const TALLY: usize = 5;
const COUNT: usize = 0;
const SUPPRESSED: usize = 2;
const LOST: usize = 4;

/// How long a namespace may be unknown before its counts are closed. New ones are found within seconds.
const UNKNOWN_FOR: Duration = Duration::from_mins(1);

/// Running programs and their counters, with keys of `K` bytes, of which the first eight are the namespace's cookie,
/// and values of `V` numbers, of which the first five are the tally.
#[derive(Debug)]
pub struct Ledger<const K: usize, const V: usize = TALLY> {
    object: Object,
    counts: Counts<K, V>,
    /// Since when a cookie is unknown.
    unknown: HashMap<u64, Instant>,
    gone: HashSet<u64>,
    /// What removed keys of unknown namespaces had counted.
    closed: u64,
}

/// Where the counts are: in a map of `COUNTERS` (include/count.h), or in the table of include/histograms.h.
#[derive(Debug)]
enum Counts<const K: usize, const V: usize> {
    Counters(Counters<K, V>),
    Histograms(Table<K, V>),
}

impl<const K: usize, const V: usize> Counts<K, V> {
    fn read(&mut self, each: impl FnMut(&[u8; K], &[u64; V])) -> Result<(), CollectError> {
        match self {
            Self::Counters(counters) => counters.read(each),
            Self::Histograms(table) => table.read(each),
        }
    }

    fn remove(&mut self, key: &[u8; K]) {
        match self {
            Self::Counters(counters) => counters.remove(key),
            Self::Histograms(table) => table.remove(key),
        }
    }
}

/// Events of one namespace that were not told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// The limit of their key held them back.
    pub suppressed: u64,
    /// The ring buffer was full.
    pub lost: u64,
}

/// What is in no namespace's count, and which events were not told.
#[derive(Debug, Default)]
pub struct Rest {
    /// Its namespace is unknown or gone.
    pub unattributed: u64,
    /// It found the table in the kernel full.
    pub uncounted: u64,
    /// By namespace; one that held back nothing is not here.
    pub held: HashMap<NsId, Held>,
}

/// The cookie that a key begins with.
fn cookie<const K: usize>(key: &[u8; K]) -> u64 {
    key.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

impl<const K: usize, const V: usize> Ledger<K, V> {
    /// Loads and attaches a probe's programs, whose counters are in the map of this name.
    pub fn open(
        kernel: &Kernel,
        bytes: &[u8],
        settings: &[Setting],
        hooks: &[Hook],
        map: &str,
    ) -> Result<Self, StartError> {
        let mut object = Object::load(kernel, bytes, settings, hooks)?;
        let counts = match map {
            HISTOGRAMS => Counts::Histograms(object.histograms()?),
            _ => Counts::Counters(object.counters(map)?),
        };
        Ok(Self { object, counts, unknown: HashMap::new(), gone: HashSet::new(), closed: 0 })
    }

    /// The programs and their other maps.
    pub fn object(&mut self) -> &mut Object {
        &mut self.object
    }

    /// The ring buffer of the events.
    pub fn ring(&mut self) -> Result<Ring, StartError> {
        self.object.ring("EVENTS")
    }

    /// How each hook fared.
    pub fn hooks(&self) -> &[HookStatus] {
        self.object.hooks()
    }

    /// Hands each key with its namespace and numbers to `each`. The first number is the count.
    pub fn read(
        &mut self,
        view: &View<'_>,
        mut each: impl FnMut(NsId, &[u8; K], &[u64; V]),
    ) -> Result<Rest, CollectError> {
        let known: HashMap<u64, NsId> = view.topology.iter().map(|(id, ns)| (ns.key.0, id)).collect();
        let now = Instant::now();
        self.object.check()?;
        let mut rest = Rest::default();
        let mut close = Vec::new();
        let mut seen = HashSet::new();
        self.counts.read(|key, numbers| {
            let netns = cookie(key);
            let count = numbers[COUNT];
            if let Some(id) = known.get(&netns) {
                each(*id, key, numbers);
                if numbers[SUPPRESSED] + numbers[LOST] > 0 {
                    let held = rest.held.entry(*id).or_default();
                    held.suppressed += numbers[SUPPRESSED];
                    held.lost += numbers[LOST];
                }
            } else if self.gone.contains(&netns) {
                close.push(*key);
            } else {
                // Cookie 0 is no namespace at all; its keys are few and stay. What belongs to a namespace that may still be
                // found is nowhere until it is found or given up: a sum that it left again would run backwards.
                if netns == 0 {
                    rest.unattributed += count;
                    return;
                }
                seen.insert(netns);
                let since = *self.unknown.entry(netns).or_insert(now);
                if now.duration_since(since) > UNKNOWN_FOR {
                    self.closed += count;
                    close.push(*key);
                }
            }
        })?;
        self.unknown.retain(|netns, _| seen.contains(netns));
        for key in close {
            self.counts.remove(&key);
        }
        rest.unattributed += self.closed;
        rest.uncounted = self.object.uncounted()?;
        Ok(rest)
    }

    /// Removes keys; what they had counted is the caller's from then on.
    pub fn remove(&mut self, keys: &[[u8; K]]) {
        for key in keys {
            self.counts.remove(key);
        }
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
