//! How long data waits in sockets: readers that are late by a known time, a receiver that stalls, and what must not be
//! measured as a wait.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use netsonde_tests::events::{number, own_sides, text, until_events};
use netsonde_tests::lab::{between, watch};
use netsonde_tests::{Agent, Netns, Page, Pair, needs_root, truth, until};
use rustix::net::{RecvFlags, recv, sockopt};
use rustix::pipe::{SpliceFlags, pipe, splice};
use serde_json::Value;

const PROBE: &str = "[socketlatency]";
const SLOW_20MS: &str = "[{name: socketlatency, args: {slow: 20ms}}]";
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

#[test]
fn a_late_reader_of_a_connection_is_measured_and_nobody_else() {
    needs_root!();
    for (_, b) in SIDES {
        let pair = Pair::new("tcp");
        let (agent, bystander, before) = watch(PROBE, &pair);
        let (mut client, mut server) = connection(&pair, b);
        let start = Instant::now();
        for _ in 0..6 {
            client.write_all(&[1; MESSAGE]).expect("a connection takes bytes");
            arrived(|room| server.peek(room), MESSAGE);
            sleep(Duration::from_millis(50));
            server.read_exact(&mut [0; MESSAGE]).expect("they are there");
        }
        let most = start.elapsed().as_secs_f64();
        let after = agent.scrape();
        let reads = grown(&before, &after, &pair.b, READS, "tcp");
        assert_eq!((reads.count, reads.quick), (6, 0), "{b}: looking at data without taking it is no read");
        assert!(reads.sum >= 0.3 && reads.sum <= most, "{b}: {} s of {most}", reads.sum);
        let delta = between(&before, &after);
        assert_eq!(delta.grew(&pair.b, "netsonde_socketlatency_reads_over_1ms_total", &[]), 6);
        let writes = grown(&before, &after, &pair.a, WRITES, "tcp");
        assert_eq!((writes.count, writes.quick), (6, 6), "{b}: all were sent at once");
        for other in [&pair.a, &bystander] {
            assert_eq!(delta.grew(other, "netsonde_socketlatency_reads_over_1ms_total", &[]), 0);
            assert_eq!(after.pod(other.name()).find(&format!("{READS}_count"), &[]), None);
        }
        assert_eq!(after.pod(bystander.name()).find(&format!("{WRITES}_count"), &[]), None);
        agent.stop();
    }
}

#[test]
fn a_late_reader_of_datagrams_is_measured_and_nobody_else() {
    needs_root!();
    for (a, b) in SIDES {
        let pair = Pair::new("udp");
        let (agent, bystander, before) = watch(PROBE, &pair);
        let (from, to) = (pair.a.udp(&format!("{a}:0")), pair.b.udp(&format!("{b}:6000")));
        let start = Instant::now();
        for length in [MESSAGE, 1, 0, 1000, MESSAGE, 0] {
            from.send_to(&vec![7; length], format!("{b}:6000")).expect("a datagram can be sent");
            until("the datagram is there", SOON, || to.peek(&mut [0; 1]).is_ok().then_some(()));
            sleep(Duration::from_millis(50));
            assert_eq!(to.recv(&mut [0; 2048]).expect("it is there"), length);
        }
        let most = start.elapsed().as_secs_f64();
        let after = agent.scrape();
        let reads = grown(&before, &after, &pair.b, READS, "udp");
        assert_eq!((reads.count, reads.quick), (6, 0), "{b}: empty datagrams too");
        assert!(reads.sum >= 0.3 && reads.sum <= most, "{b}: {} s of {most}", reads.sum);
        for other in [&pair.a, &bystander] {
            assert_eq!(after.pod(other.name()).find(&format!("{READS}_count"), &[]), None);
        }
        agent.stop();
    }
}

