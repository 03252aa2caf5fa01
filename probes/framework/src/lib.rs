//! What every part of netsonde agrees on: probes, metrics, labels, events, namespaces, the catalogue.
//!
//! No I/O happens here. Probe crates depend on this one and never on each other.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod catalogue;
pub mod event;
pub mod histogram;
pub mod label;
pub mod metric;
pub mod monotonic;
pub mod probe;
pub mod samples;
pub mod setting;
pub mod topology;

pub use catalogue::Catalogue;
pub use event::{Emitter, Event, EventDef, Field, FieldDef, Flow, Form, Record, Severity};
pub use histogram::Exp2;
pub use label::{Bound, Label, LabelKind, Labels};
pub use metric::{Counter, Gauge, Histogram, Kind, MetricDef, Reference};
pub use monotonic::{Folded, MonotonicSum};
pub use probe::{
    CollectError, HookState, HookStatus, Probe, ProbeInfo, ProbeSpec, StartError, Started, View,
};
pub use samples::{Limits, Samples, Value};
pub use setting::{Fields, Interval};
pub use topology::{Identity, Namespace, NetnsKey, NsId, Origin, Pod, Topology};
