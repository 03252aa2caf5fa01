//! The agent where something is missing, where it is killed, and where its probes change under traffic.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netsonde_tests::agent::binary;
use netsonde_tests::events::{text, until_events};
use netsonde_tests::lab::{Ends, between, send, watch};
use netsonde_tests::wait::until_true;
use netsonde_tests::{Agent, Netns, Pair, needs_programs, needs_root, shell, truth, until};
use rustix::process::Signal;
use serde_json::Value;

const EBPF: [&str; 3] = ["packetloss", "tcpreset", "tcpretrans"];

fn entry<'a>(list: &'a Value, probe: &str) -> &'a Value {
    let list = list.as_array().expect("a list of probes");
    list.iter().find(|p| p["name"] == probe).unwrap_or_else(|| panic!("no {probe}: {list:#?}"))
}

#[test]
fn without_the_rights_for_ebpf_those_probes_are_unsupported_and_the_others_work() {
    needs_root!();
    let agent =
        Agent::start_without("bpf,-perfmon,-sys_admin", "probes: [packetloss, tcpreset, tcpretrans, udp]\n");
    let status = agent.status();
    for probe in EBPF {
        let entry = entry(&status["probes"], probe);
        assert_eq!(entry["state"], "unsupported", "{entry:#}");
        assert!(text(entry, "reason").contains("CAP_BPF"), "{entry:#}");
    }
    assert_eq!(entry(&status["probes"], "udp")["state"], "running");
    let page = agent.scrape();
    assert!(page.pod("hostNetwork").total("netsonde_udp_in_datagrams_total", &[]) > 0);
    assert_eq!(page.count("netsonde_probe_state", &[("probe", "tcpreset"), ("state", "unsupported")]), 1);
    agent.stop();
}

#[test]
fn without_cap_syslog_events_have_addresses_for_names_and_the_status_says_so() {
    needs_root!();
    needs_programs!("nft");
    let agent = Agent::start_without("syslog", "probes: [packetloss]\n");
    let pair = Pair::v4("syslog");
    agent.find(pair.b.name());
    let status = agent.status();
    let hooks = entry(&status["probes"], "packetloss")["hooks"].as_array().expect("hooks").clone();
    let names = hooks.iter().find(|h| h["name"] == "names of kernel functions").expect("it is told");
    assert_eq!(names["state"], "unsupported", "{names:#}");
    assert!(text(names, "how").contains("CAP_SYSLOG"), "{names:#}");
    send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6001", 1, 100);
    let event = until_events(&agent, &format!("pod={}", pair.b.name()), 1).remove(0);
    assert_eq!(text(&event, "reason"), "NO_SOCKET");
    assert!(event["place"].is_null(), "{event:#}");
    let stack = event["stack"].as_array().expect("a stack");
    assert!(stack.iter().all(|f| f.as_str().is_some_and(|f| f.starts_with("0x"))), "{event:#}");
    agent.stop();
}

#[test]
fn without_btf_the_reason_names_it() {
    needs_root!();
    let hidden = "mount --bind /dev/null /sys/kernel/btf/vmlinux && exec \"$0\" probes --output json";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", hidden]).arg(binary());
    let answer = shell::output(&mut command);
    let probes: Value = serde_json::from_slice(&answer.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&answer.stderr)));
    for probe in EBPF {
        let entry = entry(&probes, probe);
        assert_eq!(entry["state"], "unsupported", "{entry:#}");
        assert!(text(entry, "reason").contains("BTF"), "{entry:#}");
    }
    assert_eq!(entry(&probes, "tcp")["state"], "running");
}

/// The ids of the kernel's programs and maps that a process holds.
fn held(agent: &Agent) -> (Vec<u32>, Vec<u32>) {
    let (mut programs, mut maps) = (Vec::new(), Vec::new());
    for line in agent.fdinfo().iter().flat_map(|text| text.lines()) {
        let of = |key: &str| line.strip_prefix(key).and_then(|id| id.trim().parse::<u32>().ok());
        programs.extend(of("prog_id:"));
        maps.extend(of("map_id:"));
    }
    (programs, maps)
}

