//! The flows of one namespace: which have series of their own, and what the others come to.
//!
//! Every byte is added once: to the total, and to exactly one series of a flow or to the rest. What a series or the
//! rest has, it keeps; so none of them ever runs backwards, and together they grow as the total does.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::kernel::{Key, Traffic};
use super::metrics::Protocol;

/// A series that a heavier flow may take the place of has been there for as long: each new series costs Prometheus.
const TENURE: Duration = Duration::from_mins(5);
/// How many times heavier that flow must be.
const HEAVIER: f64 = 2.0;
/// What a series had that is no longer there is remembered for as many flows, so that it goes on from there.
const REMEMBERED: usize = 1024;
/// In what time the past counts half.
const HALF_LIFE: Duration = Duration::from_mins(1);

/// How much went over a flow lately.
#[derive(Debug, Clone, Copy)]
pub struct Heat {
    value: f64,
    at: Instant,
}

impl Heat {
    /// None.
    pub fn new(now: Instant) -> Self {
        Self { value: 0.0, at: now }
    }

    /// As of now.
    pub fn at(self, now: Instant) -> f64 {
        let halves = now.saturating_duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.value * (-halves).exp2()
    }

    /// Adds traffic. Packets count too, so that a flow of empty ones is not nothing.
    pub fn add(&mut self, more: Traffic, now: Instant) {
        let more = more.bytes() + more.sent_packets + more.received_packets;
        *self = Self { value: self.at(now) + more as f64, at: now };
    }
}

/// A flow that grew.
#[derive(Debug, Clone, Copy)]
pub struct Grown {
    pub key: Key,
    pub by: Traffic,
    pub heat: Heat,
}

/// A flow with series of its own.
#[derive(Debug)]
pub struct Own {
    /// What its series show.
    pub traffic: Traffic,
    /// Address and port of its own end and of the peer's.
    pub ends: [(String, String); 2],
    since: Instant,
    heat: Heat,
}

/// The flows of one namespace.
#[derive(Debug, Default)]
pub struct Pod {
    total: [Traffic; Protocol::ALL.len()],
    rest: [Traffic; Protocol::ALL.len()],
    own: BTreeMap<Key, Own>,
    left: HashMap<Key, (Traffic, Instant)>,
}

impl Pod {
    /// Everything.
    pub fn total(&self, protocol: Protocol) -> Traffic {
        self.total[protocol as usize]
    }

    /// What went over flows while they had no series of their own.
    pub fn rest(&self, protocol: Protocol) -> Traffic {
        self.rest[protocol as usize]
    }

    /// The flows with series of their own.
    pub fn own(&self) -> impl Iterator<Item = (&Key, &Own)> {
        self.own.iter()
    }

    /// Whether a flow has series of its own.
    pub fn has(&self, key: &Key) -> bool {
        self.own.contains_key(key)
    }

    /// Adds what is of no flow that is known.
    pub fn add_rest(&mut self, protocol: Protocol, more: Traffic) {
        self.total[protocol as usize] += more;
        self.rest[protocol as usize] += more;
    }

    /// Adds what flows grew by. Of those without series of their own, the heaviest get one while there are fewer than
    /// `limit`, or instead of a much lighter one.
    pub fn take(&mut self, mut grown: Vec<Grown>, limit: usize, now: Instant) {
        grown.retain(|flow| {
            let Some(own) = self.own.get_mut(&flow.key) else { return true };
            own.traffic += flow.by;
            own.heat = flow.heat;
            self.total[flow.key.protocol() as usize] += flow.by;
            false
        });
        grown.sort_by(|a, b| b.heat.at(now).total_cmp(&a.heat.at(now)));
        let mut grown = grown.into_iter();
        for flow in grown.by_ref() {
            let room = self.own.len() < limit || self.make_room(flow.heat.at(now), limit, now);
            if !room {
                // Those that follow are lighter still.
                self.add_rest(flow.key.protocol(), flow.by);
                break;
            }
            self.total[flow.key.protocol() as usize] += flow.by;
            let mut traffic = self.left.remove(&flow.key).map_or_else(Traffic::default, |(had, _)| had);
            traffic += flow.by;
            let own = Own { traffic, ends: flow.key.ends(), since: now, heat: flow.heat };
            self.own.insert(flow.key, own);
        }
        for flow in grown {
            self.add_rest(flow.key.protocol(), flow.by);
        }
    }

    /// Takes the series of the lightest flow away for one that is as heavy as this, if it may be.
    fn make_room(&mut self, heat: f64, limit: usize, now: Instant) -> bool {
        let old = |own: &Own| now.saturating_duration_since(own.since) >= TENURE;
        let lightest = self
            .own
            .iter()
            .filter(|(_, own)| old(own))
            .map(|(key, own)| (*key, own.heat.at(now)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b));
        match lightest {
            Some((key, light)) if limit > 0 && heat > HEAVIER * light => {
                self.leave(&key, now);
                true
            }
            _ => false,
        }
    }

    /// Ends the series of a flow; what they had is remembered.
    pub fn leave(&mut self, key: &Key, now: Instant) {
        let Some(own) = self.own.remove(key) else { return };
        if self.left.len() >= REMEMBERED
            && let Some(oldest) = self.left.iter().min_by_key(|(_, (_, at))| *at).map(|(key, _)| *key)
        {
            self.left.remove(&oldest);
        }
        self.left.insert(*key, (own.traffic, now));
    }
}

#[cfg(test)]
mod tests;
