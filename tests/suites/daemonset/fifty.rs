//! Fifty pods with the addresses that CNI gave them: the DaemonSet's own container counts each pod's faults to the packet and
//! names both ends of every one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use netsonde_tests::containerd::{Pod, Sandbox};
use netsonde_tests::manifests::Manifests;
use netsonde_tests::{Containerd, lab, needs_programs, needs_root, note, until};
use serde_json::Value;

use crate::node::{Agent, Change, labels, runtime};
use crate::{SOON, call, count, knock, peak};

const PODS: usize = 50;

/// Which pod gets what a pod sends, and which sends what it gets.
const fn receiver(n: usize) -> usize {
    (n + 7) % PODS
}

const fn sender(n: usize) -> usize {
    (n + PODS - 7) % PODS
}

/// Datagrams to a port where nobody listens, over IPv4; connections to such a port, over IPv6; datagrams that a rule of the
/// receiver drops. Other numbers for each pod, so that no two can be mistaken for one another.
const fn datagrams(n: usize) -> usize {
    1 + n % 9
}

const fn calls(n: usize) -> usize {
    1 + n % 4
}

const fn filtered(n: usize) -> usize {
    2 + n % 5
}

fn ipv6(sandbox: &Sandbox) -> IpAddr {
    *sandbox.addresses.iter().find(|address| address.is_ipv6()).expect("CNI gives two addresses")
}

/// The events of a pod with these fields, as soon as there are so many.
fn told(agent: &Agent<'_>, pod: &Sandbox, kind: &str, reason: &str, many: usize) -> Vec<Value> {
    let (namespace, name) = labels(pod);
    let query = format!("namespace={namespace}&pod={name}&type={kind}");
    until(&format!("{many} {kind} of {name} for {reason}"), SOON, || {
        let mut events = agent.events(&query);
        events.retain(|event| event["reason"] == reason && event["protocol"] != "icmp");
        (events.len() >= many).then_some(events)
    })
}

/// Every one of these is of the pod that received, and names the one that sent.
fn have_ends(events: &[Value], own: &Sandbox, peer: &Sandbox) {
    for event in events {
        let (namespace, pod) = labels(peer);
        assert_eq!((&event["namespace"], &event["pod"]), (&labels(own).0.into(), &labels(own).1.into()));
        assert_eq!(
            (&event["peer_namespace"], &event["peer_pod"]),
            (&namespace.into(), &pod.into()),
            "{event:#}"
        );
        assert_eq!(event["node"], "node-1");
    }
}

#[test]
fn the_faults_of_fifty_pods_have_both_their_names() {
    needs_root!();
    needs_programs!("containerd", "runc", "jq", "nft");
    let manifests = Manifests::kustomize("base");
    let containerd = runtime(&manifests);
    let agent = Agent::start(&containerd, &manifests, &Change::default());
    let run = |n: usize| {
        let pod = Pod::new(&format!("shop-{}", n % 3), &format!("cart-7d4b9c6f5-{n}"));
        let sandbox = containerd.run(&pod);
        sandbox.inside().nft(
            "table inet lab {
                counter dropped { }
                chain in { type filter hook input priority 0; udp dport 6000 counter name dropped drop; }
            }",
        );
        sandbox
    };
    let pods: Vec<Sandbox> = (0..PODS).map(run).collect();
    agent.find(&pods.iter().collect::<Vec<_>>());
    let newest = &pods[PODS - 1];
    // The table of addresses may be some seconds old.
    until("the newest pod is known by its address", 3 * SOON, || {
        knock(newest, pods[0].ipv4(), 1);
        let (namespace, pod) = labels(&pods[0]);
        let events = agent.events(&format!("namespace={namespace}&pod={pod}&type=PacketLoss"));
        events.iter().any(|event| event["peer_pod"] == labels(newest).1).then_some(())
    });

    let before = agent.scrape();
    let told_before = agent.events("type=PacketLoss").len();
    for (n, pod) in pods.iter().enumerate() {
        let to = &pods[receiver(n)];
        knock(pod, to.ipv4(), datagrams(n));
        call(pod, ipv6(to), calls(n));
        lab::send(&pod.inside().udp("0.0.0.0:0"), &format!("{}:6000", to.ipv4()), filtered(n), 100);
    }
    let after = agent.scrape();
    for (n, pod) in pods.iter().enumerate() {
        let grew = |name: &str, more: &[(&str, &str)]| {
            usize::try_from(count(&after, pod, name, more) - count(&before, pod, name, more)).expect("small")
        };
        let from = sender(n);
        let name = labels(pod).1;
        let drops =
            |reason| grew("netsonde_packetloss_drops_total", &[("reason", reason), ("protocol", "udp")]);
        assert_eq!(grew("netsonde_udp_no_ports_total", &[]), datagrams(from), "{name}");
        assert_eq!(drops("NO_SOCKET"), datagrams(from), "{name}");
        assert_eq!(drops("NETFILTER_DROP"), filtered(from), "{name}");
        assert_eq!(grew("netsonde_tcpreset_sent_total", &[]), calls(from), "{name}");
        assert_eq!(grew("netsonde_tcp_attempt_fails_total", &[]), calls(n), "{name}");
        let rule = pod.inside().run("nft list counter inet lab dropped");
        assert!(rule.contains(&format!("packets {} ", filtered(from))), "{rule}");
    }
    let mut events = 0;
    for (n, pod) in pods.iter().enumerate() {
        let (from, peer) = (sender(n), &pods[sender(n)]);
        for (kind, reason, many) in
            [("PacketLoss", "NETFILTER_DROP", filtered(from)), ("TCPRESET_NOSOCK", "NO_SOCKET", calls(from))]
        {
            let told = told(&agent, pod, kind, reason, many);
            assert_eq!(told.len(), many, "{kind} of {}", labels(pod).1);
            have_ends(&told, pod, peer);
            events += many;
        }
    }
    note(&format!(
        "{events} events of {PODS} pods, {told_before} before; the container's memory at its peak: {:.1} MB",
        peak(agent.pid()) as f64 / 1e6
    ));
    nothing_keeps_them(&containerd, &agent, &pods);
    agent.stop(&manifests);
}

/// The agent's container sees the node's namespaces through mounts of its own: none of them may outlive its pod.
fn nothing_keeps_them(containerd: &Containerd, agent: &Agent<'_>, pods: &[Sandbox]) {
    let devices = || containerd.netns().run("ip -brief link show type veth").lines().count();
    assert_eq!(devices(), PODS + 1, "one for each pod and the agent's own");
    let mut removals: Vec<Duration> = pods
        .iter()
        .map(|pod| {
            let start = Instant::now();
            containerd.client().remove(&pod.id);
            assert!(!pod.netns.as_ref().expect("it had one").exists());
            start.elapsed()
        })
        .collect();
    // What pins a namespace keeps its device.
    until("the devices of all pods are gone", Duration::from_secs(1), || (devices() == 1).then_some(()));
    removals.sort();
    note(&format!("removed in {:?} (median), {:?} (worst)", removals[PODS / 2], removals[PODS - 1]));
    until("the agent knows its own pod alone", SOON, || {
        let page = agent.scrape();
        let known = page.count("netsonde_pods", &[("network", "own")]);
        (known == 1 && page.count("netsonde_pods_unmatched", &[]) == 0).then_some(())
    });
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", agent.pid())).expect("it runs");
    let kept = |pod: &Sandbox| mounts.contains(&*pod.netns.as_ref().expect("it had one").to_string_lossy());
    assert!(!pods.iter().any(kept), "{mounts}");
}
