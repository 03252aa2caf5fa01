//! The metrics of `softnet`: what each CPU did with received packets.

use netsonde_framework::label::Cpu;

netsonde_framework::metrics! {
    /// Packets that the CPU took from devices and from its backlog.
    PROCESSED: Counter<(Cpu,)> = "softnet_processed".reference("kubeskoop_softnet_processed").source("/proc/net/softnet_stat column 1");
    /// Packets that were dropped because the backlog of the CPU was full (net.core.netdev_max_backlog).
    DROPPED: Counter<(Cpu,)> = "softnet_dropped".reference("kubeskoop_softnet_dropped").source("/proc/net/softnet_stat column 2");
    /// Times that reception stopped with work left because its budget or time was used up (net.core.netdev_budget).
    TIME_SQUEEZE: Counter<(Cpu,)> = "softnet_time_squeeze".source("/proc/net/softnet_stat column 3");
    /// Times that another CPU woke this one to receive packets (RPS).
    RECEIVED_RPS: Counter<(Cpu,)> = "softnet_received_rps".source("/proc/net/softnet_stat column 10");
    /// Packets that were dropped because one flow took more than its part of the backlog (net.core.flow_limit_cpu_bitmap).
    FLOW_LIMIT: Counter<(Cpu,)> = "softnet_flow_limit".source("/proc/net/softnet_stat column 11");
    /// Packets that wait in the backlog of the CPU.
    BACKLOG_LEN: Gauge<(Cpu,)> = "softnet_backlog_len".source("/proc/net/softnet_stat column 12");
    /// Packets of the backlog that the CPU has not yet begun to work on.
    INPUT_QLEN: Gauge<(Cpu,)> = "softnet_input_qlen".source("/proc/net/softnet_stat column 14");
    /// Packets of the backlog that the CPU is working on.
    PROCESS_QLEN: Gauge<(Cpu,)> = "softnet_process_qlen".source("/proc/net/softnet_stat column 15");
}
