//! The metrics of `socketlatency`.

use netsonde_framework::closed_label;

closed_label! {
    /// The protocol of the socket.
    pub enum Protocol = "protocol" { Tcp = "tcp", Udp = "udp" }
}

netsonde_framework::metrics! {
    /// Time that data waited in a socket from its arrival there until a program took it: for each read, that of the oldest data in it.
    READ: Histogram<(Protocol,)> = "socketlatency_read_seconds".source("sock:sk_data_ready to tcp:tcp_rcv_space_adjust or sock:sock_recv_length");
    /// Time that written data waited in a socket until the last of it was handed to a device's queue, 0 where that was at once; writes that left in one packet count once.
    WRITE: Histogram<(Protocol,)> = "socketlatency_write_seconds".source("sock:sock_send_length to net:net_dev_queue");
    /// Reads of data that had waited longer than 1 ms.
    READS_OVER_1MS: Counter<()> = "socketlatency_reads_over_1ms".reference("kubeskoop_socketlatency_read1ms").source("as socketlatency_read_seconds");
    /// Reads of data that had waited longer than 100 ms.
    READS_OVER_100MS: Counter<()> = "socketlatency_reads_over_100ms".reference("kubeskoop_socketlatency_read100ms").source("as socketlatency_read_seconds");
    /// Reads of data that had waited longer than the setting `slow`.
    SLOW_READS: Counter<()> = "socketlatency_slow_reads".source("as socketlatency_read_seconds");
    /// Writes whose data waited longer than 1 ms.
    WRITES_OVER_1MS: Counter<()> = "socketlatency_writes_over_1ms".reference("kubeskoop_socketlatency_write1ms").source("as socketlatency_write_seconds");
    /// Writes whose data waited longer than 100 ms.
    WRITES_OVER_100MS: Counter<()> = "socketlatency_writes_over_100ms".reference("kubeskoop_socketlatency_write100ms").source("as socketlatency_write_seconds");
    /// Writes whose data waited longer than the setting `slow`.
    SLOW_WRITES: Counter<()> = "socketlatency_slow_writes".source("as socketlatency_write_seconds");
    /// Arrivals and writes whose wait was not followed because the socket had no memory left to note it, on the host's row.
    UNFOLLOWED: Counter<()> = "socketlatency_unfollowed".source("eBPF map UNFOLLOWED");
    /// Waits whose network namespace is unknown or gone, on the host's row.
    UNATTRIBUTED: Counter<()> = "socketlatency_unattributed".source("eBPF map HISTOGRAMS");
    /// Waits that were not counted above because the table in the kernel was full, on the host's row.
    UNCOUNTED: Counter<()> = "socketlatency_uncounted".source("eBPF map UNCOUNTED");
    /// Slow reads and writes that no event told of because of the limit in `events`; a namespace without any has no series.
    SUPPRESSED: Counter<()> = "socketlatency_suppressed_events".source("eBPF map HISTOGRAMS");
    /// Slow reads and writes that no event told of because the ring buffer was full; a namespace without any has no series.
    LOST: Counter<()> = "socketlatency_lost_events".source("eBPF map HISTOGRAMS");
}
