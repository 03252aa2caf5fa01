//! The metrics of `tcpreset`.

use netsonde_framework::{Bound, closed_label, text_label};

closed_label! {
    /// How the reset came about: sent for a segment of no socket (nosock), sent by a socket of its own accord (active) or in answer to a segment (process), or received.
    pub enum Kind = "kind" { Nosock = "nosock", Active = "active", Process = "process", Receive = "receive" }
}

text_label! {
    /// The kernel's reason (enum sk_rst_reason, Linux 6.10); `unknown` for received ones and on older kernels.
    pub Reason = "reason", Bound::KernelNames(128)
}

netsonde_framework::metrics! {
    /// TCP resets that were sent; only where the kernel tells of all of them: Linux 6.10, or fentry or kprobe before.
    SENT: Counter<()> = "tcpreset_sent".source("tracepoint tcp:tcp_send_reset; before Linux 6.10 tcp_v4_send_reset and tcp_v6_send_reset too");
    /// TCP resets that were received.
    RECEIVED: Counter<()> = "tcpreset_received".source("tracepoint tcp:tcp_receive_reset");
    /// TCP resets by how they came about and the kernel's reason.
    RESETS: Counter<(Kind, Reason)> = "tcpreset_resets".source("tracepoints tcp:tcp_send_reset and tcp:tcp_receive_reset");
    /// Resets whose network namespace is unknown or gone, on the host's row.
    UNATTRIBUTED: Counter<()> = "tcpreset_unattributed".source("tracepoints tcp:tcp_send_reset and tcp:tcp_receive_reset");
    /// Resets that were not counted above because the table in the kernel was full, on the host's row.
    UNCOUNTED: Counter<()> = "tcpreset_uncounted".source("eBPF map UNCOUNTED");
    /// Resets that no event told of because of the limit in `events`; a namespace without any has no series.
    SUPPRESSED: Counter<()> = "tcpreset_suppressed_events".source("eBPF map RESETS");
    /// Resets that no event told of because the ring buffer was full; a namespace without any has no series.
    LOST: Counter<()> = "tcpreset_lost_events".source("eBPF map RESETS");
}
