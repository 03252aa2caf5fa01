//! A runtime that is killed, hangs and comes back: the page has no gap, and pods keep their names.

use std::time::{Duration, Instant};

use netsonde_tests::containerd::Pod;
use netsonde_tests::wait::until_true;
use netsonde_tests::{Agent, Containerd, Netns, needs_programs, needs_root, until};

use super::{agent, pod};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// Scrapes for a while: the host and every pod are there each time.
fn watch(agent: &Agent, pods: &[&str], time: Duration) -> usize {
    let start = Instant::now();
    let mut pages = 0;
    while start.elapsed() < time {
        let page = agent.scrape();
        page.pod("hostNetwork").value("netsonde_tcp_active_opens_total", &[]);
        for pod in pods {
            page.pod(pod).value("netsonde_tcp_active_opens_total", &[("target_namespace", "shop")]);
        }
        pages += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    pages
}

#[test]
fn pods_keep_their_names_while_the_runtime_is_down_and_new_ones_are_there_within_five_seconds() {
    needs_root!();
    needs_programs!("containerd", "runc", "cc");
    let mut containerd = Containerd::start();
    let agent = agent(&containerd, "probes: [tcp]\n");
    containerd.run(&Pod::new("shop", "one"));
    agent.find("one");
    containerd.kill();
    until_true("the agent has noticed", SECONDS(2), || {
        agent.scrape().find("netsonde_runtime_connected", &[]) == Some(0.0)
    });
    assert!(watch(&agent, &["one"], SECONDS(2)) > 5);
    let page = agent.scrape();
    assert!(page.value("netsonde_runtime_age_seconds", &[]) >= 2.0);
    assert!(page.value("netsonde_runtime_failures_total", &[("call", "connect")]) >= 1.0);
    // What comes while it is down is found by the scan, as ever.
    let stranger = Netns::new("stranger");
    agent.find(stranger.name());

    containerd.launch();
    let back = Instant::now();
    containerd.run(&Pod::new("shop", "two"));
    until("the new pod is found", SECONDS(5), || pod(&agent.status(), "shop", "two"));
    assert!(back.elapsed() < SECONDS(5));
    watch(&agent, &["one", "two"], SECONDS(1));
    assert_eq!(agent.scrape().count("netsonde_runtime_connected", &[]), 1);
    agent.stop();
}

#[test]
fn a_runtime_that_hangs_costs_no_page_and_its_age_is_told() {
    needs_root!();
    needs_programs!("containerd", "runc", "cc");
    let containerd = Containerd::start();
    containerd.run(&Pod::new("shop", "one"));
    let first = agent(&containerd, "probes: [tcp]\n");
    first.find("one");
    containerd.freeze();
    // A new namespace that looks like a runtime's makes the agent ask, and nobody answers.
    let cni = Netns::called(&format!("cni-{}", std::process::id()));
    let start = Instant::now();
    until("it is shown under its own name", SECONDS(5), || pod(&first.status(), "netns", cni.name()));
    assert!(start.elapsed() >= Duration::from_millis(900), "the runtime was not waited for");
    assert!(watch(&first, &["one"], SECONDS(6)) > 20);
    let page = first.scrape();
    assert_eq!(page.count("netsonde_runtime_connected", &[]), 0);
    assert!(page.value("netsonde_runtime_failures_total", &[("call", "list")]) >= 1.0);

    // One that is started meanwhile serves too, with what the scan finds.
    let second = agent(&containerd, "probes: [tcp]\n");
    second.scrape().pod("hostNetwork").value("netsonde_tcp_active_opens_total", &[]);
    containerd.thaw();
    for agent in [&first, &second] {
        until_true("the runtime answers again", SECONDS(5), || {
            agent.scrape().find("netsonde_runtime_connected", &[]) == Some(1.0)
        });
        until("the pod has its name", SECONDS(2), || pod(&agent.status(), "shop", "one"));
    }
    first.stop();
    second.stop();
}

#[test]
fn the_runtime_can_be_turned_off_and_on_by_the_file_and_a_wrong_setting_changes_nothing() {
    needs_root!();
    needs_programs!("containerd", "runc", "cc");
    let containerd = Containerd::start();
    let sandbox = containerd.run(&Pod::new("shop", "one"));
    let agent = agent(&containerd, "probes: [tcp]\n");
    until("the pod has its name", SECONDS(2), || pod(&agent.status(), "shop", "one"));
    let with = |cri: &str| agent.write_config(&format!("probes: [tcp]\ndiscovery: {{cri: {cri}}}\n"));
    with("\"off\"");
    let name = sandbox.inside().name().to_owned();
    until("it is called by its namespace's name", SECONDS(5), || pod(&agent.status(), "netns", &name));
    assert_eq!(agent.scrape().find("netsonde_runtime_connected", &[]), None);
    with("containerd");
    until_true("the file is refused", SECONDS(5), || {
        let problem = agent.status()["config"]["problem"].as_str().map(str::to_owned);
        problem.is_some_and(|why| why.contains("neither auto nor off nor the path of a socket"))
    });
    with(&containerd.socket().display().to_string());
    until("the pod has its name again", SECONDS(5), || pod(&agent.status(), "shop", "one"));
    agent.stop();
}
