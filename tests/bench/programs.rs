//! What each program of each eBPF probe costs a run, from the kernel's own run statistics.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::process::Stdio;
use std::time::{Duration, Instant};

use netsonde_tests::agent::netsonde;
use netsonde_tests::{Agent, Pair, Running, shell};

use super::trips::round_trips;

const STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Run time and number of runs of a program.
#[derive(Debug, Default, Clone, Copy)]
pub struct Runs {
    pub time: u64,
    pub count: u64,
}

impl Runs {
    /// Nanoseconds of one run.
    pub fn each(self) -> f64 {
        self.time as f64 / self.count.max(1) as f64
    }
}

/// Every program that the agent holds, by its number in the kernel, from the agent's descriptors.
fn held(agent: &Agent) -> BTreeMap<u32, Runs> {
    let mut programs = BTreeMap::new();
    for text in agent.fdinfo() {
        let of = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse::<u64>().ok()
        };
        if let (Some(id), Some(time), Some(count)) = (of("prog_id:"), of("run_time_ns:"), of("run_cnt:")) {
            programs.insert(
                u32::try_from(id).expect("the kernel numbers them with 32 bits"),
                Runs { time, count },
            );
        }
    }
    programs
}

/// What the agent's programs ran while `work` was done, by their numbers.
pub fn during(agent: &Agent, work: impl FnOnce()) -> BTreeMap<u32, Runs> {
    fs::write(STATISTICS, "1").unwrap_or_else(|e| panic!("{STATISTICS}: {e}"));
    let before = held(agent);
    work();
    std::thread::sleep(Duration::from_millis(300));
    let mut after = held(agent);
    // Whatever happens, the kernel is not left to count.
    let _ = fs::write(STATISTICS, "0");
    for (id, runs) in &mut after {
        let then = before.get(id).copied().unwrap_or_default();
        *runs = Runs { time: runs.time - then.time, count: runs.count - then.count };
    }
    after
}

/// Every probe of this build.
pub fn probes() -> Vec<String> {
    let listed = shell::run(&mut netsonde(&["probes", "--output", "json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_else(|e| panic!("no JSON: {e}"));
    let names = listed.as_array().expect("a list of probes").iter();
    names.map(|probe| probe["name"].as_str().expect("a name").to_owned()).collect()
}

/// A table of every program, with traffic of every kind.
pub fn run() {
    println!("\nnanoseconds of a run, of which 60 to 100 are the measurement itself\n");
    println!("{:>16} {:>32} {:>10} {:>8}", "probe", "program", "runs", "ns");
    let pair = Pair::v4("programs");
    pair.b.nft("table inet bench { chain in { type filter hook input priority 0; udp dport 6000 drop; }; }");
    pair.b.run("tc qdisc add dev eth0 root pfifo");
    let mut server = pair.b.mortal("iperf3");
    server.args(["--server", "--bind", "10.9.0.2"]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Running::start(&mut server);
    for probe in probes() {
        // By themselves: the kernel gives the time of all that share a tracepoint to the one that is attached.
        let agent = Agent::start_without_rungs("relay", &format!("node_name: bench\nprobes: [{probe}]\n"));
        agent.find(pair.b.name());
        if !held(&agent).is_empty() {
            let runs = during(&agent, || {
                everything(&pair);
                // Programs that user space runs.
                agent.scrape();
            });
            let names = names();
            for (id, runs) in runs.iter().filter(|(_, runs)| runs.count > 0) {
                let name = names.get(id).map_or("?", String::as_str);
                println!("{probe:>16} {name:>32} {:>10} {:>8.0}", runs.count, runs.each());
            }
        }
        agent.stop();
    }
}

/// Names of the loaded programs: whole where bpftool is installed, which reads them from their BTF, else as the kernel
/// cuts them, to 15 characters.
fn names() -> BTreeMap<u32, String> {
    if shell::exists("bpftool") {
        let listed = shell::run(&mut shell::words("bpftool --json prog show"));
        let listed: serde_json::Value =
            serde_json::from_str(&listed).unwrap_or_else(|e| panic!("no JSON: {e}"));
        let programs = listed.as_array().expect("a list of programs").iter();
        let named = programs.filter_map(|program| {
            let id = u32::try_from(program["id"].as_u64()?).ok()?;
            Some((id, program["name"].as_str()?.to_owned()))
        });
        return named.collect();
    }
    let loaded = aya::programs::loaded_programs().filter_map(Result::ok);
    loaded.map(|p| (p.id(), p.name_as_str().unwrap_or("?").to_owned())).collect()
}

/// TCP in bulk and in small turns, connections, resets, datagrams that are read and that a rule drops, a disk's reads.
fn everything(pair: &Pair) {
    let mut bulk = pair.a.command("iperf3");
    bulk.args(["--client", "10.9.0.2", "--time", "1"]).stdin(Stdio::null());
    shell::output(&mut bulk);
    round_trips(pair, Duration::from_millis(500));
    let listener = pair.b.listen("10.9.0.2:7000", 64);
    for _ in 0..300 {
        let mut client = pair.a.connect("10.9.0.2:7000");
        let (mut accepted, _) = listener.accept().expect("a connection waits");
        client.write_all(b"question").expect("sent");
        accepted.read_exact(&mut [0; 8]).expect("it arrives");
        // Unread data at the close makes a reset.
        accepted.write_all(b"answer").expect("sent");
        drop(client);
    }
    let (from, to): (UdpSocket, UdpSocket) = (pair.a.udp("10.9.0.1:0"), pair.b.udp("10.9.0.2:6001"));
    let mut buffer = [0; 64];
    for _ in 0..20_000 {
        from.send_to(&[7; 20], "10.9.0.2:6001").expect("sent");
        to.recv(&mut buffer).expect("it arrives");
        from.send_to(&[7; 20], "10.9.0.2:6000").expect("sent");
    }
    let start = Instant::now();
    // Straight from the disk below the temporary folder, where it can be done.
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let mut dd = shell::words("dd if=/dev/zero bs=4k count=200 oflag=direct status=none");
    dd.arg(format!("of={}", file.path().display()));
    shell::output(&mut dd);
    std::thread::sleep(Duration::from_millis(100).saturating_sub(start.elapsed()));
}
