//! From the kernel's tables to the flows of each namespace: what each entry grew by, whose it is, and which entries the
//! kernel can do without.
//!
//! One round is one reading of both tables: [`Book::begin`], [`Book::overflow`] and [`Book::flow`] for each entry, and
//! [`Book::finish`], which names the entries to remove; what they had in the end goes to [`Book::late`].

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::kernel::{Key, Traffic};
use super::pod::{Grown, Heat, Pod};

/// A flow that has been silent for as long loses its series.
const OVER: Duration = Duration::from_mins(10);
/// One without series of its own is only remembered to see whether it becomes heavy.
const IDLE: Duration = Duration::from_mins(1);
/// How long a namespace may be unknown before its entries are closed. New ones are found within seconds.
const UNKNOWN_FOR: Duration = Duration::from_mins(1);
/// From how many entries on the kernel's table is cleared of all silent flows without series: half of it.
const CROWDED: usize = 16_384;
/// Namespaces that are gone, whose last entries may still be in the kernel.
const GONE: usize = 4096;

/// What an entry had when it was last read.
#[derive(Debug, Clone, Copy)]
struct Seen {
    told: Traffic,
    grew: Instant,
    heat: Heat,
}

/// Entries of the kernel's tables that are to be removed, with what they had when they were read.
#[derive(Debug, Default)]
pub struct Removals {
    pub flows: Vec<(Key, Traffic)>,
    pub overflow: Vec<(Key, Traffic)>,
}

/// The flows of all namespaces.
#[derive(Debug, Default)]
pub struct Book {
    /// The most flows of a namespace that have series of their own.
    limit: usize,
    pods: HashMap<u64, Pod>,
    seen: HashMap<Key, Seen>,
    overflowed: HashMap<Key, Traffic>,
    overflowed_bytes: u64,
    unattributed: u64,
    /// Since when a cookie is unknown.
    unknown: HashMap<u64, Instant>,
    gone: HashSet<u64>,
    round: Round,
}

/// What one round has found so far.
#[derive(Debug, Default)]
struct Round {
    known: HashSet<u64>,
    unknown: HashSet<u64>,
    grown: HashMap<u64, Vec<Grown>>,
    removals: Removals,
}

enum Owner {
    Known,
    /// It may be found yet: its entries wait.
    Waits,
    Gone,
}

impl Book {
    /// Empty.
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Begins a round with the namespaces that are known now.
    pub fn begin(&mut self, known: HashSet<u64>) {
        self.round = Round { known, ..Round::default() };
    }

    fn owner(&mut self, netns: u64, now: Instant) -> Owner {
        if self.round.known.contains(&netns) {
            return Owner::Known;
        }
        if self.gone.contains(&netns) {
            return Owner::Gone;
        }
        self.round.unknown.insert(netns);
        let since = *self.unknown.entry(netns).or_insert(now);
        if now.saturating_duration_since(since) > UNKNOWN_FOR { Owner::Gone } else { Owner::Waits }
    }

    /// Takes an entry of what found no room in the table of flows.
    pub fn overflow(&mut self, key: Key, all: Traffic, now: Instant) {
        let owner = self.owner(key.netns(), now);
        if matches!(owner, Owner::Waits) {
            return;
        }
        let told = self.overflowed.entry(key).or_default();
        let more = all.since(*told);
        *told = all;
        self.overflowed_bytes += more.bytes();
        if matches!(owner, Owner::Known) {
            self.pods.entry(key.netns()).or_default().add_rest(key.protocol(), more);
        } else {
            self.unattributed += more.bytes();
            self.overflowed.remove(&key);
            self.round.removals.overflow.push((key, all));
        }
    }

    /// Takes an entry of the table of flows.
    pub fn flow(&mut self, key: Key, all: Traffic, now: Instant) {
        match self.owner(key.netns(), now) {
            Owner::Waits => {}
            Owner::Gone => {
                let told = self.seen.remove(&key).map_or_else(Traffic::default, |seen| seen.told);
                self.unattributed += all.since(told).bytes();
                self.round.removals.flows.push((key, all));
            }
            Owner::Known => {
                let new = Seen { told: Traffic::default(), grew: now, heat: Heat::new(now) };
                let seen = self.seen.entry(key).or_insert(new);
                let by = all.since(seen.told);
                if by == Traffic::default() {
                    return;
                }
                seen.told = all;
                seen.grew = now;
                seen.heat.add(by, now);
                self.round.grown.entry(key.netns()).or_default().push(Grown { key, by, heat: seen.heat });
            }
        }
    }

    /// Ends a round: gives flows their series, and names the entries that the kernel can remove.
    pub fn finish(&mut self, now: Instant) -> Removals {
        let mut round = std::mem::take(&mut self.round);
        for (netns, grown) in round.grown {
            self.pods.entry(netns).or_default().take(grown, self.limit, now);
        }
        self.unknown.retain(|netns, _| round.unknown.contains(netns));
        // One that grew in this round stays even in a crowd.
        let idle = if self.seen.len() > CROWDED { Duration::from_nanos(1) } else { IDLE };
        let (pods, removed) = (&mut self.pods, &mut round.removals.flows);
        self.seen.retain(|key, seen| {
            let silent = now.saturating_duration_since(seen.grew);
            let pod = pods.get_mut(&key.netns());
            let stays = silent < if pod.as_ref().is_some_and(|pod| pod.has(key)) { OVER } else { idle };
            if !stays {
                if let Some(pod) = pod {
                    pod.leave(key, now);
                }
                removed.push((*key, seen.told));
            }
            stays
        });
        round.removals
    }

    /// Takes what an entry that was removed had been given since it was read.
    pub fn late(&mut self, key: Key, more: Traffic) {
        if more == Traffic::default() {
            return;
        }
        match self.pods.get_mut(&key.netns()) {
            Some(pod) => pod.add_rest(key.protocol(), more),
            None => self.unattributed += more.bytes(),
        }
    }

    /// The flows of a namespace; `None` where there never was any.
    pub fn pod(&self, netns: u64) -> Option<&Pod> {
        self.pods.get(&netns)
    }

    /// Bytes whose namespace is unknown or gone.
    pub fn unattributed(&self) -> u64 {
        self.unattributed
    }

    /// Bytes that found no room in the table of flows.
    pub fn overflowed(&self) -> u64 {
        self.overflowed_bytes
    }

    /// The rows of these namespaces are gone from the page; their entries are removed in the next round.
    pub fn forget(&mut self, gone: impl Iterator<Item = u64>) {
        if self.gone.len() > GONE {
            self.gone.clear();
        }
        for netns in gone {
            self.pods.remove(&netns);
            self.gone.insert(netns);
        }
    }
}

#[cfg(test)]
mod tests;
