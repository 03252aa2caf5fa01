//! Dropped packets as events: who, with whom, why, where in the kernel; and that told, suppressed and lost are all.

use std::fs;
use std::time::Duration;

use netsonde_tests::events::{events, number, own_sides, text, until_events};
use netsonde_tests::lab::{between, count_input, send, watch};
use netsonde_tests::{Agent, Netns, Pair, needs_programs, needs_root, truth, until};
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, sendto, socket_with};
use serde_json::Value;

fn loss_of(ns: &Netns) -> String {
    format!("type=PacketLoss&pod={}", ns.name())
}

fn drop_at(ns: &Netns, hook: &str, rule: &str) {
    ns.nft(&format!(
        "table inet lab {{
            counter seen {{ }}
            chain c {{
                type filter hook {hook} priority 0
                {rule} counter name seen drop
            }}
        }}"
    ));
}

/// The address as it stands in an event.
fn bare(address: &str) -> String {
    let address: std::net::IpAddr = address.trim_matches(['[', ']']).parse().expect("an address");
    address.to_string()
}

fn seconds_ago(event: &Value) -> f64 {
    let told = text(event, "time");
    let told = humantime::parse_rfc3339(told).unwrap_or_else(|e| panic!("{told}: {e}"));
    told.elapsed().expect("not in the future").as_secs_f64()
}

#[test]
fn a_dropped_datagram_is_told_with_both_ends_reason_place_and_hook() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::new("told");
    let sides = own_sides(&pair);
    let (agent, bystander, before) = watch("[packetloss]", &pair);
    drop_at(&pair.b, "input", "udp dport 6000");
    for (n, (a, b)) in (1..).zip(&sides) {
        let from = pair.a.udp(&format!("{a}:0"));
        let port = from.local_addr().expect("bound").port();
        send(&from, &format!("{b}:6000"), 5, 100);
        let found = until_events(&agent, &loss_of(&pair.b), 5 * n);
        let found = &found[5 * (n - 1)..];
        assert_eq!(found.len(), 5, "{found:#?}");
        for event in found {
            assert_eq!((text(event, "probe"), text(event, "severity")), ("packetloss", "warning"));
            assert_eq!((text(event, "node"), text(event, "namespace")), ("lab", "netns"));
            assert_eq!((text(event, "peer_pod"), text(event, "peer_namespace")), (pair.a.name(), "netns"));
            assert_eq!((text(event, "src"), text(event, "dst")), (bare(a).as_str(), bare(b).as_str()));
            assert_eq!((number(event, "sport"), number(event, "dport")), (port.into(), 6000));
            assert_eq!((text(event, "protocol"), text(event, "reason")), ("udp", "NETFILTER_DROP"));
            assert_eq!((text(event, "direction"), text(event, "device")), ("receive", "eth0"));
            assert_eq!((text(event, "hook"), text(event, "filter")), ("input", "nf_tables"));
            assert!(["nft_do_chain", "nf_hook_slow"].contains(&text(event, "place")), "{event:#}");
            let stack = event["stack"].as_array().expect("a stack");
            let has =
                |function: &str| stack.iter().any(|f| f.as_str().is_some_and(|f| f.starts_with(function)));
            assert!(has("nf_hook_slow+"), "{event:#}");
            assert!(seconds_ago(event) < 60.0);
            assert!(number(event, "length") >= 128);
        }
        let ids: std::collections::HashSet<&str> = found.iter().map(|event| text(event, "id")).collect();
        assert_eq!(ids.len(), 5);
    }
    assert_eq!(truth::nft_counter(&pair.b, "inet", "seen"), 10);
    let after = agent.scrape();
    let labels = [("reason", "NETFILTER_DROP"), ("protocol", "udp"), ("direction", "receive")];
    let drops = between(&before, &after).grew_in_all(&pair.b, "netsonde_packetloss_drops_total", &labels);
    assert_eq!(drops, 10);
    for other in [&pair.a, &bystander] {
        assert_eq!(events(&agent, &loss_of(other)), Vec::<Value>::new());
    }
    agent.stop();
}

