//! The probes that read the kernel through eBPF: a folder each, with its kernel side and its user side together.
//!
//! A folder has `kernel.bpf.c` (compiled by `build.rs` and embedded), `kernel.rs` (the same structs for user space),
//! `probe.rs`, `metrics.rs` and `README.md`. What they share is `include/` for C and [`runtime`] for Rust.

pub mod runtime;

include!(concat!(env!("OUT_DIR"), "/probes.rs"));
