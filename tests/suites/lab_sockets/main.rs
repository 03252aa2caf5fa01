//! How long data waits in sockets: readers that are late by a known time, a receiver that stalls, and what must not be
//! measured as a wait.

mod past;
mod reading;
mod told;
mod writing;

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use netsonde_tests::{Netns, Page, Pair, until};

const PROBE: &str = "[socketlatency]";
const READS: &str = "netsonde_socketlatency_read_seconds";
const WRITES: &str = "netsonde_socketlatency_write_seconds";

/// The addresses of both sides, as they stand in front of a port.
const SIDES: [(&str, &str); 2] = [("10.9.0.1", "10.9.0.2"), ("[fd09::1]", "[fd09::2]")];
const SOON: Duration = Duration::from_secs(5);
const MESSAGE: usize = 100;

/// What a histogram of one namespace grew by.
struct Grown {
    count: u64,
    sum: f64,
    /// Those of at most 33.55 ms.
    quick: u64,
}

fn grown(before: &Page, after: &Page, ns: &Netns, histogram: &str, protocol: &str) -> Grown {
    let of = |name: &str, labels: &[(&str, &str)]| {
        let labels: Vec<_> = labels.iter().copied().chain([("protocol", protocol)]).collect();
        let name = format!("{histogram}_{name}");
        after.pod(ns.name()).sum(&name, &labels) - before.pod(ns.name()).sum(&name, &labels)
    };
    let whole = |value: f64| format!("{value}").parse().unwrap_or_else(|_| panic!("{value} is no count"));
    Grown {
        count: whole(of("count", &[])),
        sum: of("sum", &[]),
        quick: whole(of("bucket", &[("le", "0.033554432")])),
    }
}

/// A connection from `a` to `b`, the client's end first.
fn connection(pair: &Pair, b: &str) -> (TcpStream, TcpStream) {
    let listener = pair.b.listen(&format!("{b}:7000"), 16);
    connected(pair, b, &listener)
}

fn connected(pair: &Pair, b: &str, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = pair.a.connect(&format!("{b}:7000"));
    let (server, _) = listener.accept().expect("a connection");
    server.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    client.set_nodelay(true).expect("TCP can send at once");
    (client, server)
}

/// Waits until `length` bytes can be read, without reading them.
fn arrived(peek: impl Fn(&mut [u8]) -> std::io::Result<usize>, length: usize) {
    let mut room = vec![0; length];
    until("the data is there", SOON, || (peek(&mut room).expect("a socket") >= length).then_some(()));
}