#[test]
fn a_closed_port_a_full_buffer_and_a_full_queue_are_told_with_the_kernels_reasons() {
    needs_root!();
    needs_programs!("tc");
    let pair = Pair::new("reasons");
    let sides = own_sides(&pair);
    let (agent, _bystander, _) = watch("[packetloss]", &pair);
    let told = |from: &str, reason: &str| {
        until(&format!("{reason} of what {from} sent"), Duration::from_secs(5), || {
            let found = events(&agent, &loss_of(&pair.b));
            found.into_iter().find(|e| e["src"] == from && e["reason"] == reason)
        })
    };
    for (a, b) in &sides {
        send(&pair.a.udp(&format!("{a}:0")), &format!("{b}:6001"), 1, 100);
        assert_eq!(number(&told(&bare(a), "NO_SOCKET"), "dport"), 6001);

        let to = pair.b.udp(&format!("{b}:6000"));
        rustix::net::sockopt::set_socket_recv_buffer_size(&to, 2048).expect("a buffer can be small");
        send(&pair.a.udp(&format!("{a}:0")), &format!("{b}:6000"), 20, 500);
        let event = told(&bare(a), "SOCKET_RCVBUFF");
        assert_eq!((number(&event, "dport"), text(&event, "direction")), (6000, "receive"));
        assert_eq!(text(&event, "dst"), bare(b));
    }
    pair.a.run("tc qdisc add dev eth0 root tbf rate 100kbit burst 2000 limit 3000");
    let (a, b) = &sides[0];
    send(&pair.a.udp(&format!("{a}:0")), &format!("{b}:6000"), 20, 1000);
    let event = until_events(&agent, &loss_of(&pair.a), 1).remove(0);
    assert!(["QDISC_DROP", "QDISC_OVERLIMIT"].contains(&text(&event, "reason")), "{event:#}");
    assert_eq!((text(&event, "direction"), text(&event, "device")), ("transmit", "eth0"));
    assert_eq!((text(&event, "src"), text(&event, "peer_pod")), (bare(a).as_str(), pair.b.name()));
    agent.stop();
}

#[test]
fn what_is_dropped_on_its_way_out_or_through_is_told_of_the_pod_that_dropped_it() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("way");
    let sides = own_sides(&pair);
    let (a, _) = &sides[0];
    // Behind b: what a sends there goes through b.
    let far = Netns::new("way-far");
    pair.b.veth("eth1", &far, "eth0");
    pair.b.sysctl("net/ipv4/ip_forward", "1");
    pair.b.run("ip addr add 10.99.0.1/24 dev eth1");
    far.run("ip addr add 10.99.0.2/24 dev eth0");
    pair.a.run("ip route add 10.99.0.0/24 via 10.9.0.2");
    let (agent, _bystander, before) = watch("[packetloss]", &pair);
    drop_at(&pair.b, "forward", "udp dport 6000");
    drop_at(&pair.a, "output", "udp dport 6001");
    let from = pair.a.udp(&format!("{a}:0"));
    send(&from, "10.99.0.2:6000", 3, 100);
    for _ in 0..2 {
        // A firewall that drops on the way out says so to the program.
        assert!(from.send_to(&[7; 100], "10.99.0.2:6001").is_err());
    }
    let through = until_events(&agent, &loss_of(&pair.b), 3);
    for event in &through {
        assert_eq!((text(event, "direction"), text(event, "hook")), ("forward", "forward"));
        assert_eq!((text(event, "src"), text(event, "dst")), (bare(a).as_str(), "10.99.0.2"));
        assert_eq!(text(event, "peer_pod"), pair.a.name());
    }
    let out = until_events(&agent, &loss_of(&pair.a), 2);
    for event in &out {
        assert_eq!((text(event, "direction"), text(event, "hook")), ("transmit", "output"));
        assert_eq!(text(event, "src"), bare(a));
    }
    let after = agent.scrape();
    let delta = between(&before, &after);
    let way = |ns, way| delta.grew_in_all(ns, "netsonde_packetloss_drops_total", &[("direction", way)]);
    assert_eq!((way(&pair.b, "forward"), way(&pair.a, "transmit")), (3, 2));
    assert_eq!(truth::nft_counter(&pair.b, "inet", "seen"), 3);
    assert_eq!(truth::nft_counter(&pair.a, "inet", "seen"), 2);
    agent.stop();
}

/// Sends one packet of this protocol whose payload is all its own.
fn send_raw(from: &Netns, to: &str, protocol: u32, payload: &[u8]) {
    let address: std::net::SocketAddr = format!("{to}:0").parse().expect("an address");
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = Protocol::from_raw(protocol.try_into().expect("not 0"));
    from.enter(|| {
        let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))
            .unwrap_or_else(|e| panic!("no raw socket: {e}"));
        sendto(&socket, payload, SendFlags::empty(), &address).unwrap_or_else(|e| panic!("to {to}: {e}"));
    });
}

#[test]
fn every_protocol_has_its_name_and_only_those_with_ports_have_ports() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::new("protocols");
    let sides = own_sides(&pair);
    let (agent, _bystander, _) = watch("[packetloss]", &pair);
    drop_at(&pair.b, "input", "pkttype host meta l4proto { 1, 58, 132, 47 }");
    let echo = |kind: u8| [kind, 0, 0, 0, 0, 1, 0, 1];
    // Source port 1000, destination port 2000, verification tag, checksum.
    let sctp = [0x03, 0xe8, 0x07, 0xd0, 0, 0, 0, 0, 0, 0, 0, 0];
    let cases: [(usize, u32, &[u8], &str); 5] = [
        (0, 1, &echo(8), "icmp"),
        (1, 58, &echo(128), "icmpv6"),
        (0, 132, &sctp, "sctp"),
        (1, 132, &sctp, "sctp"),
        (0, 47, &[0; 8], "47"),
    ];
    for (n, (side, number_of, payload, name)) in (1..).zip(cases) {
        send_raw(&pair.a, &sides[side].1, number_of, payload);
        let found = until_events(&agent, &loss_of(&pair.b), n);
        let event = &found[n - 1];
        assert_eq!(text(event, "protocol"), name, "{event:#}");
        assert_eq!(text(event, "dst"), bare(&sides[side].1));
        let ports = (event["sport"].as_u64(), event["dport"].as_u64());
        assert_eq!(ports, if name == "sctp" { (Some(1000), Some(2000)) } else { (None, None) });
    }
    agent.stop();
}

