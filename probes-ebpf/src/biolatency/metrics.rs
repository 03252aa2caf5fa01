//! The metrics of `biolatency`.

use netsonde_framework::{Bound, closed_label, text_label};

/// Disks with series of their own.
pub const DISKS: usize = 64;

text_label! {
    /// The disk, by the kernel's name for it (/proc/diskstats); `other` for those without a name and beyond the first 64.
    pub Device = "device", Bound::AtMost(DISKS)
}

closed_label! {
    /// What the request did. `other` is everything beside: zeroing, erasing, zones, and a driver's own commands.
    pub enum Operation = "operation" {
        Read = "read", Write = "write", Flush = "flush", Discard = "discard", Other = "other",
    }
}

netsonde_framework::metrics! {
    /// Time from the making of a request to a disk until its end, with its wait in the scheduler, on the host's row.
    REQUEST: Histogram<(Device, Operation)> = "biolatency_request_seconds".source("tracepoints block:block_io_start or block:block_getrq, and block:block_rq_complete; struct request start_time_ns");
    /// Time from the handing of a request to the disk's driver until its end, on the host's row.
    DEVICE: Histogram<(Device, Operation)> = "biolatency_device_seconds".source("tracepoints block:block_rq_issue and block:block_rq_complete; struct request io_start_time_ns");
    /// Requests of the namespace's processes that took longer than the setting `slow`.
    SLOW: Counter<()> = "biolatency_slow_requests".source("as biolatency_request_seconds, and tracepoint block:block_io_start or block:block_getrq");
    /// Requests of the namespace's processes that took longer than 100 ms.
    OVER_100MS: Counter<()> = "biolatency_over_100ms_requests".source("as biolatency_slow_requests");
    /// Slow requests of kernel threads, of nobody that is known, or of a namespace that is unknown or gone, on the host's row.
    UNATTRIBUTED: Counter<()> = "biolatency_unattributed".source("eBPF map SLOW");
    /// Measurements that are in no series above because a table in the kernel was full or the request had no beginning, on the host's row.
    UNCOUNTED: Counter<()> = "biolatency_uncounted".source("eBPF map UNCOUNTED");
    /// Slow requests that no event told of because of the limit in `events`; a namespace without any has no series.
    SUPPRESSED: Counter<()> = "biolatency_suppressed_events".source("eBPF map SLOW");
    /// Slow requests that no event told of because the ring buffer was full; a namespace without any has no series.
    LOST: Counter<()> = "biolatency_lost_events".source("eBPF map SLOW");
}
