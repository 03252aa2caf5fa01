//! Namespaces come and go: they are found, they leave, and nothing of ours keeps one alive.

use std::collections::{HashMap, HashSet};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netsonde_tests::events::events;
use netsonde_tests::lab::send;
use netsonde_tests::wait::until_true;
use netsonde_tests::{Agent, Loki, Netns, Pair, Running, needs_root, until};

const SECOND: Duration = Duration::from_secs(1);

/// No scraper asks sooner than this after anything.
fn gone_at_the_next_scrape(agent: &Agent, pod: &str) {
    std::thread::sleep(Duration::from_millis(100));
    assert!(!agent.scrape().knows(pod), "{pod} is still on the page");
}

#[test]
fn a_new_namespace_appears_within_two_seconds_and_a_deleted_one_is_gone_at_the_next_scrape() {
    needs_root!();
    let agent = Agent::start("probes: [udp]\n");
    let ns = Netns::new("new");
    let name = ns.name().to_owned();
    until("a new namespace is on the page", 2 * SECOND, || agent.scrape().knows(&name).then_some(()));
    drop(ns);
    gone_at_the_next_scrape(&agent, &name);
    assert!(!agent.status()["namespaces"].to_string().contains(&name), "it is still in /status");
    agent.stop();
}

#[test]
fn every_probe_has_read_a_namespace_and_yet_its_veth_goes_within_a_second_of_its_deletion() {
    needs_root!();
    // All probes that are on by default, so every file and socket that can be kept is kept.
    let agent = Agent::start("");
    let node = Netns::new("node");
    for round in 0..5 {
        let pod = Netns::new("pod");
        node.veth("host0", &pod, "eth0");
        agent.scrape_with(pod.name());
        agent.scrape();
        drop(pod);
        until_true(&format!("the peer of a deleted pod is gone, round {round}"), SECOND, || {
            !node.has_device("host0")
        });
    }
    agent.stop();
}

/// `sleep` in a network namespace that only it holds.
fn alone(seconds: &str) -> Running {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--net", "sleep", seconds]).stdin(Stdio::null());
    let process = Running::start(&mut command);
    let comm = process.proc().join("comm");
    until_true("sleep runs", 5 * SECOND, || {
        std::fs::read_to_string(&comm).is_ok_and(|name| name == "sleep\n")
    });
    process
}

#[test]
fn a_namespace_that_only_a_process_holds_is_found_by_it_and_freed_with_it() {
    needs_root!();
    let agent = Agent::start("");
    let node = Netns::new("node");
    let mut process = alone("600");
    let (pid, pod) = (process.pid(), format!("sleep-{}", process.pid()));
    node.run(&format!("ip link add host0 type veth peer name eth0 netns {pid}"));
    let page = agent.scrape_with(&pod);
    let labels = [("target_namespace", "process"), ("target_pod", pod.as_str()), ("family", "ipv4")];
    assert!(page.find("netsonde_udp_in_datagrams_total", &labels).is_some(), "no row for {pod}");
    agent.scrape();

    process.child().kill().expect("it can be killed");
    process.child().wait().expect("it can be waited for");
    until_true("the peer of a dead process's namespace is gone", SECOND, || !node.has_device("host0"));
    gone_at_the_next_scrape(&agent, &pod);
    agent.stop();
}

#[test]
fn a_namespace_that_gets_a_name_takes_it_for_its_label() {
    needs_root!();
    let agent = Agent::start("probes: [udp]\n");
    let process = alone("600");
    let pod = format!("sleep-{}", process.pid());
    agent.scrape_with(&pod);
    let name = format!("nst{}-attached", std::process::id());
    let attached = Command::new("ip").args(["netns", "attach", &name, &process.pid().to_string()]).status();
    assert!(attached.expect("ip runs").success());
    until("its name is on the page", 2 * SECOND, || agent.scrape().knows(&name).then_some(()));
    assert!(!agent.scrape().knows(&pod), "it has two rows");
    drop(process);
    // What was held open for the process is let go at once, and the name is found by the next search.
    until("the name holds it without the process", 2 * SECOND, || agent.scrape().knows(&name).then_some(()));
    assert!(Command::new("ip").args(["netns", "del", &name]).status().expect("ip runs").success());
    gone_at_the_next_scrape(&agent, &name);
    agent.stop();
}

/// A namespace of the churn: a veth to the node, and as many datagrams on loopback as its number says.
fn pod(node: &Netns, number: u64) -> Netns {
    let pod = Netns::new(&format!("churn{number}"));
    node.veth(&format!("h{number}"), &pod, "eth0");
    let socket = pod.udp("127.0.0.1:6000");
    for _ in 0..datagrams(number) {
        socket.send_to(b"x", "127.0.0.1:6000").expect("loopback takes a datagram");
        socket.recv(&mut [0; 8]).expect("loopback gives it");
    }
    pod
}

fn datagrams(number: u64) -> u64 {
    1 + number % 7
}

const ALL: u64 = 300;
const AT_ONCE: usize = 8;
/// The most that one namespace keeps open: eight files, three sockets, its nsfs file, a pidfd.
const DESCRIPTORS_EACH: usize = 13;

