//! The metrics of `fd`: what the processes of a namespace hold open.

netsonde_framework::metrics! {
    /// File descriptors that are open, over all processes; one that several processes share is counted in each.
    OPEN: Gauge<()> = "fd_open".reference("kubeskoop_fd_openfd").source("/proc/PID/fd");
    /// File descriptors that are sockets; left out where a process has too many descriptors to look at each.
    OPEN_SOCKETS: Gauge<()> = "fd_open_sockets".reference("kubeskoop_fd_opensocket").source("/proc/PID/fd, links to socket:[N]");
    /// The highest share of its own limit that a process has in use: open descriptors by soft RLIMIT_NOFILE.
    MAX_USED: Gauge<()> = "fd_max_used_ratio".source("/proc/PID/fd and /proc/PID/limits Max open files");
    /// Processes whose sockets were not counted, because they have more descriptors than the setting allows to look at.
    SKIPPED: Gauge<()> = "fd_processes_skipped".source("/proc/PID/fd");
    /// Processes whose descriptors may not be listed; they are in none of the other numbers.
    UNREADABLE: Gauge<()> = "fd_processes_unreadable".source("/proc/PID/fd EACCES");
}
