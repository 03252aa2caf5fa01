//! A sink in a process of its own: killed in the middle, with a reader that stands still, under a flood.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{ChildStderr, ChildStdin, Stdio};
use std::time::Duration;

use netsonde_tests::loki::Answer;
use netsonde_tests::records::numbers;
use netsonde_tests::{Loki, Running, agent, needs_programs, running, until};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{LONG, loki_args};

/// A `netsonde-lab-sink`.
struct Sink {
    process: Running,
    input: ChildStdin,
    answers: BufReader<ChildStderr>,
}

impl Sink {
    fn start(name: &str, args: &Value) -> Self {
        let mut command = running::mortal(env!("CARGO_BIN_EXE_netsonde-lab-sink"));
        command.arg(name).arg(args.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Running::start(&mut command);
        let input = process.child().stdin.take().expect("its input is a pipe");
        let answers = BufReader::new(process.child().stderr.take().expect("its errors are a pipe"));
        let mut sink = Self { process, input, answers };
        sink.answer();
        sink
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("its answers can be read");
        let counts: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("no counts ({e}): {line}"));
        let number = |key: &str| counts[key].as_u64().expect("a number");
        assert_eq!(number("received"), number("delivered") + number("lost") + number("queued"), "{counts}");
        counts
    }

    fn tell(&mut self, line: &str) -> Value {
        writeln!(self.input, "{line}").expect("it listens");
        self.answer()
    }

    fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, LONG, || Some(self.tell("counts")).filter(&wanted))
    }

    fn kill(mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(LONG).expect("nothing survives this");
    }
}

#[test]
fn after_kill_9_nothing_is_lost_and_at_most_one_batch_is_repeated() {
    needs_programs!("setpriv");
    let (loki, folder) = (Loki::start(), tempfile::tempdir().expect("a temporary folder"));
    let args = loki_args(&loki.url(), &json!({"buffer": {"path": folder.path().join("buffer")}}));
    let mut pushed = 0;
    for round in 1..=5 {
        let mut sink = Sink::start("loki", &args);
        sink.tell(&format!("push {pushed} {}", pushed + 2000));
        pushed += 2000;
        sink.wait("they are on disk", |counts| counts["queue_events"] == 0);
        let enough = loki.entries().len() + 300 * round;
        until("some of them arrive", LONG, || (loki.entries().len() >= enough.min(2000)).then_some(()));
        sink.kill();
        until("what it had sent is looked at", LONG, || (loki.connections() == 0).then_some(()));
    }
    let mut last = Sink::start("loki", &args);
    let counts = last.wait("the rest arrives", |counts| counts["queued"] == 0);
    assert_eq!(counts["lost"], 0, "{counts}");
    let got = loki.numbers();
    let (mut next, mut repeated) = (0, 0);
    for n in got {
        assert!(n <= next, "{next} is missing before {n}");
        if n < next {
            repeated += 1;
            assert!(next - n <= 50, "{n} comes again after {next}");
        } else {
            next += 1;
        }
    }
    assert_eq!(next, pushed);
    assert!(repeated <= 5 * 50, "{repeated} events came twice in five rounds");
}

#[test]
fn a_reader_that_stands_still_costs_what_finds_no_room_and_nothing_else() {
    needs_programs!("setpriv");
    let args = json!({"queue": {"events": 500}, "batch": {"age": "10ms"}});
    let mut sink = Sink::start("stdout", &args);
    for n in 0..50 {
        sink.tell(&format!("push {} {}", n * 100, n * 100 + 100));
    }
    let counts = sink.wait("the pipe and the queue are full", |counts| counts["dropped"]["queue_full"] != 0);
    assert_eq!(counts["received"], 5000);
    let mut out = sink.process.child().stdout.take().expect("its output is a pipe");
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text)
    });
    sink.wait("the rest is written", |counts| counts["queued"] == 0);
    sink.tell("push 5000 5010");
    let counts = sink.tell("stop 30000");
    drop(sink);
    let got = numbers(&reading.join().expect("no panic").expect("read"));
    assert_eq!(counts["delivered"], got.len());
    assert_eq!(counts["dropped"]["queue_full"], 5010 - got.len());
    assert!(got.is_sorted_by(|a, b| a < b), "in order, none twice");
    assert_eq!(got[got.len() - 10..], (5000..5010).collect::<Vec<_>>());
}

