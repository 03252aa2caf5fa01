//! Retransmissions: each is told with its kind, and with where and why the packet was dropped, or without.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netsonde_tests::events::{events, number, text, until_events};
use netsonde_tests::lab::{cut, let_through};
use netsonde_tests::{Netns, needs_programs, needs_root, truth, until};
use serde_json::Value;

use super::lab::{Lab, SOON, bare, beside_others, have_state, labs, query};

const RETRANSMISSIONS: &str = "[{name: tcpretrans, args: {events: {per_second: 1000, burst: 100}}}]";

impl Lab {
    /// The retransmissions of `ns` that there are, as many as TCP itself counts.
    fn retransmissions(&self, ns: &Netns) -> Vec<Value> {
        let count = usize::try_from(truth::mib(ns, "snmp", "Tcp", "RetransSegs")).expect("a few");
        let found = until_events(&self.agent, &query(ns, "TCPRetrans"), count);
        assert_eq!(found.len(), count, "{found:#?}");
        let counted = self.grew(ns, "netsonde_tcpretrans_packets_total", &[]);
        assert_eq!(counted, count as u64);
        for event in &found {
            self.is_between(ns, event);
        }
        found
    }

    /// A rule of `dropper` dropped what these tell of, and the counter of causes says so.
    fn were_dropped_in(&self, ns: &Netns, dropper: &Netns, told: &[&Value]) {
        for event in told {
            assert_eq!(event["cause_reason"], "NETFILTER_DROP", "{event:#}");
            assert_eq!(event["cause_pod"], dropper.name(), "{event:#}");
            assert!(!text(event, "cause_place").is_empty());
        }
        let by_reason = self.grew(ns, "netsonde_tcpretrans_caused_total", &[("reason", "NETFILTER_DROP")]);
        assert_eq!(by_reason, told.len() as u64);
    }
}

/// Waits until TCP in `ns` has counted this often, of TcpExt.
fn until_counted(ns: &Netns, field: &str, count: u64) {
    until(&format!("{field} {count}"), Duration::from_secs(10), || {
        (truth::mib(ns, "netstat", "TcpExt", field) >= count).then_some(())
    });
}

fn of_kind<'a>(told: &'a [Value], kind: &str) -> Vec<&'a Value> {
    told.iter().filter(|event| event["kind"] == kind).collect()
}

#[test]
fn a_syn_that_is_sent_again_names_the_rule_that_dropped_it() {
    needs_root!();
    needs_programs!("nft");
    let _beside = beside_others();
    for lab in labs("syn", RETRANSMISSIONS) {
        let (a, b) = (&lab.pair.a, &lab.pair.b);
        cut(b, "tcp dport 7000");
        let waiting: Vec<_> = (0..4).map(|_| a.begin_connect(&format!("{}:7000", lab.b))).collect();
        until_counted(a, "TCPSynRetrans", 4);
        // Without them nothing is sent again while we count.
        drop(waiting);
        let told = lab.retransmissions(a);
        assert_eq!(told.len() as u64, truth::mib(a, "netstat", "TcpExt", "TCPSynRetrans"));
        have_state(&told, "SYN_SENT");
        assert_eq!(of_kind(&told, "syn").len(), told.len());
        lab.were_dropped_in(a, b, &told.iter().collect::<Vec<_>>());
        for event in &told {
            assert_eq!(number(event, "length"), 1);
            assert!(number(event, "timeouts") >= 1, "{event:#}");
            let stack = event["stack"].as_array().expect("a stack");
            let first = stack[0].as_str().expect("a text");
            assert!(!first.starts_with("bpf") && !first.starts_with("__bpf"), "{event:#}");
        }
        lab.agent.stop();
    }
}

#[test]
fn a_syn_ack_that_is_sent_again_names_the_rule_that_dropped_it() {
    needs_root!();
    needs_programs!("nft");
    let _beside = beside_others();
    for lab in labs("synack", RETRANSMISSIONS) {
        let (a, b) = (&lab.pair.a, &lab.pair.b);
        // Of both families: its IPv4 connections have addresses of IPv6 in the kernel.
        let _listener = b.listen("[::]:7000", 16);
        cut(a, "tcp sport 7000");
        let waiting = a.begin_connect(&format!("{}:7000", lab.b));
        until_counted(a, "TCPSynRetrans", 2);
        drop(waiting);
        let_through(a);
        // The client is gone, so what comes again is answered with a reset.
        let at_b = until("all is quiet", Duration::from_secs(10), || {
            (truth::sockets(b, "syn-recv") == 0).then(|| lab.retransmissions(b))
        });
        have_state(&at_b, "SYN_RECV");
        let kinds = of_kind(&at_b, "syn_ack");
        assert_eq!(kinds.len(), at_b.len());
        assert!(kinds.len() >= 2, "{at_b:#?}");
        // The timer and the client's repeated SYN can come at once; of two answers, one finds the drop of the answer before.
        let with_cause: Vec<&Value> =
            kinds.iter().copied().filter(|e| !e["cause_reason"].is_null()).collect();
        assert!(!with_cause.is_empty(), "{at_b:#?}");
        lab.were_dropped_in(b, a, &with_cause);
        // The SYNs arrived: nobody dropped them.
        let at_a = lab.retransmissions(a);
        assert!(at_a.iter().all(|event| event["cause_reason"].is_null()), "{at_a:#?}");
        lab.agent.stop();
    }
}