fn loaded() -> (Vec<u32>, Vec<u32>) {
    let programs = aya::programs::loaded_programs().filter_map(Result::ok).map(|p| p.id());
    let maps = aya::maps::loaded_maps().filter_map(Result::ok).map(|m| m.id());
    (programs.collect(), maps.collect())
}

#[test]
fn an_agent_that_is_killed_under_traffic_leaves_nothing_behind() {
    needs_root!();
    let pair = Pair::v4("killed");
    let (mut agent, _bystander, _) = watch("[packetloss, tcpreset, tcpretrans]", &pair);
    let (programs, maps) = held(&agent);
    assert!(programs.len() >= 5 && maps.len() >= 5, "{programs:?} {maps:?}");
    let left = || {
        let now = loaded();
        programs.iter().filter(|id| now.0.contains(id)).count()
            + maps.iter().filter(|id| now.1.contains(id)).count()
    };
    assert!(left() >= 10, "they are loaded");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let from = pair.a.udp("10.9.0.1:0");
            while !done.load(Ordering::Relaxed) {
                // An answer to an earlier one may stand in the way of this one.
                let _ = from.send_to(&[7; 100], "10.9.0.2:6001");
            }
        });
        let _until_here = Ends(&done);
        std::thread::sleep(Duration::from_millis(300));
        agent.process().signal(Signal::KILL);
        agent.process().wait(Duration::from_secs(5)).expect("nothing survives SIGKILL");
        until_true("its programs and maps are gone", Duration::from_secs(30), || left() == 0);
    });
    for ns in [&pair.a, &pair.b] {
        for line in ["tc filter show dev eth0 ingress", "tc filter show dev eth0 egress"] {
            assert_eq!(ns.run(line), "");
        }
        assert!(!ns.run("tc qdisc show dev eth0").contains("clsact"));
    }
    assert!(!std::path::Path::new("/sys/fs/bpf/netsonde").exists());
}

#[test]
fn a_reload_under_traffic_loses_no_count_of_the_probes_that_stay() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("stays");
    let bystander = Netns::new("bystander");
    let agent = Agent::start("probes: [packetloss, tcpreset]\nnode_name: lab\n");
    for ns in [&pair.a, &pair.b, &bystander] {
        agent.find(ns.name());
    }
    pair.b.nft(
        "table inet lab {
            counter seen { }
            chain c {
                type filter hook prerouting priority 0
                udp dport 6000 counter name seen drop
            }
        }",
    );
    let before = agent.scrape();
    let sets = ["[packetloss, tcpretrans]", "[packetloss, udp, tcpreset]", "[packetloss]"];
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let from = pair.a.udp("10.9.0.1:0");
            for _ in 0..300 {
                send(&from, "10.9.0.2:6000", 100, 20);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        for (n, set) in (2..).zip(sets) {
            std::thread::sleep(Duration::from_millis(200));
            agent.write_config(&format!("probes: {set}\nnode_name: lab\n"));
            until("it is in force", Duration::from_secs(10), || {
                let taken = agent.scrape().count("netsonde_config_reloads_total", &[("result", "ok")]);
                (taken >= n).then_some(())
            });
        }
        flood.join().expect("the flood ended well");
    });
    std::thread::sleep(Duration::from_millis(100));
    let after = agent.scrape();
    let seen = truth::nft_counter(&pair.b, "inet", "seen");
    assert!(seen > 20_000, "{seen}");
    let delta = between(&before, &after);
    assert_eq!(delta.grew(&pair.b, "netsonde_packetloss_netfilter_packets_total", &[]), seen);
    assert_eq!(after.count("netsonde_probe_restarts_total", &[("probe", "packetloss")]), 0);
    agent.stop();
}
