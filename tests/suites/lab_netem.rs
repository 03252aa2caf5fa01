//! A delay that netem makes: what waits for it is found in its bucket, or the next one, and each event says how long.
//!
//! It runs in the VMs of `tests/kernels`, whose kernels have netem. Where a kernel has none, `lab_queues` and
//! `lab_latency` hold the same probes against a shaper.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use netsonde_tests::events::{number, own_sides, text, until_events};
use netsonde_tests::histogram::{bucket, buckets};
use netsonde_tests::lab::{between, receive, send, watch};
use netsonde_tests::{Netns, Page, Pair, needs, needs_programs, needs_root, shell, truth, until};
use serde_json::Value;

const QDISC: &str = "netsonde_netiftxlatency_qdisc_seconds";
const TRANSMIT: &str = "netsonde_kernellatency_transmit_seconds";
const STACK: &str = "netsonde_kernellatency_transmit_stack_seconds";
const RECEIVE: &str = "netsonde_kernellatency_receive_seconds";
const SOON: Duration = Duration::from_secs(10);

const DELAYS_MS: [u64; 2] = [50, 200];
const PACKETS: usize = 8;

/// Delays what `ns` sends by eth0; `None` where the kernel cannot.
fn delay(ns: &Netns, milliseconds: u64) -> Option<()> {
    let line = format!("tc qdisc add dev eth0 root netem delay {milliseconds}ms limit 1000");
    shell::output(ns.command("env").args(line.split(' '))).status.success().then_some(())
}

const NO_NETEM: &str = "this kernel has no netem";

/// Every packet between two pages was `delay` late, within a bucket; gives how many there were.
fn assert_late(before: &Page, after: &Page, ns: &Netns, histogram: &str, delay: u64) -> u64 {
    let counts = buckets(before, after, ns, histogram, &[]);
    for (at, count) in counts.iter().enumerate() {
        let right = at.abs_diff(bucket(delay)) <= 1;
        assert!(*count == 0 || right, "{histogram}: {delay} ns belongs to {}: {counts:?}", bucket(delay));
    }
    counts.iter().sum()
}

/// An event of a packet from `a` that was `delay` late.
fn assert_told(event: &Value, sides: &(String, String), delay: u64) {
    let latency = number(event, "latency_ns");
    assert!(bucket(latency).abs_diff(bucket(delay)) <= 1, "{delay} ns: {event:#}");
    let bare = |address: &str| address.trim_matches(['[', ']']).to_owned();
    let ends = (text(event, "src").to_owned(), text(event, "dst").to_owned());
    assert_eq!(ends, (bare(&sides.0), bare(&sides.1)));
    assert_eq!(text(event, "device"), "eth0");
}

#[test]
fn datagrams_that_are_held_back_have_waited_in_the_queue_for_as_long() {
    needs_root!();
    needs_programs!("tc");
    for milliseconds in DELAYS_MS {
        let delay_ns = milliseconds * 1_000_000;
        let pair = Pair::v4("datagrams");
        let sides = own_sides(&pair).swap_remove(0);
        let probe = "{name: netiftxlatency, args: {slow: 20ms, events: {per_second: 1000, burst: 1000}}}";
        let (agent, bystander, before) = watch(&format!("[{probe}]"), &pair);
        needs!(delay(&pair.a, milliseconds), NO_NETEM);
        let to = pair.b.udp(&format!("{}:6000", sides.1));
        send(&pair.a.udp(&format!("{}:0", sides.0)), &format!("{}:6000", sides.1), PACKETS, 500);
        receive(&to, PACKETS);

        let packets = truth::root_qdisc(&pair.a, "eth0", "packets");
        assert_eq!(packets, PACKETS as u64);
        let after = until("all have left the queue", SOON, || {
            let page = agent.scrape();
            let grown = between(&before, &page).grew_in_all(&pair.a, &format!("{QDISC}_count"), &[]);
            (grown >= packets).then_some(page)
        });
        assert_eq!(assert_late(&before, &after, &pair.a, QDISC, delay_ns), packets);
        let pod = after.pod(pair.a.name());
        assert_eq!(pod.total("netsonde_netiftxlatency_unmatched_packets_total", &[]), 0);
        let query = format!("pod={}&type=TXLAT_QDISC_100MS&last=1000", pair.a.name());
        let told = until_events(&agent, &query, PACKETS);
        assert_eq!(told.len(), PACKETS);
        for event in &told {
            assert_told(event, &sides, delay_ns);
            assert_eq!((text(event, "protocol"), text(event, "qdisc")), ("udp", "netem"));
            assert_eq!((number(event, "dport"), text(event, "peer_pod")), (6000, pair.b.name()));
        }
        let over = told.iter().filter(|event| number(event, "latency_ns") > 100_000_000).count();
        let delta = between(&before, &after);
        let over_100ms = "netsonde_netiftxlatency_qdisc_over_100ms_packets_total";
        assert_eq!(delta.grew(&pair.a, over_100ms, &[]), over as u64);
        for other in [&pair.b, &bystander] {
            assert_eq!(after.pod(other.name()).total(&format!("{QDISC}_count"), &[]), 0);
        }
        agent.stop();
    }
}

