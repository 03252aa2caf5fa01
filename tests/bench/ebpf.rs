//! What the eBPF probes cost: time of each program, events through the whole path, CPU at rest, memory.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use super::measure::{cpu, cpu_since, memory, mib};
use super::programs::{Runs, during};
use netsonde_tests::{Agent, Pair};

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

/// Nanoseconds of one run of the agent's programs while `work` is done.
fn per_run(agent: &Agent, work: impl FnOnce()) -> f64 {
    let runs = during(agent, work).into_values();
    let sum = runs.fold(Runs::default(), |sum, more| Runs {
        time: sum.time + more.time,
        count: sum.count + more.count,
    });
    sum.each()
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