/// Ends the scraping thread however the test ends.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn three_hundred_namespaces_come_and_go_during_scrapes() {
    needs_root!();
    let agent = Agent::start("discovery: {interval: 100ms}\n");
    let node = Netns::new("node");
    agent.scrape_with(node.name());
    agent.scrape();
    let live = || agent.status()["namespaces"].as_array().expect("a list").len();
    let (descriptors, namespaces) = (agent.descriptors(), live());

    let done = AtomicBool::new(false);
    let scrapes = AtomicU64::new(0);
    let seen = Mutex::new(HashMap::new());
    let mut inodes = HashSet::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // A failed scrape panics here, and so does a page that is not strict OpenMetrics.
                let page = agent.scrape();
                scrapes.fetch_add(1, Ordering::Relaxed);
                let mut seen = seen.lock().expect("nobody else panicked");
                for sample in page.all("netsonde_udp_in_datagrams_total", &[("family", "ipv4")]) {
                    let name = &sample.labels["target_pod"];
                    let Some((_, number)) = name.split_once("-churn") else { continue };
                    let moved = datagrams(number.parse().expect("the number of a namespace"));
                    let shown: u64 = sample.value.to_string().parse().expect("a whole number");
                    assert!(shown <= moved, "{name} has {shown} datagrams, it moved {moved}");
                    seen.insert(name.clone(), (shown, moved));
                }
            }
        });
        let _done = Done(&done);
        let mut pods = std::collections::VecDeque::new();
        for number in 0..ALL {
            let pod = pod(&node, number);
            inodes.insert(pod.inode());
            pods.push_back((number, pod));
            if pods.len() > AT_ONCE {
                let (number, pod) = pods.pop_front().expect("there are some");
                drop(pod);
                let (start, device) = (Instant::now(), format!("h{number}"));
                while node.has_device(&device) {
                    assert!(start.elapsed() < SECOND, "the veth of namespace {number} is pinned");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        // The last ones go only when a page was begun after they had moved everything.
        let then = scrapes.load(Ordering::Relaxed);
        until_true("two more pages", 10 * SECOND, || scrapes.load(Ordering::Relaxed) >= then + 2);
    });
    let (scrapes, seen) = (scrapes.into_inner(), seen.into_inner().expect("nobody panicked"));
    netsonde_tests::note(&format!(
        "{scrapes} scrapes saw {} of {ALL} namespaces, which had {} inode numbers",
        seen.len(),
        inodes.len()
    ));
    assert!(scrapes >= 20, "{scrapes} scrapes");
    assert!(seen.len() as u64 >= ALL / 2, "only {} of {ALL} were ever on a page", seen.len());
    let wrong: Vec<_> = seen.iter().filter(|(_, (shown, moved))| shown != moved).collect();
    assert!(wrong.is_empty(), "when last seen, these did not have what they moved: {wrong:?}");
    assert!(
        (inodes.len() as u64) < ALL,
        "the kernel used no inode number again; the test shows less than it should"
    );

    // As many descriptors as before; whatever else came up on this machine since may have its own.
    until("no namespace of the churn is known", 5 * SECOND, || {
        agent.scrape();
        (!agent.status()["namespaces"].to_string().contains("-churn")).then_some(())
    });
    let (descriptors_now, new) = (agent.descriptors(), live().saturating_sub(namespaces));
    assert!(
        descriptors_now <= descriptors + new * DESCRIPTORS_EACH,
        "{descriptors} descriptors before, {descriptors_now} after; {new} more namespaces: {:#?}",
        open_files(&agent)
    );
    for (probe, failures) in failures(&agent) {
        assert_eq!(failures, "0", "collections of {probe} that failed");
    }
    agent.stop();
}

/// What the agent has open, for the message of a failure.
fn open_files(agent: &Agent) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).expect("readable");
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

fn failures(agent: &Agent) -> Vec<(String, String)> {
    let page = agent.scrape();
    let failed = page.all("netsonde_probe_failures_total", &[]);
    failed.map(|s| (format!("{:?}", s.labels), s.value.to_string())).collect()
}

#[test]
fn a_namespace_that_the_machine_did_not_start_with_is_never_called_the_host() {
    needs_root!();
    // An agent in a namespace and a process table of its own, as in a container without the host's.
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--mount-proc", "--fork"]).arg(netsonde_tests::agent::binary());
    let output = command.args(["scrape", "--no-self"]).stdin(Stdio::null()).output().expect("unshare runs");
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && page.contains("netsonde_udp_in_datagrams_total{"), "{page}");
    assert!(!page.contains("hostNetwork"), "{page}");
}

#[test]
fn a_lost_packet_is_in_the_metrics_as_an_event_and_in_loki_within_a_second() {
    needs_root!();
    let pair = Pair::v4("second");
    let loki = Loki::start();
    let sink = format!("{{name: loki, args: {{url: \"{}\", batch: {{age: 100ms}}}}}}", loki.url());
    let agent = Agent::start(&format!("probes: [packetloss]\nsinks: [{sink}]\n"));
    for ns in [&pair.a, &pair.b] {
        agent.find(ns.name());
    }
    let pod = pair.b.name();
    let start = Instant::now();
    send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6001", 1, 100);
    until("the event is told", SECOND, || events(&agent, &format!("pod={pod}")).pop());
    until("it is in Loki", SECOND, || loki.entries().into_iter().find(|entry| entry.line.contains(pod)));
    let drops = agent.scrape().pod(pod).total("netsonde_packetloss_drops_total", &[("reason", "NO_SOCKET")]);
    assert_eq!(drops, 1);
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
    agent.stop();
}

#[test]
fn the_first_event_of_a_namespace_that_nobody_knows_yet_waits_for_its_name() {
    needs_root!();
    let agent = Agent::start("probes: [packetloss]\n");
    let pair = Pair::v4("unknown");
    send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6001", 1, 100);
    let event = until("the event is told", 3 * SECOND, || {
        events(&agent, "type=PacketLoss").into_iter().find(|event| event["dport"] == 6001)
    });
    assert_eq!(event["pod"], pair.b.name());
    agent.stop();
}
