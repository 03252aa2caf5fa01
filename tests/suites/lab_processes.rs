//! Processes in namespaces of the test's own: their descriptors and what they read and write, counted once each.

use std::path::Path;
use std::time::Duration;

use netsonde_tests::worker::Worker;
use netsonde_tests::{Agent, Netns, needs_root, truth};

fn worker(ns: &Netns, what: &str) -> Worker {
    Worker::start(Path::new(env!("CARGO_BIN_EXE_netsonde-lab-worker")), ns, what)
}

fn agent(probe: &str) -> Agent {
    Agent::start(&format!("node_name: lab\nprobes: [{probe}]\ndiscovery: {{interval: 100ms}}\n"))
}

#[test]
fn open_descriptors_and_sockets_are_counted_by_process_and_never_by_thread() {
    needs_root!();
    let (ns, bystander) = (Netns::new("fd"), Netns::new("fd-other"));
    let first = worker(&ns, "files=40 sockets=15 threads=50");
    let second = worker(&ns, "files=7 sockets=3");
    let agent = agent("fd");
    let page = agent.scrape_with(ns.name());
    let (mut all, mut sockets) = (0, 0);
    for worker in [&first, &second] {
        let (descriptors, of_sockets) = worker.descriptors();
        all += descriptors as u64;
        sockets += of_sockets as u64;
    }
    assert_eq!(sockets, 18);
    let pod = page.pod(ns.name());
    assert_eq!(pod.count("netsonde_fd_open", &[]), all);
    assert_eq!(pod.count("netsonde_fd_open_sockets", &[]), sockets);
    assert_eq!(page.pod(bystander.name()).total("netsonde_fd_open", &[]), 0);
    agent.stop();
}

#[test]
fn reads_and_writes_are_those_of_the_process_and_a_process_that_ends_takes_none_back() {
    needs_root!();
    let (ns, bystander) = (Netns::new("io"), Netns::new("io-other"));
    let agent = agent("io");
    let kept = worker(&ns, "writes=500 reads=300 threads=20");
    let gone = worker(&ns, "writes=1000 reads=100");
    let sum = |field| truth::process_io(kept.pid(), field) + truth::process_io(gone.pid(), field);
    let (reads, writes) = (sum("syscr"), sum("syscw"));
    assert!(reads >= 400 && writes >= 1500, "{reads} reads, {writes} writes");
    let shown = |what: &str| {
        agent.scrape_with(ns.name()).pod(ns.name()).count(&format!("netsonde_io_{what}_total"), &[])
    };
    netsonde_tests::until("both are on the page", Duration::from_secs(5), || {
        (shown("read_syscalls") == reads && shown("write_syscalls") == writes).then_some(())
    });
    drop(gone);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(shown("read_syscalls"), reads, "the one that ended has taken its reads with it");
    assert_eq!(shown("write_syscalls"), writes);

    let later = worker(&ns, "writes=50");
    let more = truth::process_io(later.pid(), "syscw");
    netsonde_tests::until("a later process is added", Duration::from_secs(5), || {
        (shown("write_syscalls") == writes + more).then_some(())
    });
    let page = agent.scrape();
    assert_eq!(page.pod(bystander.name()).total("netsonde_io_write_syscalls_total", &[]), 0);
    agent.stop();
}
