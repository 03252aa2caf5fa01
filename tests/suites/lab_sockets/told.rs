//! Events of what waited: both ends, the process, and a sample of them.

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::thread::sleep;
use std::time::{Duration, Instant};

use netsonde_tests::events::{number, own_sides, text, until_events};
use netsonde_tests::lab::{between, watch};
use netsonde_tests::{Agent, Netns, Pair, needs_root};
use serde_json::Value;

use super::writing::{narrow, stalled};
use super::{MESSAGE, PROBE, arrived, connected, connection};

const SLOW_20MS: &str = "[{name: socketlatency, args: {slow: 20ms}}]";

/// What every event of this test must say: the pod, both ends as they stand in the socket, and this thread.
fn assert_event(event: &Value, pod: &Netns, ends: (&str, &str), peer: Option<&Netns>) {
    assert_eq!(text(event, "pod"), pod.name());
    let end = |address: &str, port: &str| match text(event, address) {
        v6 if v6.contains(':') => format!("[{v6}]:{}", number(event, port)),
        v4 => format!("{v4}:{}", number(event, port)),
    };
    assert_eq!((end("src", "sport"), end("dst", "dport")), (ends.0.to_owned(), ends.1.to_owned()));
    assert_eq!(event["peer_pod"].as_str(), peer.map(Netns::name));
    assert_eq!(number(event, "pid"), u64::from(std::process::id()));
    let thread = std::fs::read_to_string("/proc/thread-self/comm").expect("a thread has a name");
    assert_eq!(text(event, "comm"), thread.trim_end());
}

fn address(socket: std::io::Result<std::net::SocketAddr>) -> String {
    socket.expect("a bound socket has an address").to_string()
}

fn assert_latency(event: &Value, least_ms: u64, most: Duration) {
    let told = Duration::from_nanos(number(event, "latency_ns"));
    assert!(told >= Duration::from_millis(least_ms) && told <= most, "{told:?} of {most:?}");
}

fn events(agent: &Agent, kind: &str, pod: &Netns, count: usize) -> Vec<Value> {
    let found = until_events(agent, &format!("type={kind}&pod={}", pod.name()), count);
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

#[test]
fn a_slow_read_is_told_with_both_ends_and_the_reader() {
    needs_root!();
    let pair = Pair::new("told");
    for (_, b) in own_sides(&pair) {
        let (agent, _bystander, before) = watch(SLOW_20MS, &pair);
        let (mut client, mut server) = connection(&pair, &b);
        let start = Instant::now();
        for delay in [40, 0, 40] {
            client.write_all(&[1; MESSAGE]).expect("a connection takes bytes");
            arrived(|room| server.peek(room), MESSAGE);
            sleep(Duration::from_millis(delay));
            server.read_exact(&mut [0; MESSAGE]).expect("they are there");
        }
        let most = start.elapsed();
        let slow =
            between(&before, &agent.scrape()).grew(&pair.b, "netsonde_socketlatency_slow_reads_total", &[]);
        assert!(slow >= 2, "{slow} slow reads");
        let found = events(&agent, "SOCKETLAT_READSLOW", &pair.b, usize::try_from(slow).expect("a few"));
        let ends = (address(server.local_addr()), address(server.peer_addr()));
        for event in [&found[0], &found[found.len() - 1]] {
            assert_eq!(text(event, "protocol"), "tcp");
            assert_event(event, &pair.b, (&ends.0, &ends.1), Some(&pair.a));
            assert_latency(event, 40, most);
        }
        agent.stop();
    }
}

#[test]
fn a_slow_read_of_a_datagram_is_told_with_the_ends_that_its_socket_has() {
    needs_root!();
    let pair = Pair::new("told");
    for (a, b) in own_sides(&pair) {
        let (agent, _bystander, _before) = watch(SLOW_20MS, &pair);
        let (from, to) = (pair.a.udp(&format!("{a}:0")), pair.b.udp(&format!("{b}:6000")));
        let here = address(to.local_addr());
        let start = Instant::now();
        let exchange = |from: &UdpSocket, to: &UdpSocket| {
            from.send_to(&[7; MESSAGE], &here).expect("a datagram can be sent");
            arrived(|room| to.peek(room), MESSAGE);
            sleep(Duration::from_millis(40));
            assert_eq!(to.recv(&mut [0; MESSAGE]).expect("it is there"), MESSAGE);
        };
        exchange(&from, &to);
        let there = address(from.local_addr());
        to.connect(&there).expect("UDP can be connected");
        exchange(&from, &to);
        let found = events(&agent, "SOCKETLAT_READSLOW", &pair.b, 2);
        let nobody = if here.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        assert_event(&found[0], &pair.b, (&here, nobody), None);
        assert_event(&found[1], &pair.b, (&here, &there), Some(&pair.a));
        for event in &found {
            assert_eq!(text(event, "protocol"), "udp");
            assert_latency(event, 40, start.elapsed());
        }
        agent.stop();
    }
}

#[test]
fn a_write_that_waited_is_told_with_both_ends_and_the_writer() {
    needs_root!();
    let pair = Pair::new("told");
    for (_, b) in own_sides(&pair) {
        let (agent, _bystander, _before) = watch(PROBE, &pair);
        let (mut client, mut server) = connected(&pair, &b, &narrow(&pair, &b));
        let most = stalled(&mut client, &mut server);
        let found = events(&agent, "SOCKETLAT_SENDSLOW", &pair.a, 1);
        let ends = (address(client.local_addr()), address(client.peer_addr()));
        assert_event(&found[0], &pair.a, (&ends.0, &ends.1), Some(&pair.b));
        assert_latency(&found[0], 100, most);
        agent.stop();
    }
}

#[test]
fn every_slow_read_is_told_or_counted_as_not_told() {
    needs_root!();
    let pair = Pair::v4("limit");
    let probe = "[{name: socketlatency, args: {slow: 0s, events: {per_second: 1, burst: 3}}}]";
    let (agent, _bystander, before) = watch(probe, &pair);
    let (from, to) = (pair.a.udp("10.9.0.1:0"), pair.b.udp("10.9.0.2:6000"));
    for _ in 0..200 {
        from.send_to(&[7; MESSAGE], "10.9.0.2:6000").expect("a datagram can be sent");
        to.recv(&mut [0; MESSAGE]).expect("it comes");
    }
    let after = agent.scrape();
    let slow = between(&before, &after).grew(&pair.b, "netsonde_socketlatency_slow_reads_total", &[]);
    assert_eq!(slow, 200);
    let held = |name: &str| after.pod(pair.b.name()).total(name, &[]);
    let held = held("netsonde_socketlatency_suppressed_events_total")
        + held("netsonde_socketlatency_lost_events_total");
    assert!(held > 0 && held < slow, "{held} of {slow}");
    events(&agent, "SOCKETLAT_READSLOW", &pair.b, usize::try_from(slow - held).expect("a few"));
    agent.stop();
}
