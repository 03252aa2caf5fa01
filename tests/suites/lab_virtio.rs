//! Commands to a virtio card that nobody uses: each is counted under its name and told with who waited. Where the kernel
//! lets nobody look, it is said why.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use netsonde_tests::events::{events, number, text};
use netsonde_tests::{Agent, Page, needs, needs_root, shell, until};
use serde_json::Value;

const HOST: &str = "hostNetwork";

/// What `/status` says of a probe.
fn status(agent: &Agent, probe: &str) -> Value {
    let status = agent.status();
    let probes = status["probes"].as_array().expect("a list of probes");
    probes.iter().find(|p| p["name"] == probe).unwrap_or_else(|| panic!("no {probe} in {status:#}")).clone()
}

/// A virtio network device that nobody uses: it is down.
fn unused_card() -> Option<String> {
    let cards = fs::read_dir("/sys/class/net").ok()?;
    let names = cards.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.into_iter().find(|name| {
        let of = |file: &str| PathBuf::from(format!("/sys/class/net/{name}/{file}"));
        let virtio = fs::read_link(of("device/driver")).is_ok_and(|path| path.ends_with("virtio_net"));
        let flags = fs::read_to_string(of("flags")).unwrap_or_default();
        let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16);
        virtio && flags.is_ok_and(|flags| flags & 1 == 0)
    })
}

const VIRTCMD: &str = "node_name: lab
probes:
  - name: virtcmdlatency
    args: {slow: 0s, events: {per_second: 1000, burst: 1000}}
";

#[test]
fn commands_to_a_virtio_card_are_timed_or_it_is_said_why_they_are_not() {
    needs_root!();
    let agent = Agent::start(VIRTCMD);
    let status = status(&agent, "virtcmdlatency");
    if status["state"] == "unsupported" {
        let why = text(&status, "reason");
        assert!(why.contains("virtnet_send_command"), "{why}");
        let page = agent.scrape();
        let of = [("probe", "virtcmdlatency"), ("state", "unsupported")];
        assert_eq!(page.count("netsonde_probe_state", &of), 1);
        assert_eq!(page.samples.iter().filter(|s| s.name.starts_with("netsonde_virtcmdlatency_")).count(), 0);
        return agent.stop();
    }
    assert_eq!(status["state"], "running", "{status:#}");
    let slow = |page: &Page| page.pod(HOST).count("netsonde_virtcmdlatency_slow_commands_total", &[]);
    // From the start, so that a rate does not miss the first one.
    slow(&agent.scrape());
    let card = needs!(unused_card(), "there is no virtio card that is down");
    let set = |words: &str| {
        shell::run(&mut shell::words(&format!("ip link set {card} {words}")));
    };
    let count = |page: &Page, class, command| {
        let labels = [("class", class), ("command", command)];
        page.pod(HOST).total("netsonde_virtcmdlatency_command_seconds_count", &labels)
    };
    set("up");
    // A change of the mode is two or three commands, which newer kernels send from a thread of their own.
    let quiet = || {
        let mut last = u64::MAX;
        until("the commands have been sent", Duration::from_secs(20), || {
            std::thread::sleep(Duration::from_millis(300));
            let page = agent.scrape();
            let now = slow(&page);
            (std::mem::replace(&mut last, now) == now).then_some(page)
        })
    };
    let before = quiet();
    for round in 0..3 {
        set(&format!("address 02:09:00:00:01:0{round}"));
        for mode in ["on", "off"] {
            let already = count(&quiet(), "rx", "promisc");
            set(&format!("promisc {mode}"));
            until("the mode has been set", Duration::from_secs(20), || {
                (count(&agent.scrape(), "rx", "promisc") > already).then_some(())
            });
        }
    }
    let after = quiet();
    let grew = |class, command| count(&after, class, command) - count(&before, class, command);
    assert_eq!(grew("mac", "addr_set"), 3);
    assert!(grew("rx", "promisc") >= 6, "{}", grew("rx", "promisc"));
    assert_eq!(grew("rx", "allmulti"), grew("rx", "promisc"), "the driver sends both each time");
    assert_eq!(after.pod(HOST).count("netsonde_virtcmdlatency_failed_commands_total", &[]), 0);
    set("down");
    let page = quiet();
    let told = until("every command is told", Duration::from_secs(3), || {
        let told = events(&agent, "last=1000&probe=virtcmdlatency");
        (told.len() as u64 == slow(&page)).then_some(told)
    });
    for (class, command) in [("rx", "promisc"), ("mac", "addr_set")] {
        let told: Vec<_> = told.iter().filter(|event| text(event, "command") == command).collect();
        assert_eq!(told.len() as u64, count(&page, class, command));
        for event in told {
            assert_eq!((text(event, "type"), text(event, "class")), ("VIRTCMDEXCUTE", class));
            assert_eq!((&event["ok"], text(event, "pod")), (&Value::Bool(true), HOST));
            let comm = text(event, "comm");
            assert!(comm == "ip" || class == "rx" && comm.starts_with("kworker/"), "{event:#}");
            assert!(number(event, "latency_ns") > 0 && number(event, "pid") > 0, "{event:#}");
        }
    }
    agent.stop();
}
