//! How long packets are in the kernel: waits that a shaper is told to make are found in the right bucket, every packet is
//! measured once, in the pod whose it is, and the slow ones are told of with both ends and the time at each place.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use netsonde_tests::events::{number, own_sides, text, until_events};
use netsonde_tests::histogram::{bucket, buckets};
use netsonde_tests::lab::{between, count_input, receive, send, watch};
use netsonde_tests::{Agent, Netns, Page, Pair, needs_programs, needs_root, note, truth, until, wait};

const RECEIVE: &str = "netsonde_kernellatency_receive_seconds";
const BACKLOG: &str = "netsonde_kernellatency_receive_backlog_seconds";
const TRANSMIT: &str = "netsonde_kernellatency_transmit_seconds";
const STACK: &str = "netsonde_kernellatency_transmit_stack_seconds";
const FORWARD: &str = "netsonde_kernellatency_forward_seconds";

const SOON: Duration = Duration::from_secs(5);

/// The probe with this threshold, and an event for each slow packet of a test, but not for all those that reading of them
/// makes.
fn probe(slow: &str) -> String {
    format!("[{{name: kernellatency, args: {{slow: {slow}, events: {{per_second: 1, burst: 100}}}}}}]")
}

/// By how much a histogram's count grew in `ns`.
fn grew(before: &Page, agent: &Agent, ns: &Netns, histogram: &str, labels: &[(&str, &str)]) -> u64 {
    between(before, &agent.scrape()).grew_in_all(ns, &format!("{histogram}_count"), labels)
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

/// How many of so many packets a busy kernel may leave out, by what was seen: up to 1 %, most often none. It runs no
/// program that it has interrupted; why it leaves out others is not known.
fn missed(packets: u64) -> u64 {
    packets / 50
}

/// Waits until `ns` has the acknowledgements of all that it has sent.
fn acknowledged(ns: &Netns) {
    until("all is acknowledged", SOON, || (truth::queues(ns).1 == 0).then_some(()));
}

/// Makes every segment a packet of its own from the beginning, so that all places count the same.
const ONE_BY_ONE: &str = "ip link set dev eth0 gso_max_segs 1";

/// Segments, bytes of each on the wire beside the headers, and the shaper's bytes a second and bucket.
const SEGMENTS: usize = 10;
const PAYLOAD: usize = 1000;
const ETHERNET: usize = 14;
const RATE: u64 = 100_000;
const BURST: u64 = 1600;

/// How long each segment waits for the shaper, in nanoseconds: the first ones go at once.
fn waits(on_the_wire: u64) -> Vec<u64> {
    let sent = (1..=SEGMENTS as u64).map(|n| n * on_the_wire);
    sent.map(|bytes| bytes.saturating_sub(BURST) * 1_000_000_000 / RATE).collect()
}

/// How much longer a packet may wait because this machine's clocks ring late.
fn late() -> u64 {
    u64::try_from(wait::late().as_nanos()).expect("a short time")
}

/// How long a segment waits that was written so long after the first one: it leaves no sooner than the rate allows.
struct Wait {
    least: u64,
    most: u64,
}

impl Wait {
    fn of((due, (before, after)): (u64, (Duration, Duration))) -> Self {
        let less = |by: Duration| due.saturating_sub(u64::try_from(by.as_nanos()).expect("a short time"));
        Self { least: less(after), most: less(before) + late() }
    }

    /// The buckets in which it may be found: its own and those beside it.
    fn buckets(&self) -> std::ops::RangeInclusive<usize> {
        bucket(self.least).saturating_sub(1)..=bucket(self.most) + 1
    }
}

#[test]
fn segments_that_wait_in_a_shaper_are_measured_and_told_of() {
    needs_root!();
    needs_programs!("tc");
    // IP, and TCP with time stamps.
    for (family, headers) in [(0, ETHERNET + 20 + 32), (1, ETHERNET + 40 + 32)] {
        // TCP joins writes while it is kept from sending; then there are fewer packets, with other waits.
        let joined = (0..10).take_while(|_| !shaped(family, headers)).count();
        assert!(joined < 10, "TCP never sent ten segments one by one");
    }
}

/// `false` where TCP did not send the segments one by one.
fn shaped(family: usize, headers: usize) -> bool {
    let pair = Pair::new("shaped");
    // Without tail loss probes, which would send the last one twice.
    pair.a.sysctl("net/ipv4/tcp_early_retrans", "0");
    pair.a.run(ONE_BY_ONE);
    // TCP keeps back what a device's queue would hold for more than a millisecond at the speed that it expects of the
    // connection. On a slow machine that is less than these segments, and what it keeps back waits elsewhere.
    pair.a.sysctl("net/ipv4/tcp_pacing_ss_ratio", "1000");
    // Two writes that are joined become a full segment and a rest: as many packets, of other lengths.
    count_input(&pair.b, &format!("tcp dport 7000 meta length {}", PAYLOAD + headers - ETHERNET));
    let (a, b) = own_sides(&pair).swap_remove(family);
    pair.a.run(&format!("tc qdisc add dev eth0 root tbf rate {RATE}bps burst {BURST} limit 100000"));
    let (agent, bystander, _) = watch(&probe("20ms"), &pair);
    let (mut client, server) = connection(&pair.a, &pair.b, &format!("{b}:7000"));
    let before = agent.scrape();
    let sent = || truth::mib(&pair.a, "snmp", "Tcp", "OutSegs");
    let sent_before = sent();
    let came_before = truth::nft_counter(&pair.b, "inet", "seen");
    // The shaper has its bucket full again.
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    let mut written = Vec::new();
    for _ in 0..SEGMENTS {
        let before = start.elapsed();
        client.write_all(&[1; PAYLOAD]).expect("a connection takes bytes");
        written.push((before, start.elapsed()));
    }
    acknowledged(&pair.a);
    let after = agent.scrape();
    if truth::nft_counter(&pair.b, "inet", "seen") - came_before != SEGMENTS as u64 {
        agent.stop();
        return false;
    }
    assert_eq!(sent() - sent_before, SEGMENTS as u64, "{b}");
    let due = waits((PAYLOAD + headers) as u64);
    let expected: Vec<Wait> = due.iter().copied().zip(written).map(Wait::of).collect();
    let measured = buckets(&before, &after, &pair.a, TRANSMIT, &[]);
    let each = measured.iter().enumerate().flat_map(|(bucket, n)| (0..*n).map(move |_| bucket));
    let each: Vec<usize> = each.collect();
    assert_eq!(each.len(), SEGMENTS, "{measured:?}");
    for (measured, wait) in each.iter().zip(&expected).filter(|(_, wait)| wait.least > 0) {
        assert!(wait.buckets().contains(measured), "{each:?} for waits of {due:?} ns");
    }
    let delta = between(&before, &after);
    assert_eq!(delta.grew_in_all(&pair.a, &format!("{STACK}_count"), &[]), SEGMENTS as u64);
    let sum = |name: &str| {
        let name = format!("{name}_sum");
        after.pod(pair.a.name()).sum(&name, &[]) - before.pod(pair.a.name()).sum(&name, &[])
    };
    assert!(sum(STACK) < sum(TRANSMIT) / 10.0, "{} of {} s", sum(STACK), sum(TRANSMIT));

    let slow = delta.grew(&pair.a, "netsonde_kernellatency_transmit_slow_packets_total", &[]);
    let surely = expected.iter().filter(|wait| wait.least > 20_000_000).count();
    let perhaps = expected.iter().filter(|wait| wait.most > 20_000_000).count();
    assert!((surely..=perhaps + 1).contains(&usize::try_from(slow).expect("ten at most")), "{slow}");
    let query = format!("pod={}&type=TXKERNEL_SLOW", pair.a.name());
    let events = until_events(&agent, &query, usize::try_from(slow).expect("ten at most"));
    assert_eq!(events.len() as u64, slow);
    for (event, wait) in events.iter().rev().zip(expected.iter().rev()) {
        let latency = number(event, "latency_ns");
        assert!(wait.buckets().contains(&bucket(latency)), "{} ns: {event:#}", wait.least);
        let (source, destination) = (text(event, "src"), text(event, "dst"));
        assert_eq!((source, destination), (a.trim_matches(['[', ']']), b.trim_matches(['[', ']'])));
        assert_eq!((text(event, "protocol"), text(event, "device")), ("tcp", "eth0"));
        assert_eq!((number(event, "dport"), &event["forwarded"]), (7000, &false.into()));
        assert_eq!(event["peer_pod"], pair.b.name(), "{event:#}");
        assert_eq!(number(event, "length"), (PAYLOAD + headers) as u64);
    }
    let over = events.iter().filter(|event| number(event, "latency_ns") > 100_000_000).count();
    let over_100ms = "netsonde_kernellatency_transmit_over_100ms_packets_total";
    assert_eq!(delta.grew(&pair.a, over_100ms, &[]), over as u64);
    assert_nothing_measured(&after, &bystander);
    drop(server);
    agent.stop();
    true
}

#[test]
fn every_datagram_is_measured_from_its_arrival_and_told_of_where_all_are_slow() {
    needs_root!();
    needs_programs!("nft");
    for family in 0..2 {
        let pair = Pair::new("datagrams");
        let (a, b) = own_sides(&pair).swap_remove(family);
        pair.b.nft(
            "table inet lab {
                counter seen { }
                chain in {
                    type filter hook prerouting priority 0
                    meta l4proto != tcp counter name seen
                }
            }",
        );
        let (agent, bystander, _) = watch(&probe("0s"), &pair);
        let to = pair.b.udp(&format!("{b}:6000"));
        // Nothing of the kernel's own may come between the two.
        let (before, seen_before) = until("nothing comes for a moment", SOON, || {
            let seen = truth::nft_counter(&pair.b, "inet", "seen");
            let page = agent.scrape();
            (seen == truth::nft_counter(&pair.b, "inet", "seen")).then_some((page, seen))
        });
        let from = pair.a.udp(&format!("{a}:0"));
        let port = from.local_addr().expect("a bound socket has an address").port();
        send(&from, &format!("{b}:6000"), 25, 100);
        receive(&to, 25);
        // The kernel's own packets (group memberships) come when they like, also between two readings.
        let after = until("both have counted the same", Duration::from_secs(5), || {
            let page = agent.scrape();
            let seen = truth::nft_counter(&pair.b, "inet", "seen") - seen_before;
            let backlog = between(&before, &page).grew_in_all(&pair.b, &format!("{BACKLOG}_count"), &[]);
            (seen >= 25 && backlog == seen).then_some(page)
        });
        let delta = between(&before, &after);
        let udp = [("protocol", "udp")];
        assert_eq!(delta.grew_in_all(&pair.b, &format!("{RECEIVE}_count"), &udp), 25, "{b}");
        assert_eq!(delta.grew(&pair.b, "netsonde_kernellatency_receive_slow_packets_total", &[]), 25);
        assert_eq!(delta.grew_in_all(&pair.a, &format!("{RECEIVE}_count"), &udp), 0, "nothing came back");

        let events = until_events(&agent, &format!("pod={}&type=RXKERNEL_SLOW", pair.b.name()), 25);
        assert_eq!(events.len(), 25);
        for event in &events {
            let (source, destination) = (text(event, "src"), text(event, "dst"));
            assert_eq!((source, destination), (a.trim_matches(['[', ']']), b.trim_matches(['[', ']'])));
            assert_eq!((number(event, "sport"), number(event, "dport")), (u64::from(port), 6000));
            assert_eq!((text(event, "protocol"), &event["peer_pod"]), ("udp", &pair.a.name().into()));
            let places = number(event, "backlog_ns") + number(event, "stack_ns");
            let latency = number(event, "latency_ns");
            assert_eq!(places, latency, "{event:#}");
            assert!((1..1_000_000_000).contains(&latency), "{event:#}");
        }
        assert_nothing_measured(&after, &bystander);
        agent.stop();
    }
}