#[test]
fn segments_that_are_held_back_are_as_late_at_the_driver_and_not_before_the_queue() {
    needs_root!();
    needs_programs!("tc");
    for milliseconds in DELAYS_MS {
        let delay_ns = milliseconds * 1_000_000;
        let pair = Pair::v4("segments");
        let sides = own_sides(&pair).swap_remove(0);
        let probe = "{name: kernellatency, args: {slow: 20ms, events: {per_second: 1000, burst: 1000}}}";
        let (agent, bystander, before) = watch(&format!("[{probe}]"), &pair);
        needs!(delay(&pair.a, milliseconds), NO_NETEM);
        let address = format!("{}:7000", sides.1);
        let listener = pair.b.listen(&address, 16);
        let mut client = pair.a.connect(&address);
        let (mut server, _) = listener.accept().expect("a connection");
        for _ in 0..PACKETS {
            client.write_all(&[1; 100]).expect("a connection takes bytes");
            server.read_exact(&mut [0; 100]).expect("they arrive");
        }
        until("all is acknowledged", SOON, || (truth::queues(&pair.a).1 == 0).then_some(()));

        let of = |field| truth::mib(&pair.a, "snmp", "Tcp", field);
        // Each on its own: SYN, acknowledgement and segments, and what the delay made TCP send again.
        let settled = until("what was sent has gone", SOON, || {
            let sent = of("OutSegs") + of("RetransSegs");
            let page = agent.scrape();
            let grown = between(&before, &page).grew_in_all(&pair.a, &format!("{TRANSMIT}_count"), &[]);
            (grown == sent && truth::root_qdisc(&pair.a, "eth0", "packets") == sent).then_some((page, sent))
        });
        let (after, sent) = settled;
        assert!(sent >= 2 + PACKETS as u64, "{sent}");
        assert_eq!(assert_late(&before, &after, &pair.a, TRANSMIT, delay_ns), sent);
        let stack = buckets(&before, &after, &pair.a, STACK, &[]);
        let late: u64 = stack.iter().skip(bucket(delay_ns)).sum();
        assert_eq!((stack.iter().sum::<u64>(), late), (sent, 0), "the wait comes after: {stack:?}");
        let query = format!("pod={}&type=TXKERNEL_SLOW&last=1000", pair.a.name());
        let told = until_events(&agent, &query, usize::try_from(sent).expect("a few"));
        assert_eq!(told.len() as u64, sent);
        for event in &told {
            assert_told(event, &sides, delay_ns);
            assert_eq!((text(event, "protocol"), &event["forwarded"]), ("tcp", &false.into()));
            assert_eq!((number(event, "dport"), text(event, "peer_pod")), (7000, pair.b.name()));
        }
        // The way in begins where it arrives: the delay is no part of it.
        let arrived = buckets(&before, &after, &pair.b, RECEIVE, &[]);
        let late: u64 = arrived.iter().skip(bucket(delay_ns)).sum();
        assert!(arrived.iter().sum::<u64>() > 0 && late == 0, "{arrived:?}");
        assert_eq!(after.pod(bystander.name()).total(&format!("{TRANSMIT}_count"), &[]), 0);
        drop(server);
        agent.stop();
    }
}
