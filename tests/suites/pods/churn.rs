//! Five hundred pods that come and go: each is seen within a second, none is kept back, and nothing is left.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use netsonde_tests::containerd::Pod;
use netsonde_tests::{Agent, Containerd, http, needs_programs, needs_root, note, until};

use super::agent;

const PODS: usize = 500;
const THREADS: usize = 3;
/// How soon a pod must be seen after the runtime says that it runs, and how soon its device must be gone after the
/// runtime says that it is removed.
const SEEN: Duration = Duration::from_secs(1);

fn resident(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.split_whitespace().next().and_then(|kb| kb.parse().ok()).expect("a number")
}

/// The devices on the side of the bridge.
fn veths(containerd: &Containerd) -> usize {
    containerd.netns().run("ip -brief link show type veth").lines().count()
}

/// How long a removal takes while nobody watches, at the median, with as many at once.
fn removed_alone(containerd: &Containerd) -> Duration {
    let removals = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let removals = &removals;
            scope.spawn(move || {
                let client = containerd.connect();
                for n in 0..20 {
                    let sandbox = client.run(&Pod::new("alone", &format!("pod-{thread}-{n}")));
                    let begin = Instant::now();
                    client.remove(&sandbox.id);
                    removals.lock().expect("no panic").push(begin.elapsed());
                }
            });
        }
    });
    let mut removals = removals.into_inner().expect("no panic");
    removals.sort();
    removals[removals.len() / 2]
}

/// Makes the pods, waits for each to be seen and removes it: how long they were waited for and how long a removal took,
/// both sorted.
fn churn(containerd: &Containerd, agent: &Agent) -> (Vec<Duration>, Vec<Duration>) {
    let seen: Mutex<HashMap<String, Instant>> = Mutex::default();
    let (next, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (waits, removals) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let status = http::get(agent.address, "/status", &[]).expect("it serves").json();
                let now = Instant::now();
                let mut seen = seen.lock().expect("no panic");
                for row in status["namespaces"].as_array().expect("a list") {
                    if row["namespace"] == "churn" {
                        seen.entry(row["pod"].as_str().expect("a name").into()).or_insert(now);
                    }
                }
                drop(seen);
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                http::get(agent.address, "/metrics", &[]).expect("it serves");
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let client = containerd.connect();
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= PODS {
                            return;
                        }
                        let name = format!("pod-{n}");
                        let sandbox = client.run(&Pod::new("churn", &name));
                        let runs = Instant::now();
                        let at = until(&format!("{name} is seen"), 3 * SEEN, || {
                            seen.lock().expect("no panic").get(&name).copied()
                        });
                        waits.lock().expect("no panic").push(at.saturating_duration_since(runs));
                        let begin = Instant::now();
                        client.remove(&sandbox.id);
                        removals.lock().expect("no panic").push(begin.elapsed());
                        assert!(!sandbox.netns.expect("it had one").exists());
                    }
                })
            })
            .collect();
        let ended = workers.into_iter().all(|worker| worker.join().is_ok());
        done.store(true, Ordering::Relaxed);
        assert!(ended, "a worker failed");
    });
    let mut waits = waits.into_inner().expect("no panic");
    let mut removals = removals.into_inner().expect("no panic");
    waits.sort();
    removals.sort();
    (waits, removals)
}

#[test]
fn five_hundred_pods_come_and_go_and_leave_nothing() {
    needs_root!();
    needs_programs!("containerd", "runc", "cc");
    let containerd = Containerd::start();
    let alone = removed_alone(&containerd);
    let agent = agent(&containerd, "probes: [tcp, netdev, sock, fd, packetloss]\n");
    // What the first pods make the agent allocate is no leak.
    for n in 0..5 {
        let sandbox = containerd.run(&Pod::new("warm", &format!("up-{n}")));
        agent.scrape_with(&format!("up-{n}"));
        containerd.client().remove(&sandbox.id);
    }
    let quiet = || {
        until("all rows are gone", Duration::from_secs(5), || {
            let page = agent.scrape();
            let left = page.all("netsonde_tcp_active_opens_total", &[]);
            let runtimes = |name: &str| name == "churn" || name == "warm";
            let left = left.filter(|s| s.labels.iter().any(|(_, value)| runtimes(value))).count();
            (left == 0).then_some(page)
        });
        std::thread::sleep(Duration::from_millis(500));
        let namespaces = agent.status()["namespaces"].as_array().expect("a list").len();
        (agent.descriptors(), resident(&agent), namespaces)
    };
    let before = quiet();

    let (waits, removals) = churn(&containerd, &agent);
    let start = Instant::now();
    until("the devices of all pods are gone", SEEN, || (veths(&containerd) == 0).then_some(()));

    assert_eq!(waits.len(), PODS);
    let after = quiet();
    note(&format!(
        "seen after {:?} (median), {:?} (99 of 100), {:?} (worst); removed in {:?} (median; {alone:?} without an agent), {:?} (worst); last device \
         gone {:?} later; descriptors, kB and namespaces before {before:?}, after {after:?}",
        waits[PODS / 2],
        waits[PODS * 99 / 100],
        waits[PODS - 1],
        removals[PODS / 2],
        removals[PODS - 1],
        start.elapsed(),
    ));
    assert!(waits[PODS - 1] < SEEN, "{:?}", waits[PODS - 1]);
    // Both share two CPUs with what the agent does for so many pods; what pins a namespace would take seconds.
    let median = removals[PODS / 2];
    assert!(median < 2 * alone + Duration::from_millis(100), "{median:?}, and {alone:?} without an agent");
    // Other tests may have made namespaces meanwhile, for each of which the agent keeps at most 13 descriptors open.
    let strangers = after.2.saturating_sub(before.2);
    assert!(after.0 <= before.0 + 13 * strangers, "{} descriptors became {}", before.0, after.0);
    assert!(after.1 < before.1 + 4096, "memory grew from {} to {} kB", before.1, after.1);
    // A runtime's list has an end a moment after its event.
    until("no pod is kept", 5 * SEEN, || {
        let page = agent.scrape();
        let kept = page.count("netsonde_pods", &[("network", "own")]);
        (kept == 0 && page.count("netsonde_pods_unmatched", &[]) == 0).then_some(())
    });
    agent.stop();
}
