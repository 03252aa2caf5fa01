//! Programs of several probes at one tracepoint: one is attached, all see what passes, and none misses anything while
//! others come and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netsonde_tests::lab::{Ends, between, count_and_drop_input, send, watch};
use netsonde_tests::wait::until_true;
use netsonde_tests::{Agent, Pair, needs_programs, needs_root, truth};

/// Two of them or more, by what the kernel has, have a program at skb:kfree_skb.
const ALL: [&str; 4] = ["packetloss", "netiftxlatency", "tcpretrans", "tcpreset"];
const PLACE: &str = "kfree_skb";

/// How many programs of the agent are attached to each tracepoint, by the kernel's list of its descriptors.
fn attached(agent: &Agent) -> BTreeMap<String, usize> {
    let mut attached = BTreeMap::new();
    for text in agent.fdinfo() {
        if let Some(name) = text.lines().find_map(|line| line.strip_prefix("tp_name:")) {
            *attached.entry(name.trim().to_owned()).or_default() += 1;
        }
    }
    attached
}

fn list(probes: &[&str]) -> String {
    format!("[{}]", probes.join(", "))
}

#[test]
fn a_tracepoint_has_one_attached_program_however_many_probes_are_there() {
    needs_root!();
    let config = format!("node_name: lab\nprobes: {}\n", list(&ALL));
    let agent = Agent::start(&config);
    let tracepoints = attached(&agent);
    assert_eq!(tracepoints.get(PLACE), Some(&1), "{tracepoints:?}");
    assert!(tracepoints.values().all(|programs| *programs == 1), "{tracepoints:?}");
    agent.stop();
    let agent = Agent::start_without_rungs("relay", &config);
    let apart = attached(&agent);
    assert!(apart.get(PLACE).is_some_and(|programs| *programs > 1), "each has its own: {apart:?}");
    agent.stop();
}

/// Gives the agent these probes, and waits until it has them.
fn become_probes(agent: &Agent, probes: &[&str]) {
    let reloads = || agent.scrape().count("netsonde_config_reloads_total", &[("result", "ok")]);
    let before = reloads();
    agent.write_config(&format!("node_name: lab\nprobes: {}\n", list(probes)));
    until_true("the configuration is taken", Duration::from_secs(20), || reloads() > before);
    std::thread::sleep(Duration::from_millis(200));
}

#[test]
fn a_probe_misses_nothing_while_others_come_and_go_at_its_tracepoints() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("relay");
    count_and_drop_input(&pair.b, "udp dport 6000");
    // Who comes last is the first to run, so the other one is behind packetloss until it goes, and later before it.
    let (agent, _bystander, _) = watch("[netiftxlatency]", &pair);
    become_probes(&agent, &["netiftxlatency", "packetloss"]);
    let before = agent.scrape();
    let from = pair.a.udp("10.9.0.1:0");
    let done = AtomicBool::new(false);
    let orders: [&[&str]; 5] =
        [&ALL, &["packetloss", "tcpreset"], &ALL, &["packetloss"], &["netiftxlatency", "packetloss"]];
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                send(&from, "10.9.0.2:6000", 50, 20);
                sent += 50;
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let ends = Ends(&done);
        for probes in orders {
            become_probes(&agent, probes);
        }
        drop(ends);
        sending.join().expect("it sends")
    });
    assert!(sent > 10_000, "{sent}");
    let seen = || truth::nft_counter(&pair.b, "inet", "seen");
    until_true("all of them were dropped", Duration::from_secs(5), || seen() == sent);
    let after = agent.scrape();
    let counted = between(&before, &after).grew(&pair.b, "netsonde_packetloss_netfilter_packets_total", &[]);
    assert_eq!(counted, sent);
    assert_eq!(attached(&agent).get(PLACE), Some(&1));
    agent.stop();
}
