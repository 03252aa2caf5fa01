//! Events: single things that happened, with their place in time, beside the metrics that count them.
//!
//! A probe hands [`Event`]s to the [`Emitter`], which limits each type and counts what it held back; the metrics stay
//! exact either way. The exporter labels each event with its pod and writes it once as a flat JSON object: a
//! [`Record`], which every sink gets as it is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
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

impl Severity {
    /// Every severity.
    pub const ALL: &'static [Self] = &[Self::Info, Self::Warning];

    /// The word in the event.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
        }
    }
}

/// What a field of an event holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A text.
    Text,
    /// A whole number from 0.
    Number,
    /// `true` or `false`.
    Flag,
    /// A list of texts.
    Texts,
}

/// A field of an event, for the catalogue and the JSON Schema.
#[derive(Debug, Clone, Copy)]
pub struct FieldDef {
    /// The key, snake_case.
    pub name: &'static str,
    /// What it holds.
    pub form: Form,
    /// What it means, with its unit.
    pub help: &'static str,
}

impl FieldDef {
    /// A field of this name and form.
    pub const fn new(name: &'static str, form: Form, help: &'static str) -> Self {
        Self { name, form, help }
    }
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
    /// The probe's own fields.
    pub fields: &'static [FieldDef],
}

/// The fields that every event may have, in the order in which they are written, before the probe's own.
pub const COMMON: &[FieldDef] = &[
    FieldDef::new("id", Form::Text, "Tells this event from every other one of this node."),
    FieldDef::new("time", Form::Text, "When the kernel saw it: RFC 3339, UTC, nanoseconds."),
    FieldDef::new("node", Form::Text, "The node's name."),
    FieldDef::new("probe", Form::Text, "The probe that saw it."),
    FieldDef::new("type", Form::Text, "What happened: one of the types of this page."),
    FieldDef::new("severity", Form::Text, "info or warning."),
    FieldDef::new(
        "namespace",
        Form::Text,
        "Kubernetes namespace of the pod whose network namespace it happened in; hostNetwork for the host. Without \
         it, that namespace is unknown.",
    ),
    FieldDef::new(
        "pod",
        Form::Text,
        "The pod whose network namespace it happened in; hostNetwork for the host.",
    ),
    FieldDef::new(
        "peer_namespace",
        Form::Text,
        "Kubernetes namespace of the other end, where that is a pod of this node; of another node with discovery.cluster_peers.",
    ),
    FieldDef::new(
        "peer_pod",
        Form::Text,
        "Pod of the other end, where that is a pod of this node; of another node with discovery.cluster_peers.",
    ),
    FieldDef::new(
        "src_namespace",
        Form::Text,
        "Of a packet on its way through: Kubernetes namespace of the pod that sent it, where that is one of this node.",
    ),
    FieldDef::new("src_pod", Form::Text, "Likewise: the pod that sent it."),
    FieldDef::new(
        "dst_namespace",
        Form::Text,
        "Of a packet on its way through: Kubernetes namespace of the pod that was to get it, where that is one of this \
         node.",
    ),
    FieldDef::new("dst_pod", Form::Text, "Likewise: the pod that was to get it."),
    FieldDef::new(
        "protocol",
        Form::Text,
        "Protocol in the IP header: tcp, udp, icmp, icmpv6, sctp or its number.",
    ),
    FieldDef::new("src", Form::Text, "Source address of the packet; of a socket's event, its own."),
    FieldDef::new("sport", Form::Number, "Source port."),
    FieldDef::new("dst", Form::Text, "Destination address of the packet; of a socket's event, its peer's."),
    FieldDef::new("dport", Form::Number, "Destination port."),
];

/// The field after the probe's own.
pub const SUPPRESSED: FieldDef = FieldDef::new(
    "suppressed",
    Form::Number,
    "How many events like this one were held back since the last one that was told; absent for none.",
);

/// The value of a probe's own field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A whole number.
    Number(u64),
    /// `true` or `false`.
    Flag(bool),
    /// A text.
    Text(Cow<'static, str>),
    /// A text that many events share.
    Shared(Arc<str>),
    /// A list of texts.
    Texts(Vec<Arc<str>>),
    /// A namespace beside the event's own. It is told as two texts, `<name>_namespace` and `<name>_pod`, which are the
    /// fields of the [`EventDef`], or not at all where it is unknown.
    Netns(NetnsKey),
}

