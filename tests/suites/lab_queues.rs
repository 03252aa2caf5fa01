//! Packets that wait in queues of known rates, and drivers that take them: the right device of the right pod, waits
//! within what the rate and the receiver's clock allow, and the counts of `tc` and `ip`.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use netsonde_tests::events::{events, number, own_sides, text, until_events};
use netsonde_tests::lab::{between, receive, send, watch};
use netsonde_tests::{Agent, Netns, Page, Pair, needs_programs, needs_root, note, truth, until};

/// `netiftxlatency` that tells of every packet that takes longer than this.
fn telling(slow: &str) -> String {
    format!("[{{name: netiftxlatency, args: {{slow: {slow}, events: {{per_second: 1000, burst: 1000}}}}}}]")
}

const QDISC: &str = "netsonde_netiftxlatency_qdisc_seconds";
const DRIVER: &str = "netsonde_netiftxlatency_driver_seconds";
const ETH0: &[(&str, &str)] = &[("device", "eth0")];

/// How many times of a distribution there are in all, and how many up to a bound.
fn up_to(page: &Page, ns: &Netns, histogram: &str, bound: &str) -> u64 {
    let labels = [ETH0[0], ("le", bound)];
    page.pod(ns.name()).total(&format!("{histogram}_bucket"), &labels)
}

fn count(page: &Page, ns: &Netns, histogram: &str, device: &str) -> u64 {
    page.pod(ns.name()).total(&format!("{histogram}_count"), &[("device", device)])
}

/// The page, as soon as it has this many times in the queue of eth0.
fn scrape_when(agent: &Agent, ns: &Netns, packets: u64) -> Page {
    until(&format!("{packets} packets have left the queue"), Duration::from_secs(5), || {
        Some(agent.scrape()).filter(|page| count(page, ns, QDISC, "eth0") >= packets)
    })
}

const DATAGRAMS: usize = 20;
/// Without any header.
const SIZE: usize = 1000;
const BURST: f64 = 1600.0;
const BITS_PER_SECOND: f64 = 1e6;

/// When the first byte of each datagram was given to the kernel, and when it was received.
fn send_and_receive(pair: &Pair, from: &str, to: &str) -> (u16, Vec<(Instant, Instant)>) {
    let sender = pair.a.udp(&format!("{from}:0"));
    let receiver = pair.b.udp(&format!("{to}:6000"));
    let sent: Vec<Instant> = (0..DATAGRAMS)
        .map(|_| {
            let now = Instant::now();
            send(&sender, &format!("{to}:6000"), 1, SIZE);
            now
        })
        .collect();
    let times = sent.into_iter().map(|sent| {
        receive(&receiver, 1);
        (sent, Instant::now())
    });
    (sender.local_addr().expect("a bound socket has an address").port(), times.collect())
}

