//! The profile for seccomp that is shipped: enough for the agent, and nothing for whoever takes its place.

use std::time::Duration;

use netsonde_tests::containerd::{Container, Pod};
use netsonde_tests::manifests::{Manifests, rights};
use netsonde_tests::wait::until_true;
use netsonde_tests::{Containerd, images, needs_programs, needs_root, until};

use crate::node::{Agent, Change, labels, pods, profile, runtime};
use crate::{SOON, all_probes_run, knock, of_status};

#[test]
fn the_profile_for_seccomp_lets_everything_through_that_the_agent_does() {
    needs_root!();
    needs_programs!("containerd", "runc", "jq");
    let manifests = Manifests::kustomize("overlays/strict");
    let containerd = runtime(&manifests);
    let mut agent = Agent::start(&containerd, &manifests, &Change::default());
    assert_eq!(of_status(agent.pid(), "Seccomp"), "2");
    all_probes_run(&agent);
    let [(web, address), (cart, _)] = pods(&containerd, ["web-0", "cart-0"]);
    agent.find(&[&web, &cart]);
    knock(&cart, address, 3);
    let (namespace, pod) = labels(&web);
    let query = format!("namespace={namespace}&pod={pod}&type=PacketLoss");
    until("drops are told", SOON, || (agent.events(&query).len() >= 3).then_some(()));
    // The probes that are off by default, and a sink that looks up a name and opens connections.
    let probes: Vec<_> = rights()["probes"].as_object().expect("probes").keys().cloned().collect();
    let probes: Vec<_> = probes.iter().filter(|p| !["softirq", "netiftxlat"].contains(&p.as_str())).collect();
    let listen = manifests.config().lines().find(|line| line.starts_with("listen:")).expect("an address");
    agent.config.edit(&format!(
        "{listen}\nprobes: {probes:?}\nsinks:\n  - name: loki\n    args: {{url: \"http://localhost:1/push\"}}\n"
    ));
    for probe in ["kernellatency", "net_softirq", "netiftxlatency", "socketlatency"] {
        until_true(&format!("{probe} runs"), Duration::from_secs(20), || {
            let status = agent.status();
            let list = status["probes"].as_array().cloned().unwrap_or_default();
            list.iter().any(|p| p["name"] == probe && p["state"] == "running")
        });
    }
    knock(&cart, address, 3);
    until("Loki does not answer, and nothing else is wrong", Duration::from_secs(20), || {
        let error = agent.status()["sinks"][0]["last_error"].as_str()?.to_owned();
        assert!(error.contains("Connection refused"), "the name is found, and nobody listens: {error}");
        Some(())
    });
    assert!(agent.scrape().find("netsonde_probe_state", &[("probe", "udp"), ("state", "running")]).is_some());
    agent.stop(&manifests);
}

#[test]
fn the_profile_for_seccomp_refuses_what_the_agent_has_no_use_for() {
    needs_root!();
    needs_programs!("containerd", "runc", "cc", "jq");
    let manifests = Manifests::kustomize("overlays/strict");
    let containerd = Containerd::start();
    let pod = containerd.run(&Pod::new("shop", "thief-0"));
    let image = images::static_program(
        "netsonde.test/thief:1",
        r#"
        #define _GNU_SOURCE
        #include <errno.h>
        #include <sched.h>
        #include <stdio.h>
        #include <sys/mount.h>
        #include <sys/ptrace.h>
        #include <unistd.h>
        #define TRY(call) printf(#call ": %d\n", (call) < 0 ? errno : 0)
        int main(void) {
            TRY(unshare(CLONE_NEWNS));
            TRY(mount("none", "/tmp", "tmpfs", 0, 0));
            TRY(ptrace(PTRACE_SEIZE, 1, 0, 0));
            TRY(chroot("/"));
            TRY(setuid(1));
            TRY(getpid());
            fflush(stdout);
            for (;;) pause();
        }"#,
    );
    containerd.import(&image);
    let rights = manifests.capabilities();
    let rights: Vec<_> = rights.iter().map(String::as_str).collect();
    let profile = profile(&manifests.container()["securityContext"]["seccompProfile"]);
    let thief = Container::new("thief", image.name()).only_capabilities(&rights).no_new_privileges();
    let thief = thief.seccomp(profile.as_deref());
    let client = containerd.client();
    client.start(&pod, &thief);
    let said = until("it has tried", SOON, || {
        Some(client.container_log(&pod, &thief)).filter(|log| log.contains("getpid"))
    });
    let tries: Vec<_> =
        said.lines().filter_map(|line| line.split_once(" stdout F ")).map(|(_, t)| t).collect();
    let not_there = rustix::io::Errno::NOSYS.raw_os_error();
    assert_eq!(tries.len(), 6, "{said}");
    for refused in &tries[..5] {
        assert!(refused.ends_with(&format!(": {not_there}")), "{said}");
    }
    assert_eq!(tries[5], "getpid(): 0");
}
