//! A probe's desk: its events come in as the kernel told them and go out labelled and written.
//!
//! A namespace that is not known yet is waited for, at most a second: its pod was started a moment ago. One that has
//! gone is remembered for a while: its last events are still on their way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netsonde_framework::{Emitter, Event, NetnsKey, Record, Topology};

use super::bus::{Bus, Tally};
use super::json::{Owner, Told};
use super::peers::{End, Peers};
use crate::discovery::Discovery;

/// How long an event waits for its namespace to be found.
const WAIT: Duration = Duration::from_secs(1);
/// How many may wait; beyond, the oldest are told without a pod.
const WAITING: usize = 1024;
/// How often waiting events are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long the pod of a namespace that is gone is remembered.
const REMEMBER: Duration = Duration::from_secs(10);

/// Labels and writes the events of one probe.
pub struct Desk {
    probe: &'static str,
    bus: Arc<Bus>,
    discovery: Discovery,
    peers: Arc<Peers>,
    emitter: Emitter,
    suppressed: u64,
    seen: Arc<Topology>,
    owners: HashMap<NetnsKey, (Owner, Option<Instant>)>,
    waiting: VecDeque<(Instant, Event)>,
}

impl Desk {
    pub fn new(probe: &'static str, bus: Arc<Bus>, discovery: Discovery, peers: Arc<Peers>) -> Self {
        let emitter = Emitter::new(bus.rate());
        Self {
            probe,
            bus,
            discovery,
            peers,
            emitter,
            suppressed: 0,
            seen: Arc::default(),
            owners: HashMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Where the probe puts what it drains.
    pub fn emitter(&mut self) -> &mut Emitter {
        self.emitter.set_rate(self.bus.rate());
        self.emitter.at(Instant::now());
        &mut self.emitter
    }

    /// When [`Desk::tell`] wants to be called again although nothing was drained.
    pub fn due(&self) -> Option<Duration> {
        (!self.waiting.is_empty()).then_some(LOOK)
    }

    /// Tells what has come in and what has waited long enough.
    pub fn tell(&mut self) {
        let fresh = self.emitter.take();
        let suppressed = self.emitter.suppressed();
        if fresh.is_empty() && self.waiting.is_empty() && suppressed == self.suppressed {
            return;
        }
        let now = Instant::now();
        self.learn(now);
        let mut ready: Vec<Event> = Vec::with_capacity(fresh.len());
        for (since, event) in std::mem::take(&mut self.waiting) {
            if self.knows(&event) || now.duration_since(since) >= WAIT {
                ready.push(event);
            } else {
                self.waiting.push_back((since, event));
            }
        }
        for event in fresh {
            if self.knows(&event) {
                ready.push(event);
            } else {
                self.waiting.push_back((now, event));
                if self.waiting.len() > WAITING {
                    ready.extend(self.waiting.pop_front().map(|(_, oldest)| oldest));
                }
            }
        }
        self.publish(&ready, suppressed);
    }

    /// Tells everything at once, because nothing more will come.
    pub fn close(&mut self) {
        self.learn(Instant::now());
        let mut ready: Vec<Event> = std::mem::take(&mut self.waiting).into_iter().map(|(_, e)| e).collect();
        ready.extend(self.emitter.take());
        self.publish(&ready, self.emitter.suppressed());
    }

    fn publish(&mut self, ready: &[Event], suppressed: u64) {
        let held_back = suppressed - std::mem::replace(&mut self.suppressed, suppressed);
        let node = self.bus.node();
        let mut tally = Tally { suppressed: held_back, ..Tally::default() };
        let records: Vec<Arc<Record>> =
            ready.iter().map(|event| Arc::new(self.write(event, &node, &mut tally))).collect();
        let count = |sum: &mut Tally| {
            sum.suppressed += tally.suppressed;
            sum.unattributed += tally.unattributed;
            for (kind, count) in tally.told {
                *sum.told.entry(kind).or_default() += count;
            }
        };
        self.bus.publish(self.probe, count, &records);
    }

    fn write(&self, event: &Event, node: &str, tally: &mut Tally) -> Record {
        let owner_of = |key| self.owners.get(&key).map(|(owner, _)| owner);
        let owner = event.netns.and_then(owner_of);
        let ends = event.flow.as_ref().map(|flow| self.peers.ends(event.netns, flow)).unwrap_or_default();
        let ends = [ends.peer, ends.src, ends.dst];
        let elsewhere = ends.each_ref().map(|end| end.as_ref().and_then(elsewhere));
        let [peer, src, dst] = std::array::from_fn(|at| match &ends[at] {
            Some(End::Here(key)) => owner_of(*key),
            Some(End::Elsewhere(_)) => elsewhere[at].as_ref(),
            None => None,
        });
        *tally.told.entry(event.def.name).or_default() += 1;
        tally.unattributed += u64::from(owner.is_none());
        let id = self.bus.id();
        let told =
            Told { id: &id, node, probe: self.probe, owner, peer, src, dst, owner_of: &owner_of, event };
        let of = |part: fn(&Owner) -> &Arc<str>| owner.map_or_else(|| Arc::from(""), |o| Arc::clone(part(o)));
        Record {
            json: told.line(),
            time_ns: event.time_ns,
            probe: self.probe.into(),
            kind: event.def.name.into(),
            severity: event.def.severity.text().into(),
            namespace: of(|o| &o.namespace),
            pod: of(|o| &o.pod),
        }
    }

    /// An event of no namespace at all waits for nothing.
    fn knows(&self, event: &Event) -> bool {
        event.netns.is_none_or(|key| self.owners.contains_key(&key))
    }

    fn learn(&mut self, now: Instant) {
        let topology = self.discovery.known();
        self.peers.refresh(&topology);
        if Arc::ptr_eq(&self.seen, &topology) {
            return;
        }
        self.seen = Arc::clone(&topology);
        for (_, gone) in self.owners.values_mut() {
            gone.get_or_insert(now);
        }
        for (_, ns) in topology.iter() {
            let owner =
                Owner { namespace: (&*ns.identity.namespace).into(), pod: (&*ns.identity.pod).into() };
            match self.owners.get_mut(&ns.key) {
                Some((known, gone)) => {
                    *gone = None;
                    if *known != owner {
                        *known = owner;
                    }
                }
                None => {
                    self.owners.insert(ns.key, (owner, None));
                }
            }
        }
        self.owners.retain(|_, (_, gone)| gone.is_none_or(|since| now.duration_since(since) < REMEMBER));
    }
}

/// Whose the address is, where it is one of another node.
fn elsewhere(end: &End) -> Option<Owner> {
    match end {
        End::Here(_) => None,
        End::Elsewhere(remote) => {
            Some(Owner { namespace: Arc::clone(&remote.namespace), pod: Arc::clone(&remote.pod) })
        }
    }
}