#[test]
fn a_datagram_in_a_shaped_queue_waits_as_long_as_its_rate_and_the_receiver_say() {
    needs_root!();
    needs_programs!("tc");
    for v6 in [false, true] {
        let pair = if v6 { Pair::new("tbf6") } else { Pair::v4("tbf4") };
        let (a, b) = own_sides(&pair).pop().expect("a pair has addresses");
        let (agent, bystander, before) = watch(&telling("50ms"), &pair);
        // Now, so that tc counts nothing that nobody timed.
        pair.a.run("tc qdisc add dev eth0 root tbf rate 1mbit burst 1600 limit 100000");
        let (port, times) = send_and_receive(&pair, &a, &b);

        let packets = truth::root_qdisc(&pair.a, "eth0", "packets");
        assert!(packets >= DATAGRAMS as u64);
        let after = scrape_when(&agent, &pair.a, packets);
        let counted = count(&after, &pair.a, QDISC, "eth0");
        // The kernel may have sent a packet of its own for IPv6 meanwhile.
        let now = truth::root_qdisc(&pair.a, "eth0", "packets");
        assert!((packets..=now).contains(&counted), "{counted} timed, {packets} to {now} by tc");
        assert!(v6 || packets == DATAGRAMS as u64);
        assert_eq!(
            after.pod(pair.a.name()).count("netsonde_netiftxlatency_unmatched_packets_total", ETH0),
            0
        );

        // It leaves when the rate has paid for it and for those before it, and before it is received.
        let length = (14 + if v6 { 40 } else { 20 } + 8 + SIZE) as u64;
        let bounds = times.iter().enumerate().map(|(i, (sent, received))| {
            let due = (((i as u64 + 1) * length) as f64 - BURST) * 8.0 / BITS_PER_SECOND;
            let already = sent.duration_since(times[0].0).as_secs_f64();
            // tc rounds burst and rate a little.
            (due * 0.99 - already - 0.001, received.duration_since(*sent).as_secs_f64())
        });
        let bounds: Vec<(f64, f64)> = bounds.collect();
        let sure = bounds.iter().filter(|(least, _)| *least > 0.05).count();
        assert!(sure > 5, "the queue was hardly used: {bounds:?}");

        // Waits grow, so those that are told of are the last ones.
        let query = format!("pod={}&type=TXLAT_QDISC_100MS&last=1000", pair.a.name());
        let all = until_events(&agent, &query, sure);
        let own: Vec<_> = all.iter().filter(|event| event["dport"] == 6000).collect();
        assert!((sure..=DATAGRAMS).contains(&own.len()), "{} events", own.len());
        for (event, (least, most)) in own.iter().zip(&bounds[DATAGRAMS - own.len()..]) {
            let waited = number(event, "latency_ns") as f64 / 1e9;
            assert!(waited > 0.05 && waited >= *least && waited <= *most, "{least} {most} {event:#}");
            assert_eq!((text(event, "src"), text(event, "dst")), (bare(&a), bare(&b)));
            assert_eq!((number(event, "sport"), text(event, "protocol")), (port.into(), "udp"));
            assert_eq!((text(event, "device"), text(event, "qdisc")), ("eth0", "tbf"));
            assert_eq!(number(event, "length"), length);
            assert_eq!(text(event, "peer_pod"), pair.b.name());
        }

        // The same in the distribution and in the counter.
        let over = |ns: u64| all.iter().filter(|event| number(event, "latency_ns") > ns).count() as u64;
        assert_eq!(counted - up_to(&after, &pair.a, QDISC, "0.067108864"), over(1 << 26));
        assert_eq!(counted - up_to(&after, &pair.a, QDISC, "0.134217728"), over(1 << 27));
        let delta = between(&before, &after);
        let over_100ms = "netsonde_netiftxlatency_qdisc_over_100ms_packets_total";
        assert_eq!(delta.grew(&pair.a, over_100ms, &[]), over(100_000_000));
        for other in [&pair.b, &bystander] {
            assert_eq!(delta.grew(other, over_100ms, &[]), 0);
            assert_eq!(count(&after, other, QDISC, "eth0"), 0);
        }
        agent.stop();
    }
}

/// An address without the brackets that it has in front of a port.
fn bare(address: &str) -> &str {
    address.trim_start_matches('[').trim_end_matches(']')
}

#[test]
fn parts_of_a_large_packet_that_the_queue_splits_have_waited_since_the_whole_came_in() {
    needs_root!();
    needs_programs!("tc");
    for side in 0..2 {
        let pair = Pair::new("gso");
        let (_, b) = own_sides(&pair).swap_remove(side);
        let (agent, _bystander, _) = watch(&telling("20ms"), &pair);
        pair.a.run("tc qdisc add dev eth0 root tbf rate 500kbit burst 1600 limit 200000");
        let listener = pair.b.listen(&format!("{b}:7000"), 16);
        let mut client = pair.a.connect(&format!("{b}:7000"));
        let (mut server, _) = listener.accept().expect("a connection");
        let start = Instant::now();
        client.write_all(&vec![1; 40_000]).expect("a connection takes bytes");
        server.read_exact(&mut vec![0; 40_000]).expect("all of it arrives");
        let took = start.elapsed();

        let packets = truth::root_qdisc(&pair.a, "eth0", "packets");
        assert!(packets >= 28, "{packets} packets are too few for that many bytes");
        let after = scrape_when(&agent, &pair.a, packets);
        let pod = after.pod(pair.a.name());
        assert_eq!(pod.count("netsonde_netiftxlatency_unmatched_packets_total", ETH0), 0);
        // An acknowledgement may have followed.
        assert!(count(&after, &pair.a, QDISC, "eth0") <= truth::root_qdisc(&pair.a, "eth0", "packets"));
        // A packet of two segments or more takes 24 ms from its first to its last one; how many segments TCP puts into
        // one depends on how soon it hears from the other side.
        let query = format!("pod={}&type=TXLAT_QDISC_100MS&last=1000", pair.a.name());
        let own: Vec<_> =
            until_events(&agent, &query, 1).into_iter().filter(|event| event["dport"] == 7000).collect();
        assert!(!own.is_empty());
        for event in &own {
            assert_eq!((text(event, "protocol"), text(event, "dst")), ("tcp", bare(&b)));
            assert!(number(event, "length") <= 1514, "a part: {event:#}");
            assert!(u128::from(number(event, "latency_ns")) <= took.as_nanos(), "{took:?} {event:#}");
        }
        agent.stop();
    }
}

