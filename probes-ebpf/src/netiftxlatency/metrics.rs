//! The metrics of `netiftxlatency`.

use netsonde_framework::label::Device;

netsonde_framework::metrics! {
    /// Time that packets wait in the queue (qdisc) of a device. Packets that find it empty and pass by are not here.
    QDISC: Histogram<(Device,)> = "netiftxlatency_qdisc_seconds".source("tracepoints qdisc:qdisc_enqueue and qdisc:qdisc_dequeue");
    /// Time that the driver of a device takes to accept a packet.
    DRIVER: Histogram<(Device,)> = "netiftxlatency_driver_seconds".source("tracepoints net:net_dev_start_xmit and net:net_dev_xmit");
    /// Packets that waited in the queue of a device for longer than 100 ms.
    QDISC_OVER_100MS: Counter<()> = "netiftxlatency_qdisc_over_100ms_packets".reference("kubeskoop_netiftxlat_qdiscslow100ms").source("as netiftxlatency_qdisc_seconds");
    /// Packets that the driver of a device took longer than 100 ms to accept.
    DRIVER_OVER_100MS: Counter<()> = "netiftxlatency_driver_over_100ms_packets".reference("kubeskoop_netiftxlat_netdevslow100ms").source("as netiftxlatency_driver_seconds");
    /// Packets that came out of the queue of a device and whose way in was not seen: parts of a larger packet that the queue split, and such that the driver had refused.
    UNMATCHED: Counter<(Device,)> = "netiftxlatency_unmatched_packets".source("tracepoint qdisc:qdisc_dequeue");
    /// Packets that the driver of a device refused because it was full (NETDEV_TX_BUSY); they are tried again.
    BUSY: Counter<(Device,)> = "netiftxlatency_busy_packets".source("tracepoint net:net_dev_xmit");
    /// Measurements whose network namespace is unknown or gone, on the host's row.
    UNATTRIBUTED: Counter<()> = "netiftxlatency_unattributed".source("eBPF map HISTOGRAMS");
    /// Measurements that were not counted above because the table in the kernel was full, on the host's row.
    UNCOUNTED: Counter<()> = "netiftxlatency_uncounted".source("eBPF map UNCOUNTED");
    /// Slow packets that no event told of because of the limit in `events`; a namespace without any has no series.
    SUPPRESSED: Counter<()> = "netiftxlatency_suppressed_events".source("eBPF map HISTOGRAMS");
    /// Slow packets that no event told of because the ring buffer was full; a namespace without any has no series.
    LOST: Counter<()> = "netiftxlatency_lost_events".source("eBPF map HISTOGRAMS");
}
