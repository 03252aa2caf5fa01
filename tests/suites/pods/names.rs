//! Every pod has its own name on the page, in `/status` and in events, with its labels and addresses.

use std::collections::HashSet;
use std::time::Duration;

use netsonde_tests::containerd::{Pod, Sandbox};
use netsonde_tests::events::{text, until_events};
use netsonde_tests::{Containerd, Netns, lab, needs_programs, needs_root, until};
use rustix::process::{Pid, Signal, kill_process};

use super::{agent, pod};

const PODS: usize = 50;
const SECOND: Duration = Duration::from_secs(1);

fn inode(sandbox: &Sandbox) -> u64 {
    sandbox.inside().inode()
}

#[test]
fn fifty_pods_have_the_right_names_addresses_and_peers() {
    needs_root!();
    needs_programs!("containerd", "runc", "cc", "nft");
    let containerd = Containerd::start();
    let labels = "labels: {workload: workload}, pod_labels: [app.kubernetes.io/name, tier]";
    let agent = agent(&containerd, &format!("probes: [tcp, packetloss]\nmetrics: {{{labels}}}\n"));
    let stranger = Netns::new("stranger");
    let sandboxes: Vec<Sandbox> = (0..PODS)
        .map(|n| {
            let pod = Pod::new(&format!("shop-{}", n % 3), &format!("cart-7d4b9c6f5-{n}"));
            let pod = pod.label("app.kubernetes.io/name", &format!("cart{n}"));
            containerd.run(&pod.label("pod-template-hash", "7d4b9c6f5"))
        })
        .collect();
    agent.find(stranger.name());
    let status = until("all are found", 2 * SECOND, || {
        let status = agent.status();
        let found = |s: &&Sandbox| pod(&status, &s.pod.namespace, &s.pod.name).is_some();
        (sandboxes.iter().filter(found).count() == PODS).then_some(status)
    });
    for sandbox in &sandboxes {
        let row = pod(&status, &sandbox.pod.namespace, &sandbox.pod.name).expect("it was there");
        assert_eq!(row["inode"], inode(sandbox), "{row:#}");
        assert_eq!((&row["origin"], &row["uid"]), (&"runtime".into(), &sandbox.pod.uid.clone().into()));
        assert_eq!(row["workload"], "Deployment/cart");
        let addresses: Vec<String> = sandbox.addresses.iter().map(ToString::to_string).collect();
        assert_eq!((row["addresses"].clone(), addresses.len()), (addresses.into(), 2));
    }
    let runtime = &status["runtime"];
    assert_eq!((&runtime["state"], &runtime["name"]), (&"connected".into(), &"containerd".into()));
    assert_eq!((&runtime["events"], &runtime["sandboxes"]), (&"containerd".into(), &PODS.into()));
    assert_eq!(runtime["sandboxes_without_namespace"], 0);

    let page = agent.scrape();
    for (n, sandbox) in sandboxes.iter().enumerate() {
        let app = format!("cart{n}");
        let labels = [
            ("target_namespace", &*sandbox.pod.namespace),
            ("target_pod", &*sandbox.pod.name),
            ("label_app_kubernetes_io_name", &app),
            ("workload", "Deployment/cart"),
        ];
        assert_eq!(page.all("netsonde_tcp_active_opens_total", &labels).count(), 1, "{labels:?}");
    }
    let own = page.pod(stranger.name());
    assert_eq!(own.find("netsonde_tcp_active_opens_total", &[("target_namespace", "netns")]), Some(0.0));
    let keyless: HashSet<&str> = page
        .all_of(stranger.name())
        .flat_map(|sample| sample.labels.keys().map(String::as_str))
        .filter(|name| name.starts_with("label_") || *name == "workload")
        .collect();
    assert!(keyless.is_empty(), "{keyless:?}");
    assert_eq!(page.count("netsonde_pods", &[("network", "own")]), PODS as u64);
    assert_eq!(page.count("netsonde_pods_unmatched", &[]), 0);

    let (from, to) = (&sandboxes[3], &sandboxes[40]);
    to.inside()
        .nft("table inet lab { chain in { type filter hook input priority 0; udp dport 6000 drop; }; }");
    lab::send(&from.inside().udp("0.0.0.0:0"), &format!("{}:6000", to.ipv4()), 3, 100);
    let told = until_events(&agent, &format!("type=PacketLoss&pod={}", to.pod.name), 3);
    for event in &told {
        assert_eq!((text(event, "namespace"), text(event, "pod")), (&*to.pod.namespace, &*to.pod.name));
        let peer = (text(event, "peer_namespace"), text(event, "peer_pod"));
        assert_eq!(peer, (&*from.pod.namespace, &*from.pod.name));
    }
    agent.stop();
}

#[test]
fn a_pod_that_got_a_new_sandbox_has_one_row_of_its_name_and_a_stranger_never_gets_it() {
    needs_root!();
    needs_programs!("containerd", "runc", "cc");
    let containerd = Containerd::start();
    let agent = agent(&containerd, "probes: [tcp]\n");
    let mut this = Pod::new("shop", "db-0");
    let mut sandbox = containerd.run(&this);
    for _ in 0..3 {
        until("it is found", 2 * SECOND, || {
            pod(&agent.status(), "shop", "db-0").filter(|row| row["inode"] == inode(&sandbox))
        });
        // Its first process dies: the sandbox is there still, not ready, and its namespace with it.
        let process = Pid::from_raw(i32::try_from(sandbox.pid).expect("small")).expect("not 0");
        kill_process(process, Signal::KILL).expect("it runs");
        this = this.again();
        let next = containerd.run(&this);
        let rows = until("the new one has the name", 3 * SECOND, || {
            let status = agent.status();
            let row = pod(&status, "shop", "db-0").filter(|row| row["inode"] == inode(&next));
            row.and(status["namespaces"].as_array().cloned())
        });
        let wrong = rows.iter().filter(|row| {
            row["pod"].as_str().is_some_and(|pod| pod.starts_with("db-0"))
                && ![inode(&sandbox), inode(&next)].map(Into::into).contains(&row["inode"])
        });
        assert_eq!(wrong.count(), 0, "{rows:#?}");
        containerd.client().remove(&sandbox.id);
        sandbox = next;
    }
    // The numbers of its namespace and process are free now; what takes them is nobody's.
    containerd.client().remove(&sandbox.id);
    let strangers: Vec<Netns> = (0..20).map(|_| Netns::new("stranger")).collect();
    for stranger in &strangers {
        agent.find(stranger.name());
    }
    let status = until("the runtime has none", 2 * SECOND, || {
        Some(agent.status()).filter(|status| status["runtime"]["sandboxes"] == 0)
    });
    let rows = status["namespaces"].as_array().expect("a list");
    assert!(rows.iter().all(|row| row["namespace"] != "shop"), "{status:#}");
    agent.stop();
}