#[test]
fn the_driver_is_timed_for_each_packet_with_both_its_ends() {
    needs_root!();
    for side in 0..2 {
        let pair = Pair::new("driver");
        let (a, b) = own_sides(&pair).swap_remove(side);
        let (agent, bystander, before) = watch(&telling("1ns"), &pair);
        let sent_before = truth::link(&pair.a, "eth0", "tx", "packets");
        let counted_before = count(&agent.scrape(), &pair.a, DRIVER, "eth0");
        let sender = pair.a.udp(&format!("{a}:0"));
        let receiver = pair.b.udp(&format!("{b}:6000"));
        send(&sender, &format!("{b}:6000"), DATAGRAMS, SIZE);
        receive(&receiver, DATAGRAMS);
        let local = pair.a.udp("127.0.0.1:6001");
        send(&local, "127.0.0.1:6001", 3, 10);

        let query = format!("pod={}&type=TXLAT_NETDEV_100MS&last=1000", pair.a.name());
        let told = until(&format!("{DATAGRAMS} packets are told of"), Duration::from_secs(2), || {
            let told = events(&agent, &query);
            let own: Vec<_> = told.into_iter().filter(|event| event["dport"] == 6000).collect();
            (own.len() >= DATAGRAMS).then_some(own)
        });
        assert_eq!(told.len(), DATAGRAMS);
        let port = sender.local_addr().expect("a bound socket has an address").port();
        for event in &told {
            assert_eq!((text(event, "src"), text(event, "dst")), (bare(&a), bare(&b)));
            assert_eq!((number(event, "sport"), text(event, "protocol")), (port.into(), "udp"));
            assert_eq!((text(event, "device"), text(event, "peer_pod")), ("eth0", pair.b.name()));
            assert!(event.get("qdisc").is_none() && number(event, "latency_ns") > 0, "{event:#}");
        }
        let after = agent.scrape();
        let counted = count(&after, &pair.a, DRIVER, "eth0") - counted_before;
        let sent = truth::link(&pair.a, "eth0", "tx", "packets") - sent_before;
        assert!(counted >= DATAGRAMS as u64 && counted <= sent, "{counted} timed, {sent} sent");
        assert_eq!(count(&after, &pair.a, DRIVER, "lo"), 3);
        assert_eq!(count(&after, &pair.a, QDISC, "eth0"), 0, "a veth has no queue");
        assert_eq!(count(&after, &bystander, DRIVER, "lo") + count(&after, &bystander, DRIVER, "eth0"), 0);
        let slow = "netsonde_netiftxlatency_driver_over_100ms_packets_total";
        assert_eq!(between(&before, &after).grew(&pair.b, slow, &[]), 0);
        agent.stop();
    }
}

