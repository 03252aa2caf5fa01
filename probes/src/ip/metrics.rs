//! The metrics of `ip`: the Ip group of `snmp`, the IpExt group of `netstat` and the Ip6 group of `snmp6`.
//!
//! In the order of the tables below, in which the probe pushes.

use netsonde_framework::label::Family;

netsonde_framework::metrics! {
    /// Whether packets are forwarded (net.ipv4.ip_forward): 1 for yes, 0 for no.
    FORWARDING: Gauge<(Family,)> = "ip_forwarding".source("/proc/net/snmp Ip Forwarding");
    /// Packets that were received, with those in error; packets that the device merged count as one.
    IN_RECEIVES: Counter<(Family,)> = "ip_in_receives".source("/proc/net/snmp Ip InReceives, /proc/net/snmp6 Ip6InReceives");
    /// Packets that were dropped because of their header, for example a wrong checksum or a hop limit that ran out.
    IN_HDR_ERRORS: Counter<(Family,)> = "ip_in_hdr_errors".source("/proc/net/snmp Ip InHdrErrors, /proc/net/snmp6 Ip6InHdrErrors");
    /// Packets that were dropped because their destination is invalid, or is not local and forwarding is off.
    IN_ADDR_ERRORS: Counter<(Family,)> = "ip_in_addr_errors".source("/proc/net/snmp Ip InAddrErrors, /proc/net/snmp6 Ip6InAddrErrors");
    /// Packets that were forwarded.
    FORW_DATAGRAMS: Counter<(Family,)> = "ip_forw_datagrams".source("/proc/net/snmp Ip ForwDatagrams, /proc/net/snmp6 Ip6OutForwDatagrams");
    /// Packets for this namespace that were dropped because nothing handles their protocol.
    IN_UNKNOWN_PROTOS: Counter<(Family,)> = "ip_in_unknown_protos".source("/proc/net/snmp Ip InUnknownProtos, /proc/net/snmp6 Ip6InUnknownProtos");
    /// Packets that were dropped on their way in although nothing was wrong with them, for example for lack of memory.
    IN_DISCARDS: Counter<(Family,)> = "ip_in_discards".source("/proc/net/snmp Ip InDiscards, /proc/net/snmp6 Ip6InDiscards");
    /// Packets that were handed to their protocol.
    IN_DELIVERS: Counter<(Family,)> = "ip_in_delivers".source("/proc/net/snmp Ip InDelivers, /proc/net/snmp6 Ip6InDelivers");
    /// Packets that local protocols wanted to send; kernels without out_transmits count forwarded ones here too.
    OUT_REQUESTS: Counter<(Family,)> = "ip_out_requests".source("/proc/net/snmp Ip OutRequests, /proc/net/snmp6 Ip6OutRequests");
    /// Packets that were dropped on their way out although nothing was wrong with them.
    OUT_DISCARDS: Counter<(Family,)> = "ip_out_discards".source("/proc/net/snmp Ip OutDiscards, /proc/net/snmp6 Ip6OutDiscards");
    /// Packets that could not be sent because there was no route to their destination.
    OUT_NO_ROUTES: Counter<(Family,)> = "ip_out_no_routes".source("/proc/net/snmp Ip OutNoRoutes, /proc/net/snmp6 Ip6OutNoRoutes");
    /// Fragmented packets that were given up because fragments did not come in time.
    REASM_TIMEOUT: Counter<(Family,)> = "ip_reasm_timeout".source("/proc/net/snmp Ip ReasmTimeout, /proc/net/snmp6 Ip6ReasmTimeout");
    /// Fragments that were received.
    REASM_REQDS: Counter<(Family,)> = "ip_reasm_reqds".source("/proc/net/snmp Ip ReasmReqds, /proc/net/snmp6 Ip6ReasmReqds");
    /// Packets that were put together from fragments.
    REASM_OKS: Counter<(Family,)> = "ip_reasm_oks".source("/proc/net/snmp Ip ReasmOKs, /proc/net/snmp6 Ip6ReasmOKs");
    /// Failures to put packets together from fragments, of any kind.
    REASM_FAILS: Counter<(Family,)> = "ip_reasm_fails".source("/proc/net/snmp Ip ReasmFails, /proc/net/snmp6 Ip6ReasmFails");
    /// Packets that were split into fragments.
    FRAG_OKS: Counter<(Family,)> = "ip_frag_oks".source("/proc/net/snmp Ip FragOKs, /proc/net/snmp6 Ip6FragOKs");
    /// Packets that had to be split into fragments and could not be, for example because that was forbidden.
    FRAG_FAILS: Counter<(Family,)> = "ip_frag_fails".source("/proc/net/snmp Ip FragFails, /proc/net/snmp6 Ip6FragFails");
    /// Fragments that were made.
    FRAG_CREATES: Counter<(Family,)> = "ip_frag_creates".source("/proc/net/snmp Ip FragCreates, /proc/net/snmp6 Ip6FragCreates");
    /// Packets that were handed to a device, local and forwarded ones.
    OUT_TRANSMITS: Counter<(Family,)> = "ip_out_transmits".source("/proc/net/snmp Ip OutTransmits, /proc/net/snmp6 Ip6OutTransmits");
    /// Packets that were received and dropped because there was no route for them.
    IN_NO_ROUTES: Counter<(Family,)> = "ip_in_no_routes".reference_where("kubeskoop_ip_innoroutes", "family=\"ipv4\"").source("/proc/net/netstat IpExt InNoRoutes, /proc/net/snmp6 Ip6InNoRoutes");
    /// Packets that were received with less data than their header says.
    IN_TRUNCATED_PKTS: Counter<(Family,)> = "ip_in_truncated_pkts".reference_where("kubeskoop_ip_intruncatedpkts", "family=\"ipv4\"").source("/proc/net/netstat IpExt InTruncatedPkts, /proc/net/snmp6 Ip6InTruncatedPkts");
    /// Multicast packets that were received.
    IN_MCAST_PKTS: Counter<(Family,)> = "ip_in_mcast_pkts".source("/proc/net/netstat IpExt InMcastPkts, /proc/net/snmp6 Ip6InMcastPkts");
    /// Multicast packets that were sent.
    OUT_MCAST_PKTS: Counter<(Family,)> = "ip_out_mcast_pkts".source("/proc/net/netstat IpExt OutMcastPkts, /proc/net/snmp6 Ip6OutMcastPkts");
    /// Broadcast packets that were received.
    IN_BCAST_PKTS: Counter<(Family,)> = "ip_in_bcast_pkts".source("/proc/net/netstat IpExt InBcastPkts");
    /// Broadcast packets that were sent.
    OUT_BCAST_PKTS: Counter<(Family,)> = "ip_out_bcast_pkts".source("/proc/net/netstat IpExt OutBcastPkts");
    /// Bytes that were received, with IP headers and without those of the link.
    IN_BYTES: Counter<(Family,)> = "ip_in_bytes".source("/proc/net/netstat IpExt InOctets, /proc/net/snmp6 Ip6InOctets");
    /// Bytes that were sent, with IP headers and without those of the link.
    OUT_BYTES: Counter<(Family,)> = "ip_out_bytes".source("/proc/net/netstat IpExt OutOctets, /proc/net/snmp6 Ip6OutOctets");
    /// Bytes of multicast packets that were received.
    IN_MCAST_BYTES: Counter<(Family,)> = "ip_in_mcast_bytes".source("/proc/net/netstat IpExt InMcastOctets, /proc/net/snmp6 Ip6InMcastOctets");
    /// Bytes of multicast packets that were sent.
    OUT_MCAST_BYTES: Counter<(Family,)> = "ip_out_mcast_bytes".source("/proc/net/netstat IpExt OutMcastOctets, /proc/net/snmp6 Ip6OutMcastOctets");
    /// Bytes of broadcast packets that were received.
    IN_BCAST_BYTES: Counter<(Family,)> = "ip_in_bcast_bytes".source("/proc/net/netstat IpExt InBcastOctets");
    /// Bytes of broadcast packets that were sent.
    OUT_BCAST_BYTES: Counter<(Family,)> = "ip_out_bcast_bytes".source("/proc/net/netstat IpExt OutBcastOctets");
    /// Packets that were dropped because of a wrong header checksum; they are in in_hdr_errors too.
    IN_CSUM_ERRORS: Counter<(Family,)> = "ip_in_csum_errors".source("/proc/net/netstat IpExt InCsumErrors");
    /// Packets that were received without ECN; packets that the device merged count singly.
    IN_NO_ECT_PKTS: Counter<(Family,)> = "ip_in_no_ect_pkts".source("/proc/net/netstat IpExt InNoECTPkts, /proc/net/snmp6 Ip6InNoECTPkts");
    /// Packets that were received with the ECN codepoint ECT(1).
    IN_ECT1_PKTS: Counter<(Family,)> = "ip_in_ect1_pkts".source("/proc/net/netstat IpExt InECT1Pkts, /proc/net/snmp6 Ip6InECT1Pkts");
    /// Packets that were received with the ECN codepoint ECT(0).
    IN_ECT0_PKTS: Counter<(Family,)> = "ip_in_ect0_pkts".source("/proc/net/netstat IpExt InECT0Pkts, /proc/net/snmp6 Ip6InECT0Pkts");
    /// Packets that were received with the ECN mark of congestion (CE).
    IN_CE_PKTS: Counter<(Family,)> = "ip_in_ce_pkts".source("/proc/net/netstat IpExt InCEPkts, /proc/net/snmp6 Ip6InCEPkts");
    /// Fragmented packets that were dropped because their fragments overlap.
    REASM_OVERLAPS: Counter<(Family,)> = "ip_reasm_overlaps".source("/proc/net/netstat IpExt ReasmOverlaps");
    /// Packets that could not be forwarded because they were bigger than the MTU of the way out.
    IN_TOO_BIG_ERRORS: Counter<(Family,)> = "ip_in_too_big_errors".source("/proc/net/snmp6 Ip6InTooBigErrors");
}

