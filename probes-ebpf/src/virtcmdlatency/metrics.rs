//! The metrics of `virtcmdlatency`.

use netsonde_framework::closed_label;

closed_label! {
    /// The class of the command (`VIRTIO_NET_CTRL_*`); `other` for one that the standard did not have when this was written.
    pub enum Class = "class" {
        Rx = "rx", Mac = "mac", Vlan = "vlan", Announce = "announce", Mq = "mq", GuestOffloads = "guest_offloads",
        NotfCoal = "notf_coal", Stats = "stats", Other = "other",
    }
}

closed_label! {
    /// The command in its class (`VIRTIO_NET_CTRL_*`); `other` for one that the standard did not have when this was written.
    pub enum Command = "command" {
        Promisc = "promisc", Allmulti = "allmulti", Alluni = "alluni", Nomulti = "nomulti", Nouni = "nouni",
        Nobcast = "nobcast", TableSet = "table_set", AddrSet = "addr_set", Add = "add", Del = "del", Ack = "ack",
        VqPairsSet = "vq_pairs_set", RssConfig = "rss_config", HashConfig = "hash_config", Set = "set",
        TxSet = "tx_set", RxSet = "rx_set", VqSet = "vq_set", VqGet = "vq_get", Query = "query", Get = "get",
        Other = "other",
    }
}

netsonde_framework::metrics! {
    /// Time that a command to a virtio network device takes, with the wait for its answer, on the host's row.
    COMMAND: Histogram<(Class, Command)> = "virtcmdlatency_command_seconds".source("entry and return of virtnet_send_command or virtnet_send_command_reply");
    /// Commands to virtio network devices that took longer than the setting `slow`, on the host's row.
    SLOW: Counter<()> = "virtcmdlatency_slow_commands".reference("kubeskoop_virtcmdlatency_latency").source("as virtcmdlatency_command_seconds");
    /// Commands to virtio network devices that took longer than 100 ms, on the host's row.
    OVER_100MS: Counter<()> = "virtcmdlatency_over_100ms_commands".reference("kubeskoop_virtcmdlatency_latency100ms").source("as virtcmdlatency_command_seconds");
    /// Commands that a virtio network device refused or did not answer, on the host's row.
    FAILED: Counter<()> = "virtcmdlatency_failed_commands".source("what virtnet_send_command or virtnet_send_command_reply returns");
    /// Commands that are in no series above because the table in the kernel was full, on the host's row.
    UNCOUNTED: Counter<()> = "virtcmdlatency_uncounted".source("eBPF map UNCOUNTED");
    /// Slow commands that no event told of because of the limit in `events`, on the host's row.
    SUPPRESSED: Counter<()> = "virtcmdlatency_suppressed_events".source("eBPF map HISTOGRAMS");
    /// Slow commands that no event told of because the ring buffer was full, on the host's row.
    LOST: Counter<()> = "virtcmdlatency_lost_events".source("eBPF map HISTOGRAMS");
}
