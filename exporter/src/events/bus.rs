//! Where told events go: the last ones are kept, sinks and listeners get each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use netsonde_framework::Record;
use netsonde_framework::event::Rate;
use tokio::sync::broadcast;

/// What the configuration says of events.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For each type of each probe.
    pub rate: Rate,
    /// How many of the last events are kept.
    pub recent: usize,
}

/// What is counted of the events of one probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Told, by type.
    pub told: BTreeMap<&'static str, u64>,
    /// Held back by [`Limits::rate`].
    pub suppressed: u64,
    /// Told without a pod, because its namespace stayed unknown.
    pub unattributed: u64,
}

/// Kept events take at most so many bytes.
const RECENT_BYTES: usize = 1 << 20;
/// A listener that is further behind loses events and is told how many.
const LISTENER: usize = 1024;

struct Recent {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
}

/// Who gets every record: a sink's driver.
pub trait Receiver: Send + Sync {
    /// Takes records; it must never wait.
    fn push(&self, records: &[Arc<Record>]);
}

/// The way of every event.
pub struct Bus {
    /// Makes ids differ between runs of the agent.
    start: u64,
    next: AtomicU64,
    node: Mutex<Arc<str>>,
    limits: Mutex<Limits>,
    recent: Mutex<Recent>,
    listeners: broadcast::Sender<Arc<Record>>,
    sinks: Mutex<Arc<[Arc<dyn Receiver>]>>,
    tallies: Mutex<BTreeMap<&'static str, Tally>>,
}

/// For commands that tell nobody.
impl Default for Bus {
    fn default() -> Self {
        Self::new("", Limits { rate: Rate { per_second: 1, burst: 1 }, recent: 0 })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    /// For a node of this name.
    pub fn new(node: &str, limits: Limits) -> Self {
        let start = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_millis() & u128::from(u64::MAX));
        Self {
            start: u64::try_from(start).unwrap_or_default(),
            next: AtomicU64::new(0),
            node: Mutex::new(node.into()),
            limits: Mutex::new(limits),
            recent: Mutex::new(Recent { records: VecDeque::new(), bytes: 0 }),
            listeners: broadcast::channel(LISTENER).0,
            sinks: Mutex::new(Arc::new([])),
            tallies: Mutex::default(),
        }
    }

    /// Takes a new configuration.
    pub fn configure(&self, node: &str, limits: Limits) {
        *lock(&self.node) = node.into();
        *lock(&self.limits) = limits;
    }

    /// The sinks that get events from now on.
    pub fn connect(&self, sinks: Vec<Arc<dyn Receiver>>) {
        *lock(&self.sinks) = sinks.into();
    }

    pub fn node(&self) -> Arc<str> {
        Arc::clone(&lock(&self.node))
    }

    pub fn rate(&self) -> Rate {
        lock(&self.limits).rate
    }

    /// An id that no other event of this node has.
    pub fn id(&self) -> String {
        format!("{:x}-{:x}", self.start, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands records to everyone and counts them for `probe`.
    pub fn publish(&self, probe: &'static str, count: impl FnOnce(&mut Tally), records: &[Arc<Record>]) {
        count(lock(&self.tallies).entry(probe).or_default());
        if records.is_empty() {
            return;
        }
        let most = lock(&self.limits).recent;
        {
            // Held until listeners have them too: who comes now gets each of these once.
            let mut recent = lock(&self.recent);
            for record in records {
                recent.bytes += record.json.len();
                recent.records.push_back(Arc::clone(record));
            }
            while recent.records.len() > most || recent.bytes > RECENT_BYTES {
                let Some(oldest) = recent.records.pop_front() else { break };
                recent.bytes -= oldest.json.len();
            }
            if self.listeners.receiver_count() > 0 {
                for record in records {
                    // Without a listener it goes nowhere, which is no fault.
                    let _ = self.listeners.send(Arc::clone(record));
                }
            }
        }
        let sinks = Arc::clone(&lock(&self.sinks));
        for sink in sinks.iter() {
            sink.push(records);
        }
    }

    /// The kept events, oldest first, and everything from now on; no event is in both.
    pub fn listen(&self) -> (Vec<Arc<Record>>, broadcast::Receiver<Arc<Record>>) {
        let recent = lock(&self.recent);
        (recent.records.iter().cloned().collect(), self.listeners.subscribe())
    }

    /// What was counted so far, by probe.
    pub fn tallies(&self) -> BTreeMap<&'static str, Tally> {
        lock(&self.tallies).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: usize) -> Arc<Record> {
        Arc::new(Record {
            json: format!("{{\"id\":\"{n}\"}}"),
            time_ns: 0,
            probe: "packetloss".into(),
            kind: "PacketLoss".into(),
            severity: "warning".into(),
            namespace: "".into(),
            pod: "".into(),
        })
    }

    fn bus(recent: usize) -> Bus {
        Bus::new("n", Limits { rate: Rate { per_second: 1, burst: 1 }, recent })
    }

    #[test]
    fn the_last_events_are_kept_and_no_more() {
        let bus = bus(3);
        for n in 0..10 {
            bus.publish("packetloss", |_| (), &[record(n)]);
        }
        let (kept, _) = bus.listen();
        let ids: Vec<&str> = kept.iter().map(|r| r.json.as_str()).collect();
        assert_eq!(ids, [r#"{"id":"7"}"#, r#"{"id":"8"}"#, r#"{"id":"9"}"#]);
    }

    #[test]
    fn kept_events_are_bounded_in_bytes_too() {
        let bus = bus(usize::MAX);
        let large = Arc::new(Record { json: "x".repeat(RECENT_BYTES / 4), ..(*record(0)).clone() });
        for _ in 0..10 {
            bus.publish("packetloss", |_| (), &[Arc::clone(&large)]);
        }
        assert_eq!(bus.listen().0.len(), 4);
    }

    #[test]
    fn listeners_and_sinks_get_each_event() {
        struct Sink(Mutex<usize>);
        impl Receiver for Sink {
            fn push(&self, records: &[Arc<Record>]) {
                *lock(&self.0) += records.len();
            }
        }
        let bus = bus(1);
        let sink = Arc::new(Sink(Mutex::new(0)));
        bus.connect(vec![Arc::clone(&sink) as Arc<dyn Receiver>]);
        let (_, mut live) = bus.listen();
        bus.publish("packetloss", |tally| tally.suppressed += 2, &[record(1), record(2)]);
        assert_eq!(live.try_recv().expect("told").json, record(1).json);
        assert_eq!(live.try_recv().expect("told").json, record(2).json);
        assert_eq!(*lock(&sink.0), 2);
        assert_eq!(bus.tallies()["packetloss"].suppressed, 2);
    }

    #[test]
    fn ids_differ() {
        let bus = bus(1);
        assert_ne!(bus.id(), bus.id());
    }
}
