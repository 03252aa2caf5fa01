//! Programs of several probes at one tracepoint: one is attached, all see what passes, and none misses anything while
//! others come and go.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netsonde_tests::lab::{between, send, watch};
use netsonde_tests::wait::until_true;
use netsonde_tests::{Agent, Page, Pair, needs_programs, needs_root, truth};

/// Two of them or more, by what the kernel has, have a program at skb:kfree_skb.
const ALL: [&str; 4] = ["packetloss", "netiftxlatency", "tcpretrans", "tcpreset"];
const PLACE: &str = "kfree_skb";

/// How many programs of the agent are attached to each tracepoint, by the kernel's list of its descriptors.
fn attached(agent: &Agent) -> BTreeMap<String, usize> {
    let folder = format!("/proc/{}/fdinfo", agent.pid());
    let mut attached = BTreeMap::new();
    for entry in fs::read_dir(&folder).expect("a folder of the process").flatten() {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
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

#[test]
fn a_probe_misses_nothing_while_others_come_and_go_at_its_tracepoints() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("relay");
    let (agent, _bystander, before) = watch("[packetloss]", &pair);
    pair.b.nft(
        "table inet lab {
            counter seen { }
            chain in {
                type filter hook input priority 0
                udp dport 6000 counter name seen drop
            }
        }",
    );
    let from = pair.a.udp("10.9.0.1:0");
    let done = AtomicBool::new(false);
    let reloads = |page: &Page| page.count("netsonde_config_reloads_total", &[("result", "ok")]);
    // Before it and behind it, first and last, one and several.
    let orders: [&[&str]; 6] =
        [&ALL, &["packetloss", "tcpreset"], &ALL, &["netiftxlatency", "packetloss"], &ALL, &["packetloss"]];
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
        for probes in orders {
            let then = reloads(&agent.scrape());
            agent.write_config(&format!("node_name: lab\nprobes: {}\n", list(probes)));
            until_true("the configuration is taken", Duration::from_secs(20), || {
                reloads(&agent.scrape()) > then
            });
            std::thread::sleep(Duration::from_millis(200));
        }
        done.store(true, Ordering::Relaxed);
        sending.join().expect("it sends")
    });
    assert!(sent > 10_000, "{sent}");
    let after = agent.scrape();
    assert_eq!(truth::nft_counter(&pair.b, "inet", "seen"), sent);
    let counted = between(&before, &after).grew(&pair.b, "netsonde_packetloss_netfilter_packets_total", &[]);
    assert_eq!(counted, sent);
    assert_eq!(attached(&agent).get(PLACE), Some(&1));
    agent.stop();
}
