//! Where events go: stdout, a file, Loki.
//!
//! A folder each, like the probes. A sink only delivers a batch or says why not; everything else (the bounded queue,
//! batches, retries, the disk buffer, the counts) is the [`Driver`]'s, one for each running sink, on a thread of its own.
#![forbid(unsafe_code)]

pub mod driver;
pub mod file;
pub mod loki;
pub mod settings;
pub mod sink;
pub mod stdout;

pub use driver::{Counts, Driver};
pub use sink::{Context, Opened, REASONS, Reason, Refusal, Sink, SinkError, SinkSpec};

/// Every sink.
pub static SPECS: &[&SinkSpec] = &[&file::SPEC, &loki::SPEC, &stdout::SPEC];
