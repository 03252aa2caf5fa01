//! `netsonde-lab-sink NAME ARGS`: a process that runs one sink. It does what the lines of its standard input say, and
//! answers each with a line on standard error; standard output is the sink's.
//!
//! `push FROM TO` pushes numbered events, `counts` only answers, `stop MILLISECONDS` stops and ends the process.

use std::io::{BufRead as _, Write as _};
use std::time::Duration;

use netsonde_sinks::{Context, Counts, Driver, SPECS};
use netsonde_tests::records::records;
use serde_json::json;

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let [_, name, args] = words.as_slice() else { panic!("a name and its args are wanted") };
    let spec = SPECS.iter().find(|spec| spec.name == name).expect("a sink of this name");
    let args = serde_json::from_str(args).expect("args are JSON");
    let driver = Driver::start(spec, &args, &Context { node: "lab".into() });
    let driver = driver.unwrap_or_else(|why| panic!("{why}"));
    tell(&driver.counts())?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |n: usize| words[n].parse::<u64>().expect("a number");
        match words[0] {
            "push" => {
                let (mut from, to) = (number(1), number(2));
                while from < to {
                    let next = to.min(from + 100);
                    driver.push(&records(from..next));
                    from = next;
                }
            }
            "counts" => {}
            "stop" => return tell(&driver.stop(Duration::from_millis(number(1)))),
            other => panic!("there is no {other}"),
        }
        tell(&driver.counts())?;
    }
    Ok(())
}

fn tell(counts: &Counts) -> std::io::Result<()> {
    let dropped: serde_json::Map<_, _> =
        counts.dropped.iter().map(|(reason, count)| ((*reason).to_owned(), json!(count))).collect();
    let line = json!({
        "received": counts.received,
        "restored": counts.restored,
        "delivered": counts.delivered,
        "dropped": dropped,
        "lost": counts.lost(),
        "queue_events": counts.queue_events,
        "buffer_events": counts.buffer_events,
        "queued": counts.queued(),
        "last_error": counts.last_error,
    });
    writeln!(std::io::stderr(), "{line}")
}
