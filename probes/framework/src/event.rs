//! Events: single things that happened, with their place in time, beside the metrics that count them.
//!
//! An event is one flat JSON object. A probe hands events to the [`Emitter`], which limits each type and counts
//! what it held back; the metrics stay exact either way.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::topology::NetnsKey;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Something was lost or late.
    Warning,
}

/// An event type, for the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct EventDef {
    /// The name in the reference list, for example `PacketLoss`.
    pub name: &'static str,
    /// What happened.
    pub help: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The probe's own fields: name and meaning.
    pub fields: &'static [(&'static str, &'static str)],
}

/// One event, before it is labelled with its pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its type: the name of an [`EventDef`].
    pub kind: &'static str,
    /// When the kernel saw it, nanoseconds since 1970.
    pub time_ns: u64,
    /// Whose it is; `None` where the kernel does not tell.
    pub netns: Option<NetnsKey>,
    /// The probe's own fields.
    pub fields: serde_json::Map<String, serde_json::Value>,
    /// How many events of this type were held back since the last one that was let through.
    pub suppressed: u64,
}

/// The limit of each event type of a probe: at most `burst` at once and `per_second` in the long run.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// In the long run.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    suppressed: u64,
}

/// Takes events from a probe, lets through what the rate allows and counts the rest.
#[derive(Debug)]
pub struct Emitter {
    rate: Rate,
    buckets: HashMap<&'static str, Bucket>,
    taken: Vec<Event>,
    suppressed: u64,
}

impl Emitter {
    /// With this limit for each type.
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: HashMap::new(), taken: Vec::new(), suppressed: 0 }
    }

    /// Takes one event at `now`.
    pub fn emit(&mut self, now: Instant, mut event: Event) {
        let burst = f64::from(self.rate.burst);
        let bucket =
            self.buckets.entry(event.kind).or_insert(Bucket { tokens: burst, filled: now, suppressed: 0 });
        let passed: Duration = now.saturating_duration_since(bucket.filled);
        bucket.tokens = (bucket.tokens + passed.as_secs_f64() * f64::from(self.rate.per_second)).min(burst);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            bucket.suppressed += 1 + event.suppressed;
            self.suppressed += 1;
            return;
        }
        bucket.tokens -= 1.0;
        event.suppressed += std::mem::take(&mut bucket.suppressed);
        self.taken.push(event);
    }

    /// The events that were let through since the last call.
    pub fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.taken)
    }

    /// How many were held back since the start.
    pub fn suppressed(&self) -> u64 {
        self.suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event { kind: "PacketLoss", time_ns: 1, netns: None, fields: serde_json::Map::new(), suppressed: 0 }
    }

    #[test]
    fn what_is_held_back_is_counted_and_told_with_the_next_event() {
        let mut emitter = Emitter::new(Rate { per_second: 1, burst: 2 });
        let start = Instant::now();
        for _ in 0..5 {
            emitter.emit(start, event());
        }
        assert_eq!(emitter.take().len(), 2);
        assert_eq!(emitter.suppressed(), 3);
        emitter.emit(start + Duration::from_secs(1), event());
        let after = emitter.take();
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].suppressed, 3);
    }
}