#[test]
fn a_device_on_another_one_is_timed_with_what_lies_below() {
    needs_root!();
    let pair = Pair::v4("stacked");
    pair.a.run("ip link add link eth0 name upper0 type macvlan");
    pair.a.run("ip addr add 10.10.0.1/24 dev upper0");
    pair.a.run("ip link set upper0 up");
    pair.a.run("ip neigh replace 10.10.0.2 lladdr 02:09:00:00:00:02 dev upper0 nud permanent");
    let (agent, _bystander, before) = watch("[netiftxlatency]", &pair);
    send(&pair.a.udp("10.10.0.1:0"), "10.10.0.2:6000", 10, 100);
    let after = agent.scrape();
    let grew = |device| count(&after, &pair.a, DRIVER, device) - count(&before, &pair.a, DRIVER, device);
    assert_eq!((grew("upper0"), grew("eth0")), (10, 10));
    let sum = |device| {
        let of = |page: &Page| page.pod(pair.a.name()).sum(&format!("{DRIVER}_sum"), &[("device", device)]);
        of(&after) - of(&before)
    };
    assert!(sum("upper0") > sum("eth0"), "{} {}", sum("upper0"), sum("eth0"));
    agent.stop();
}

#[test]
fn packets_that_are_thrown_away_with_their_queue_are_no_waits_later() {
    needs_root!();
    needs_programs!("tc");
    let pair = Pair::v4("purge");
    pair.a.run("tc qdisc add dev eth0 root tbf rate 1kbit burst 1600 limit 1000000");
    let (agent, _bystander, before) = watch(&telling("100ms"), &pair);
    let sender = pair.a.udp("10.9.0.1:0");
    // The first one passes, the next one would after four seconds; the others are fewer than a socket may send ahead.
    send(&sender, "10.9.0.2:6000", 60, SIZE);
    std::thread::sleep(Duration::from_millis(1200));
    let passed = truth::root_qdisc(&pair.a, "eth0", "packets");
    pair.a.run("tc qdisc replace dev eth0 root pfifo");
    pair.a.run("tc qdisc replace dev eth0 root tbf rate 100mbit burst 16000 limit 1000000");
    // They come to lie where the others lay.
    send(&sender, "10.9.0.2:6000", 400, SIZE);
    let after = scrape_when(&agent, &pair.a, passed + 400);
    assert_eq!(count(&after, &pair.a, QDISC, "eth0"), passed + 400);
    assert_eq!(up_to(&after, &pair.a, QDISC, "1.073741824"), passed + 400);
    let slow = "netsonde_netiftxlatency_unmatched_packets_total";
    assert_eq!(between(&before, &after).grew_in_all(&pair.a, slow, &[]), 0);
    agent.stop();
}

#[test]
fn a_queue_without_a_lock_that_many_fill_at_once_has_no_waits_of_other_packets() {
    needs_root!();
    needs_programs!("tc");
    let pair = Pair::v4("nolock");
    pair.a.run("tc qdisc replace dev eth0 root pfifo_fast");
    let (agent, _bystander, _) = watch(&telling("100ms"), &pair);
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6000", 20_000, 100));
            }
        });
        // What was kept by mistake would be this old when its address is used again.
        std::thread::sleep(Duration::from_millis(1200));
    }
    let after = agent.scrape();
    let packets = truth::root_qdisc(&pair.a, "eth0", "packets");
    let queued = count(&after, &pair.a, QDISC, "eth0");
    assert!(queued <= packets, "{queued} of {packets}");
    assert_eq!(up_to(&after, &pair.a, QDISC, "1.073741824"), queued);
    let pod = after.pod(pair.a.name());
    assert_eq!(pod.total("netsonde_netiftxlatency_unmatched_packets_total", ETH0), 0);
    note(&format!("{queued} of {packets} packets were queued, the others passed the empty queue by"));
    agent.stop();
}

#[test]
fn the_names_of_the_reference_are_there_for_every_namespace_from_the_start() {
    needs_root!();
    let ns = Netns::new("names");
    let agent = Agent::start("metrics: {names: kubeskoop}\nprobes: [netiftxlat]\n");
    agent.find(ns.name());
    let page = agent.scrape();
    for name in ["kubeskoop_netiftxlat_qdiscslow100ms", "kubeskoop_netiftxlat_netdevslow100ms"] {
        assert_eq!(page.pod(ns.name()).count(name, &[]), 0);
        assert!(page.pod("hostNetwork").find(name, &[]).is_some());
    }
    agent.stop();
}
