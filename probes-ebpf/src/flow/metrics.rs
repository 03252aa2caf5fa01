//! The metrics of `flow`.

use netsonde_framework::label::{Bound, Label, LabelKind, Labels};
use netsonde_framework::{closed_label, text_label};

closed_label! {
    /// The transport protocol.
    pub enum Protocol = "protocol" { Tcp = "tcp", Udp = "udp" }
}

closed_label! {
    /// Whether this namespace sent them (transmit) or got them (receive).
    pub enum Direction = "direction" { Transmit = "transmit", Receive = "receive" }
}

/// The most flows with series of their own in a namespace, unless a setting says otherwise.
pub const FLOWS: usize = 32;

text_label! {
    /// The address that they came from; `*` where the kernel does not tell.
    pub Src = "src", Bound::AtMost(FLOWS)
}
text_label! {
    /// The port that they came from; `*` where it is the client's or the kernel does not tell.
    pub Sport = "sport", Bound::AtMost(FLOWS)
}
text_label! {
    /// The address that they went to; `*` where the kernel does not tell.
    pub Dst = "dst", Bound::AtMost(FLOWS)
}
text_label! {
    /// The port that they went to; `*` where it is the client's or the kernel does not tell.
    pub Dport = "dport", Bound::AtMost(FLOWS)
}

/// The labels of one flow, in the direction that was counted.
#[derive(Debug)]
pub enum Tuple {}

/// Their values.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    pub protocol: Protocol,
    pub src: &'a str,
    pub sport: &'a str,
    pub dst: &'a str,
    pub dport: &'a str,
    pub direction: Direction,
}

type From = (Protocol, Src, Sport);
type To = (Dst, Dport, Direction);

impl Labels for Tuple {
    const LABELS: &'static [Label] =
        &[Protocol::LABEL, Src::LABEL, Sport::LABEL, Dst::LABEL, Dport::LABEL, Direction::LABEL];
    type Values<'a> = Ends<'a>;
    fn write(ends: Ends<'_>, out: &mut String) {
        From::write((ends.protocol, ends.src, ends.sport), out);
        out.push(',');
        To::write((ends.dst, ends.dport, ends.direction), out);
    }
}

netsonde_framework::metrics! {
    /// Payload bytes that the sockets of a namespace sent and received, without IP and transport headers.
    BYTES: Counter<(Protocol, Direction)> = "flow_bytes".reference("kubeskoop_flow_bytes").source("tcp_sock bytes_sent and bytes_received; UDP: udp_send_skb, udp_v6_send_skb and skb_consume_udp, else tracepoints sock:sock_send_length and sock:sock_recv_length");
    /// TCP segments and UDP datagrams that the sockets of a namespace sent and received.
    PACKETS: Counter<(Protocol, Direction)> = "flow_packets".reference("kubeskoop_flow_packets").source("tcp_sock segs_out and segs_in; UDP: as flow_bytes");
    /// Payload bytes by both ends of the flow, for the heaviest flows of a namespace; the others are summed as `other`.
    TUPLE_BYTES: Counter<Tuple> = "flow_tuple_bytes".source("as flow_bytes");
    /// TCP segments and UDP datagrams by both ends of the flow, for the heaviest flows of a namespace; the others are summed as `other`.
    TUPLE_PACKETS: Counter<Tuple> = "flow_tuple_packets".source("as flow_packets");
    /// Payload bytes whose network namespace is unknown or gone, on the host's row.
    UNATTRIBUTED: Counter<()> = "flow_unattributed_bytes".source("eBPF maps FLOWS and OVERFLOW");
    /// Payload bytes that were not counted above because both tables in the kernel were full, on the host's row.
    UNCOUNTED: Counter<()> = "flow_uncounted_bytes".source("eBPF map UNCOUNTED");
    /// Payload bytes of flows that found the table of flows in the kernel full and were counted as `other` at once, on the host's row.
    OVERFLOWED: Counter<()> = "flow_overflowed_bytes".source("eBPF map OVERFLOW");
    /// TCP connections that are not counted because the kernel had no memory for their account, on the host's row.
    UNTRACKED: Counter<()> = "flow_untracked_connections".source("eBPF map UNTRACKED");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_has_six_labels_in_the_order_of_the_declaration() {
        let ends = Ends {
            protocol: Protocol::Tcp,
            src: "10.0.0.1",
            sport: "*",
            dst: "fd00::2",
            dport: "80",
            direction: Direction::Receive,
        };
        let mut out = String::new();
        Tuple::write(ends, &mut out);
        let text = r#"protocol="tcp",src="10.0.0.1",sport="*",dst="fd00::2",dport="80",direction="receive""#;
        assert_eq!(out, text);
        let names: Vec<_> = Tuple::LABELS.iter().map(|label| label.name).collect();
        assert_eq!(names, ["protocol", "src", "sport", "dst", "dport", "direction"]);
    }
}