#[test]
fn a_stuck_stdout_can_be_stopped() {
    needs_programs!("setpriv");
    let mut sink = Sink::start("stdout", &json!({"batch": {"age": "10ms"}}));
    sink.tell("push 0 5000");
    sink.wait("the pipe is full", |counts| counts["delivered"] != 0 && counts["queued"] != 0);
    let counts = sink.tell("stop 100");
    assert!(counts["dropped"]["stopped"].as_u64() > Some(0), "{counts}");
    let status = sink.process.wait(LONG).expect("it ends");
    assert!(status.success(), "{status}");
    let mut text = String::new();
    let out = sink.process.child().stdout.as_mut().expect("its output is a pipe");
    out.read_to_string(&mut text).expect("read");
    let got = numbers(&text);
    assert_eq!(
        counts["delivered"],
        got.len(),
        "what is counted as delivered is in the pipe, and nothing else"
    );
}

#[test]
fn nobody_at_the_other_end_of_stdout_is_counted_and_no_crash() {
    needs_programs!("setpriv");
    let mut sink = Sink::start("stdout", &json!({"batch": {"age": "10ms"}}));
    drop(sink.process.child().stdout.take());
    sink.tell("push 0 100");
    let counts = sink.wait("it is counted", |counts| counts["dropped"]["closed"] == 100);
    assert_eq!((&counts["delivered"], &counts["queued"]), (&json!(0), &json!(0)));
    sink.tell("stop 1000");
    assert!(sink.process.wait(LONG).is_some_and(|status| status.success()));
}

#[test]
fn a_flood_while_loki_is_down_does_not_fill_memory() {
    needs_programs!("setpriv");
    let url = format!("http://{}/loki/api/v1/push", agent::free_address());
    let mut sink =
        Sink::start("loki", &loki_args(&url, &json!({"queue": {"events": 10_000, "bytes": 4_194_304}})));
    let counts = sink.tell("push 0 500000");
    assert!(counts["dropped"]["queue_full"].as_u64() > Some(480_000), "{counts}");
    let status = std::fs::read_to_string(sink.process.proc().join("status")).expect("it runs");
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a process has one");
    let most: u64 = most.trim().trim_end_matches(" kB").parse().expect("a number");
    netsonde_tests::note(&format!("500,000 events with Loki down: {most} kB at most"));
    assert!(most < 64 << 10, "{most} kB");
}

#[test]
fn a_stop_within_its_time_flushes_what_waits() {
    needs_programs!("setpriv");
    let loki = Loki::start();
    loki.then(Answer::Say(500, Vec::new(), ""));
    let slow = json!({"batch": {"events": 1000, "age": "1h"}, "retry": {"min": "1h", "max": "1h"}});
    let mut sink = Sink::start("loki", &loki_args(&loki.url(), &slow));
    sink.tell("push 0 120");
    let counts = sink.tell("stop 20000");
    // The first push fails; a pause of an hour is longer than there is time.
    assert_eq!(counts["dropped"]["stopped"], 120, "{counts}");
    let mut sink = Sink::start("loki", &loki_args(&loki.url(), &slow));
    sink.tell("push 0 120");
    let counts = sink.tell("stop 20000");
    assert_eq!((&counts["delivered"], &counts["lost"]), (&json!(120), &json!(0)));
    assert_eq!(loki.numbers(), (0..120).collect::<Vec<_>>());
    assert!(sink.process.wait(Duration::from_secs(20)).is_some_and(|status| status.success()));
}
