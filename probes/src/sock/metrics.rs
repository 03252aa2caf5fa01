//! The metrics of `sock`: `sockstat` and `sockstat6`.

use netsonde_framework::closed_label;
use netsonde_framework::label::Family;

closed_label! {
    /// The protocol of the sockets.
    pub enum Protocol = "protocol" { Tcp = "tcp", Udp = "udp", UdpLite = "udplite", Raw = "raw" }
}

netsonde_framework::metrics! {
    /// Sockets of every kind, Unix and netlink sockets too.
    USED: Gauge<()> = "sock_used".source("/proc/net/sockstat sockets used");
    /// Sockets in use: TCP sockets that listen or have a connection (without TIME_WAIT), UDP sockets that have a port, raw sockets.
    INUSE: Gauge<(Protocol, Family)> = "sock_inuse".source("/proc/net/sockstat and sockstat6 TCP, UDP, UDPLITE, RAW inuse");
    /// TCP sockets in use, of IPv4 and IPv6 together.
    TCP_INUSE: Gauge<()> = "sock_tcp_inuse".reference("kubeskoop_sock_inuse").reference_only().source("/proc/net/sockstat TCP inuse + sockstat6 TCP6 inuse");
    /// Packets that are being put together from fragments.
    FRAG_INUSE: Gauge<(Family,)> = "sock_frag_inuse".source("/proc/net/sockstat FRAG inuse, sockstat6 FRAG6 inuse");
    /// Memory of fragments that wait for the rest of their packet.
    FRAG_MEMORY: Gauge<(Family,)> = "sock_frag_memory_bytes".source("/proc/net/sockstat FRAG memory, sockstat6 FRAG6 memory");
    /// TCP sockets in state TIME_WAIT, of both IP versions.
    TCP_TW: Gauge<()> = "sock_tcp_tw".reference("kubeskoop_sock_tw").source("/proc/net/sockstat TCP tw");
    /// TCP sockets of the whole machine that no process has open any more.
    TCP_ORPHAN: Gauge<()> = "sock_tcp_orphan".reference("kubeskoop_sock_orphan").source("/proc/net/sockstat TCP orphan");
    /// TCP sockets of the whole machine that are allocated, in any state but TIME_WAIT.
    TCP_ALLOC: Gauge<()> = "sock_tcp_alloc".reference("kubeskoop_sock_alloc").source("/proc/net/sockstat TCP alloc");
    /// Memory of the socket buffers of a protocol on the whole machine, which net.ipv4.tcp_mem and udp_mem limit.
    MEM: Gauge<(Protocol,)> = "sock_mem_bytes".source("/proc/net/sockstat TCP mem, UDP mem, which are in pages");
    /// Memory of TCP socket buffers on the whole machine, in pages as the kernel has it.
    TCP_MEM_PAGES: Gauge<()> = "sock_tcp_mem_pages".reference("kubeskoop_sock_mem").reference_only().source("/proc/net/sockstat TCP mem");
}
