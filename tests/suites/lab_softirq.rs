//! Softirqs of the network: as many as the kernel lists, and one that a process is made to hold up, with that process
//! and its pod in the event.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use netsonde_tests::events::{events, number, text};
use netsonde_tests::lab::send;
use netsonde_tests::{Agent, Page, Pair, Running, kernel, needs_programs, needs_root, shell, until, wait};

const HOST: &str = "hostNetwork";

/// How often a softirq ran since the machine started, by /proc/softirqs.
fn runs(softirq: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/softirqs").expect("every kernel lists its softirqs");
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(softirq)?.strip_prefix(':'));
    let counts = line.expect("the softirq is listed").split_whitespace();
    counts.map(|count| count.parse::<u64>().expect("a number for each CPU")).sum()
}

fn cpus() -> u64 {
    std::thread::available_parallelism().expect("a machine has CPUs").get() as u64
}

fn count(page: &Page, vector: &str, stage: &str) -> u64 {
    let labels = [("vector", vector), ("stage", stage)];
    page.pod(HOST).count("netsonde_net_softirq_seconds_count", &labels)
}

#[test]
fn every_run_that_the_kernel_lists_has_a_wait_and_a_length() {
    needs_root!();
    let pair = Pair::v4("runs");
    let agent = Agent::start("probes: [net_softirq]\n");
    // Other namespaces have traffic too, so the truth is taken on both sides of each page.
    let outer = runs("NET_RX");
    let before = agent.scrape();
    let inner = runs("NET_RX");
    let start = Instant::now();
    send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6000", 20_000, 20);
    let took = start.elapsed();
    let inner = runs("NET_RX") - inner;
    let after = agent.scrape();
    let outer = runs("NET_RX") - outer;
    assert!(inner > 100, "only {inner} runs in {took:?}");
    let grew = |stage| count(&after, "net_rx", stage) - count(&before, "net_rx", stage);
    let unmatched = |page: &Page| {
        page.pod(HOST).count("netsonde_net_softirq_unmatched_runs_total", &[("vector", "net_rx")])
    };
    let unmatched = unmatched(&after) - unmatched(&before);
    let (waited, ran) = (grew("scheduling") + unmatched, grew("execution"));
    // One may be under way on each CPU when a page is made.
    let cpus = cpus();
    for (what, counted) in [("waits", waited), ("runs", ran)] {
        assert!(inner <= counted + cpus && counted <= outer + cpus, "{inner} {outer}: {counted} {what}");
    }
    assert!(unmatched * 100 <= ran, "{unmatched} of {ran} have no wait");
    for sample in after.samples.iter().filter(|s| s.name.starts_with("netsonde_net_softirq_")) {
        assert_eq!(sample.labels["target_pod"], HOST, "softirqs belong to CPUs");
    }
    agent.stop();
}

/// Lets packets for `eth0` of a namespace be worked on by one CPU only.
fn steer(pair: &Pair, cpu: u32) {
    let write = format!("echo {:x} > /sys/class/net/eth0/queues/rx-0/rps_cpus", 1 << cpu);
    // Unlike nsenter, this shows the namespace's own devices in /sys.
    shell::run(Command::new("ip").args(["netns", "exec", pair.b.name(), "sh", "-c", &write]));
}

/// Makes the work on each packet long.
fn many_rules(pair: &Pair) {
    let mut rules = String::new();
    for port in 10_000..12_000 {
        writeln!(rules, "udp dport {port} drop").expect("writing to a string");
    }
    pair.b.nft(&format!(
        "table inet lab {{
            chain in {{
                type filter hook input priority 0
                {rules}
                udp dport 6000 drop
            }}
        }}"
    ));
}

/// How long the process holds its CPU.
const SPIN: Duration = Duration::from_secs(4);

