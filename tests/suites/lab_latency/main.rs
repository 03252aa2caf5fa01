//! How long packets are in the kernel: waits that a shaper is told to make are found in the right bucket, every packet is
//! measured once, in the pod whose it is, and the slow ones are told of with both ends and the time at each place.

mod received;
mod shaped;

use std::net::TcpStream;
use std::time::Duration;

use netsonde_tests::{Netns, Page, truth, until};

const RECEIVE: &str = "netsonde_kernellatency_receive_seconds";
const TRANSMIT: &str = "netsonde_kernellatency_transmit_seconds";

const SOON: Duration = Duration::from_secs(5);

/// The probe with this threshold, and an event for each slow packet of a test, but not for all those that reading of them
/// makes.
fn probe(slow: &str) -> String {
    format!("[{{name: kernellatency, args: {{slow: {slow}, events: {{per_second: 1, burst: 100}}}}}}]")
}

/// No measurement of anything, but rows for what is counted.
fn assert_nothing_measured(page: &Page, ns: &Netns) {
    let measured: Vec<_> = page.all_of(ns.name()).filter(|s| s.name.ends_with("_seconds_count")).collect();
    assert!(measured.is_empty(), "{measured:#?}");
    for name in ["receive_slow", "receive_over_100ms", "transmit_slow", "transmit_over_100ms"] {
        let name = format!("netsonde_kernellatency_{name}_packets_total");
        assert_eq!(page.pod(ns.name()).count(&name, &[]), 0, "{name}");
    }
}

/// A connection from `from` to a listener in `to` at this address; the end of `from` first.
fn connection(from: &Netns, to: &Netns, address: &str) -> (TcpStream, TcpStream) {
    // While packets of a connection wait in a queue, what is written is held back and put together.
    from.sysctl("net/ipv4/tcp_autocorking", "0");
    let listener = to.listen(address, 16);
    let client = from.connect(address);
    client.set_nodelay(true).expect("a connection can do without Nagle");
    (client, listener.accept().expect("a connection").0)
}

/// Waits until `ns` has the acknowledgements of all that it has sent.
fn acknowledged(ns: &Netns) {
    until("all is acknowledged", SOON, || (truth::queues(ns).1 == 0).then_some(()));
}
