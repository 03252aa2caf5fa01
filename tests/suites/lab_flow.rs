//! Flows against truths of other programs: bytes that a test or iperf3 sent, segments that the kernel counted for the
//! namespace; at both ends, for both families, for connections that live and for those that are over.

use std::io::{Read as _, Seek as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use netsonde_tests::lab::{Between, between, cut, let_through, receive, send, watch};
use netsonde_tests::{Agent, Netns, Page, Pair, Running, needs_programs, needs_root, shell, truth, until};
use serde_json::Value;

const FLOW: &str = "[flow]";
/// With the ports of clients.
const PORTS: &str = "[{name: flow, args: {fold_client_ports: false}}]";
const BYTES: &str = "netsonde_flow_bytes_total";
const PACKETS: &str = "netsonde_flow_packets_total";
/// How many flows of a namespace have series of their own by default.
const MOST: usize = 32;
/// iperf3's client sends as many bytes before each stream.
const COOKIE: u64 = 37;
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

/// Waits until no TCP socket of either side is left but those that wait for stray packets.
fn settled(pair: &Pair) {
    for ns in [&pair.a, &pair.b] {
        until("all connections are over", Duration::from_secs(5), || {
            let left = ns.run("ss -H -tan state connected exclude time-wait");
            left.trim().is_empty().then_some(())
        });
    }
}

/// Segments that a namespace sent, and how many of them again.
struct Segments {
    all: u64,
    again: u64,
}

/// By the namespace's own MIB, which counts those that are sent again apart.
fn segments(ns: &Netns) -> Segments {
    let again = truth::mib(ns, "snmp", "Tcp", "RetransSegs");
    Segments { all: truth::mib(ns, "snmp", "Tcp", "OutSegs") + again, again }
}

#[test]
fn a_connection_is_counted_to_the_byte_while_it_lives_and_when_it_is_over() {
    needs_root!();
    for (a, b) in SIDES {
        let pair = Pair::new("tcp");
        let (agent, bystander, before) = watch(FLOW, &pair);
        let (mut client, mut server) = connection(&pair, b);
        pass(&mut client, &mut server, 3_000_000);
        pass(&mut server, &mut client, 5_000);

        let (own, peer) = ((bare(a), "*"), (bare(b), "7000"));
        let check = |page: &Page| {
            let delta = between(&before, page);
            assert_eq!(sums(&delta, &pair.a, BYTES, "tcp"), (3_000_000, 5_000), "{b}");
            assert_eq!(sums(&delta, &pair.b, BYTES, "tcp"), (5_000, 3_000_000));
            assert_eq!(tuples(&delta, &pair.a, TUPLE_BYTES, "tcp", own, peer), (3_000_000, 5_000));
            assert_eq!(tuples(&delta, &pair.b, TUPLE_BYTES, "tcp", peer, own), (5_000, 3_000_000));
            for ns in [&pair.a, &pair.b] {
                assert_eq!(sums(&delta, ns, BYTES, "udp"), (0, 0));
            }
            for protocol in ["tcp", "udp"] {
                assert_eq!(sums(&delta, &bystander, PACKETS, protocol), (0, 0));
            }
            assert_eq!(page.pod(bystander.name()).total(TUPLE_PACKETS, &[]), 0);
        };
        check(&agent.scrape());
        drop(client);
        drop(server);
        settled(&pair);
        // The kernel counts a FIN as a byte; nobody sent it.
        let after = agent.scrape();
        check(&after);
        let delta = between(&before, &after);
        let (out, back) = (segments(&pair.a), segments(&pair.b));
        let (sent, received) = sums(&delta, &pair.a, PACKETS, "tcp");
        let (answered, taken) = sums(&delta, &pair.b, PACKETS, "tcp");
        // A SYN-ACK leaves before there is a socket of the connection.
        assert_eq!((sent, answered), (out.all, back.all - 1), "{b}");
        if out.again + back.again == 0 {
            assert_eq!((received, taken), (back.all, out.all));
        }
        agent.stop();
    }
}

#[test]
fn many_connections_at_once_come_to_exactly_what_was_sent() {
    needs_root!();
    for (a, b) in SIDES {
        let pair = Pair::new("many");
        let (agent, _bystander, before) = watch(FLOW, &pair);
        let listener = pair.b.listen(&format!("{b}:7000"), 64);
        let mut both = Vec::new();
        for n in 1..=40usize {
            let mut client = pair.a.connect(&format!("{b}:7000"));
            let (mut server, _) = listener.accept().expect("a connection");
            pass(&mut client, &mut server, 1000 * n);
            both.push((client, server));
            if n % 4 == 0 {
                both.clear();
            }
            if n % 10 == 0 {
                agent.scrape();
            }
        }
        let sent = 1000 * (1..=40).sum::<u64>();
        let after = agent.scrape();
        let delta = between(&before, &after);
        let (own, peer) = ((bare(a), "*"), (bare(b), "7000"));
        assert_eq!(tuples(&delta, &pair.a, TUPLE_BYTES, "tcp", own, peer), (sent, 0), "{b}");
        assert_eq!(tuples(&delta, &pair.b, TUPLE_BYTES, "tcp", peer, own), (0, sent));
        agent.stop();
    }
}

#[test]
fn what_is_sent_from_a_file_and_what_is_sent_again_is_counted_once() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("file");
    let (agent, _bystander, before) = watch(FLOW, &pair);
    let (mut client, mut server) = connection(&pair, "10.9.0.2");
    let mut file = tempfile::tempfile().expect("a file can be made");
    file.write_all(&vec![3; 500_000]).expect("a file can be written");
    file.rewind().expect("a file has a beginning");
    let copy = std::thread::spawn(move || {
        // Without passing through this process: sendfile or splice.
        std::io::copy(&mut file, &mut client).expect("a connection takes a file");
        client
    });
    server.read_exact(&mut vec![0; 500_000]).expect("the file arrives");
    let mut client = copy.join().expect("the file was sent");

    cut(&pair.b, "tcp dport 7000");
    client.write_all(&[1; 500]).expect("a connection takes bytes");
    until("the timer fired twice", Duration::from_secs(5), || {
        (truth::mib(&pair.a, "netstat", "TcpExt", "TCPTimeouts") >= 2).then_some(())
    });
    let_through(&pair.b);
    server.read_exact(&mut [0; 500]).expect("the bytes arrive");
    let after = agent.scrape();
    let delta = between(&before, &after);
    assert_eq!(sums(&delta, &pair.a, BYTES, "tcp"), (500_500, 0));
    assert_eq!(sums(&delta, &pair.b, BYTES, "tcp"), (0, 500_500));
    agent.stop();
}