/// A metric and the kernel's word for it.
pub(super) type Field = (&'static netsonde_framework::Counter<(Family,)>, &'static str);

/// `snmp`, group Ip.
pub(super) static IP: &[Field] = &[
    (&IN_RECEIVES, "InReceives"),
    (&IN_HDR_ERRORS, "InHdrErrors"),
    (&IN_ADDR_ERRORS, "InAddrErrors"),
    (&FORW_DATAGRAMS, "ForwDatagrams"),
    (&IN_UNKNOWN_PROTOS, "InUnknownProtos"),
    (&IN_DISCARDS, "InDiscards"),
    (&IN_DELIVERS, "InDelivers"),
    (&OUT_REQUESTS, "OutRequests"),
    (&OUT_DISCARDS, "OutDiscards"),
    (&OUT_NO_ROUTES, "OutNoRoutes"),
    (&REASM_TIMEOUT, "ReasmTimeout"),
    (&REASM_REQDS, "ReasmReqds"),
    (&REASM_OKS, "ReasmOKs"),
    (&REASM_FAILS, "ReasmFails"),
    (&FRAG_OKS, "FragOKs"),
    (&FRAG_FAILS, "FragFails"),
    (&FRAG_CREATES, "FragCreates"),
    (&OUT_TRANSMITS, "OutTransmits"),
];

