//! What netsonde costs: a scrape at 1, 50, 200 and 500 namespaces, beside Debian's node-exporter; and the eBPF probes.
//!
//! `make bench` runs it, on the release build. It asserts nothing: figures depend on the machine. Budgets are printed
//! beside the figures they are for.

#![allow(clippy::print_stdout)]

mod discovery;
mod ebpf;
mod hooks;
mod measure;
mod programs;
mod ratios;
mod sets;
mod traffic;
mod trips;

use std::process::Stdio;
use std::time::{Duration, Instant};

use measure::{TICKS_A_SECOND, cpu, cpu_since, memory, mib, ms};
use netsonde_tests::agent::free_address;
use netsonde_tests::running::mortal;
use netsonde_tests::{Agent, Netns, Running, http, shell, until};

const STEPS: &[usize] = &[1, 50, 200, 500];
const THIRTEEN: &str =
    "conntrack, qdisc, fd, io, ipvs, netdev, tcpext, tcp, udp, ip, sock, softnet, tcpsummary";
/// The same without the two that look at every process.
const ELEVEN: &str = "conntrack, qdisc, ipvs, netdev, tcpext, tcp, udp, ip, sock, softnet, tcpsummary";
/// What node-exporter's collectors below read, with the fields of each one's default, and with all that there are.
const ALIKE: &str = "conntrack, qdisc, netdev, tcpext, tcp, udp, ip, sock, softnet";
const ALIKE_ALL: &str = "conntrack, qdisc, netdev, {name: tcpext, args: {fields: all}}, tcp, udp, \
                         {name: ip, args: {fields: all}}, sock, softnet";
const COLLECTORS: &[&str] = &["netstat", "sockstat", "softnet", "netdev", "conntrack", "qdisc"];

/// What one set-up costs.
struct Figures {
    namespaces: usize,
    cpu: Duration,
    wall: Duration,
    series: usize,
    bytes: usize,
    rest: Option<Duration>,
    rss: u64,
    peak: u64,
}

fn main() {
    assert!(rustix::process::geteuid().is_root(), "the bench makes network namespaces: run it as root");
    println!("Linux {}, {} CPUs", kernel(), cpus());
    println!(
        "CPU is user and system time of the whole process, in steps of {} ms over all scrapes\n",
        1000 / TICKS_A_SECOND
    );
    // `bench traffic` does one part, and so the others; without a word, all.
    let part = std::env::args().nth(1);
    let wanted = |name| part.as_deref().is_none_or(|part| part == name);
    if wanted("scrape") {
        scrapes_at_each_step();
    }
    if wanted("ebpf") {
        ebpf::run();
    }
    if wanted("programs") {
        programs::run();
    }
    if wanted("traffic") {
        traffic::run();
    }
    if wanted("trips") {
        trips::run();
    }
    if wanted("discovery") {
        discovery::run();
    }
}

fn scrapes_at_each_step() {
    println!(
        "{:>10} {:>7} {:>10} {:>10} {:>8} {:>9} {:>9} {:>9} {:>12}",
        "namespaces",
        "probes",
        "CPU ms",
        "wall ms",
        "series",
        "page kB",
        "RSS MB",
        "peak MB",
        "CPU us/series"
    );
    let node = Netns::new("bench-node");
    let mut pods = Vec::new();
    let mut all = Vec::new();
    let mut without = None;
    for &step in STEPS {
        while pods.len() < step {
            let pod = Netns::new("bench");
            node.veth(&format!("h{}", pods.len()), &pod, "eth0");
            pods.push(pod);
        }
        let at_200 = step == 200;
        let figures = agent(THIRTEEN, &pods, at_200);
        row("13", &figures);
        all.push(figures);
        if at_200 {
            let figures = agent(ELEVEN, &pods, false);
            row("11", &figures);
            without = Some(figures);
        }
    }
    println!("\n11: without fd and io, which look at every process of the machine");
    verdict(&all, without.as_ref());
    if shell::exists("prometheus-node-exporter") {
        compare(&pods[..200]);
    } else {
        println!("prometheus-node-exporter is not installed: nothing to compare with");
    }
}

/// netsonde and node-exporter with the same sources, scraped in the same way.
fn compare(pods: &[Netns]) {
    println!("\nCPU for one series: netsonde at 200 namespaces, node-exporter on one, from the same sources");
    println!("({}); budget: 8 times less\n", COLLECTORS.join(" "));
    println!(
        "{:>26} {:>14} {:>22} {:>22} {:>7}",
        "fields", "scrapes", "node-exporter us", "netsonde us", "times"
    );
    let sets: [(&str, &str, &[&str]); 2] = [
        ("each one's default", ALIKE, &[]),
        ("all of TcpExt and IpExt", ALIKE_ALL, &["--collector.netstat.fields=.*"]),
    ];
    for (what, probes, args) in sets {
        for (how, pause) in [("back to back", Duration::ZERO), ("ten a second", Duration::from_millis(100))] {
            let theirs = node_exporter(args, pause);
            let ours = with_agent(probes, pods, |agent| scrapes(agent.pid(), 40, pause, || series(agent)));
            let each = |(cpu, series): (Duration, usize)| per_series(cpu, series);
            let cell = |of: (Duration, usize)| format!("{:.2} ({} series)", each(of), of.1);
            println!(
                "{what:>26} {how:>14} {:>22} {:>22} {:>7.1}",
                cell(theirs),
                cell(ours),
                each(theirs) / each(ours)
            );
        }
    }
}

