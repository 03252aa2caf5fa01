//! By how much the agent makes round trips longer: a byte there and a byte back over one TCP connection over a veth, with
//! no probes and with the default ones, turn by turn in one run.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::sets::{Column, Set, Worse, alternate, asked, report};
use netsonde_tests::Pair;

const TURNS: usize = 100;
const TIME: Duration = Duration::from_secs(1);

/// Microseconds.
struct Turn {
    p50: f64,
    p99: f64,
}

/// Runs it.
pub fn run() {
    let (turns, sets) = asked(TURNS, vec![Set::none(), Set::default()]);
    let pair = Pair::v4("trips");
    let found = alternate(turns, &sets, &pair.b, || turn(&pair));
    println!("\nround trips of one byte over a veth;");
    let column = |head, of, budgets| Column { head, of, worse: Worse::More, budgets };
    report(
        &sets,
        &found,
        &[
            column("p50 us", |turn: &Turn| turn.p50, &[]),
            column("p99 us", |turn: &Turn| turn.p99, &[("the default set", 3.0)]),
        ],
    );
}

fn turn(pair: &Pair) -> Turn {
    let mut trips = round_trips(pair, TIME);
    trips.sort_unstable();
    let at = |share: usize| trips[trips.len() * share / 100].as_secs_f64() * 1e6;
    Turn { p50: at(50), p99: at(99) }
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
