//! What the eBPF probes cost: time of each program, events through the whole path, CPU at rest, memory, throughput.

use std::fs;
use std::net::UdpSocket;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::measure::{cpu, cpu_since, memory, mib};
use netsonde_tests::agent::netsonde;
use netsonde_tests::{Agent, Pair, Running, shell};

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// The probes of the budget for events.
const FOUR: &str = "packetloss, tcpreset, tcpretrans, kernellatency";
const NOTHING_TOLD: &str = "{name: packetloss, args: {events: {per_second: 0, burst: 1}}}";
const ALL_TOLD: &str =
    "{name: packetloss, args: {stacks: false, events: {per_second: 1000000, burst: 1000000}}}";

fn word(good: bool) -> &'static str {
    if good { "within" } else { "MISSED" }
}

/// Runs all of it.
pub fn run() {
    println!(
        "\neBPF: packets that a firewall rule drops, run statistics of the kernel on (60 to 100 ns of each run)\n"
    );
    let counting = with_agent(NOTHING_TOLD, "", |agent, pair| per_run(agent, || flood(pair, 200_000)));
    println!("kfree_skb, counted only: {counting:.0} ns; budget 300 ns: {}", word(counting <= 300.0));
    let telling = with_agent(ALL_TOLD, MANY, |agent, pair| per_run(agent, || flood(pair, 200_000)));
    println!("kfree_skb, each told as an event: {telling:.0} ns; budget 900 ns: {}", word(telling <= 900.0));
    events();
    at_rest();
    throughput("the four of the budget", &format!("probes: [{FOUR}]\n"), 3.0);
    throughput("what is on by default", "", 2.0);
    throughput("every probe", &format!("probes: [{}]\n", all().join(", ")), 8.0);
}

/// Every probe of this build.
fn all() -> Vec<String> {
    let listed = shell::run(&mut netsonde(&["probes", "--output", "json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_else(|e| panic!("no JSON: {e}"));
    let names = listed.as_array().expect("a list of probes").iter();
    names.map(|probe| probe["name"].as_str().expect("a name").to_owned()).collect()
}

/// The agent's own bounds, far away.
const MANY: &str = "events: {per_second: 1000000, burst: 1000000}\nsinks: [stdout]\n";

fn with_agent<T>(probes: &str, more: &str, work: impl FnOnce(&Agent, &Pair) -> T) -> T {
    let pair = Pair::v4("bench");
    pair.b.nft(
        "table inet bench {
            chain in {
                type filter hook prerouting priority 0
                udp dport 6000 drop
            }
        }",
    );
    let agent = Agent::start(&format!("node_name: bench\nprobes: [{probes}]\n{more}"));
    agent.find(pair.b.name());
    let result = work(&agent, &pair);
    agent.stop();
    result
}

fn flood(pair: &Pair, count: usize) {
    let from: UdpSocket = pair.a.udp("10.9.0.1:0");
    let datagram = [7; 20];
    for _ in 0..count {
        from.send_to(&datagram, "10.9.0.2:6000").expect("a datagram can be sent");
    }
}

/// Run time and number of runs of every program that the agent holds, from its descriptors.
fn programs(agent: &Agent) -> (u64, u64) {
    let folder = format!("/proc/{}/fdinfo", agent.pid());
    let mut sum = (0, 0);
    for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder}: {e}")).flatten() {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let of = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse::<u64>().ok()
        };
        if let (Some(time), Some(runs)) = (of("run_time_ns:"), of("run_cnt:"))
            && text.contains("prog_jited:")
        {
            sum = (sum.0 + time, sum.1 + runs);
        }
    }
    sum
}

/// Nanoseconds of one run of the agent's programs while `work` is done.
fn per_run(agent: &Agent, work: impl FnOnce()) -> f64 {
    fs::write(STATISTICS, "1").unwrap_or_else(|e| panic!("{STATISTICS}: {e}"));
    let before = programs(agent);
    work();
    std::thread::sleep(Duration::from_millis(300));
    let after = programs(agent);
    // Whatever happens, the kernel is not left to count.
    let _ = fs::write(STATISTICS, "0");
    (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64
}

/// From the ring buffer through attribution and serialisation into a sink that throws away.
fn events() {
    with_agent(ALL_TOLD, MANY, |agent, pair| {
        let told = || {
            let page = agent.scrape();
            let labels = [("probe", "packetloss"), ("type", "PacketLoss")];
            page.find("netsonde_events_total", &labels).unwrap_or_default()
        };
        flood(pair, 20_000);
        std::thread::sleep(Duration::from_millis(500));
        let (told_before, cpu_before, start) = (told(), cpu(agent.pid()), Instant::now());
        flood(pair, 1_000_000);
        std::thread::sleep(Duration::from_millis(300));
        let spent = cpu_since(agent.pid(), cpu_before);
        let wall = start.elapsed();
        let count = told() - told_before;
        let lost = agent.scrape().pod(pair.b.name()).total("netsonde_packetloss_lost_events_total", &[]);
        let each = count / spent.as_secs_f64();
        println!(
            "events: {count:.0} told of 1,000,000 drops in {:.1} s, {lost} lost in the ring; the agent used {:.2} s \
             of CPU: {each:.0} a second on one core; budget 150,000: {}",
            wall.as_secs_f64(),
            spent.as_secs_f64(),
            word(each >= 150_000.0)
        );
    });
}

fn at_rest() {
    with_agent(FOUR, "", |agent, _| {
        for _ in 0..3 {
            agent.scrape();
        }
        std::thread::sleep(Duration::from_secs(11));
        let before = cpu(agent.pid());
        std::thread::sleep(Duration::from_secs(20));
        let percent = cpu_since(agent.pid(), before).as_secs_f64() / 20.0 * 100.0;
        println!("CPU at rest with {FOUR}: {percent:.2} % of a core; budget 0.5 %: {}", word(percent < 0.5));
        let (rss, peak) = memory(agent.pid());
        println!("RSS: {:.1} MB (peak {:.1}); budget 30 MB: {}", mib(rss), mib(peak), word(mib(rss) <= 30.0));
    });
}

/// iperf3 over a veth, with and without an agent, turn by turn.
fn throughput(what: &str, probes: &str, budget: f64) {
    if !shell::exists("iperf3") {
        println!("iperf3 is not installed: no throughput");
        return;
    }
    let pair = Pair::v4("iperf");
    let mut server = pair.b.mortal("iperf3");
    server.args(["--server", "--bind", "10.9.0.2"]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Running::start(&mut server);
    std::thread::sleep(Duration::from_millis(500));
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        without.push(gigabits(&pair));
        let agent = Agent::start(&format!("node_name: bench\n{probes}"));
        agent.find(pair.b.name());
        with.push(gigabits(&pair));
        agent.stop();
    }
    let (with, without) = (median(&mut with), median(&mut without));
    let loss = (1.0 - with / without) * 100.0;
    println!(
        "iperf3 over a veth, medians of 7 turns of 2 s: {without:.1} Gbit/s without, {with:.1} with {what}: {loss:.1} % \
         less; budget {budget} %: {}",
        word(loss <= budget)
    );
}

fn gigabits(pair: &Pair) -> f64 {
    let mut client = pair.a.command("iperf3");
    client.args(["--client", "10.9.0.2", "--time", "2", "--json"]).stdin(Stdio::null());
    let answer = shell::output(&mut client);
    let json: serde_json::Value =
        serde_json::from_slice(&answer.stdout).unwrap_or_else(|e| panic!("iperf3: {e}"));
    let bits = json["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.unwrap_or_else(|| panic!("iperf3 says: {json:#}")) / 1e9
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
