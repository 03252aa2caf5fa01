//! Events reach stdout, files and Loki, or are counted: through refusals, outages, full disks and kill -9.

#[path = "sinks/lines.rs"]
mod lines;
#[path = "sinks/loki.rs"]
mod loki;
#[path = "sinks/outage.rs"]
mod outage;
#[path = "sinks/process.rs"]
mod process;

use std::time::Duration;

use netsonde_sinks::{Context, Counts, Driver, SPECS};
use netsonde_tests::until;
use serde_json::Value;

/// How long a busy machine may take.
const LONG: Duration = Duration::from_mins(1);

/// A running sink.
fn start(name: &str, args: &Value) -> Driver {
    let spec = SPECS.iter().find(|spec| spec.name == name).expect("a sink of this name");
    let driver = Driver::start(spec, args, &Context { node: "lab".into() });
    driver.unwrap_or_else(|why| panic!("{name} {args}: {why}"))
}

/// Waits until the counts are as wanted. At every moment every event is accounted for.
fn wait(driver: &Driver, what: &str, wanted: impl Fn(&Counts) -> bool) -> Counts {
    let mut last = driver.counts();
    let started = std::time::Instant::now();
    until(what, LONG * 2, || {
        last = driver.counts();
        assert_eq!(last.received, last.delivered + last.lost() + last.queued(), "{last:?}");
        assert!(started.elapsed() < LONG, "{what}: {last:?}");
        wanted(&last).then(|| last.clone())
    })
}

/// Settings of `loki` for a test: small batches and short pauses, and what `more` says.
fn loki_args(url: &str, more: &Value) -> Value {
    let mut args = serde_json::json!({
        "url": url,
        "batch": {"events": 50, "age": "10ms"},
        "retry": {"min": "10ms", "max": "50ms"},
    });
    for (key, value) in more.as_object().expect("a mapping") {
        args[key] = value.clone();
    }
    args
}