#[test]
fn a_flood_of_datagrams_to_a_program_that_keeps_reading_is_measured_or_counted_as_taken() {
    needs_root!();
    let pair = Pair::v4("flood");
    let (agent, _bystander, before) = watch("[kernellatency]", &pair);
    let to = pair.b.udp("10.9.0.2:6000");
    let from = pair.a.udp("10.9.0.1:0");
    let got = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            to.set_nonblocking(true).expect("a socket need not wait");
            let mut got = 0;
            let mut idle = Instant::now();
            while idle.elapsed() < Duration::from_millis(500) {
                while to.recv(&mut [0; 100]).is_ok() {
                    got += 1;
                    idle = Instant::now();
                }
            }
            got
        });
        send(&from, "10.9.0.2:6000", 50_000, 20);
        reader.join().expect("the reader does not panic")
    });
    let after = agent.scrape();
    let delta = between(&before, &after);
    let delivered = truth::mib(&pair.b, "snmp", "Udp", "InDatagrams");
    assert_eq!(delivered, got);
    let measured = delta.grew_in_all(&pair.b, &format!("{RECEIVE}_count"), &[("protocol", "udp")]);
    let taken =
        |page: &Page| page.count("netsonde_kernellatency_unmeasured_packets_total", &[("reason", "taken")]);
    // Other programs of this machine have datagrams taken too.
    let taken = taken(&after) - taken(&before);
    note(&format!("of {delivered} datagrams {measured} were measured and {taken} taken"));
    let least = delivered - missed(delivered);
    assert!(measured <= delivered && measured + taken >= least, "{measured} + {taken} of {delivered}");
    assert!(measured > delivered / 2, "{measured} of {delivered}");
    agent.stop();
}

