//! Segments behind a shaper, in the sender and in a router: the time that its rate makes them wait.

use std::io::Write as _;
use std::time::{Duration, Instant};

use netsonde_tests::events::{number, own_sides, text, until_events};
use netsonde_tests::histogram::{bucket, buckets};
use netsonde_tests::lab::{between, count_input, watch};
use netsonde_tests::{Agent, Netns, Pair, needs_programs, needs_root, truth, until, wait};

use super::{TRANSMIT, acknowledged, assert_nothing_measured, connection, probe};

const STACK: &str = "netsonde_kernellatency_transmit_stack_seconds";
const FORWARD: &str = "netsonde_kernellatency_forward_seconds";

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
