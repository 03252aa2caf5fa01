//! The metrics of `tcpsummary`: TCP sockets by state, what waits in their queues, and the queues of listeners.

use netsonde_framework::{Bound, closed_label, text_label};

closed_label! {
    /// The state of a TCP socket.
    pub enum State = "state" {
        Established = "established",
        SynSent = "syn_sent",
        SynRecv = "syn_recv",
        FinWait1 = "fin_wait1",
        FinWait2 = "fin_wait2",
        TimeWait = "time_wait",
        Close = "close",
        CloseWait = "close_wait",
        LastAck = "last_ack",
        Listen = "listen",
        Closing = "closing",
    }
}

text_label! {
    /// The address that a socket listens on.
    pub Address = "address", Bound::AtMost(32)
}

text_label! {
    /// The port that a socket listens on.
    pub Port = "port", Bound::AtMost(32)
}

netsonde_framework::metrics! {
    /// TCP sockets of both IP versions, by state.
    SOCKETS: Gauge<(State,)> = "tcpsummary_sockets".reference_where("kubeskoop_tcpsummary_tcpestablishedconn", "state=\"established\"").source("sock_diag idiag_state");
    /// TCP connections in TIME_WAIT.
    TIME_WAIT: Gauge<()> = "tcpsummary_time_wait".reference("kubeskoop_tcpsummary_tcptimewaitconn").reference_only().source("sock_diag idiag_state");
    /// Bytes that arrived and that no process has read yet, over all sockets that do not listen.
    RECEIVE_QUEUE: Gauge<()> = "tcpsummary_receive_queue_bytes".reference("kubeskoop_tcpsummary_tcprxqueue").source("sock_diag idiag_rqueue");
    /// Bytes that were written and that the peer has not acknowledged yet, over all sockets that do not listen.
    SEND_QUEUE: Gauge<()> = "tcpsummary_send_queue_bytes".reference("kubeskoop_tcpsummary_tcptxqueue").source("sock_diag idiag_wqueue");
    /// Connections that wait for accept() in the queue of a listening socket.
    ACCEPT_QUEUE: Gauge<(Address, Port)> = "tcpsummary_accept_queue_length".source("sock_diag idiag_rqueue of a listening socket");
    /// The length above which the accept queue of a listening socket takes no more connections.
    ACCEPT_QUEUE_LIMIT: Gauge<(Address, Port)> = "tcpsummary_accept_queue_limit".source("sock_diag idiag_wqueue of a listening socket");
    /// Listening sockets whose accept queue is longer than its limit, so that the kernel refuses connections.
    ACCEPT_QUEUES_FULL: Gauge<()> = "tcpsummary_accept_queues_full".source("sock_diag idiag_rqueue and idiag_wqueue of listening sockets");
    /// Time since the sockets were last read, on the host's row.
    AGE: Gauge<()> = "tcpsummary_age_seconds".source("the agent's clock");
}
