//! The metrics of `kernellatency`.

use netsonde_framework::closed_label;

closed_label! {
    /// The protocol in the IP header.
    pub enum Protocol = "protocol" { Tcp = "tcp", Udp = "udp" }
}

closed_label! {
    /// Why: `no_stamp`: it arrived before the kernel stamped packets; `clock`: the time of day was set meanwhile; `taken`: a program had read the datagram already.
    pub enum Reason = "reason" { NoStamp = "no_stamp", Clock = "clock", Taken = "taken" }
}

closed_label! {
    /// A function of the kernel that packets come by: `ip_rcv` (ip_rcv_core, ipv6_rcv), `ip_local_deliver` (ip_local_deliver, ip6_input), `transport_rcv` (tcp_v4_rcv, tcp_v6_rcv, udp_rcv, udpv6_rcv); on the way out `ip_output` (ip_output, ip6_output), `ip_finish_output` (ip_finish_output2, ip6_finish_output2).
    pub enum Place = "place" {
        IpReceive = "ip_rcv",
        IpDeliver = "ip_local_deliver",
        Transport = "transport_rcv",
        IpOutput = "ip_output",
        IpFinish = "ip_finish_output",
    }
}

netsonde_framework::metrics! {
    /// Time from a packet's arrival until a CPU takes it up: the wait in the backlog. Not TCP from the same machine.
    RECEIVE_BACKLOG: Histogram<()> = "kernellatency_receive_backlog_seconds".source("tracepoint net:netif_receive_skb, skb->tstamp");
    /// Time from a packet's arrival until its socket has it, for datagrams and for packets of established connections.
    RECEIVE: Histogram<(Protocol,)> = "kernellatency_receive_seconds".source("tracepoints tcp:tcp_probe and sock:sk_data_ready (where that is missing, fentry of sock_def_readable), skb->tstamp");
    /// Time from TCP's sending a packet until it is handed to a device's queue.
    TRANSMIT_STACK: Histogram<()> = "kernellatency_transmit_stack_seconds".source("tracepoint net:net_dev_queue, skb->tstamp");
    /// Time from TCP's sending a packet until it is handed to a device's driver, with its wait in the queue.
    TRANSMIT: Histogram<()> = "kernellatency_transmit_seconds".source("tracepoint net:net_dev_start_xmit, skb->tstamp");
    /// Time from TCP's sending a packet, in another namespace of this machine, until it is handed to the driver of a device of this one.
    FORWARD: Histogram<()> = "kernellatency_forward_seconds".source("tracepoint net:net_dev_start_xmit, skb->tstamp");
    /// Time of packets at places in between, with the setting `places`: since their arrival on the way in, since TCP sent them on the way out.
    PLACE: Histogram<(Place,)> = "kernellatency_place_seconds".source("entry of the function, skb->tstamp");
    /// Packets that took longer than the setting `slow` from their arrival to their socket.
    RECEIVE_SLOW: Counter<()> = "kernellatency_receive_slow_packets".reference("kubeskoop_kernellatency_rxslow").source("as kernellatency_receive_seconds");
    /// Packets that took longer than 100 ms from their arrival to their socket.
    RECEIVE_OVER_100MS: Counter<()> = "kernellatency_receive_over_100ms_packets".reference("kubeskoop_kernellatency_rxslow100ms").source("as kernellatency_receive_seconds");
    /// Packets that took longer than the setting `slow` from TCP to the driver.
    TRANSMIT_SLOW: Counter<()> = "kernellatency_transmit_slow_packets".reference("kubeskoop_kernellatency_txslow").source("as kernellatency_transmit_seconds");
    /// Packets that took longer than 100 ms from TCP to the driver.
    TRANSMIT_OVER_100MS: Counter<()> = "kernellatency_transmit_over_100ms_packets".reference("kubeskoop_kernellatency_txslow100ms").source("as kernellatency_transmit_seconds");
    /// Packets of other namespaces that took longer than the setting `slow` from TCP there to the driver here.
    FORWARD_SLOW: Counter<()> = "kernellatency_forward_slow_packets".source("as kernellatency_forward_seconds");
    /// Received packets whose time could not be told, on the host's row.
    UNMEASURED: Counter<(Reason,)> = "kernellatency_unmeasured_packets".source("eBPF map UNMEASURED");
    /// Measurements whose network namespace is unknown or gone, on the host's row.
    UNATTRIBUTED: Counter<()> = "kernellatency_unattributed".source("eBPF map HISTOGRAMS");
    /// Measurements that were not counted above because the table in the kernel was full, on the host's row.
    UNCOUNTED: Counter<()> = "kernellatency_uncounted".source("eBPF map UNCOUNTED");
    /// Slow packets that no event told of because of the limit in `events`; a namespace without any has no series.
    SUPPRESSED: Counter<()> = "kernellatency_suppressed_events".source("eBPF map HISTOGRAMS");
    /// Slow packets that no event told of because the ring buffer was full; a namespace without any has no series.
    LOST: Counter<()> = "kernellatency_lost_events".source("eBPF map HISTOGRAMS");
}