/// Sends a message every 2 ms and reads them `lag` messages later. Gives the least and the most time that they waited
/// together: the least as if each had arrived when the next one was sent.
fn lagging(count: usize, lag: usize, mut send: impl FnMut(), mut read: impl FnMut()) -> (f64, f64) {
    let mut times = Vec::new();
    let (mut least, mut most) = (Duration::ZERO, Duration::ZERO);
    for turn in 0..count + lag {
        if turn < count {
            times.push(Instant::now());
            send();
        }
        if let Some(number) = turn.checked_sub(lag) {
            if let Some(next) = times.get(number + 1) {
                least += next.elapsed();
            }
            read();
            most += times[number].elapsed();
        }
        sleep(Duration::from_millis(2));
    }
    (least.as_secs_f64(), most.as_secs_f64())
}

#[test]
fn a_reader_that_never_catches_up_does_not_look_quick() {
    needs_root!();
    let (count, lag) = (150, 40);
    let pair = Pair::v4("lag");
    let (agent, _bystander, before) = watch(PROBE, &pair);
    let (mut client, mut server) = connection(&pair, "10.9.0.2");
    let (from, to) = (pair.a.udp("10.9.0.1:0"), pair.b.udp("10.9.0.2:6000"));
    let tcp = lagging(
        count,
        lag,
        || client.write_all(&[1; MESSAGE]).expect("a connection takes bytes"),
        || server.read_exact(&mut [0; MESSAGE]).expect("they are there"),
    );
    let udp = lagging(
        count,
        lag,
        || assert_eq!(from.send_to(&[7; MESSAGE], "10.9.0.2:6000").expect("a datagram can be sent"), MESSAGE),
        || assert_eq!(to.recv(&mut [0; MESSAGE]).expect("it is there"), MESSAGE),
    );
    let after = agent.scrape();
    for (protocol, (least, most)) in [("tcp", tcp), ("udp", udp)] {
        let reads = grown(&before, &after, &pair.b, READS, protocol);
        assert_eq!(reads.count, count as u64, "{protocol}");
        // What is told is never longer than the truth, and may be shorter by a quarter.
        let told = reads.sum;
        assert!(told <= most && told >= 0.7 * least, "{protocol}: {told} s, truth {least} to {most} s");
    }
    agent.stop();
}

#[test]
fn what_is_read_bit_by_bit_waits_until_it_is_read() {
    needs_root!();
    let pair = Pair::v4("bits");
    let (agent, _bystander, before) = watch(PROBE, &pair);
    let (mut client, mut server) = connection(&pair, "10.9.0.2");
    client.write_all(&[1; 10 * MESSAGE]).expect("a connection takes bytes");
    let start = Instant::now();
    arrived(|room| server.peek(room), 10 * MESSAGE);
    for _ in 0..10 {
        sleep(Duration::from_millis(10));
        server.read_exact(&mut [0; MESSAGE]).expect("they are there");
    }
    let most = start.elapsed().as_secs_f64() * 10.0;
    let reads = grown(&before, &agent.scrape(), &pair.b, READS, "tcp");
    assert_eq!(reads.count, 10);
    // 10 + 20 + ... + 100 ms.
    assert!(reads.sum >= 0.55 && reads.sum <= most, "{} s of {most}", reads.sum);
    agent.stop();
}

#[test]
fn data_waits_also_while_its_connection_waits_to_be_accepted() {
    needs_root!();
    let pair = Pair::v4("accept");
    let (agent, _bystander, before) = watch(PROBE, &pair);
    let listener = pair.b.listen("10.9.0.2:7000", 16);
    let mut client = pair.a.connect("10.9.0.2:7000");
    let start = Instant::now();
    client.write_all(&[1; MESSAGE]).expect("a connection takes bytes");
    until("the data is there", SOON, || (truth::queues(&pair.b).0 >= MESSAGE as u64).then_some(()));
    sleep(Duration::from_millis(50));
    let (mut server, _) = listener.accept().expect("a connection");
    server.read_exact(&mut [0; MESSAGE]).expect("they are there");
    let most = start.elapsed().as_secs_f64();
    let reads = grown(&before, &agent.scrape(), &pair.b, READS, "tcp");
    assert_eq!(reads.count, 1);
    assert!(reads.sum >= 0.05 && reads.sum <= most, "{} s of {most}", reads.sum);
    agent.stop();
}

