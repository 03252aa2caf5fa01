//! The metrics of `qdisc`: the statistics of the queues before the devices, one by one and summed for each namespace.

use netsonde_framework::Bound;
use netsonde_framework::label::Device;
use netsonde_framework::text_label;

text_label! {
    /// The kind of qdisc in the kernel's word (TCA_KIND): fq_codel, mq, tbf.
    pub Kind = "kind", Bound::KernelNames(64)
}

text_label! {
    /// Where the qdisc is attached: `root`, `ingress`, or the class above it as tc writes it, `8001:1`.
    pub Parent = "parent", Bound::AtMost(64)
}

netsonde_framework::metrics! {
    /// Bytes that left through the root qdiscs of the namespace; absent while it has none that counts (noqueue does not).
    BYTES: Counter<()> = "qdisc_bytes".reference("kubeskoop_qdisc_bytes").source("RTM_GETQDISC TCA_STATS_BASIC bytes");
    /// Packets that left through the root qdiscs of the namespace.
    PACKETS: Counter<()> = "qdisc_packets".reference("kubeskoop_qdisc_packets").source("RTM_GETQDISC TCA_STATS_BASIC packets, TCA_STATS_PKT64");
    /// Packets that the root qdiscs of the namespace and the qdiscs below them dropped.
    DROPS: Counter<()> = "qdisc_drops".reference("kubeskoop_qdisc_drops").source("RTM_GETQDISC TCA_STATS_QUEUE drops");
    /// How often a root qdisc of the namespace held packets back because of its rate or its limit.
    OVERLIMITS: Counter<()> = "qdisc_overlimits".reference("kubeskoop_qdisc_overlimits").source("RTM_GETQDISC TCA_STATS_QUEUE overlimits");
    /// Packets that a device of the namespace did not take and that went back to its root qdisc.
    REQUEUES: Counter<()> = "qdisc_requeues".source("RTM_GETQDISC TCA_STATS_QUEUE requeues");
    /// Packets that wait in the root qdiscs of the namespace.
    QLEN: Gauge<()> = "qdisc_qlen".reference("kubeskoop_qdisc_qlen").source("RTM_GETQDISC TCA_STATS_QUEUE qlen");
    /// Bytes that wait in the root qdiscs of the namespace.
    BACKLOG_BYTES: Gauge<()> = "qdisc_backlog_bytes".reference("kubeskoop_qdisc_backlog").source("RTM_GETQDISC TCA_STATS_QUEUE backlog");
    /// Bytes that left through the qdisc; for ingress and clsact those that passed it.
    DEVICE_BYTES: Counter<(Device, Kind, Parent)> = "qdisc_device_bytes".source("RTM_GETQDISC TCA_STATS_BASIC bytes");
    /// Packets that left through the qdisc; for ingress and clsact those that passed it.
    DEVICE_PACKETS: Counter<(Device, Kind, Parent)> = "qdisc_device_packets".source("RTM_GETQDISC TCA_STATS_BASIC packets, TCA_STATS_PKT64");
    /// Packets that the qdisc dropped; for ingress and clsact those that a filter dropped.
    DEVICE_DROPS: Counter<(Device, Kind, Parent)> = "qdisc_device_drops".source("RTM_GETQDISC TCA_STATS_QUEUE drops");
    /// How often the qdisc held packets back because of its rate or its limit.
    DEVICE_OVERLIMITS: Counter<(Device, Kind, Parent)> = "qdisc_device_overlimits".source("RTM_GETQDISC TCA_STATS_QUEUE overlimits");
    /// Packets that the device did not take and that went back to the qdisc.
    DEVICE_REQUEUES: Counter<(Device, Kind, Parent)> = "qdisc_device_requeues".source("RTM_GETQDISC TCA_STATS_QUEUE requeues");
    /// Packets that wait in the qdisc.
    DEVICE_QLEN: Gauge<(Device, Kind, Parent)> = "qdisc_device_qlen".source("RTM_GETQDISC TCA_STATS_QUEUE qlen");
    /// Bytes that wait in the qdisc.
    DEVICE_BACKLOG_BYTES: Gauge<(Device, Kind, Parent)> = "qdisc_device_backlog_bytes".source("RTM_GETQDISC TCA_STATS_QUEUE backlog");
}
