//! What arrives: every datagram and every segment once, also under a flood.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use netsonde_tests::events::{number, own_sides, text, until_events};
use netsonde_tests::lab::{between, receive, send, watch};
use netsonde_tests::{Agent, Netns, Page, Pair, needs_programs, needs_root, note, truth, until};

use super::{RECEIVE, SOON, acknowledged, assert_nothing_measured, connection, probe};

const BACKLOG: &str = "netsonde_kernellatency_receive_backlog_seconds";

/// By how much a histogram's count grew in `ns`.
fn grew(before: &Page, agent: &Agent, ns: &Netns, histogram: &str, labels: &[(&str, &str)]) -> u64 {
    between(before, &agent.scrape()).grew_in_all(ns, &format!("{histogram}_count"), labels)
}

/// How many of so many packets a busy kernel may leave out, by what was seen: up to 1 %, most often none. It runs no
/// program that it has interrupted; why it leaves out others is not known.
fn missed(packets: u64) -> u64 {
    packets / 50
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