#[test]
fn data_that_is_spliced_waits_too_and_a_read_that_waits_for_more_does_not() {
    needs_root!();
    let pair = Pair::v4("splice");
    let (agent, _bystander, before) = watch(PROBE, &pair);
    let (mut client, server) = connection(&pair, "10.9.0.2");
    client.write_all(&[1; MESSAGE]).expect("a connection takes bytes");
    arrived(|room| server.peek(room), MESSAGE);
    sleep(Duration::from_millis(50));
    let (_out, into) = pipe().expect("a pipe");
    let moved = splice(&server, None, &into, None, MESSAGE, SpliceFlags::empty()).expect("a connection");
    assert_eq!(moved, MESSAGE);
    let spliced = grown(&before, &agent.scrape(), &pair.b, READS, "tcp");
    assert_eq!((spliced.count, spliced.quick), (1, 0));
    assert!(spliced.sum >= 0.05, "{} s", spliced.sum);

    // A signal for this process (a child of another test has ended) may end a read early; then it is done again.
    let waited = until("a read waits for all it asks for", 2 * SOON, || {
        let middle = agent.scrape();
        waits_for_two(&mut client, &server).then(|| grown(&middle, &agent.scrape(), &pair.b, READS, "tcp"))
    });
    assert_eq!(waited.count, 2, "each half");
    assert!(waited.sum < 0.4, "{} s", waited.sum);
    agent.stop();
}

/// One read takes two messages that come half a second apart: each is taken when it comes, although the call returns with
/// the second. `false` where it returned before that.
fn waits_for_two(client: &mut TcpStream, server: &TcpStream) -> bool {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                sleep(Duration::from_millis(500));
                client.write_all(&[1; MESSAGE]).expect("a connection takes bytes");
            }
        });
        let mut room = [0; 2 * MESSAGE];
        let (_, length) = recv(server, room.as_mut_slice(), RecvFlags::WAITALL).expect("a connection");
        for _ in length..room.len() {
            recv(server, &mut room[..1], RecvFlags::empty()).expect("the rest comes");
        }
        length == room.len()
    })
}

/// A write that waits because the receiver has no room; it begins to read after 200 ms. Gives the time that it took in
/// all.
fn stalled(client: &mut TcpStream, server: &mut TcpStream) -> Duration {
    const LENGTH: usize = 150_000;
    sockopt::set_socket_send_buffer_size(&*client, 1 << 20).expect("a buffer can be large");
    let start = Instant::now();
    assert_eq!(client.write(&vec![1; LENGTH]).expect("a connection takes bytes"), LENGTH);
    sleep(Duration::from_millis(200));
    server.read_exact(&mut vec![0; LENGTH]).expect("they come");
    start.elapsed()
}

/// A listener whose connections have little room.
fn narrow(pair: &Pair, b: &str) -> TcpListener {
    let listener = pair.b.listen(&format!("{b}:7000"), 16);
    sockopt::set_socket_recv_buffer_size(&listener, 4096).expect("a buffer can be small");
    listener
}