impl From<NetnsKey> for Field {
    fn from(v: NetnsKey) -> Self {
        Self::Netns(v)
    }
}
impl From<u64> for Field {
    fn from(v: u64) -> Self {
        Self::Number(v)
    }
}
impl From<u32> for Field {
    fn from(v: u32) -> Self {
        Self::Number(v.into())
    }
}
impl From<bool> for Field {
    fn from(v: bool) -> Self {
        Self::Flag(v)
    }
}
impl From<&'static str> for Field {
    fn from(v: &'static str) -> Self {
        Self::Text(v.into())
    }
}
impl From<String> for Field {
    fn from(v: String) -> Self {
        Self::Text(v.into())
    }
}
impl From<Arc<str>> for Field {
    fn from(v: Arc<str>) -> Self {
        Self::Shared(v)
    }
}
impl From<Vec<Arc<str>>> for Field {
    fn from(v: Vec<Arc<str>>) -> Self {
        Self::Texts(v)
    }
}

/// Both ends of a packet or a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The name of the protocol in the IP header, or its number.
    pub protocol: Cow<'static, str>,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source and destination port, where the protocol has ports.
    pub ports: Option<(u16, u16)>,
}

/// One event, before it is labelled with its pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its type.
    pub def: &'static EventDef,
    /// When the kernel saw it, nanoseconds since 1970.
    pub time_ns: u64,
    /// Whose it is; `None` where the kernel does not tell.
    pub netns: Option<NetnsKey>,
    /// Both ends, where there are any.
    pub flow: Option<Flow>,
    /// The probe's own fields, in the order of its [`EventDef`]; what is unknown is left out.
    pub fields: Vec<(&'static str, Field)>,
    /// How many events like this one were held back since the last one that was let through.
    pub suppressed: u64,
}

impl PartialEq for EventDef {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// An event as it is told: labelled and serialised once, for every sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// One JSON object without a line feed.
    pub json: String,
    /// When the kernel saw it, nanoseconds since 1970.
    pub time_ns: u64,
    /// The probe that saw it.
    pub probe: Cow<'static, str>,
    /// Its type.
    pub kind: Cow<'static, str>,
    /// `info` or `warning`.
    pub severity: Cow<'static, str>,
    /// Kubernetes namespace of its pod; empty where unknown.
    pub namespace: Arc<str>,
    /// Its pod; empty where unknown.
    pub pod: Arc<str>,
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
    now: Instant,
    buckets: HashMap<&'static str, Bucket>,
    taken: Vec<Event>,
    suppressed: u64,
}

impl Emitter {
    /// With this limit for each type.
    pub fn new(rate: Rate) -> Self {
        Self { rate, now: Instant::now(), buckets: HashMap::new(), taken: Vec::new(), suppressed: 0 }
    }

    /// Takes a new limit.
    pub fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
    }

    /// The moment that the events which follow are measured against.
    pub fn at(&mut self, now: Instant) {
        self.now = now;
    }

    /// Takes one event.
    pub fn emit(&mut self, mut event: Event) {
        let burst = f64::from(self.rate.burst);
        let bucket = self.buckets.entry(event.def.name).or_insert(Bucket {
            tokens: burst,
            filled: self.now,
            suppressed: 0,
        });
        let passed: Duration = self.now.saturating_duration_since(bucket.filled);
        bucket.tokens = (bucket.tokens + passed.as_secs_f64() * f64::from(self.rate.per_second)).min(burst);
        bucket.filled = self.now;
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

    static LOSS: EventDef =
        EventDef { name: "PacketLoss", help: "Lost.", severity: Severity::Warning, fields: &[] };

    fn event() -> Event {
        Event { def: &LOSS, time_ns: 1, netns: None, flow: None, fields: Vec::new(), suppressed: 0 }
    }

    #[test]
    fn what_is_held_back_is_counted_and_told_with_the_next_event() {
        let mut emitter = Emitter::new(Rate { per_second: 1, burst: 2 });
        let start = Instant::now();
        emitter.at(start);
        for _ in 0..5 {
            emitter.emit(event());
        }
        assert_eq!(emitter.take().len(), 2);
        assert_eq!(emitter.suppressed(), 3);
        emitter.at(start + Duration::from_secs(1));
        emitter.emit(event());
        let after = emitter.take();
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].suppressed, 3);
    }
}
