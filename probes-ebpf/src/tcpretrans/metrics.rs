//! The metrics of `tcpretrans`.

use netsonde_framework::closed_label;

closed_label! {
    /// What made TCP send again: a SYN or SYN-ACK without an answer, the retransmission timer, duplicate ACKs (fast), a tail loss probe, or what follows a timeout (slow_start).
    pub enum Kind = "kind" {
        Syn = "syn", SynAck = "syn_ack", Timeout = "timeout", Fast = "fast",
        LossProbe = "loss_probe", SlowStart = "slow_start", Other = "other",
    }
}

netsonde_framework::metrics! {
    /// Retransmissions; one may be several segments.
    PACKETS: Counter<()> = "tcpretrans_packets".source("tracepoints tcp:tcp_retransmit_skb and tcp:tcp_retransmit_synack");
    /// Retransmissions by what made TCP send again.
    RETRANSMISSIONS: Counter<(Kind,)> = "tcpretrans_retransmissions".source("tracepoints tcp:tcp_retransmit_skb and tcp:tcp_retransmit_synack");
    /// Retransmissions that could not be sent, by what made TCP try; Linux 6.17 and later tell of them.
    FAILED: Counter<(Kind,)> = "tcpretrans_failed".source("tracepoint tcp:tcp_retransmit_skb, err");
    /// Retransmissions whose network namespace is unknown or gone, on the host's row.
    UNATTRIBUTED: Counter<()> = "tcpretrans_unattributed".source("tracepoints tcp:tcp_retransmit_skb and tcp:tcp_retransmit_synack");
    /// Retransmissions that were not counted above because the table in the kernel was full, on the host's row.
    UNCOUNTED: Counter<()> = "tcpretrans_uncounted".source("eBPF map UNCOUNTED");
}
