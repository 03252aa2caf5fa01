//! What bulk traffic loses to the agent: iperf3 over a veth with no probes, the default ones and all, turn by turn in one
//! run.
//!
//! It is sent with cubic, the kernel's own default: that one sends what the CPUs can, so that what is lost is theirs. BBR,
//! which some machines have in its place, sends by a clock of its own. `NETSONDE_CONGESTION=bbr` measures with that one.

use std::process::{Command, Stdio};

use super::measure::{TICKS_A_SECOND, Ticks, cpus};
use super::sets::{Column, Set, Worse, alternate, asked, report};
use netsonde_tests::{Pair, Running, shell};

const TURNS: usize = 25;
const SECONDS: f64 = 2.0;
/// The CPU of the end that sends.
const SENDERS: usize = 0;
const BUDGETS: &[(&str, f64)] = &[("the default set", 2.0), ("every probe", 8.0)];

/// Runs it.
pub fn run() {
    if !shell::exists("iperf3") {
        println!("iperf3 is not installed: no throughput");
        return;
    }
    let (turns, sets) = asked(TURNS, vec![Set::none(), Set::default(), Set::every(), Set::empty()]);
    let pair = Pair::v4("iperf");
    let congestion = congestion(&pair);
    steer(&pair);
    let mut server = pair.b.mortal("iperf3");
    server.args(["--server", "--bind", "10.9.0.2"]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Running::start(&mut server);
    let found = alternate(turns, &sets, &pair.b, || turn(&pair, &congestion));
    println!(
        "\niperf3 ({congestion}) over a veth, sender and receiver on a CPU each; how much of each CPU was used,"
    );
    println!("and the CPU time of the whole machine for a gigabyte;");
    let column = |head, of, worse, budgets| Column { head, of, worse, budgets };
    report(
        &sets,
        &found,
        &[
            column("Gbit/s", |turn: &Turn| turn.gigabits, Worse::Less, BUDGETS),
            column("sender %", |turn| turn.sender, Worse::Neither, &[]),
            column("receiver %", |turn| turn.receiver, Worse::Neither, &[]),
            column("ms/GB", |turn| turn.cpu / turn.gigabytes(), Worse::More, &[]),
        ],
    );
}

struct Turn {
    /// A second.
    gigabits: f64,
    /// How much of each end's CPU was used, in percent.
    sender: f64,
    receiver: f64,
    /// Milliseconds of all CPUs.
    cpu: f64,
}

impl Turn {
    fn gigabytes(&self) -> f64 {
        self.gigabits / 8.0 * SECONDS
    }
}

/// What it is sent with.
fn congestion(pair: &Pair) -> String {
    let of = |what| pair.a.run(&format!("cat /proc/sys/net/ipv4/tcp_{what}"));
    let wanted = std::env::var("NETSONDE_CONGESTION").unwrap_or_else(|_| "cubic".into());
    let there = of("available_congestion_control");
    let has = there.split_whitespace().any(|one| one == wanted);
    if has { wanted } else { of("congestion_control").trim().into() }
}

/// The CPU of the end that gets it, another one where there is one.
fn receivers() -> usize {
    usize::from(std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1))
}

/// What an end sends is received on the CPU that sends it, as a veth does by itself, but with RPS, which keeps it so when TCP
/// sends from the interrupt that an answer came with: without it, packets of one connection overtake each other on two
/// CPUs, and what TCP then sends again by mistake makes its throughput anything between the half and the whole. And no
/// connection takes over what the one before learned.
///
/// With `NETSONDE_ACROSS=1` it is received on the CPU of the end that gets it, as from a network card: each packet
/// interrupts the other CPU.
fn steer(pair: &Pair) {
    let across = std::env::var_os("NETSONDE_ACROSS").is_some();
    let (to_a, to_b) = if across { (SENDERS, receivers()) } else { (receivers(), SENDERS) };
    for (ns, cpu) in [(&pair.a, to_a), (&pair.b, to_b)] {
        ns.sysctl("net/ipv4/tcp_no_metrics_save", "1");
        let line = format!("echo {:x} > /sys/class/net/eth0/queues/rx-0/rps_cpus", 1 << cpu);
        shell::run(Command::new("ip").args(["netns", "exec", ns.name(), "sh", "-c", &line]));
    }
}

fn turn(pair: &Pair, congestion: &str) -> Turn {
    let before = cpus();
    let gigabits = gigabits(pair, congestion);
    let did: Vec<Ticks> = cpus()
        .iter()
        .zip(&before)
        .map(|(now, then)| Ticks { used: now.used - then.used, idle: now.idle.saturating_sub(then.idle) })
        .collect();
    let used = |cpu: usize| did[cpu].used as f64 * 100.0 / (did[cpu].used + did[cpu].idle).max(1) as f64;
    let all: u64 = did.iter().map(|cpu| cpu.used).sum();
    let cpu = (all * 1000 / TICKS_A_SECOND) as f64;
    Turn { gigabits, sender: used(SENDERS), receiver: used(receivers()), cpu }
}

fn gigabits(pair: &Pair, congestion: &str) -> f64 {
    let mut client = pair.a.command("iperf3");
    client.args([
        "--client",
        "10.9.0.2",
        "--time",
        &SECONDS.to_string(),
        "--congestion",
        congestion,
        "--json",
    ]);
    client.args(["--affinity", &format!("{SENDERS},{}", receivers())]).stdin(Stdio::null());
    let answer = shell::output(&mut client);
    let json: serde_json::Value =
        serde_json::from_slice(&answer.stdout).unwrap_or_else(|e| panic!("iperf3: {e}"));
    let bits = json["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.unwrap_or_else(|| panic!("iperf3 says: {json:#}")) / 1e9
}