#[test]
fn a_connection_that_was_there_before_the_agent_is_counted_from_its_start_on() {
    needs_root!();
    let pair = Pair::v4("before");
    let (mut client, mut server) = connection(&pair, "10.9.0.2");
    pass(&mut client, &mut server, 100_000);
    let (agent, _bystander, before) = watch(FLOW, &pair);
    pass(&mut client, &mut server, 7_000);
    // Who connected was not seen; the ports tell: 7000 is not one that the kernel gives out.
    let (own, peer) = (("10.9.0.1", "*"), ("10.9.0.2", "7000"));
    let check = |page: &Page| {
        let all = page.pod(pair.a.name()).total(BYTES, &[("direction", "transmit")]);
        assert_eq!(all, 7_000, "nothing of what was before");
        let delta = between(&before, page);
        assert_eq!(tuples(&delta, &pair.a, TUPLE_BYTES, "tcp", own, peer), (7_000, 0));
        assert_eq!(tuples(&delta, &pair.b, TUPLE_BYTES, "tcp", peer, own), (0, 7_000));
    };
    check(&agent.scrape());
    drop(client);
    drop(server);
    settled(&pair);
    check(&agent.scrape());
    agent.stop();
}

#[test]
fn datagrams_are_counted_to_the_byte_at_both_ends() {
    needs_root!();
    for (a, b) in SIDES {
        let pair = Pair::new("udp");
        let (agent, bystander, before) = watch(FLOW, &pair);
        let server = pair.b.udp(&format!("{b}:6000"));
        let client = pair.a.udp(&format!("{a}:0"));
        client.connect(format!("{b}:6000")).expect("a datagram socket can be connected");
        for (count, size) in [(1000, 700), (1000, 300), (10, 0)] {
            for _ in 0..count {
                assert_eq!(client.send(&vec![7; size]).expect("a datagram can be sent"), size);
                server.peek(&mut [0; 2048]).expect("a datagram can be looked at");
                server.recv(&mut [0; 2048]).expect("a datagram arrives");
            }
        }
        send(&server, &client.local_addr().expect("a bound socket").to_string(), 20, 100);
        receive(&client, 20);

        let after = agent.scrape();
        let delta = between(&before, &after);
        let (own, peer) = ((bare(a), "*"), (bare(b), "6000"));
        assert_eq!(sums(&delta, &pair.a, BYTES, "udp"), (1_000_000, 2_000), "{b}");
        assert_eq!(sums(&delta, &pair.a, PACKETS, "udp"), (2_010, 20));
        assert_eq!(tuples(&delta, &pair.a, TUPLE_BYTES, "udp", own, peer), (1_000_000, 2_000));
        assert_eq!(tuples(&delta, &pair.a, TUPLE_PACKETS, "udp", own, peer), (2_010, 20));
        assert_eq!(sums(&delta, &pair.b, BYTES, "udp"), (2_000, 1_000_000));
        assert_eq!(sums(&delta, &pair.b, PACKETS, "udp"), (20, 2_010));
        // The server's socket is not connected: its peer is known only where functions can be hooked.
        let at = [("dst", bare(b)), ("dport", "6000"), ("direction", "receive")];
        assert_eq!(delta.grew_in_all(&pair.b, TUPLE_BYTES, &at), 1_000_000);
        let from = [("src", bare(b)), ("sport", "6000"), ("direction", "transmit")];
        assert_eq!(delta.grew_in_all(&pair.b, TUPLE_PACKETS, &from), 20);
        for ns in [&pair.a, &pair.b] {
            assert_eq!(sums(&delta, ns, PACKETS, "tcp"), (0, 0));
        }
        assert_eq!(sums(&delta, &bystander, PACKETS, "udp"), (0, 0));
        agent.stop();
    }
}