#[test]
fn every_segment_of_a_connection_is_measured_also_those_that_wait_for_a_busy_reader() {
    needs_root!();
    for (_, b) in [("10.9.0.1", "10.9.0.2"), ("[fd09::1]", "[fd09::2]")] {
        let pair = Pair::new("segments");
        let (agent, bystander, _) = watch("[kernellatency]", &pair);
        let (mut client, mut server) = connection(&pair.a, &pair.b, &format!("{b}:7000"));
        until("the handshake is over", SOON, || (truth::sockets(&pair.b, "established") == 1).then_some(()));
        let before = agent.scrape();
        // Segments as TCP has taken them, less those that were put together while the reader had the connection.
        let segments = |ns: &Netns| {
            assert_eq!(truth::mib(ns, "netstat", "TcpExt", "TCPBacklogDrop"), 0);
            let together = truth::mib(ns, "netstat", "TcpExt", "TCPBacklogCoalesce");
            (truth::mib(ns, "snmp", "Tcp", "InSegs") - together, together)
        };
        let first = [segments(&pair.a), segments(&pair.b)];
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let (mut buffer, mut got) = (vec![0; 1 << 20], 0);
                while got < 40_000_000 {
                    got += server.read(&mut buffer).expect("a connection can be read");
                }
                server
            });
            for _ in 0..40 {
                client.write_all(&vec![1; 1_000_000]).expect("a connection takes bytes");
            }
            let _server = reader.join().expect("the reader does not panic");
            acknowledged(&pair.a);
            std::thread::sleep(Duration::from_millis(100));
            let tcp = [("protocol", "tcp")];
            for (ns, (before_it, together)) in [(&pair.a, first[0]), (&pair.b, first[1])] {
                let (now, together_now) = segments(ns);
                let (taken, measured) = (now - before_it, grew(&before, &agent, ns, RECEIVE, &tcp));
                let name = ns.name();
                note(&format!("{name}: {measured} of {taken}; {} put together", together_now - together));
                assert!(measured <= taken && taken - measured <= missed(taken), "{measured} of {taken}");
            }
        });
        let after = agent.scrape();
        assert_nothing_measured(&after, &bystander);
        agent.stop();
    }
}

