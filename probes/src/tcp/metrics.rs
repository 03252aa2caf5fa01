//! The metrics of `tcp`: the Tcp group of RFC 1213 as the kernel counts it for each namespace.

netsonde_framework::metrics! {
    /// Connections that were opened by connect().
    ACTIVE_OPENS: Counter<()> = "tcp_active_opens".reference("kubeskoop_tcp_activeopens").source("/proc/net/snmp Tcp ActiveOpens");
    /// Connections that were accepted: the handshake reached a listening socket.
    PASSIVE_OPENS: Counter<()> = "tcp_passive_opens".reference("kubeskoop_tcp_passiveopens").source("/proc/net/snmp Tcp PassiveOpens");
    /// Segments that were sent again.
    RETRANS_SEGS: Counter<()> = "tcp_retrans_segs".reference("kubeskoop_tcp_retranssegs").source("/proc/net/snmp Tcp RetransSegs");
    /// Connection attempts that failed during the handshake.
    ATTEMPT_FAILS: Counter<()> = "tcp_attempt_fails".reference("kubeskoop_tcp_attemptfails").source("/proc/net/snmp Tcp AttemptFails");
    /// Established connections that were reset.
    ESTAB_RESETS: Counter<()> = "tcp_estab_resets".reference("kubeskoop_tcp_estabresets").source("/proc/net/snmp Tcp EstabResets");
    /// Connections that are in state ESTABLISHED or CLOSE_WAIT.
    CURR_ESTAB: Gauge<()> = "tcp_curr_estab".reference("kubeskoop_tcp_currestab").source("/proc/net/snmp Tcp CurrEstab");
    /// Segments that were received, with those in error.
    IN_SEGS: Counter<()> = "tcp_in_segs".reference("kubeskoop_tcp_insegs").source("/proc/net/snmp Tcp InSegs");
    /// Segments that were sent, without those that hold only retransmitted bytes.
    OUT_SEGS: Counter<()> = "tcp_out_segs".reference("kubeskoop_tcp_outsegs").source("/proc/net/snmp Tcp OutSegs");
    /// Segments that were received in error, for example with a wrong checksum.
    IN_ERRS: Counter<()> = "tcp_in_errs".reference("kubeskoop_tcp_inerrs").source("/proc/net/snmp Tcp InErrs");
    /// Segments that were received with a wrong checksum.
    IN_CSUM_ERRORS: Counter<()> = "tcp_in_csum_errors".source("/proc/net/snmp Tcp InCsumErrors");
    /// Segments that were sent with the RST flag.
    OUT_RSTS: Counter<()> = "tcp_out_rsts".reference("kubeskoop_tcp_outrsts").source("/proc/net/snmp Tcp OutRsts");
}
