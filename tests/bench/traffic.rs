//! What bulk traffic loses to the agent: iperf3 over a veth with no probes, the default ones and all, turn by turn in one
//! run.
//!
//! It is sent with cubic, the kernel's own default: that one sends what the CPUs can, so that what is lost is theirs. BBR,
//! which some machines have in its place, sends by a clock of its own. `NETSONDE_CONGESTION=bbr` measures with that one.

use std::process::{Command, Stdio};

use super::sets::{Column, Set, alternate, asked, report};
use netsonde_tests::{Pair, Running, shell};

const TURNS: usize = 25;
const SECONDS: &str = "2";
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
    let found = alternate(turns, &sets, &pair.b, || gigabits(&pair, &congestion));
    println!("\niperf3 ({congestion}) over a veth, sender and receiver on a CPU each;");
    let gigabits = Column { head: "Gbit/s", of: |turn| *turn, less_is_better: false, budgets: BUDGETS };
    report(&sets, &found, &[gigabits]);
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

fn gigabits(pair: &Pair, congestion: &str) -> f64 {
    let mut client = pair.a.command("iperf3");
    client.args(["--client", "10.9.0.2", "--time", SECONDS, "--congestion", congestion, "--json"]);
    client.args(["--affinity", &format!("{SENDERS},{}", receivers())]).stdin(Stdio::null());
    let answer = shell::output(&mut client);
    let json: serde_json::Value =
        serde_json::from_slice(&answer.stdout).unwrap_or_else(|e| panic!("iperf3: {e}"));
    let bits = json["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.unwrap_or_else(|| panic!("iperf3 says: {json:#}")) / 1e9
}
