//! The metrics of `ipvs`: the totals of `ip_vs_stats`.

netsonde_framework::metrics! {
    /// Connections that were scheduled to a real server.
    CONNECTIONS: Counter<()> = "ipvs_connections".reference("kubeskoop_ipvs_connections").source("/proc/net/ip_vs_stats Total Conns");
    /// Packets from clients to real servers.
    INCOMING_PACKETS: Counter<()> = "ipvs_incoming_packets".reference("kubeskoop_ipvs_incomingpackets").source("/proc/net/ip_vs_stats Incoming Packets");
    /// Packets from real servers to clients that passed through this machine.
    OUTGOING_PACKETS: Counter<()> = "ipvs_outgoing_packets".reference("kubeskoop_ipvs_outgoingpackets").source("/proc/net/ip_vs_stats Outgoing Packets");
    /// Bytes from clients to real servers.
    INCOMING_BYTES: Counter<()> = "ipvs_incoming_bytes".reference("kubeskoop_ipvs_incomingbytes").source("/proc/net/ip_vs_stats Incoming Bytes");
    /// Bytes from real servers to clients that passed through this machine.
    OUTGOING_BYTES: Counter<()> = "ipvs_outgoing_bytes".reference("kubeskoop_ipvs_outgoingbytes").source("/proc/net/ip_vs_stats Outgoing Bytes");
}
