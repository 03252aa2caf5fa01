//! How many series there are: the bound under 100,000 flows, sums alone, and the names of the reference.

use std::net::UdpSocket;

use netsonde_tests::lab::{between, watch};
use netsonde_tests::{Agent, Page, Pair, needs_root};

use super::{BYTES, FLOW, TUPLE_BYTES, connection, pass, sums};

/// How many flows of a namespace have series of their own by default.
const MOST: usize = 32;

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