#[test]
fn data_that_is_sent_again_names_the_rule_that_dropped_it() {
    needs_root!();
    needs_programs!("nft");
    let _beside = beside_others();
    for lab in labs("data", RETRANSMISSIONS) {
        let (a, b) = (&lab.pair.a, &lab.pair.b);
        let listener = lab.listener();
        let (mut client, _server) = lab.connection(&listener);
        cut(b, "tcp dport 7000");
        client.write_all(&[1; 500]).expect("a connection takes bytes");
        until_counted(a, "TCPTimeouts", 2);
        let_through(b);
        until("all is acknowledged", SOON, || (truth::queues(a).1 == 0).then_some(()));
        let told = lab.retransmissions(a);
        have_state(&told, "ESTABLISHED");
        let (timeouts, probes) = (of_kind(&told, "timeout"), of_kind(&told, "loss_probe"));
        assert_eq!(timeouts.len() as u64, truth::mib(a, "netstat", "TcpExt", "TCPTimeouts"));
        assert_eq!(probes.len() as u64, truth::mib(a, "netstat", "TcpExt", "TCPLossProbes"));
        lab.were_dropped_in(a, b, &told.iter().collect::<Vec<_>>());
        let nth: Vec<u64> = timeouts.iter().map(|event| number(event, "timeouts")).collect();
        assert_eq!(nth, (1..=timeouts.len() as u64).collect::<Vec<_>>());
        for event in &told {
            assert_eq!(event["sequence"], told[0]["sequence"], "the same bytes");
            assert_eq!(number(event, "length"), 500);
            assert!(number(event, "rtt_us") > 0 && number(event, "cwnd") > 0, "{event:#}");
        }
        lab.agent.stop();
    }
}

#[test]
fn data_that_is_sent_again_because_of_later_data_is_fast_and_names_the_rule_that_dropped_it() {
    needs_root!();
    needs_programs!("nft");
    let _beside = beside_others();
    for lab in labs("fast", RETRANSMISSIONS) {
        let (a, b) = (&lab.pair.a, &lab.pair.b);
        // Neither probe nor timer is to come before the later data, however slow the machine is.
        a.sysctl("net/ipv4/tcp_early_retrans", "0");
        let family = if lab.a.starts_with('[') { "-6" } else { "-4" };
        let route = a.run(&format!("ip {family} route show {} dev eth0", network(&lab.a)));
        let route = route.lines().next().expect("the route of the pair");
        a.run(&format!("ip {family} route replace {route} dev eth0 rto_min 5s"));
        let listener = lab.listener();
        let (mut client, _server) = lab.connection(&listener);
        cut(b, "tcp dport 7000");
        client.write_all(&[1; 500]).expect("a connection takes bytes");
        let_through(b);
        for _ in 0..5 {
            client.write_all(&[2; 500]).expect("a connection takes bytes");
        }
        until("all is acknowledged", SOON, || (truth::queues(a).1 == 0).then_some(()));
        let told = lab.retransmissions(a);
        assert_eq!(truth::mib(a, "netstat", "TcpExt", "TCPFastRetrans"), 1);
        assert_eq!(of_kind(&told, "fast").len(), 1, "{told:#?}");
        assert_eq!(told.len(), 1);
        lab.were_dropped_in(a, b, &[&told[0]]);
        lab.agent.stop();
    }
}

/// The network that `own_sides` laid over both ends.
fn network(side: &str) -> String {
    match bare(side).parse().expect("an address") {
        IpAddr::V4(ip) => format!("{}/30", Ipv4Addr::from_bits(ip.to_bits() & !3)),
        IpAddr::V6(ip) => format!("{}/96", Ipv6Addr::from_bits(ip.to_bits() >> 32 << 32)),
    }
}

#[test]
fn data_that_arrived_and_is_sent_again_has_no_cause() {
    needs_root!();
    needs_programs!("nft");
    let _beside = beside_others();
    for lab in labs("acks", RETRANSMISSIONS) {
        let (a, b) = (&lab.pair.a, &lab.pair.b);
        let listener = lab.listener();
        let (mut client, _server) = lab.connection(&listener);
        // Acknowledgements are lost. What comes again, the receiver has already and drops.
        cut(a, "tcp sport 7000");
        client.write_all(&[1; 500]).expect("a connection takes bytes");
        until_counted(a, "TCPTimeouts", 2);
        let_through(a);
        until("all is acknowledged", SOON, || (truth::queues(a).1 == 0).then_some(()));
        let told = lab.retransmissions(a);
        assert!(told.len() >= 2);
        assert!(told.iter().all(|event| event["cause_reason"].is_null()), "{told:#?}");
        assert_eq!(lab.grew(a, "netsonde_tcpretrans_caused_total", &[]), 0);
        assert_eq!(events(&lab.agent, &query(b, "TCPRetrans")).len(), 0);
        lab.agent.stop();
    }
}
