//! The metrics of `conntrack`: the statistics of connection tracking in each namespace that uses it.

netsonde_framework::metrics! {
    /// Lookups in the table; only old kernels count them.
    SEARCHED: Counter<()> = "conntrack_searched".source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_SEARCHED");
    /// Lookups for a free tuple that found it taken, as address translation does them; old kernels count every lookup that found its entry.
    FOUND: Counter<()> = "conntrack_found".reference("kubeskoop_conntrack_found").source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_FOUND");
    /// Entries that were made for a first packet; only old kernels count them.
    NEW: Counter<()> = "conntrack_new".source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_NEW");
    /// Packets that could not be tracked: of no connection, out of window, or not allowed in the connection's state.
    INVALID: Counter<()> = "conntrack_invalid".reference("kubeskoop_conntrack_invalid").source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_INVALID");
    /// Packets that were not to be tracked; only old kernels count them.
    IGNORE: Counter<()> = "conntrack_ignore".source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_IGNORE");
    /// Packets that were not to be tracked; 0 on a kernel that no longer counts them.
    IGNORE_OR_ZERO: Counter<()> = "conntrack_ignore_or_zero".reference("kubeskoop_conntrack_ignore").reference_only().source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_IGNORE");
    /// Entries that were deleted; only old kernels count them.
    DELETE: Counter<()> = "conntrack_delete".source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_DELETE");
    /// Entries that were put on the list of the dying; only old kernels count them.
    DELETE_LIST: Counter<()> = "conntrack_delete_list".source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_DELETE_LIST");
    /// Entries that were put into the table by hand or by a helper, not by a packet; old kernels count all.
    INSERT: Counter<()> = "conntrack_insert".reference("kubeskoop_conntrack_insert").source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_INSERT");
    /// Entries that could not be put into the table because the same one, or one that clashes with it, was there.
    INSERT_FAILED: Counter<()> = "conntrack_insert_failed".reference("kubeskoop_conntrack_insertfailed").source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_INSERT_FAILED");
    /// Packets that were dropped because the table was full, there was no memory for an entry, or two new connections clashed.
    DROP: Counter<()> = "conntrack_drop".reference("kubeskoop_conntrack_drop").source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_DROP");
    /// Entries that were given up before their time to make room in a full table.
    EARLY_DROP: Counter<()> = "conntrack_early_drop".reference("kubeskoop_conntrack_earlydrop").source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_EARLY_DROP");
    /// ICMP packets that could not be tracked, for example with a wrong checksum; old kernels count other malformed packets too.
    ERROR: Counter<()> = "conntrack_error".reference("kubeskoop_conntrack_error").source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_ERROR");
    /// Lookups that began again because an entry moved to another chain or the table was resized meanwhile.
    SEARCH_RESTART: Counter<()> = "conntrack_search_restart".reference("kubeskoop_conntrack_searchrestart").source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_SEARCH_RESTART");
    /// Clashes of two packets of one new connection that were resolved without a drop.
    CLASH_RESOLVE: Counter<()> = "conntrack_clash_resolve".source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_CLASH_RESOLVE");
    /// Entries that were refused because their chain of the table was too long.
    CHAIN_TOOLONG: Counter<()> = "conntrack_chain_toolong".source("IPCTNL_MSG_CT_GET_STATS_CPU CTA_STATS_CHAIN_TOOLONG");
    /// Entries in the table.
    ENTRIES: Gauge<()> = "conntrack_entries".reference("kubeskoop_conntrack_entries").source("IPCTNL_MSG_CT_GET_STATS CTA_STATS_GLOBAL_ENTRIES");
    /// How many entries there may be (nf_conntrack_max); the host's limit holds for each namespace.
    MAX_ENTRIES: Gauge<()> = "conntrack_max_entries".reference("kubeskoop_conntrack_maxentries").source("IPCTNL_MSG_CT_GET_STATS CTA_STATS_GLOBAL_MAX_ENTRIES");
}
