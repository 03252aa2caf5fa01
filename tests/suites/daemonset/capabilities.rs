//! The container's capabilities: each is missed when it is taken away.

use netsonde_tests::containerd::{Container, Pod};
use netsonde_tests::manifests::Manifests;
use netsonde_tests::{images, needs_programs, needs_root, note, until};

use crate::node::{Agent, Change, runtime};
use crate::{SOON, effective, hidden_from_root};

/// What a probe's entry, or the status of discovery, says of a right that is missing.
fn lost(agent: &Agent<'_>, capability: &str) -> Option<String> {
    let status = agent.status();
    let unreadable = &status["unreadable"];
    let probe = |name: &str| {
        let list = status["probes"].as_array().expect("probes");
        list.iter().find(|p| p["name"] == name).cloned().unwrap_or_else(|| panic!("no {name}"))
    };
    match capability {
        "SYS_ADMIN" => {
            (unreadable["namespaces"].as_u64()? > 0).then(|| "namespaces cannot be entered".into())
        }
        "SYS_PTRACE" => {
            // One or two may have ended since the agent looked; those that are hidden are many.
            let hidden = unreadable["processes"].as_u64()?;
            (hidden >= hidden_from_root() + 4).then(|| format!("{hidden} processes are hidden"))
        }
        "DAC_READ_SEARCH" => {
            let hidden = agent.scrape().sum("netsonde_fd_processes_unreadable", &[]);
            (hidden > 0.0).then(|| format!("{hidden} processes hide their descriptors"))
        }
        "NET_ADMIN" => {
            let entry = probe("conntrack");
            let said = format!("{} {}", entry["reason"], entry["last_error"]);
            said.contains("CAP_NET_ADMIN").then_some(said)
        }
        "SYSLOG" => {
            let hooks = probe("packetloss")["hooks"].as_array().cloned().unwrap_or_default();
            let names = hooks.iter().find(|hook| hook["name"] == "names of kernel functions")?.clone();
            let how = names["how"].as_str()?.to_owned();
            how.contains("CAP_SYSLOG").then_some(how)
        }
        "BPF" | "PERFMON" => {
            let entry = probe("packetloss");
            let reason = entry["reason"].as_str()?.to_owned();
            (entry["state"] == "unsupported" && reason.contains("CAP_BPF")).then_some(reason)
        }
        other => panic!("no test knows what {other} is for"),
    }
}

#[test]
fn each_capability_is_missed_by_name_when_it_is_taken_away() {
    needs_root!();
    needs_programs!("containerd", "runc", "jq");
    let manifests = Manifests::kustomize("base");
    let containerd = runtime(&manifests);
    // A pod of another user, whose descriptors root alone may not see.
    let other = containerd.run(&Pod::new("shop", "other-0"));
    let image = images::static_program(
        "netsonde.test/wait:1",
        "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n",
    );
    containerd.import(&image);
    containerd.client().start(&other, &Container::new("wait", image.name()).user(4711));
    let all = manifests.capabilities();
    let whole = Agent::start(&containerd, &manifests, &Change::default());
    whole.scrape();
    for capability in &all {
        assert_eq!(lost(&whole, capability), None, "nothing is lost with all of them");
    }
    whole.stop(&manifests);
    for capability in &all {
        // The kernel takes CAP_SYS_ADMIN in place of these two; they count where it is not there.
        let without: &[&str] = match capability.as_str() {
            "BPF" => &["BPF", "SYS_ADMIN"],
            "PERFMON" => &["PERFMON", "SYS_ADMIN"],
            other => &[other],
        };
        let agent = Agent::start(&containerd, &manifests, &Change { without, ..Change::default() });
        assert!(effective(agent.pid()).iter().all(|name| !without.contains(&name.as_str())));
        agent.scrape();
        let said = until(&format!("{capability} is missed"), SOON, || lost(&agent, capability));
        note(&format!("without {capability}: {said}"));
        if capability == "SYS_ADMIN" {
            assert_eq!(agent.probe("packetloss")["state"], "running", "BPF and PERFMON are enough for eBPF");
        }
        agent.stop(&manifests);
    }
}
