//! The metrics of `udp`: the Udp groups of `snmp` and `snmp6`.

use netsonde_framework::label::Family;

netsonde_framework::metrics! {
    /// Datagrams that were read by applications.
    IN_DATAGRAMS: Counter<(Family,)> = "udp_in_datagrams".reference_where("kubeskoop_udp_indatagrams", "family=\"ipv4\"").source("/proc/net/snmp Udp InDatagrams, /proc/net/snmp6 Udp6InDatagrams");
    /// Datagrams that came to a port on which no socket was open.
    NO_PORTS: Counter<(Family,)> = "udp_no_ports".reference_where("kubeskoop_udp_noports", "family=\"ipv4\"").source("/proc/net/snmp Udp NoPorts, /proc/net/snmp6 Udp6NoPorts");
    /// Datagrams that could not be delivered to their socket, with those of rcvbuf_errors, mem_errors and in_csum_errors.
    IN_ERRORS: Counter<(Family,)> = "udp_in_errors".reference_where("kubeskoop_udp_inerrors", "family=\"ipv4\"").source("/proc/net/snmp Udp InErrors, /proc/net/snmp6 Udp6InErrors");
    /// Datagrams that were sent.
    OUT_DATAGRAMS: Counter<(Family,)> = "udp_out_datagrams".reference_where("kubeskoop_udp_outdatagrams", "family=\"ipv4\"").source("/proc/net/snmp Udp OutDatagrams, /proc/net/snmp6 Udp6OutDatagrams");
    /// Datagrams that were dropped because the receive buffer of their socket was full.
    RCVBUF_ERRORS: Counter<(Family,)> = "udp_rcvbuf_errors".reference_where("kubeskoop_udp_rcvbuferrors", "family=\"ipv4\"").source("/proc/net/snmp Udp RcvbufErrors, /proc/net/snmp6 Udp6RcvbufErrors");
    /// Datagrams that could not be sent because there was no buffer space for them.
    SNDBUF_ERRORS: Counter<(Family,)> = "udp_sndbuf_errors".reference_where("kubeskoop_udp_sndbuferrors", "family=\"ipv4\"").source("/proc/net/snmp Udp SndbufErrors, /proc/net/snmp6 Udp6SndbufErrors");
    /// Datagrams that were received with a wrong checksum.
    IN_CSUM_ERRORS: Counter<(Family,)> = "udp_in_csum_errors".reference_where("kubeskoop_udp_incsumerrors", "family=\"ipv4\"").source("/proc/net/snmp Udp InCsumErrors, /proc/net/snmp6 Udp6InCsumErrors");
    /// Multicast and broadcast datagrams that no socket wanted.
    IGNORED_MULTI: Counter<(Family,)> = "udp_ignored_multi".reference_where("kubeskoop_udp_ignoredmulti", "family=\"ipv4\"").source("/proc/net/snmp Udp IgnoredMulti, /proc/net/snmp6 Udp6IgnoredMulti");
    /// Datagrams that were dropped because UDP had reached its memory limit (net.ipv4.udp_mem).
    MEM_ERRORS: Counter<(Family,)> = "udp_mem_errors".source("/proc/net/snmp Udp MemErrors, /proc/net/snmp6 Udp6MemErrors");
}
