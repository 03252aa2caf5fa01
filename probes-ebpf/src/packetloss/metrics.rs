//! The metrics of `packetloss`.

use netsonde_framework::{Bound, closed_label, text_label};

text_label! {
    /// The kernel's reason (enum skb_drop_reason of the running kernel); `REASON_N` for one of a subsystem.
    pub Reason = "reason", Bound::KernelNames(512)
}

closed_label! {
    /// The protocol in the IP header.
    pub enum Protocol = "protocol" {
        Tcp = "tcp", Udp = "udp", Icmp = "icmp", Sctp = "sctp", Other = "other", NotIp = "not_ip",
    }
}

closed_label! {
    /// Which way the packet went: to a socket or program here (receive), from one (transmit), or through (forward); `unknown` where the kernel does not tell.
    pub enum Direction = "direction" {
        Unknown = "unknown", Receive = "receive", Transmit = "transmit", Forward = "forward",
    }
}

netsonde_framework::metrics! {
    /// Packets that the kernel dropped, without its own housekeeping.
    PACKETS: Counter<()> = "packetloss_packets".reference("kubeskoop_packetloss_total").source("tracepoint skb:kfree_skb");
    /// Packets that a firewall rule or another netfilter hook dropped.
    NETFILTER: Counter<()> = "packetloss_netfilter_packets".reference("kubeskoop_packetloss_netfilter").source("tracepoint skb:kfree_skb, reason NETFILTER_DROP");
    /// Packets that the kernel dropped, by its reason, the packet's protocol and its direction, without its own housekeeping.
    DROPS: Counter<(Reason, Protocol, Direction)> = "packetloss_drops".source("tracepoint skb:kfree_skb");
    /// Connection requests, and last packets of handshakes, that listening sockets refused, mostly because a queue was full.
    REFUSED: Counter<()> = "packetloss_listener_refusals".source("sk_drops of listening sockets, eBPF map DROPS");
    /// Packets that the kernel freed as dropped although nothing was lost: purged queues, multicast that nobody wanted, answers to a reset.
    HOUSEKEEPING: Counter<(Reason,)> = "packetloss_housekeeping".source("tracepoint skb:kfree_skb");
    /// Dropped packets whose network namespace is unknown or gone, on the host's row.
    UNATTRIBUTED: Counter<()> = "packetloss_unattributed".source("tracepoint skb:kfree_skb");
    /// Dropped packets that were not counted above because the table in the kernel was full, on the host's row.
    UNCOUNTED: Counter<()> = "packetloss_uncounted".source("eBPF map UNCOUNTED");
    /// Drops that no event told of because of the limit in `events`; a namespace without any has no series.
    SUPPRESSED: Counter<()> = "packetloss_suppressed_events".source("eBPF map DROPS");
    /// Drops that no event told of because the ring buffer was full; a namespace without any has no series.
    LOST: Counter<()> = "packetloss_lost_events".source("eBPF map DROPS");
}