/// CPU of one scrape, as a mean over `count` with a pause before each, and the number of series.
fn scrapes(pid: u32, count: u32, pause: Duration, mut scrape: impl FnMut() -> usize) -> (Duration, usize) {
    let before = cpu(pid);
    let mut series = 0;
    for _ in 0..count {
        std::thread::sleep(pause);
        series = scrape();
    }
    (cpu_since(pid, before) / count, series)
}

fn series(agent: &Agent) -> usize {
    agent.get("/metrics", &[]).text().lines().filter(|line| !line.starts_with('#')).count()
}

/// Does `work` with a warm agent that reads these namespaces with these probes.
fn with_agent<T>(probes: &str, pods: &[Netns], work: impl FnOnce(&Agent) -> T) -> T {
    // Names of these namespaces only, whatever else is on the machine.
    let names = tempfile::tempdir().expect("a temporary folder");
    for pod in pods {
        std::os::unix::fs::symlink(pod.path(), names.path().join(pod.name())).expect("linked");
    }
    let folder = names.path().display();
    let agent =
        Agent::start(&format!("node_name: bench\npaths: {{netns: [{folder}]}}\nprobes: [{probes}]\n"));
    agent.find(pods[pods.len() - 1].name());
    for _ in 0..3 {
        agent.scrape();
    }
    // Processes of the namespaces' making are young for ten scans, and young ones are looked at each time.
    std::thread::sleep(Duration::from_secs(11));
    let result = work(&agent);
    agent.stop();
    result
}

/// One agent with these probes; `rest` measures it idle, too.
fn agent(probes: &str, pods: &[Netns], rest: bool) -> Figures {
    with_agent(probes, pods, |agent| figures(agent, pods.len(), rest))
}

fn figures(agent: &Agent, pods: usize, rest: bool) -> Figures {
    // Enough for the step of the clock to be small against the whole.
    let scrapes = u32::try_from(4000 / pods.max(10)).expect("a few hundred");
    let (cpu_then, start) = (cpu(agent.pid()), Instant::now());
    let mut bytes = 0;
    for _ in 0..scrapes {
        bytes = agent.get("/metrics", &[]).body.len();
    }
    let (cpu_spent, wall) = (cpu_since(agent.pid(), cpu_then), start.elapsed());
    let namespaces = agent.status()["namespaces"].as_array().map_or(0, Vec::len);
    let series = agent.scrape().samples.len();
    let rest = rest.then(|| {
        let before = cpu(agent.pid());
        std::thread::sleep(Duration::from_secs(10));
        cpu_since(agent.pid(), before)
    });
    let (rss, peak) = memory(agent.pid());
    Figures { namespaces, cpu: cpu_spent / scrapes, wall: wall / scrapes, series, bytes, rest, rss, peak }
}

/// CPU of a scrape and number of series of node-exporter, which sees the host's namespace only.
fn node_exporter(args: &[&str], pause: Duration) -> (Duration, usize) {
    let address = free_address();
    let mut command = mortal("prometheus-node-exporter");
    command.arg("--collector.disable-defaults").arg(format!("--web.listen-address={address}"));
    command.args(COLLECTORS.iter().map(|name| format!("--collector.{name}"))).args(args);
    let process = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    let get = || http::get(address, "/metrics", &[]);
    until("node-exporter answers", Duration::from_secs(10), || get().ok());
    let series = || {
        let page = get().expect("node-exporter answers");
        page.text().lines().filter(|line| !line.starts_with('#')).count()
    };
    scrapes(process.pid(), if pause.is_zero() { 400 } else { 100 }, pause, series)
}

fn row(probes: &str, f: &Figures) {
    println!(
        "{:>10} {probes:>7} {:>10.1} {:>10.1} {:>8} {:>9} {:>9.1} {:>9.1} {:>12.2}",
        f.namespaces,
        ms(f.cpu),
        ms(f.wall),
        f.series,
        f.bytes / 1000,
        mib(f.rss),
        mib(f.peak),
        per_series(f.cpu, f.series)
    );
}

fn per_series(cpu: Duration, series: usize) -> f64 {
    cpu.as_secs_f64() * 1e6 / series as f64
}

fn verdict(all: &[Figures], without: Option<&Figures>) {
    println!();
    let word = |good: bool| if good { "within" } else { "MISSED" };
    if let Some(f) = without {
        println!(
            "CPU at 200 without fd and io: {:.1} ms; budget 40 ms: {}",
            ms(f.cpu),
            word(ms(f.cpu) <= 40.0)
        );
    }
    if let [.., at_200, at_500] = all {
        let growth = ms(at_500.cpu) / ms(at_200.cpu);
        let linear = at_500.namespaces as f64 / at_200.namespaces as f64;
        println!(
            "CPU from 200 to 500: {growth:.2} times, linear is {linear:.2}: {}",
            word(growth <= linear * 1.15)
        );
        println!(
            "RSS at 200: {:.1} MB, at 500: {:.1} MB; budget 25 MB at 200: {}",
            mib(at_200.rss),
            mib(at_500.rss),
            word(mib(at_200.rss) <= 25.0)
        );
        if let Some(rest) = at_200.rest {
            println!(
                "CPU at rest over 10 s at 200: {:.0} ms, {:.2} % of one CPU",
                ms(rest),
                ms(rest) / 100.0
            );
        }
    }
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(0, std::num::NonZero::get)
}
