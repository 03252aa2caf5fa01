//! Flows against truths of other programs: bytes that a test or iperf3 sent, segments that the kernel counted for the
//! namespace; at both ends, for both families, for connections that live and for those that are over.

mod connections;
mod datagrams;
mod iperf;
mod series;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use netsonde_tests::lab::Between;
use netsonde_tests::{Netns, Pair};

const FLOW: &str = "[flow]";
const BYTES: &str = "netsonde_flow_bytes_total";
const PACKETS: &str = "netsonde_flow_packets_total";
const TUPLE_BYTES: &str = "netsonde_flow_tuple_bytes_total";
const TUPLE_PACKETS: &str = "netsonde_flow_tuple_packets_total";

/// The addresses of both sides, as they stand in front of a port.
const SIDES: [(&str, &str); 2] = [("10.9.0.1", "10.9.0.2"), ("[fd09::1]", "[fd09::2]")];

fn bare(address: &str) -> &str {
    address.trim_matches(['[', ']'])
}

/// What a namespace sent and received by this protocol: the sums.
fn sums(delta: &Between<'_>, ns: &Netns, metric: &str, protocol: &str) -> (u64, u64) {
    let of = |direction| delta.grew(ns, metric, &[("protocol", protocol), ("direction", direction)]);
    (of("transmit"), of("receive"))
}

/// What it sent and received over the flow between these ends: address and port.
fn tuples(
    delta: &Between<'_>,
    ns: &Netns,
    metric: &str,
    protocol: &str,
    own: (&str, &str),
    peer: (&str, &str),
) -> (u64, u64) {
    let of = |direction, from: (&str, &str), to: (&str, &str)| {
        let labels = [
            ("protocol", protocol),
            ("direction", direction),
            ("src", from.0),
            ("sport", from.1),
            ("dst", to.0),
            ("dport", to.1),
        ];
        delta.grew_in_all(ns, metric, &labels)
    };
    (of("transmit", own, peer), of("receive", peer, own))
}

/// A connection from `a` to port 7000 of `b`.
fn connection(pair: &Pair, b: &str) -> (TcpStream, TcpStream) {
    let address = format!("{b}:7000");
    let listener = pair.b.listen(&address, 16);
    let client = pair.a.connect(&address);
    let (server, _) = listener.accept().expect("a connection");
    (client, server)
}

/// Sends `count` bytes and waits until the other side has read them.
fn pass(from: &mut TcpStream, to: &mut TcpStream, count: usize) {
    std::thread::scope(|scope| {
        scope.spawn(|| from.write_all(&vec![7; count]).expect("a connection takes bytes"));
        to.read_exact(&mut vec![0; count]).expect("the bytes arrive");
    });
}
