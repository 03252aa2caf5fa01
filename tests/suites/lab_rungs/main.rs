//! Every way into the kernel that a probe has, one below the other: with the upper ones taken away, the next one that
//! this kernel offers is attached, and faults of a known number are counted as exactly.
//!
//! `NETSONDE_RUNGS` names a file to which it adds, as JSON lines, which rung held: `tests/kernels/run.sh` finds there
//! those that hold on no kernel.

mod faults;
mod offer;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;

use netsonde_tests::{Agent, needs_programs, needs_root, note};
use serde_json::{Value, json};

use faults::assert_counted;
use offer::offered;

/// The probes that have programs.
const PROBES: [&str; 10] = [
    "biolatency",
    "flow",
    "kernellatency",
    "net_softirq",
    "netiftxlatency",
    "packetloss",
    "socketlatency",
    "tcpreset",
    "tcpretrans",
    "virtcmdlatency",
];

/// What is taken away in turn.
const WITHOUT: [&str; 6] =
    ["", "relay", "tp_btf", "fentry,fexit", "fentry,fexit,kprobe,kretprobe", "tp_btf block_io_start"];

fn start(without: &str) -> Agent {
    Agent::start_without_rungs(without, &format!("node_name: lab\nprobes: [{}]\n", PROBES.join(", ")))
}

fn left(rung: &str, without: &str) -> bool {
    without.split(',').all(|gone| rung != gone && rung.split(' ').next() != Some(gone))
}

fn probe<'a>(status: &'a Value, name: &str) -> &'a Value {
    let probes = status["probes"].as_array().expect("a list of probes");
    probes.iter().find(|probe| probe["name"] == name).unwrap_or_else(|| panic!("no {name} in {status:#}"))
}

fn hooks(probe: &Value) -> &[Value] {
    probe["hooks"].as_array().expect("a list of hooks")
}

/// The rungs of a hook; none where there is nothing to choose.
fn ladder(hook: &Value) -> Vec<&str> {
    let rungs = hook["rungs"].as_array().expect("a list of rungs").iter();
    rungs.map(|rung| rung.as_str().expect("a text")).collect()
}

/// Notes which rung held, for whoever runs this on several kernels.
fn record(status: &Value, without: &str) {
    let Some(path) = std::env::var_os("NETSONDE_RUNGS") else { return };
    let mut lines = String::new();
    for name in PROBES {
        for hook in hooks(probe(status, name)).iter().filter(|hook| !ladder(hook).is_empty()) {
            let line = json!({
                "kernel": status["kernel"], "without": without, "probe": name,
                "hook": hook["name"], "rungs": hook["rungs"], "rung": hook["rung"],
            });
            writeln!(lines, "{line}").expect("writing to a string");
        }
    }
    let file = OpenOptions::new().append(true).create(true).open(&path);
    file.and_then(|mut file| file.write_all(lines.as_bytes()))
        .unwrap_or_else(|e| panic!("cannot note rungs in {}: {e}", path.display()));
}

/// Holds each hook against what this kernel offers; gives how many are attached.
fn assert_attached(status: &Value, without: &str) -> usize {
    let mut attached = 0;
    for name in PROBES {
        let probe = probe(status, name);
        if probe["state"] == "unsupported" {
            assert!(!probe["reason"].as_str().unwrap_or_default().is_empty(), "{name} does not say why");
            assert!(hooks(probe).is_empty(), "{name}: {probe:#}");
            continue;
        }
        assert_eq!(probe["state"], "running", "without {without:?}: {probe:#}");
        for hook in hooks(probe).iter().filter(|hook| !ladder(hook).is_empty()) {
            let best = ladder(hook).into_iter().find(|rung| left(rung, without) && offered(rung));
            assert_eq!(hook["rung"].as_str(), best, "{name} without {without:?}: {hook:#}");
            let how = hook["how"].as_str().expect("how, or why not");
            match best {
                Some(best) => {
                    let mechanism = best.split(' ').next().expect("a word");
                    assert_eq!((&hook["state"], how), (&json!("attached"), mechanism));
                    attached += 1;
                }
                None => assert!(hook["state"] != "attached" && !how.is_empty(), "{hook:#}"),
            }
        }
    }
    // What there is a tracepoint for on every kernel runs as long as tracepoints do; virtio has none.
    if left("tp_btf any", without) {
        for name in PROBES.into_iter().filter(|name| *name != "virtcmdlatency") {
            assert_eq!(probe(status, name)["state"], "running", "{name} without {without:?}");
        }
    }
    attached
}

#[test]
fn the_best_rung_that_is_left_is_attached_and_counts_as_exactly() {
    needs_root!();
    needs_programs!("nft");
    let mut attached = 0;
    for without in WITHOUT {
        let agent = start(without);
        let status = agent.status();
        record(&status, without);
        attached += assert_attached(&status, without);
        let seen = assert_counted(&agent, &status);
        note(&format!("without {without:?}: {}", seen.iter().copied().collect::<Vec<_>>().join(", ")));
        if without.is_empty() {
            assert_eq!(seen.len(), 10, "on a kernel with all it has: {seen:?}");
        }
        if !left("tp_btf any", without) {
            assert!(!seen.contains("drops") && !seen.contains("received resets"));
        }
        agent.stop();
    }
    assert!(attached > 30, "{attached}");
}
