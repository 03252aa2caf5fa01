//! Connections that a listening socket refuses: told with the pod, the socket and the process; counted as the kernel does.

use std::path::Path;
use std::time::Duration;

use netsonde_tests::events::{events, number, own_sides, text, until_events};
use netsonde_tests::lab::between;
use netsonde_tests::worker::Worker;
use netsonde_tests::{Agent, Netns, Pair, needs_root, truth, until};
use serde_json::Value;

const PROBES: &str =
    "probes: [{name: packetloss, args: {listeners: 200ms, events: {per_second: 100, burst: 100}}}]";

fn worker() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_netsonde-lab-worker"))
}

fn refusals_of(ns: &Netns) -> String {
    format!("type=PacketLoss&pod={}", ns.name())
}

fn is_refusal(event: &Value) -> bool {
    event.get("listener").is_some()
}

/// How many refusals the events tell of, with those that they say were held back.
fn told(agent: &Agent, ns: &Netns) -> u64 {
    let all = events(agent, &refusals_of(ns));
    all.iter().filter(|e| is_refusal(e)).map(|e| 1 + e["suppressed"].as_u64().unwrap_or_default()).sum()
}

/// Twenty connections to a socket that takes two; then all are let go, so that nothing is sent any more.
fn overflow(pair: &Pair, address: &str) {
    let waiting: Vec<_> = (0..20).map(|_| pair.a.begin_connect(address)).collect();
    until("connections were refused", Duration::from_secs(10), || {
        (truth::mib(&pair.b, "netstat", "TcpExt", "ListenOverflows") >= 20).then_some(())
    });
    drop(waiting);
}

fn overflows_are_told(hint: &str, side: usize, listens: &str, listener: &str, early: bool) {
    let pair = Pair::new(hint);
    let sides = own_sides(&pair);
    pair.b.sysctl("net/ipv4/tcp_syncookies", "0");
    let listen = || Worker::start(worker(), &pair.b, listens);
    let from_before = early.then(listen);
    let agent = Agent::start(&format!("node_name: lab\n{PROBES}\n"));
    agent.find(pair.a.name());
    agent.find(pair.b.name());
    let process = from_before.unwrap_or_else(listen);
    let address = format!("{}:7000", sides[side].1);
    let before = agent.scrape();
    overflow(&pair, &address);

    let found = until_events(&agent, &refusals_of(&pair.b), 1);
    let event = found.iter().find(|e| is_refusal(e)).unwrap_or_else(|| panic!("no refusal: {found:#?}"));
    assert_eq!(
        (text(event, "namespace"), text(event, "reason")),
        ("netns", "TCP_LISTEN_OVERFLOW"),
        "{event:#}"
    );
    assert_eq!((text(event, "listener"), text(event, "direction")), (listener, "receive"));
    assert_eq!(number(event, "listener_pid"), u64::from(process.pid()), "{event:#}");
    assert_eq!(text(event, "listener_comm"), "netsonde-lab-wo");
    assert_eq!((number(event, "accept_queue"), number(event, "accept_queue_limit")), (2, 1));

    // What was sent before all were let go may still arrive.
    let overflows = || truth::mib(&pair.b, "netstat", "TcpExt", "ListenOverflows");
    let refused = until("counter and events have it all", Duration::from_secs(10), || {
        let truth = overflows();
        let after = agent.scrape();
        let counted =
            between(&before, &after).grew(&pair.b, "netsonde_packetloss_listener_refusals_total", &[]);
        (counted == truth && told(&agent, &pair.b) == truth && overflows() == truth).then_some(truth)
    });
    assert!(refused >= 20);
    assert_eq!(truth::mib(&pair.b, "netstat", "TcpExt", "ListenDrops"), refused);
    let after = agent.scrape();
    assert_eq!(between(&before, &after).grew(&pair.a, "netsonde_packetloss_listener_refusals_total", &[]), 0);
    // Where the function that refuses can be hooked, its packet is at hand.
    let all = events(&agent, &refusals_of(&pair.b));
    if let Some(with_packet) = all.iter().filter(|e| is_refusal(e)).find(|e| e.get("src").is_some()) {
        assert_eq!((number(with_packet, "dport"), text(with_packet, "protocol")), (7000, "tcp"));
        assert_eq!(text(with_packet, "peer_pod"), pair.a.name());
    } else {
        netsonde_tests::note("tcp_conn_request cannot be hooked here: refusals are told without the client");
    }
    agent.stop();
}

#[test]
fn a_full_accept_queue_is_told_with_the_listener_and_its_process() {
    needs_root!();
    overflows_are_told("listen4", 0, "listens4=7000", "0.0.0.0:7000", false);
}

#[test]
fn a_listener_from_before_the_agent_is_known_too_over_ipv6() {
    needs_root!();
    overflows_are_told("listen6", 1, "listens6=7000", "[::]:7000", true);
}

#[test]
fn a_listener_that_takes_everything_is_not_told_of() {
    needs_root!();
    let pair = Pair::v4("listening");
    let agent = Agent::start(&format!("node_name: lab\n{PROBES}\n"));
    agent.find(pair.b.name());
    let before = agent.scrape();
    let listener = pair.b.listen("10.9.0.2:7000", 64);
    let clients: Vec<_> = (0..20).map(|_| pair.a.connect("10.9.0.2:7000")).collect();
    let after = agent.scrape();
    assert_eq!(between(&before, &after).grew(&pair.b, "netsonde_packetloss_listener_refusals_total", &[]), 0);
    assert_eq!(told(&agent, &pair.b), 0);
    drop((clients, listener));
    agent.stop();
}

#[test]
fn what_a_socket_refused_is_told_at_the_latest_when_it_is_closed() {
    needs_root!();
    let pair = Pair::v4("closed");
    pair.b.sysctl("net/ipv4/tcp_syncookies", "0");
    let agent = Agent::start(&format!("node_name: lab\n{}\n", PROBES.replace("200ms", "1h")));
    agent.find(pair.b.name());
    let process = Worker::start(worker(), &pair.b, "listens4=7000");
    let id = process.pid();
    overflow(&pair, "10.9.0.2:7000");
    drop(process);
    // No scrape meanwhile: it would look.
    let truth = truth::mib(&pair.b, "netstat", "TcpExt", "ListenOverflows");
    until("all is told", Duration::from_secs(10), || (told(&agent, &pair.b) >= truth).then_some(()));
    assert_eq!(told(&agent, &pair.b), truth);
    let found = events(&agent, &refusals_of(&pair.b));
    assert!(
        found.iter().filter(|e| is_refusal(e)).all(|e| number(e, "listener_pid") == u64::from(id)),
        "{found:#?}"
    );
    agent.stop();
}
