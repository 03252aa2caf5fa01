//! The metrics of `tcpext`: the TcpExt group of `netstat`, of Linux 6.18 and everything before it.
//!
//! A name is the kernel's word in snake case, without its leading `TCP`: `TCPAbortOnData` is `tcpext_abort_on_data`.
//! The fields of the default set come first, in the order in which the probe pushes them, so that a push finds
//! its column at once.

use netsonde_framework::{Bound, Counter, text_label};

text_label! {
    /// The field of TcpExt, by its name in the kernel.
    pub Field = "field", Bound::KernelNames(super::UNNAMED_FIELDS)
}

/// Declares the metrics and the lists that join each with the kernel's word for it.
macro_rules! fields {
    (
        default { $( #[doc = $help:literal] $name:ident = $metric:literal, $field:literal $(, $reference:literal)?; )+ }
        more { $( #[doc = $more_help:literal] $more:ident = $more_metric:literal, $more_field:literal; )+ }
    ) => {
        netsonde_framework::metrics! {
            $(
                #[doc = $help]
                $name: Counter<()> = $metric.source(concat!("/proc/net/netstat TcpExt ", $field))$(.reference($reference))?;
            )+
            /// Time that TCP of the whole machine was under memory pressure, in seconds, counted where the end was noticed.
            MEMORY_PRESSURES_CHRONO: Counter<()> = "tcpext_memory_pressures_chrono_seconds".source("/proc/net/netstat TcpExt TCPMemoryPressuresChrono, which is in milliseconds");
            /// Time that TCP of the whole machine was under memory pressure, in milliseconds as the kernel has it.
            MEMORY_PRESSURES_CHRONO_RAW: Counter<()> = "tcpext_memory_pressures_chrono_raw".source("/proc/net/netstat TcpExt TCPMemoryPressuresChrono").reference("kubeskoop_tcpext_tcpmemorypressureschrono").reference_only();
            $(
                #[doc = $more_help]
                $more: Counter<()> = $more_metric.source(concat!("/proc/net/netstat TcpExt ", $more_field));
            )+
            /// A field of TcpExt that has no metric of its own because this version does not know it.
            FIELD: Counter<(Field,)> = "tcpext_field".source("/proc/net/netstat TcpExt, any other field");
        }

        /// The default set, without TCPMemoryPressuresChrono, which belongs to it.
        pub(super) static DEFAULT: &[(&Counter<()>, &str)] = &[$((&$name, $field)),+];
        /// All other fields that have a metric of their own.
        pub(super) static MORE: &[(&Counter<()>, &str)] = &[$((&$more, $more_field)),+];
    };
}

fields! {
    default {
        /// Segments of handshakes that a listening socket dropped, for any reason.
        LISTEN_DROPS = "tcpext_listen_drops", "ListenDrops", "kubeskoop_tcpext_listendrops";
        /// Segments of handshakes that were dropped because the accept queue of the listening socket was full.
        LISTEN_OVERFLOWS = "tcpext_listen_overflows", "ListenOverflows", "kubeskoop_tcpext_listenoverflows";
        /// SYNs that were dropped because the queue of half-open connections was full and SYN cookies are off.
        REQ_Q_FULL_DROP = "tcpext_req_q_full_drop", "TCPReqQFullDrop";
        /// SYNs that were answered with a SYN cookie because the queue of half-open connections was full.
        REQ_Q_FULL_DO_COOKIES = "tcpext_req_q_full_do_cookies", "TCPReqQFullDoCookies";
        /// Half-open connections that were dropped because a reset or a wrong segment came for them.
        EMBRYONIC_RSTS = "tcpext_embryonic_rsts", "EmbryonicRsts", "kubeskoop_tcpext_embryonicrsts";
        /// SYN and SYN/ACK segments that were sent again.
        SYN_RETRANS = "tcpext_syn_retrans", "TCPSynRetrans", "kubeskoop_tcpext_tcpsynretrans";
        /// Segments that were sent again in fast recovery, without waiting for a timeout.
        FAST_RETRANS = "tcpext_fast_retrans", "TCPFastRetrans", "kubeskoop_tcpext_tcpfastretrans";
        /// Segments that were sent again in slow start, after a timeout.
        SLOW_START_RETRANS = "tcpext_slow_start_retrans", "TCPSlowStartRetrans";
        /// Segments that were sent again and found lost once more.
        LOST_RETRANSMIT = "tcpext_lost_retransmit", "TCPLostRetransmit";
        /// Segments that could not be sent again because the IP layer of this machine refused them.
        RETRANS_FAIL = "tcpext_retrans_fail", "TCPRetransFail", "kubeskoop_tcpext_tcpretransfail";
        /// Retransmission timeouts that ran out because no acknowledgement came.
        TIMEOUTS = "tcpext_timeouts", "TCPTimeouts", "kubeskoop_tcpext_tcptimeouts";
        /// Retransmission timeouts that F-RTO found to be needless.
        SPURIOUS_RTOS = "tcpext_spurious_rtos", "TCPSpuriousRTOs";
        /// Tail loss probes that were sent.
        LOSS_PROBES = "tcpext_loss_probes", "TCPLossProbes";
        /// DSACK blocks that were received: the peer got a segment twice that it had acknowledged.
        DSACK_RECV = "tcpext_dsack_recv", "TCPDSACKRecv";
        /// Segments that arrived out of order and were queued.
        OFO_QUEUE = "tcpext_ofo_queue", "TCPOFOQueue";
        /// Segments that arrived out of order and were dropped because there was no receive memory for them.
        OFO_DROP = "tcpext_ofo_drop", "TCPOFODrop";
        /// Segments that arrived in order and were dropped because there was no receive memory for them.
        RCV_Q_DROP = "tcpext_rcv_q_drop", "TCPRcvQDrop", "kubeskoop_tcpext_tcprcvqdrop";
        /// Times that the queues of a socket were pruned because its receive buffer was full.
        PRUNE_CALLED = "tcpext_prune_called", "PruneCalled";
        /// Times that pruning freed too little receive memory, so that the segment was dropped.
        RCV_PRUNED = "tcpext_rcv_pruned", "RcvPruned";
        /// Segments that were dropped because a process was using the socket and its backlog was full.
        BACKLOG_DROP = "tcpext_backlog_drop", "TCPBacklogDrop", "kubeskoop_tcpext_tcpbacklogdrop";
        /// Packets that were dropped because they lay in the emergency memory reserve, which is for swapping only.
        PFMEMALLOC_DROP = "tcpext_pfmemalloc_drop", "PFMemallocDrop", "kubeskoop_tcpext_pfmemallocdrop";
        /// Segments that were dropped because they came while the receive window was zero.
        ZERO_WINDOW_DROP = "tcpext_zero_window_drop", "TCPZeroWindowDrop", "kubeskoop_tcpext_tcpzerowindowdrop";
        /// Times that the receive window that is told to the peer became zero: the application reads too slowly.
        TO_ZERO_WINDOW_ADV = "tcpext_to_zero_window_adv", "TCPToZeroWindowAdv";
        /// Times that a segment could not be split because the send queue of its socket was too big.
        WQUEUE_TOO_BIG = "tcpext_wqueue_too_big", "TCPWqueueTooBig", "kubeskoop_tcpext_tcpwqueuetoobig";
        /// Probes of a zero window that were sent: the peer reads too slowly.
        WIN_PROBE = "tcpext_win_probe", "TCPWinProbe", "kubeskoop_tcpext_tcpwinprobe";
        /// Keepalive probes that were sent.
        KEEP_ALIVE = "tcpext_keep_alive", "TCPKeepAlive", "kubeskoop_tcpext_tcpkeepalive";
        /// Probes for a larger path MTU that were lost.
        MTUP_FAIL = "tcpext_mtup_fail", "TCPMTUPFail", "kubeskoop_tcpext_tcpmtupfail";
        /// Probes for a larger path MTU that arrived.
        MTUP_SUCCESS = "tcpext_mtup_success", "TCPMTUPSuccess", "kubeskoop_tcpext_tcpmtupsuccess";
        /// Connections that were reset because data came after the application had closed, or because it closed with a linger time of zero.
        ABORT_ON_DATA = "tcpext_abort_on_data", "TCPAbortOnData", "kubeskoop_tcpext_tcpabortondata";
        /// Connections that were reset because the application closed them and had not read all data.
        ABORT_ON_CLOSE = "tcpext_abort_on_close", "TCPAbortOnClose", "kubeskoop_tcpext_tcpabortonclose";
        /// Connections that were reset because there were too many orphans (net.ipv4.tcp_max_orphans) or too little memory for TCP.
        ABORT_ON_MEMORY = "tcpext_abort_on_memory", "TCPAbortOnMemory", "kubeskoop_tcpext_tcpabortonmemory";
        /// Connections that were given up because a timer ran out of tries: retransmission, window probe or keepalive.
        ABORT_ON_TIMEOUT = "tcpext_abort_on_timeout", "TCPAbortOnTimeout", "kubeskoop_tcpext_tcpabortontimeout";
        /// Connections that were reset in state FIN_WAIT2 because the application has set TCP_LINGER2 below zero.
        ABORT_ON_LINGER = "tcpext_abort_on_linger", "TCPAbortOnLinger", "kubeskoop_tcpext_tcpabortonlinger";
        /// Resets of own connections that could not be sent, mostly for lack of memory.
        ABORT_FAILED = "tcpext_abort_failed", "TCPAbortFailed", "kubeskoop_tcpext_tcpabortfailed";
        /// TIME_WAIT sockets that were not made because there were too many (net.ipv4.tcp_max_tw_buckets) or no memory.
        TIME_WAIT_OVERFLOW = "tcpext_time_wait_overflow", "TCPTimeWaitOverflow";
        /// Segments that were rejected in state SYN_SENT because they echo a timestamp that was never sent.
        PAWS_ACTIVE = "tcpext_paws_active", "PAWSActive", "kubeskoop_tcpext_pawsactive";
        /// Segments of established connections that were dropped because their timestamp is older than the last one (PAWS).
        PAWS_ESTAB = "tcpext_paws_estab", "PAWSEstab", "kubeskoop_tcpext_pawsestab";
        /// Duplicate ACKs that were not sent in state SYN_RECV because of the rate limit (net.ipv4.tcp_invalid_ratelimit).
        ACK_SKIPPED_SYN_RECV = "tcpext_ack_skipped_syn_recv", "TCPACKSkippedSynRecv", "kubeskoop_tcpext_tcpackskippedsynrecv";
        /// Duplicate ACKs that were not sent in answer to old timestamps (PAWS) because of the rate limit.
        ACK_SKIPPED_PAWS = "tcpext_ack_skipped_paws", "TCPACKSkippedPAWS", "kubeskoop_tcpext_tcpackskippedpaws";
        /// Duplicate ACKs that were not sent in answer to sequence numbers out of the window because of the rate limit.
        ACK_SKIPPED_SEQ = "tcpext_ack_skipped_seq", "TCPACKSkippedSeq", "kubeskoop_tcpext_tcpackskippedseq";
        /// Duplicate ACKs that were not sent in state FIN_WAIT2 because of the rate limit.
        ACK_SKIPPED_FIN_WAIT2 = "tcpext_ack_skipped_fin_wait2", "TCPACKSkippedFinWait2", "kubeskoop_tcpext_tcpackskippedfinwait2";
        /// Duplicate ACKs that were not sent in state TIME_WAIT because of the rate limit.
        ACK_SKIPPED_TIME_WAIT = "tcpext_ack_skipped_time_wait", "TCPACKSkippedTimeWait", "kubeskoop_tcpext_tcpackskippedtimewait";
        /// Challenge ACKs that were not sent because of the rate limit.
        ACK_SKIPPED_CHALLENGE = "tcpext_ack_skipped_challenge", "TCPACKSkippedChallenge", "kubeskoop_tcpext_tcpackskippedchallenge";
        /// Times that TCP of the whole machine came under memory pressure (net.ipv4.tcp_mem), counted where it was noticed.
        MEMORY_PRESSURES = "tcpext_memory_pressures", "TCPMemoryPressures", "kubeskoop_tcpext_tcpmemorypressures";
        /// IPv4 packets that were dropped by the reverse path filter (net.ipv4.conf.*.rp_filter).
        IP_REVERSE_PATH_FILTER = "tcpext_ip_reverse_path_filter", "IPReversePathFilter";
    }
    more {
        /// SYN cookies that were sent.
        SYNCOOKIES_SENT = "tcpext_syncookies_sent", "SyncookiesSent";
        /// ACKs that brought a valid SYN cookie back.
        SYNCOOKIES_RECV = "tcpext_syncookies_recv", "SyncookiesRecv";
        /// ACKs that brought an invalid SYN cookie back, or none.
        SYNCOOKIES_FAILED = "tcpext_syncookies_failed", "SyncookiesFailed";
        /// Times that segments which were queued out of order were thrown away to free receive memory.
        OFO_PRUNED = "tcpext_ofo_pruned", "OfoPruned";
        /// ICMP errors that were ignored because they quote a sequence number that is not under way.
        OUT_OF_WINDOW_ICMPS = "tcpext_out_of_window_icmps", "OutOfWindowIcmps";
        /// ICMP errors that were dropped because a process was using the socket.
        LOCK_DROPPED_ICMPS = "tcpext_lock_dropped_icmps", "LockDroppedIcmps";
        /// ARP requests that were not answered because of net.ipv4.conf.*.arp_filter.
        ARP_FILTER = "tcpext_arp_filter", "ArpFilter";
        /// TIME_WAIT sockets that ended after their full time.
        TW = "tcpext_tw", "TW";
        /// TIME_WAIT sockets that a new outgoing connection took over.
        TW_RECYCLED = "tcpext_tw_recycled", "TWRecycled";
        /// TIME_WAIT sockets that ended after a shortened time of four seconds or less.
        TW_KILLED = "tcpext_tw_killed", "TWKilled";
        /// Segments that were not accepted because they lie outside the receive window.
        BEYOND_WINDOW = "tcpext_beyond_window", "BeyondWindow";
        /// ACKs of handshakes that were rejected because they echo a timestamp that was never sent.
        TS_ECR_REJECTED = "tcpext_ts_ecr_rejected", "TSEcrRejected";
        /// Pure ACKs with an old timestamp that were dropped as reordered (PAWS).
        PAWS_OLD_ACK = "tcpext_paws_old_ack", "PAWSOldAck";
        /// Segments that were rejected in state TIME_WAIT because of an old timestamp (PAWS).
        PAWS_TIMEWAIT = "tcpext_paws_timewait", "PAWSTimewait";
        /// ACKs that were sent late, by the delayed ACK timer.
        DELAYED_ACKS = "tcpext_delayed_acks", "DelayedACKs";
        /// Delayed ACKs that were put off once more because a process was using the socket.
        DELAYED_ACK_LOCKED = "tcpext_delayed_ack_locked", "DelayedACKLocked";
        /// Segments that were received again although they had been acknowledged: perhaps the ACK was lost.
        DELAYED_ACK_LOST = "tcpext_delayed_ack_lost", "DelayedACKLost";
        /// Segments with data that took the fast path of reception (header prediction).
        HP_HITS = "tcpext_hp_hits", "TCPHPHits";
        /// ACKs without data that were handled on the slow path.
        PURE_ACKS = "tcpext_pure_acks", "TCPPureAcks";
        /// ACKs that were handled on the fast path (header prediction).
        HP_ACKS = "tcpext_hp_acks", "TCPHPAcks";
        /// Times that a connection without SACK entered fast recovery.
        RENO_RECOVERY = "tcpext_reno_recovery", "TCPRenoRecovery";
        /// Times that a connection with SACK entered fast recovery.
        SACK_RECOVERY = "tcpext_sack_recovery", "TCPSackRecovery";
        /// Times that a peer took back by SACK what it had acknowledged by SACK.
        SACK_RENEGING = "tcpext_sack_reneging", "TCPSACKReneging";
        /// Reorderings that SACK has shown.
        SACK_REORDER = "tcpext_sack_reorder", "TCPSACKReorder";
        /// Reorderings that were noticed on connections without SACK.
        RENO_REORDER = "tcpext_reno_reorder", "TCPRenoReorder";
        /// Reorderings that timestamps have shown.
        TS_REORDER = "tcpext_ts_reorder", "TCPTSReorder";
        /// Times that a recovery was undone in whole because all of its retransmissions were needless.
        FULL_UNDO = "tcpext_full_undo", "TCPFullUndo";
        /// Times that a recovery was undone because the first partial ACK showed a needless retransmission.
        PARTIAL_UNDO = "tcpext_partial_undo", "TCPPartialUndo";
        /// Times that a recovery was undone because DSACK showed its retransmissions to be needless.
        DSACK_UNDO = "tcpext_dsack_undo", "TCPDSACKUndo";
        /// Times that the recovery after a timeout was undone because the timeout was needless.
        LOSS_UNDO = "tcpext_loss_undo", "TCPLossUndo";
        /// Timeouts of connections without SACK that had just seen the first duplicate ACKs.
        RENO_FAILURES = "tcpext_reno_failures", "TCPRenoFailures";
        /// Timeouts of connections with SACK that had just seen the first duplicate ACKs or SACK blocks.
        SACK_FAILURES = "tcpext_sack_failures", "TCPSackFailures";
        /// Timeouts of connections that were still recovering from an earlier timeout.
        LOSS_FAILURES = "tcpext_loss_failures", "TCPLossFailures";
        /// Losses that a tail loss probe repaired.
        LOSS_PROBE_RECOVERY = "tcpext_loss_probe_recovery", "TCPLossProbeRecovery";
        /// Timeouts in fast recovery on connections without SACK.
        RENO_RECOVERY_FAIL = "tcpext_reno_recovery_fail", "TCPRenoRecoveryFail";
        /// Timeouts in fast recovery on connections with SACK.
        SACK_RECOVERY_FAIL = "tcpext_sack_recovery_fail", "TCPSackRecoveryFail";
        /// Buffers that were merged into others to save receive memory.
        RCV_COLLAPSED = "tcpext_rcv_collapsed", "TCPRcvCollapsed";
        /// Segments that were merged with another one in the backlog of a socket.
        BACKLOG_COALESCE = "tcpext_backlog_coalesce", "TCPBacklogCoalesce";
        /// DSACK blocks that were sent for segments which had been acknowledged before.
        DSACK_OLD_SENT = "tcpext_dsack_old_sent", "TCPDSACKOldSent";
        /// DSACK blocks that were sent for out-of-order segments which had been queued before.
        DSACK_OFO_SENT = "tcpext_dsack_ofo_sent", "TCPDSACKOfoSent";
        /// DSACK blocks that were received: the peer got a segment twice that it had queued out of order.
        DSACK_OFO_RECV = "tcpext_dsack_ofo_recv", "TCPDSACKOfoRecv";
        /// SACK blocks that were discarded as invalid.
        SACK_DISCARD = "tcpext_sack_discard", "TCPSACKDiscard";
        /// Invalid DSACK blocks that were ignored while there was a recovery that could be undone.
        DSACK_IGNORED_OLD = "tcpext_dsack_ignored_old", "TCPDSACKIgnoredOld";
        /// Invalid DSACK blocks that were ignored while there was nothing to undo.
        DSACK_IGNORED_NO_UNDO = "tcpext_dsack_ignored_no_undo", "TCPDSACKIgnoredNoUndo";
        /// Segments that were dropped because they lack the MD5 signature that the socket demands.
        MD5_NOT_FOUND = "tcpext_md5_not_found", "TCPMD5NotFound";
        /// Segments that were dropped because they have an MD5 signature and the socket has no key for it.
        MD5_UNEXPECTED = "tcpext_md5_unexpected", "TCPMD5Unexpected";
        /// Segments that were dropped because their MD5 signature is wrong.
        MD5_FAILURE = "tcpext_md5_failure", "TCPMD5Failure";
        /// Buffers of the send queue of which a part that the peer has by SACK was moved to their neighbour.
        SACK_SHIFTED = "tcpext_sack_shifted", "TCPSackShifted";
        /// Buffers of the send queue that were merged with their neighbour because the peer has both by SACK.
        SACK_MERGED = "tcpext_sack_merged", "TCPSackMerged";
        /// Buffers of the send queue that could not be moved or merged on SACK.
        SACK_SHIFT_FALLBACK = "tcpext_sack_shift_fallback", "TCPSackShiftFallback";
        /// Segments that were dropped because their TTL is below the minimum of the socket (IP_MINTTL, IPV6_MINHOPCOUNT).
        MIN_TTL_DROP = "tcpext_min_ttl_drop", "TCPMinTTLDrop";
        /// ACKs without data that a listening socket ignored because it waits for data (TCP_DEFER_ACCEPT).
        DEFER_ACCEPT_DROP = "tcpext_defer_accept_drop", "TCPDeferAcceptDrop";
        /// Segments that were merged with another one in the receive queue.
        RCV_COALESCE = "tcpext_rcv_coalesce", "TCPRcvCoalesce";
        /// Segments that were queued out of order and overlapped with others in the queue.
        OFO_MERGE = "tcpext_ofo_merge", "TCPOFOMerge";
        /// Challenge ACKs that were sent (RFC 5961).
        CHALLENGE_ACK = "tcpext_challenge_ack", "TCPChallengeACK";
        /// SYNs on an existing connection that called for a challenge ACK (RFC 5961).
        SYN_CHALLENGE = "tcpext_syn_challenge", "TCPSYNChallenge";
        /// Outgoing connections whose data in the SYN was accepted (Fast Open).
        FAST_OPEN_ACTIVE = "tcpext_fast_open_active", "TCPFastOpenActive";
        /// Outgoing connections whose data in the SYN was not accepted, or whose SYN was not answered (Fast Open).
        FAST_OPEN_ACTIVE_FAIL = "tcpext_fast_open_active_fail", "TCPFastOpenActiveFail";
        /// Incoming connections whose data in the SYN was accepted (Fast Open).
        FAST_OPEN_PASSIVE = "tcpext_fast_open_passive", "TCPFastOpenPassive";
        /// Incoming connections whose data in the SYN was not accepted (Fast Open).
        FAST_OPEN_PASSIVE_FAIL = "tcpext_fast_open_passive_fail", "TCPFastOpenPassiveFail";
        /// SYNs that were handled without Fast Open because too many such requests were pending.
        FAST_OPEN_LISTEN_OVERFLOW = "tcpext_fast_open_listen_overflow", "TCPFastOpenListenOverflow";
        /// SYNs that asked for a Fast Open cookie.
        FAST_OPEN_COOKIE_REQD = "tcpext_fast_open_cookie_reqd", "TCPFastOpenCookieReqd";
        /// Times that outgoing Fast Open was switched off for a while because something on the path seems to drop it.
        FAST_OPEN_BLACKHOLE = "tcpext_fast_open_blackhole", "TCPFastOpenBlackhole";
        /// Retransmissions that were left out because the original was still queued on this machine.
        SPURIOUS_RTX_HOST_QUEUES = "tcpext_spurious_rtx_host_queues", "TCPSpuriousRtxHostQueues";
        /// Packets that applications received by busy polling.
        BUSY_POLL_RX_PACKETS = "tcpext_busy_poll_rx_packets", "BusyPollRxPackets";
        /// Times that a small segment was held back to be joined with the next (net.ipv4.tcp_autocorking).
        AUTO_CORKING = "tcpext_auto_corking", "TCPAutoCorking";
        /// Times that the receive window that is told to the peer rose from zero.
        FROM_ZERO_WINDOW_ADV = "tcpext_from_zero_window_adv", "TCPFromZeroWindowAdv";
        /// Times that the receive window should have become zero and could not, because it must not shrink.
        WANT_ZERO_WINDOW_ADV = "tcpext_want_zero_window_adv", "TCPWantZeroWindowAdv";
        /// Segments with data that were sent, without those that were sent again.
        ORIG_DATA_SENT = "tcpext_orig_data_sent", "TCPOrigDataSent";
        /// Slow starts that HyStart ended because of the length of an ACK train.
        HYSTART_TRAIN_DETECT = "tcpext_hystart_train_detect", "TCPHystartTrainDetect";
        /// Sum of the congestion windows, in segments, at which HyStart ended slow start because of an ACK train.
        HYSTART_TRAIN_CWND = "tcpext_hystart_train_cwnd", "TCPHystartTrainCwnd";
        /// Slow starts that HyStart ended because the round trip time rose.
        HYSTART_DELAY_DETECT = "tcpext_hystart_delay_detect", "TCPHystartDelayDetect";
        /// Sum of the congestion windows, in segments, at which HyStart ended slow start because the round trip time rose.
        HYSTART_DELAY_CWND = "tcpext_hystart_delay_cwnd", "TCPHystartDelayCwnd";
        /// Segments that peers have acknowledged, by ACK or SACK.
        DELIVERED = "tcpext_delivered", "TCPDelivered";
        /// Segments that peers have acknowledged with the ECN mark of congestion.
        DELIVERED_CE = "tcpext_delivered_ce", "TCPDeliveredCE";
        /// ACKs that were left out because a later one says the same (SACK compression).
        ACK_COMPRESSED = "tcpext_ack_compressed", "TCPAckCompressed";
        /// Incoming Fast Open connections whose cookie was made with the backup key.
        FAST_OPEN_PASSIVE_ALT_KEY = "tcpext_fast_open_passive_alt_key", "TCPFastOpenPassiveAltKey";
        /// Times that a connection chose another path hash after a timeout.
        TIMEOUT_REHASH = "tcpext_timeout_rehash", "TcpTimeoutRehash";
        /// Times that a connection chose another path hash because the peer sent the same data again.
        DUPLICATE_DATA_REHASH = "tcpext_duplicate_data_rehash", "TcpDuplicateDataRehash";
        /// Segments that peers got twice, as the DSACK blocks that were received say.
        DSACK_RECV_SEGS = "tcpext_dsack_recv_segs", "TCPDSACKRecvSegs";
        /// DSACK blocks that were ignored because they report more duplicates than were sent.
        DSACK_IGNORED_DUBIOUS = "tcpext_dsack_ignored_dubious", "TCPDSACKIgnoredDubious";
        /// Connection requests that moved to another listening socket when theirs was closed (SO_REUSEPORT).
        MIGRATE_REQ_SUCCESS = "tcpext_migrate_req_success", "TCPMigrateReqSuccess";
        /// Connection requests that could not move to another listening socket when theirs was closed.
        MIGRATE_REQ_FAILURE = "tcpext_migrate_req_failure", "TCPMigrateReqFailure";
        /// Times that a connection chose another path hash because of congestion (protective load balancing).
        PLB_REHASH = "tcpext_plb_rehash", "TCPPLBRehash";
        /// Segments that were dropped because they lack the TCP-AO signature that the socket demands.
        AO_REQUIRED = "tcpext_ao_required", "TCPAORequired";
        /// Segments that were dropped because their TCP-AO signature is wrong.
        AO_BAD = "tcpext_ao_bad", "TCPAOBad";
        /// Segments that were dropped because the socket has no TCP-AO key for them.
        AO_KEY_NOT_FOUND = "tcpext_ao_key_not_found", "TCPAOKeyNotFound";
        /// Segments whose TCP-AO signature was right.
        AO_GOOD = "tcpext_ao_good", "TCPAOGood";
        /// ICMP errors that were ignored because the connection is protected by TCP-AO.
        AO_DROPPED_ICMPS = "tcpext_ao_dropped_icmps", "TCPAODroppedIcmps";
    }
}