#[test]
fn what_a_router_passes_on_is_measured_there_from_the_sender_on() {
    needs_root!();
    needs_programs!("nft", "tc");
    let (a, router, b) = (Netns::new("sender"), Netns::new("router"), Netns::new("target"));
    for ns in [&a, &router, &b] {
        ns.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        ns.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
    }
    a.veth("eth0", &router, "left");
    b.veth("eth0", &router, "right");
    for (ns, device, address) in [
        (&a, "eth0", "10.9.1.1/24"),
        (&router, "left", "10.9.1.254/24"),
        (&router, "right", "10.9.2.254/24"),
        (&b, "eth0", "10.9.2.1/24"),
    ] {
        ns.run(&format!("ip addr add {address} dev {device}"));
    }
    a.run(ONE_BY_ONE);
    router.sysctl("net/ipv4/ip_forward", "1");
    a.run("ip route add default via 10.9.1.254");
    b.run("ip route add default via 10.9.2.254");
    router.nft(
        "table inet lab {
            counter seen { }
            chain through {
                type filter hook forward priority 0
                meta l4proto tcp counter name seen
            }
        }",
    );
    let agent = Agent::start(&format!("node_name: lab\nprobes: {}\n", probe("20ms")));
    for ns in [&a, &router, &b] {
        agent.find(ns.name());
    }
    let before = agent.scrape();
    let (mut client, server) = connection(&a, &b, "10.9.2.1:7000");
    router.run(&format!("tc qdisc add dev right root tbf rate {RATE}bps burst {BURST} limit 100000"));
    for _ in 0..SEGMENTS {
        client.write_all(&[1; PAYLOAD]).expect("a connection takes bytes");
    }
    acknowledged(&a);
    // What was sent twice is in the queue still when the first of both is acknowledged.
    let after = until("all that came has gone", Duration::from_secs(5), || {
        let page = agent.scrape();
        let forwarded = between(&before, &page).grew_in_all(&router, &format!("{FORWARD}_count"), &[]);
        (forwarded == truth::nft_counter(&router, "inet", "seen")).then_some(page)
    });
    let delta = between(&before, &after);
    assert_eq!(delta.grew_in_all(&router, &format!("{TRANSMIT}_count"), &[]), 0);
    // OutSegs is without those that were sent again, as a tail loss probe does behind such a queue.
    let sent = truth::mib(&a, "snmp", "Tcp", "OutSegs") + truth::mib(&a, "snmp", "Tcp", "RetransSegs");
    assert_eq!(delta.grew_in_all(&a, &format!("{TRANSMIT}_count"), &[]), sent);

    let slow = delta.grew_in_all(&router, "netsonde_kernellatency_forward_slow_packets_total", &[]);
    let of_sender = delta.grew(&a, "netsonde_kernellatency_transmit_slow_packets_total", &[]);
    assert!(of_sender == 0 || late() > 0 && 2 * of_sender < slow, "{of_sender} of the sender's own");
    let surely = waits((PAYLOAD + 66) as u64).iter().filter(|wait| **wait > 20_000_000).count();
    assert!(slow >= surely as u64, "{slow}");
    let query = format!("pod={}&type=TXKERNEL_SLOW", router.name());
    let events = until_events(&agent, &query, usize::try_from(slow).expect("a few"));
    assert_eq!(events.len() as u64, slow);
    for event in &events {
        assert_eq!((text(event, "src"), text(event, "dst")), ("10.9.1.1", "10.9.2.1"));
        assert_eq!((text(event, "device"), &event["forwarded"]), ("right", &true.into()));
        assert!((20_000_000..1_000_000_000).contains(&number(event, "latency_ns")), "{event:#}");
    }
    drop(server);
    agent.stop();
}