/// `netstat`, group IpExt.
pub(super) static IP_EXT: &[Field] = &[
    (&IN_NO_ROUTES, "InNoRoutes"),
    (&IN_TRUNCATED_PKTS, "InTruncatedPkts"),
    (&IN_MCAST_PKTS, "InMcastPkts"),
    (&OUT_MCAST_PKTS, "OutMcastPkts"),
    (&IN_BCAST_PKTS, "InBcastPkts"),
    (&OUT_BCAST_PKTS, "OutBcastPkts"),
    (&IN_BYTES, "InOctets"),
    (&OUT_BYTES, "OutOctets"),
    (&IN_MCAST_BYTES, "InMcastOctets"),
    (&OUT_MCAST_BYTES, "OutMcastOctets"),
    (&IN_BCAST_BYTES, "InBcastOctets"),
    (&OUT_BCAST_BYTES, "OutBcastOctets"),
    (&IN_CSUM_ERRORS, "InCsumErrors"),
    (&IN_NO_ECT_PKTS, "InNoECTPkts"),
    (&IN_ECT1_PKTS, "InECT1Pkts"),
    (&IN_ECT0_PKTS, "InECT0Pkts"),
    (&IN_CE_PKTS, "InCEPkts"),
    (&REASM_OVERLAPS, "ReasmOverlaps"),
];

/// `snmp6`, group Ip6. There is no broadcast and no header checksum in IPv6.
pub(super) static IP6: &[Field] = &[
    (&IN_RECEIVES, "InReceives"),
    (&IN_HDR_ERRORS, "InHdrErrors"),
    (&IN_ADDR_ERRORS, "InAddrErrors"),
    (&FORW_DATAGRAMS, "OutForwDatagrams"),
    (&IN_UNKNOWN_PROTOS, "InUnknownProtos"),
    (&IN_DISCARDS, "InDiscards"),
    (&IN_DELIVERS, "InDelivers"),
    (&OUT_REQUESTS, "OutRequests"),
    (&OUT_DISCARDS, "OutDiscards"),
    (&OUT_NO_ROUTES, "OutNoRoutes"),
    (&REASM_TIMEOUT, "ReasmTimeout"),
    (&REASM_REQDS, "ReasmReqds"),
    (&REASM_OKS, "ReasmOKs"),
    (&REASM_FAILS, "ReasmFails"),
    (&FRAG_OKS, "FragOKs"),
    (&FRAG_FAILS, "FragFails"),
    (&FRAG_CREATES, "FragCreates"),
    (&OUT_TRANSMITS, "OutTransmits"),
    (&IN_NO_ROUTES, "InNoRoutes"),
    (&IN_TRUNCATED_PKTS, "InTruncatedPkts"),
    (&IN_MCAST_PKTS, "InMcastPkts"),
    (&OUT_MCAST_PKTS, "OutMcastPkts"),
    (&IN_BYTES, "InOctets"),
    (&OUT_BYTES, "OutOctets"),
    (&IN_MCAST_BYTES, "InMcastOctets"),
    (&OUT_MCAST_BYTES, "OutMcastOctets"),
    (&IN_NO_ECT_PKTS, "InNoECTPkts"),
    (&IN_ECT1_PKTS, "InECT1Pkts"),
    (&IN_ECT0_PKTS, "InECT0Pkts"),
    (&IN_CE_PKTS, "InCEPkts"),
    (&IN_TOO_BIG_ERRORS, "InTooBigErrors"),
];
