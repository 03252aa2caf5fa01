//! What traffic loses to the agent: bulk and round trips over a veth with no probes, the default ones and all, turn by
//! turn in one run.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::hooks::{self, Empty};
use super::measure::cpu;
use super::programs::probes;
use super::ratios::{error, loss, median, verdict};
use netsonde_tests::{Agent, Pair, Running, shell, wait::until_true};

/// Turns of each set. `bench traffic 30 flow,tcpretrans packetloss` makes another number, of these two sets.
const ROUNDS: usize = 25;
const BULK_SECONDS: &str = "2";
const ROUND_TRIPS: Duration = Duration::from_millis(700);

/// One turn's figures.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// Gbit/s in bulk.
    bulk: f64,
    /// Round trips, in microseconds.
    p50: f64,
    p99: f64,
}

/// Budgets in percent, with the probes they are for.
struct Set {
    what: String,
    config: String,
    bulk: f64,
    p99: Option<f64>,
    /// With programs that do nothing in place of the agent's.
    empty: bool,
}

impl Set {
    fn new(what: &str, config: &str) -> Self {
        Self { what: what.into(), config: config.into(), bulk: 0.0, p99: None, empty: false }
    }
}

/// Runs all of it.
pub fn run() {
    if !shell::exists("iperf3") {
        println!("iperf3 is not installed: no throughput");
        return;
    }
    let words: Vec<String> = std::env::args().skip(2).collect();
    let rounds = words.first().map_or(ROUNDS, |word| word.parse().expect("how many turns of each set"));
    let mut sets = vec![Set::new("no probes", "probes: []")];
    let every = format!("probes: [{}]", probes().join(", "));
    if words.len() > 1 {
        sets.extend(words[1..].iter().map(|probes| Set::new(probes, &format!("probes: [{probes}]"))));
    } else {
        sets.push(Set { bulk: 2.0, p99: Some(3.0), ..Set::new("the default set", "") });
        sets.push(Set { bulk: 8.0, ..Set::new("every probe", &every) });
        sets.push(Set { empty: true, ..Set::new("empty programs", "probes: []") });
    }
    let pair = Pair::v4("iperf");
    let mut server = pair.b.mortal("iperf3");
    server.args(["--server", "--bind", "10.9.0.2"]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Running::start(&mut server);
    let agent = Agent::start("node_name: bench\nprobes: []\nsinks: []\n");
    agent.find(pair.b.name());
    become_set(&agent, &Set::new("every probe", &every));
    let tracepoints = hooks::of(&agent);
    let object = hooks::compile(&tracepoints);
    let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); sets.len()];
    for round in 0..rounds {
        // Each set is first, middle and last as often.
        for place in 0..sets.len() {
            let which = (place + round) % sets.len();
            become_set(&agent, &sets[which]);
            let empty = sets[which].empty.then(|| Empty::attach(&object, &tracepoints));
            turns[which].push(turn(&pair));
            drop(empty);
        }
    }
    agent.stop();
    report(&sets, &turns, pair.a.run("cat /proc/sys/net/ipv4/tcp_congestion_control").trim());
    if sets.iter().any(|set| set.empty) {
        println!("\nempty programs: {} that return at once, where the probes have theirs", tracepoints.len());
    }
}

/// The agent takes the set's configuration, and comes to rest: programs are loaded and verified, connections listed.
fn become_set(agent: &Agent, set: &Set) {
    let reloads = || agent.scrape().find("netsonde_config_reloads_total", &[("result", "ok")]);
    let before = reloads();
    agent.write_config(&format!("node_name: bench\nsinks: []\n# {:?}\n{}\n", Instant::now(), set.config));
    until_true("the configuration is taken", Duration::from_secs(20), || reloads() != before);
    let mut used = cpu(agent.pid());
    until_true("the agent rests", Duration::from_secs(20), || {
        std::thread::sleep(Duration::from_millis(300));
        let before = std::mem::replace(&mut used, cpu(agent.pid()));
        used.saturating_sub(before) <= Duration::from_millis(10)
    });
}