#[test]
fn a_socket_on_every_address_of_both_families_is_one_flow() {
    needs_root!();
    let pair = Pair::new("any");
    let (agent, _bystander, before) = watch(FLOW, &pair);
    let all = pair.b.udp("[::]:6000");
    for (a, b) in SIDES {
        send(&pair.a.udp(&format!("{a}:0")), &format!("{b}:6000"), 30, 100);
        receive(&all, 30);
    }
    drop(all);
    let v4 = pair.b.udp("0.0.0.0:6000");
    send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6000", 5, 100);
    receive(&v4, 5);
    // The page is parsed strictly: no series is there twice.
    let after = agent.scrape();
    let delta = between(&before, &after);
    let labels = [("protocol", "udp"), ("dport", "6000"), ("direction", "receive")];
    assert_eq!(delta.grew_in_all(&pair.b, TUPLE_PACKETS, &labels), 65);
    agent.stop();
}

/// Runs iperf3 between the two sides and gives what it tells.
fn iperf(pair: &Pair, b: &str, options: &str) -> Value {
    let mut server = pair.b.mortal("iperf3");
    server.args(["--server", "--one-off", "--bind", b]).stdout(std::process::Stdio::null());
    let mut server = Running::start(&mut server);
    until("iperf3 listens", Duration::from_secs(5), || {
        pair.b.run("ss -H -ltn").contains(":5201").then_some(())
    });
    let mut client = pair.a.command("iperf3");
    client.args(["--client", b, "--json"]).args(options.split_whitespace());
    let told = shell::run(&mut client);
    server.wait(Duration::from_secs(10)).expect("the server serves one client");
    serde_json::from_str(&told).expect("iperf3 prints JSON")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn iperf_and_the_agent_agree_on_the_bytes_of_its_stream() {
    needs_root!();
    needs_programs!("iperf3");
    for (_, b) in SIDES {
        let b = bare(b);
        for reverse in [false, true] {
            let pair = Pair::new("iperf");
            let (agent, _bystander, before) = watch(PORTS, &pair);
            let told = iperf(&pair, b, if reverse { "-n 20M --reverse" } else { "-n 20M" });
            let stream = &told["start"]["connected"][0];
            let port = number(&stream["local_port"]).to_string();
            let local = stream["local_host"].as_str().expect("an address").to_owned();
            let ends = &told["end"]["streams"][0];
            let sent = number(&ends["sender"]["bytes"]);
            let read = number(&ends["receiver"]["bytes"]);
            assert!(sent >= 20 << 20, "{told}");

            let after = agent.scrape();
            let delta = between(&before, &after);
            let (client, server) = ((local.as_str(), port.as_str()), (b, "5201"));
            let (up, down) = tuples(&delta, &pair.a, TUPLE_BYTES, "tcp", client, server);
            let (back, arrived) = tuples(&delta, &pair.b, TUPLE_BYTES, "tcp", server, client);
            // The side that reads closes first, so the last that was written may never leave, or never arrive.
            let (left, came) = if reverse {
                assert_eq!((up, arrived), (COOKIE, COOKIE), "{b} reverse");
                (back, down)
            } else {
                assert_eq!((down, back), (0, 0), "{b}");
                (up - COOKIE, arrived - COOKIE)
            };
            assert!(read <= came && came <= left && left <= sent, "{read} {came} {left} {sent}");
            agent.stop();
        }
    }
}

#[test]
fn iperf_and_the_agent_agree_on_datagrams() {
    needs_root!();
    needs_programs!("iperf3");
    let pair = Pair::v4("iperf-udp");
    let (agent, _bystander, before) = watch(PORTS, &pair);
    let told = iperf(&pair, "10.9.0.2", "--udp -b 100M -n 5M -l 1000");
    let port = number(&told["start"]["connected"][0]["local_port"]).to_string();
    let sent = &told["end"]["streams"][0]["udp"];
    let (bytes, packets) = (number(&sent["bytes"]), number(&sent["packets"]));
    let after = agent.scrape();
    let delta = between(&before, &after);
    let (client, server) = (("10.9.0.1", port.as_str()), ("10.9.0.2", "5201"));
    // Client and server greet each other with a datagram of four bytes before.
    assert_eq!(tuples(&delta, &pair.a, TUPLE_BYTES, "udp", client, server), (bytes + 4, 4));
    assert_eq!(tuples(&delta, &pair.a, TUPLE_PACKETS, "udp", client, server), (packets + 1, 1));
    let taken = truth::mib(&pair.b, "snmp", "Udp", "InDatagrams");
    assert_eq!(delta.grew(&pair.b, PACKETS, &[("protocol", "udp"), ("direction", "receive")]), taken);
    agent.stop();
}

/// Panics where a counter of flows is lower than before.
fn never_lower(before: &Page, after: &Page) {
    for sample in before.samples.iter().filter(|s| s.name.starts_with("netsonde_flow_")) {
        let labels: Vec<_> = sample.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        if let Some(now) = after.find(&sample.name, &labels) {
            assert!(now >= sample.value, "{sample:?} is {now} now");
        }
    }
}

/// Sends a datagram of 100 bytes to each of `count` addresses of this machine's own, of which 0 is 127.1.0.0.
fn storm(from: &UdpSocket, first: u32, count: u32) {
    for n in first..first + count {
        let [_, b, c, d] = (0x7f01_0000 + n).to_be_bytes();
        from.connect((std::net::Ipv4Addr::new(127, b, c, d), 6000)).expect("an address of loopback");
        assert_eq!(from.send(&[7; 100]).expect("a datagram can be sent"), 100);
    }
}

#[test]
fn a_hundred_thousand_flows_stay_within_the_bound_and_come_to_the_exact_sum() {
    needs_root!();
    let pair = Pair::v4("storm");
    let (agent, bystander, mut before) = watch(FLOW, &pair);
    // Takes what comes, so that nobody is told that nobody listens; most of it is dropped.
    let _sink = pair.a.udp("0.0.0.0:6000");
    let from = pair.a.udp("0.0.0.0:0");
    let heavy = pair.a.udp("0.0.0.0:0");
    heavy.connect("127.0.0.9:6000").expect("an address of loopback");
    let mut sent = 0;
    for round in 0..4 {
        for _ in 0..100 {
            heavy.send(&[7; 1000]).expect("a datagram can be sent");
        }
        storm(&from, round * 25_000, 25_000);
        sent += 100 * 1000 + 25_000 * 100;
        let after = agent.scrape();
        let pod = after.pod(pair.a.name());
        let transmit = [("protocol", "udp"), ("direction", "transmit")];
        assert_eq!(pod.count(BYTES, &transmit), sent);
        assert_eq!(pod.total(TUPLE_BYTES, &transmit), sent, "the series and the rest come to the sum");
        let all = after.all_of(pair.a.name());
        let series = all.filter(|s| s.name == TUPLE_BYTES && s.labels["direction"] == "transmit").count();
        assert!((MOST..=MOST + 2).contains(&series), "{series} series");
        let own = [("dst", "127.0.0.9"), ("dport", "6000")];
        assert_eq!(pod.count(TUPLE_BYTES, &own), u64::from(round + 1) * 100_000, "the heaviest has its own");
        never_lower(&before, &after);
        before = after;
    }
    assert_eq!(before.count("netsonde_flow_uncounted_bytes_total", &[]), 0);
    // The table in the kernel is cleared of silent flows, so there is room again for one that matters.
    drop((from, heavy));
    let overflowed = |page: &Page| page.count("netsonde_flow_overflowed_bytes_total", &[]);
    agent.scrape();
    let before = agent.scrape();
    let last = pair.a.udp("0.0.0.0:0");
    storm(&last, 200_000, 1000);
    let after = agent.scrape();
    assert_eq!(overflowed(&after), overflowed(&before));
    assert_eq!(sums(&between(&before, &after), &pair.a, BYTES, "udp").0, 100_000);
    assert_eq!(sums(&between(&before, &after), &bystander, BYTES, "udp"), (0, 0));
    agent.stop();
}

#[test]
fn without_series_of_flows_there_are_only_sums() {
    needs_root!();
    let pair = Pair::v4("sums");
    let (agent, _bystander, before) = watch("[{name: flow, args: {max_flows_per_pod: 0}}]", &pair);
    let (mut client, mut server) = connection(&pair, "10.9.0.2");
    pass(&mut client, &mut server, 10_000);
    let after = agent.scrape();
    let delta = between(&before, &after);
    assert_eq!(sums(&delta, &pair.a, BYTES, "tcp"), (10_000, 0));
    assert!(!after.samples.iter().any(|s| s.name.contains("_tuple_")));
    agent.stop();
}

#[test]
fn the_reference_names_are_the_sums_of_each_namespace() {
    needs_root!();
    let pair = Pair::v4("names");
    let agent = Agent::start("node_name: lab\nmetrics: {names: kubeskoop}\nprobes: [flow]\n");
    for ns in [&pair.a, &pair.b] {
        agent.find(ns.name());
    }
    let before = agent.scrape();
    let (mut client, mut server) = connection(&pair, "10.9.0.2");
    pass(&mut client, &mut server, 9_000);
    pass(&mut server, &mut client, 500);
    let after = agent.scrape();
    let delta = between(&before, &after);
    for ns in [&pair.a, &pair.b] {
        assert_eq!(delta.grew(ns, "kubeskoop_flow_bytes", &[]), 9_500);
        assert!(delta.grew(ns, "kubeskoop_flow_packets", &[]) >= 4);
    }
    agent.stop();
}
