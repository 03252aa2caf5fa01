//! The probes that read the kernel through eBPF: a folder each, like those of `netsonde-probes`.
//!
//! This build has none yet.

use netsonde_framework::ProbeSpec;

/// Every probe of this crate.
pub static SPECS: &[&ProbeSpec<()>] = &[];