fn turn(pair: &Pair) -> Turn {
    let bulk = gigabits(pair);
    let mut trips = round_trips(pair, ROUND_TRIPS);
    trips.sort_unstable();
    let at = |share: usize| trips[trips.len() * share / 100].as_secs_f64() * 1e6;
    Turn { bulk, p50: at(50), p99: at(99) }
}

/// A byte there and a byte back over one TCP connection, again and again; what each took.
pub fn round_trips(pair: &Pair, time: Duration) -> Vec<Duration> {
    let listener = pair.b.listen("10.9.0.2:7001", 1);
    let mut client = pair.a.connect("10.9.0.2:7001");
    let (mut server, _) = listener.accept().expect("a connection waits");
    client.set_nodelay(true).expect("an option of every socket");
    server.set_nodelay(true).expect("an option of every socket");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut byte = [0];
            while server.read_exact(&mut byte).is_ok() && server.write_all(&byte).is_ok() {}
        });
        let (start, mut trips) = (Instant::now(), Vec::with_capacity(100_000));
        let mut byte = [0];
        while start.elapsed() < time {
            let sent = Instant::now();
            client.write_all(&byte).expect("sent");
            client.read_exact(&mut byte).expect("it comes back");
            trips.push(sent.elapsed());
        }
        // The other side ends with the connection.
        drop(client);
        trips
    })
}

fn gigabits(pair: &Pair) -> f64 {
    let mut client = pair.a.command("iperf3");
    client.args(["--client", "10.9.0.2", "--time", BULK_SECONDS, "--json"]).stdin(Stdio::null());
    let answer = shell::output(&mut client);
    let json: serde_json::Value =
        serde_json::from_slice(&answer.stdout).unwrap_or_else(|e| panic!("iperf3: {e}"));
    let bits = json["end"]["sum_received"]["bits_per_second"].as_f64();
    bits.unwrap_or_else(|| panic!("iperf3 says: {json:#}")) / 1e9
}

fn report(sets: &[Set], turns: &[Vec<Turn>], congestion: &str) {
    println!(
        "\niperf3 ({congestion}) and round trips of one byte over a veth, medians of {} turns of each set, alternated;",
        turns[0].len()
    );
    println!("the loss is the median of each round's own ratio, give or take its standard error\n");
    println!(
        "{:>16} {:>8} {:>15} {:>8} {:>8} {:>15}",
        "", "Gbit/s", "loss %", "p50 us", "p99 us", "p99 longer %"
    );
    for (set, mine) in sets.iter().zip(turns) {
        let of = |pick: fn(&Turn) -> f64| median(mine.iter().map(pick).collect());
        let lost = |pick: fn(&Turn) -> f64| -> Vec<f64> {
            mine.iter().zip(&turns[0]).map(|(mine, none)| loss(pick(none), pick(mine))).collect()
        };
        let bulk = lost(|turn| turn.bulk);
        let p99: Vec<f64> = lost(|turn| turn.p99).into_iter().map(|percent| 0.0 - percent).collect();
        let cell = |percents: &[f64]| format!("{:.1} +- {:.1}", median(percents.to_vec()), error(percents));
        println!(
            "{:>16} {:>8.2} {:>15} {:>8.1} {:>8.1} {:>15}",
            set.what,
            of(|turn| turn.bulk),
            cell(&bulk),
            of(|turn| turn.p50),
            of(|turn| turn.p99),
            cell(&p99)
        );
        if set.bulk > 0.0 {
            println!("{:>16} throughput: budget {} %: {}", "", set.bulk, verdict(&bulk, set.bulk));
        }
        if let Some(budget) = set.p99 {
            println!("{:>16} p99: budget {budget} %: {}", "", verdict(&p99, budget));
        }
    }
}
