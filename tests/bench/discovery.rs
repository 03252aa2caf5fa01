//! What discovery costs: at rest with 250 sandboxes of a real containerd, and while sandboxes come and go.

use std::fs;
use std::time::{Duration, Instant};

use netsonde_tests::containerd::{Pod, Sandbox};
use netsonde_tests::{Agent, Containerd, shell, until};

use super::measure::{memory, mib, ms};

const SANDBOXES: usize = 250;
const THREADS: usize = 3;
const REST: Duration = Duration::from_mins(1);
const BUDGET: f64 = 0.002;
/// The agent's threads that find namespaces and pods.
const OURS: [&str; 4] = ["discovery", "watch", "runtime", "netns"];

/// Time on the CPU of each of these threads so far, in nanoseconds.
fn spent(agent: &Agent) -> Vec<(String, u64)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("the agent runs");
    let tasks = tasks.flatten().filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?.trim().to_owned();
        let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
        Some((name, times.split_whitespace().next()?.parse().ok()?))
    });
    let mut tasks: Vec<_> = tasks.filter(|(name, _)| OURS.contains(&&**name)).collect();
    tasks.sort();
    tasks
}

fn rest(agent: &Agent, time: Duration) -> f64 {
    let before = spent(agent);
    let start = Instant::now();
    std::thread::sleep(time);
    let wall = start.elapsed().as_nanos() as f64;
    let mut sum = 0.0;
    for ((name, before), (_, after)) in before.iter().zip(spent(agent)) {
        let share = (after - before) as f64 / wall;
        println!("  {name:>10}: {:.3} % of a core", share * 100.0);
        sum += share;
    }
    sum
}

fn processes_made() -> u64 {
    let stat = fs::read_to_string("/proc/stat").expect("it can be read");
    let line = stat.lines().find_map(|line| line.strip_prefix("processes ")).expect("the kernel counts");
    line.trim().parse().expect("a number")
}

/// Runs all of it.
pub fn run() {
    if !["containerd", "runc", "cc"].iter().all(|program| shell::exists(program)) {
        println!("\ncontainerd is not installed: discovery is not measured");
        return;
    }
    println!("\ndiscovery: {SANDBOXES} sandboxes of containerd, no scrapes");
    let containerd = Containerd::start();
    let agent = Agent::start(&format!(
        "node_name: bench\nprobes: []\nsinks: []\ndiscovery: {{cri: {}}}\n",
        containerd.socket().display()
    ));
    let none = agent.pid();
    println!("at rest without any: RSS {:.1} MB", mib(memory(none).0));
    let start = Instant::now();
    let sandboxes = run_all(&containerd);
    let all = || {
        let status = agent.status();
        let found = status["namespaces"].as_array()?.iter().filter(|row| row["namespace"] == "bench").count();
        (found == SANDBOXES).then_some(())
    };
    until("all are found", Duration::from_secs(10), all);
    println!(
        "started in {:.1} s, {THREADS} at once; RSS {:.1} MB",
        start.elapsed().as_secs_f64(),
        mib(memory(none).0)
    );
    // The walks of the first seconds, while processes are young, are not rest.
    std::thread::sleep(Duration::from_secs(15));
    let made = processes_made();
    let share = rest(&agent, REST);
    println!(
        "at rest: {:.3} % of a core; budget {:.1} %: {} ({} processes were made on this machine meanwhile)",
        share * 100.0,
        BUDGET * 100.0,
        if share <= BUDGET { "within" } else { "MISSED" },
        processes_made() - made,
    );
    restart(&containerd, &sandboxes);
}

/// How long an agent takes to know all pods when it starts.
fn restart(containerd: &Containerd, sandboxes: &[Sandbox]) {
    let start = Instant::now();
    let agent = Agent::start(&format!(
        "node_name: bench\nprobes: []\nsinks: []\ndiscovery: {{cri: {}}}\n",
        containerd.socket().display()
    ));
    let known = agent.status()["runtime"]["sandboxes"].as_u64();
    println!(
        "a fresh agent is ready after {:.0} ms and knows {known:?} of {}",
        ms(start.elapsed()),
        sandboxes.len()
    );
}

fn run_all(containerd: &Containerd) -> Vec<Sandbox> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let client = containerd.connect();
                    let mine = (0..SANDBOXES).filter(|n| n % THREADS == thread);
                    mine.map(|n| client.run(&Pod::new("bench", &format!("pod-{n}")))).collect::<Vec<_>>()
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("sandboxes start")).collect()
    })
}
