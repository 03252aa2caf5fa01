//! The metrics of `tcpretrans`.

use netsonde_framework::{Bound, closed_label, text_label};

closed_label! {
    /// What made TCP send again: a SYN or SYN-ACK without an answer, the retransmission timer, duplicate ACKs (fast), a tail loss probe, or what follows a timeout (slow_start).
    pub enum Kind = "kind" {
        Syn = "syn", SynAck = "syn_ack", Timeout = "timeout", Fast = "fast",
        LossProbe = "loss_probe", SlowStart = "slow_start", Other = "other",
    }
}

text_label! {
    /// The kernel's reason why the packet was dropped before (enum skb_drop_reason of the running kernel); `REASON_N` for one of a subsystem.
    pub Reason = "reason", Bound::KernelNames(512)
}

netsonde_framework::metrics! {
    /// Retransmissions; one may be several segments.
    PACKETS: Counter<()> = "tcpretrans_packets".source("tracepoints tcp:tcp_retransmit_skb and tcp:tcp_retransmit_synack");
    /// Retransmissions by what made TCP send again.
    RETRANSMISSIONS: Counter<(Kind,)> = "tcpretrans_retransmissions".source("tracepoints tcp:tcp_retransmit_skb and tcp:tcp_retransmit_synack");
    /// Retransmissions of packets that were dropped on this node, in whichever namespace, by the reason of that.
    CAUSED: Counter<(Reason,)> = "tcpretrans_caused".source("tracepoints tcp:tcp_retransmit_skb, tcp:tcp_retransmit_synack and skb:kfree_skb");
    /// Retransmissions that could not be sent, by what made TCP try; Linux 6.17 and later tell of them.
    FAILED: Counter<(Kind,)> = "tcpretrans_failed".source("tracepoint tcp:tcp_retransmit_skb, err");
    /// Retransmissions whose network namespace is unknown or gone, on the host's row.
    UNATTRIBUTED: Counter<()> = "tcpretrans_unattributed".source("tracepoints tcp:tcp_retransmit_skb and tcp:tcp_retransmit_synack");
    /// Retransmissions that were not counted above because the table in the kernel was full, on the host's row.
    UNCOUNTED: Counter<()> = "tcpretrans_uncounted".source("eBPF map UNCOUNTED");
    /// Retransmissions that no event told of because of the limit in `events`; a namespace without any has no series.
    SUPPRESSED: Counter<()> = "tcpretrans_suppressed_events".source("eBPF map RETRANSMISSIONS");
    /// Retransmissions that no event told of because the ring buffer was full; a namespace without any has no series.
    LOST: Counter<()> = "tcpretrans_lost_events".source("eBPF map RETRANSMISSIONS");
}