#[test]
fn a_process_that_holds_a_softirq_up_is_named_with_its_pod() {
    needs_root!();
    needs_programs!("nft", "chrt", "taskset", "bash");
    assert!(cpus() > 1, "the process and the sender need a CPU each");
    let pair = Pair::v4("hog");
    many_rules(&pair);
    steer(&pair, 1);
    let agent = Agent::start(
        "probes: [{name: softirq, args: {slow: 500us, events: {per_second: 1000, burst: 1000}}}]\n",
    );
    agent.find(pair.b.name());
    // Softirqs that are left over after a long pass wait for ksoftirqd, which gets no time beside such a process: it
    // ends by its own clock.
    let spin = format!("while ((SECONDS < {})); do :; done", SPIN.as_secs());
    let hog =
        Running::start(pair.b.mortal("chrt").args(["-f", "10", "taskset", "-c", "1", "bash", "-c", &spin]));
    let own = format!("pod={}&probe=net_softirq&last=1000", pair.b.name());
    let sender = pair.a.udp("10.9.0.1:0");
    // On the other CPU, where this thread and the sockets' work are not held up.
    shell::run(Command::new("taskset").args(["-cp", "0", &rustix::thread::gettid().to_string()]));
    let held_up = until("the process is told of", SPIN, || {
        send(&sender, "10.9.0.2:6000", 20_000, 20);
        let told = events(&agent, &own);
        // It is other programs before it is bash.
        told.into_iter().find(|event| event["pid"] == hog.pid() && event["comm"] == "bash")
    });
    drop(hog);
    assert_eq!((number(&held_up, "cpu"), text(&held_up, "vector")), (1, "net_rx"));
    assert_eq!((text(&held_up, "meanwhile"), text(&held_up, "comm")), ("process", "bash"));
    let latency = number(&held_up, "latency_ns");
    // A tick; before Linux 6.5 all of its time, because a ksoftirqd that was woken has to come first.
    let most = if kernel::at_least(6, 5) { Duration::from_millis(100) + wait::late() } else { SPIN };
    assert!((500_000..most.as_nanos()).contains(&latency.into()), "{held_up:#}");
    let kind = if latency > 100_000_000 { "NETSOFTIRQ_SCHED_100MS" } else { "NETSOFTIRQ_SCHED_SLOW" };
    assert_eq!(text(&held_up, "type"), kind);
    assert!(number(&held_up, "task_ns") <= latency && number(&held_up, "task_ns") >= latency / 2);

    // The runs that caused it are long, and told of on the host's row.
    let query = format!("pod={HOST}&type=NETSOFTIRQ_EXCUTE_SLOW&last=1000");
    let long = events(&agent, &query);
    let long = long.iter().find(|event| event["cpu"] == 1).expect("a run of 64 packets takes longer");
    assert!(number(long, "packets") > 0 && number(long, "packets") >= number(long, "work"), "{long:#}");
    assert!(number(long, "work") <= number(long, "budget"), "{long:#}");

    // What was told of was counted, and stands in the right bucket.
    let mut types = BTreeMap::<String, u64>::new();
    for event in events(&agent, "probe=net_softirq&last=10000") {
        *types.entry(text(&event, "type").to_owned()).or_default() += 1;
    }
    let page = agent.scrape();
    for (kind, name, stage) in [
        ("NETSOFTIRQ_SCHED_SLOW", "netsonde_net_softirq_scheduling_slow_runs_total", "scheduling"),
        ("NETSOFTIRQ_EXCUTE_SLOW", "netsonde_net_softirq_execution_slow_runs_total", "execution"),
    ] {
        let slow = page.pod(HOST).total(name, &[]);
        let told = types.get(kind).copied().unwrap_or_default();
        assert!(slow >= told, "{slow} {kind}: {types:?}");
        // 500 us is between two bounds.
        let over = |bound: &str| {
            let up_to = page
                .pod(HOST)
                .total("netsonde_net_softirq_seconds_bucket", &[("le", bound), ("stage", stage)]);
            page.pod(HOST).total("netsonde_net_softirq_seconds_count", &[("stage", stage)]) - up_to
        };
        let (most, least) = (over("0.000262144"), over("0.000524288"));
        assert!(least <= slow + 2 && slow <= most + 2, "{stage}: {least} {slow} {most}");
    }
    agent.stop();
}

#[test]
fn the_names_of_the_reference_are_on_the_hosts_row_from_the_start() {
    needs_root!();
    let agent =
        Agent::start("metrics: {names: kubeskoop}\nprobes: [{name: net_softirq, args: {slow: 1h}}]\n");
    let page = agent.scrape();
    for name in ["schedslow", "schedslow100ms", "excuteslow", "excuteslow100ms"] {
        let name = format!("kubeskoop_softirq_{name}");
        assert_eq!(page.all(&name, &[]).count(), 1);
        let slow = page.pod(HOST).count(&name, &[]);
        assert!(slow == 0 || name.ends_with("100ms"), "nothing takes an hour: {slow} {name}");
    }
    agent.stop();
}