#[test]
fn a_write_waits_as_long_as_the_receiver_has_no_room() {
    needs_root!();
    for (_, b) in SIDES {
        let pair = Pair::new("stall");
        let (agent, bystander, before) = watch(PROBE, &pair);
        let listener = narrow(&pair, b);
        let mut most = 0.0;
        for _ in 0..3 {
            let (mut client, mut server) = connected(&pair, b, &listener);
            most += stalled(&mut client, &mut server).as_secs_f64();
        }
        let after = agent.scrape();
        let writes = grown(&before, &after, &pair.a, WRITES, "tcp");
        assert_eq!((writes.count, writes.quick), (3, 0), "{b}");
        // The call itself is no part of it.
        assert!(writes.sum >= 0.5 && writes.sum <= most, "{b}: {} s of {most}", writes.sum);
        let delta = between(&before, &after);
        let over =
            |ns, ms: &str| delta.grew(ns, &format!("netsonde_socketlatency_writes_over_{ms}_total"), &[]);
        assert_eq!((over(&pair.a, "1ms"), over(&pair.a, "100ms")), (3, 3));
        for other in [&pair.b, &bystander] {
            assert_eq!(over(other, "1ms"), 0);
            assert_eq!(after.pod(other.name()).find(&format!("{WRITES}_count"), &[]), None);
        }
        agent.stop();
    }
}

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

/// Opens `count` connections from where it runs, and sends a message on each. Gives how many of the messages that were
/// read took longer than 100 ms.
fn connections(listener: &TcpListener, count: usize, read: bool) -> u64 {
    let to = listener.local_addr().expect("a bound socket has an address");
    let mut late = 0;
    for _ in 0..count {
        let mut client = TcpStream::connect(to).expect("somebody listens");
        let (mut server, _) = listener.accept().expect("a connection");
        let start = Instant::now();
        client.write_all(&[1; MESSAGE]).expect("a connection takes bytes");
        if read {
            server.read_exact(&mut [0; MESSAGE]).expect("they come");
        } else {
            arrived(|room| server.peek(room), MESSAGE);
        }
        late += u64::from(start.elapsed() > Duration::from_millis(100));
    }
    late
}

/// The same with datagrams, and a new socket for each.
fn datagrams(from: &UdpSocket, count: usize, read: bool) -> u64 {
    let mut late = 0;
    for _ in 0..count {
        let to = UdpSocket::bind("10.9.0.2:0").expect("a port is free");
        to.set_read_timeout(Some(SOON)).expect("a timeout can be set");
        let address = to.local_addr().expect("a bound socket has an address");
        let start = Instant::now();
        from.send_to(&[7; MESSAGE], address).expect("a datagram can be sent");
        if read {
            to.recv(&mut [0; MESSAGE]).expect("it comes");
        } else {
            arrived(|room| to.peek(room), MESSAGE);
        }
        late += u64::from(start.elapsed() > Duration::from_millis(100));
    }
    late
}

/// Sockets that are opened and closed, of each protocol.
const COUNT: usize = 2000;

#[test]
fn a_socket_that_takes_the_place_of_a_closed_one_has_no_past() {
    needs_root!();
    let pair = Pair::v4("past");
    let (agent, _bystander, start) = watch(PROBE, &pair);
    let listener = pair.b.listen("10.9.0.2:7000", 16);
    let from = pair.a.udp("10.9.0.1:0");
    pair.a.enter(|| connections(&listener, COUNT, false));
    pair.b.enter(|| datagrams(&from, COUNT, false));
    sleep(Duration::from_millis(300));
    let before = agent.scrape();
    for protocol in ["tcp", "udp"] {
        assert_eq!(grown(&start, &before, &pair.b, READS, protocol).count, 0, "nobody read");
    }
    let late =
        pair.a.enter(|| connections(&listener, COUNT, true)) + pair.b.enter(|| datagrams(&from, COUNT, true));
    let after = agent.scrape();
    for protocol in ["tcp", "udp"] {
        let reads = grown(&before, &after, &pair.b, READS, protocol);
        assert_eq!(reads.count, COUNT as u64, "{protocol}");
    }
    let over = between(&before, &after).grew(&pair.b, "netsonde_socketlatency_reads_over_100ms_total", &[]);
    assert!(over <= late, "{over} reads over 100 ms, and {late} can have been");
    agent.stop();
}