/// Told, suppressed and lost make up the counter; what a sink has written is what was told.
fn all_are_accounted_for(limit: &str) -> (u64, u64, u64) {
    const DROPS: usize = 100_000;
    let pair = Pair::v4("account");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("events");
    let bystander = Netns::new("bystander");
    let agent = Agent::start(&format!(
        "node_name: lab
probes: [{{name: packetloss, args: {{stacks: false, events: {limit}}}}}]
events: {{per_second: 1000000, burst: 1000000}}
sinks: [{{name: file, args: {{path: {}, queue: {{events: 200000, bytes: 268435456}}}}}}]
",
        file.display()
    ));
    for ns in [&pair.a, &pair.b, &bystander] {
        agent.find(ns.name());
    }
    let before = agent.scrape();
    drop_at(&pair.b, "prerouting", "udp dport 6000");
    send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6000", DROPS, 20);
    let mut before_that = 0;
    let seen = until("all packets have been dealt with", Duration::from_secs(10), || {
        std::thread::sleep(Duration::from_millis(100));
        let now = truth::nft_counter(&pair.b, "inet", "seen");
        (std::mem::replace(&mut before_that, now) == now).then_some(now)
    });
    let own = |line: &&str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        event["pod"] == pair.b.name()
    };
    let account = || {
        let page = agent.scrape();
        let delta = between(&before, &page);
        let drops = delta.grew_in_all(&pair.b, "netsonde_packetloss_drops_total", &[]);
        let suppressed = delta.grew_in_all(&pair.b, "netsonde_packetloss_suppressed_events_total", &[]);
        let lost = delta.grew_in_all(&pair.b, "netsonde_packetloss_lost_events_total", &[]);
        let written = fs::read_to_string(&file).unwrap_or_default();
        // The agent may be in the middle of a line.
        let whole = written.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let told = whole.lines().filter(own).count() as u64;
        (drops, told, suppressed, lost)
    };
    let (drops, told, suppressed, lost) =
        until("every event has come through", Duration::from_secs(20), || {
            let (drops, told, suppressed, lost) = account();
            (told + suppressed + lost == drops).then_some((drops, told, suppressed, lost))
        });
    assert_eq!(drops, seen, "the firewall counts the same");
    let events_of = |page: &netsonde_tests::Page| {
        page.find("netsonde_sink_dropped_events_total", &[("sink", "file"), ("reason", "queue_full")])
    };
    assert_eq!(events_of(&agent.scrape()), Some(0.0));
    agent.stop();
    (told, suppressed, lost)
}

#[test]
fn a_hundred_thousand_drops_are_told_suppressed_or_lost_and_nothing_else() {
    needs_root!();
    needs_programs!("nft");
    let (told, suppressed, _) = all_are_accounted_for("{per_second: 100, burst: 100}");
    assert!(told >= 100 && suppressed > 10_000, "{told} told, {suppressed} suppressed");
    let (told, suppressed, lost) = all_are_accounted_for("{per_second: 1000000, burst: 1000000}");
    netsonde_tests::note(&format!(
        "100,000 drops: {told} told, {suppressed} suppressed, {lost} lost in the ring"
    ));
    assert!(told > 1000);
}

#[test]
fn the_next_event_says_how_many_were_suppressed() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("suppressed");
    let probes = "[{name: packetloss, args: {events: {per_second: 2, burst: 1}}}]";
    let (agent, _bystander, _) = watch(probes, &pair);
    count_input(&pair.b, "udp dport 6001");
    drop_at(&pair.b, "input", "udp dport 6000");
    let from = pair.a.udp("10.9.0.1:0");
    // On one CPU, because each CPU has a limit of its own.
    let cpu = rustix::thread::sched_getcpu();
    let mut only = rustix::thread::CpuSet::new();
    only.set(cpu);
    rustix::thread::sched_setaffinity(None, &only).expect("a CPU that it runs on");
    send(&from, "10.9.0.2:6000", 8, 100);
    let first = until_events(&agent, &loss_of(&pair.b), 1).remove(0);
    assert!(first["suppressed"].is_null(), "{first:#}");
    std::thread::sleep(Duration::from_millis(600));
    send(&from, "10.9.0.2:6000", 1, 100);
    let second = until_events(&agent, &loss_of(&pair.b), 2).remove(1);
    assert_eq!(number(&second, "suppressed"), 7);
    agent.stop();
}
