//! The procfs and netlink probes: a folder each, found by `build.rs`.
//!
//! A folder has `probe.rs` (settings, start, collect), `metrics.rs` (the typed statics), `README.md` (for
//! operators) and, where text or messages are read, a parser. What they share is in [`os`].

pub mod os;

include!(concat!(env!("OUT_DIR"), "/probes.rs"));
