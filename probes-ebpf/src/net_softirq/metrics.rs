//! The metrics of `net_softirq`, all of them on the host's row: softirqs belong to CPUs.

use netsonde_framework::closed_label;

closed_label! {
    /// The softirq.
    pub enum Vector = "vector" { NetTx = "net_tx", NetRx = "net_rx" }
}

closed_label! {
    /// `scheduling`: it waits, from its raise until it is entered. `execution`: it runs.
    pub enum Stage = "stage" { Scheduling = "scheduling", Execution = "execution" }
}

netsonde_framework::metrics! {
    /// How long the network's softirqs wait for their CPU, and how long they run.
    LATENCY: Histogram<(Vector, Stage)> = "net_softirq_seconds".source("tracepoints irq:softirq_raise, softirq_entry and softirq_exit");
    /// Runs of a softirq that waited longer than the setting `slow`.
    SCHEDULING_SLOW: Counter<(Vector,)> = "net_softirq_scheduling_slow_runs".reference("kubeskoop_softirq_schedslow").source("as net_softirq_seconds");
    /// Runs of a softirq that waited longer than 100 ms.
    SCHEDULING_OVER_100MS: Counter<(Vector,)> = "net_softirq_scheduling_over_100ms_runs".reference("kubeskoop_softirq_schedslow100ms").source("as net_softirq_seconds");
    /// Runs of a softirq that took longer than the setting `slow`.
    EXECUTION_SLOW: Counter<(Vector,)> = "net_softirq_execution_slow_runs".reference("kubeskoop_softirq_excuteslow").source("as net_softirq_seconds");
    /// Runs of a softirq that took longer than 100 ms.
    EXECUTION_OVER_100MS: Counter<(Vector,)> = "net_softirq_execution_over_100ms_runs".reference("kubeskoop_softirq_excuteslow100ms").source("as net_softirq_seconds");
    /// Runs of a softirq whose wait is unknown: it was raised a second time before its first turn came, or the CPU was offline in between.
    UNMATCHED: Counter<(Vector,)> = "net_softirq_unmatched_runs".source("eBPF map UNMATCHED");
    /// Slow runs that no event told of because of the limit in `events`.
    SUPPRESSED: Counter<()> = "net_softirq_suppressed_events".source("eBPF map LATENCIES");
    /// Slow runs that no event told of because the ring buffer was full.
    LOST: Counter<()> = "net_softirq_lost_events".source("eBPF map LATENCIES");
}
