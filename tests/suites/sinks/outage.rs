//! Loki is down: without a disk buffer every loss is counted, with one nothing is lost.

use netsonde_sinks::Reason;
use netsonde_tests::loki::Answer;
use netsonde_tests::records::records;
use netsonde_tests::{Loki, agent};
use serde_json::json;

use super::{loki_args, start, wait};

#[test]
fn without_a_disk_buffer_memory_is_bounded_and_every_loss_counted() {
    let address = agent::free_address();
    let url = format!("http://{address}/loki/api/v1/push");
    let driver = start("loki", &loki_args(&url, &json!({"queue": {"events": 300}})));
    for n in 0..20 {
        driver.push(&records(n * 50..n * 50 + 50));
    }
    let counts = wait(&driver, "it has failed", |counts| counts.retries > 2);
    assert_eq!((counts.queue_events, counts.dropped_for(Reason::QueueFull), counts.delivered), (300, 700, 0));
    assert!(counts.last_error.is_some_and(|why| why.contains("refused")), "the cause is told");
    let loki = Loki::start_at(address);
    let counts = wait(&driver, "what was kept arrives", |counts| counts.queued() == 0);
    assert_eq!((counts.delivered, counts.lost()), (300, 700));
    assert_eq!(loki.numbers(), (0..300).collect::<Vec<_>>());
    assert!(!counts.failing && counts.last_success.is_some());
}

#[test]
fn with_a_disk_buffer_nothing_is_lost_however_long_it_takes() {
    let (loki, folder) = (Loki::start(), tempfile::tempdir().expect("a temporary folder"));
    let address = loki.address;
    let more = json!({"queue": {"events": 200}, "buffer": {"path": folder.path().join("buffer")}});
    let driver = start("loki", &loki_args(&loki.url(), &more));
    let push = |from: u64, to: u64| {
        for n in (from..to).step_by(100) {
            driver.push(&records(n..n + 100));
            wait(&driver, "they are on disk or delivered", |counts| counts.queue_events == 0);
        }
    };
    push(0, 500);
    wait(&driver, "all are delivered", |counts| counts.delivered == 500);
    let before = loki.numbers();
    drop(loki);
    // Many times what memory holds.
    push(500, 5000);
    let counts = wait(&driver, "it has failed", |counts| counts.retries > 0);
    assert_eq!((counts.buffer_events, counts.lost()), (4500, 0));
    let loki = Loki::start_at(address);
    let counts = wait(&driver, "all are delivered", |counts| counts.delivered == 5000);
    assert_eq!((counts.lost(), counts.queued()), (0, 0));
    assert_eq!([before, loki.numbers()].concat(), (0..5000).collect::<Vec<_>>());
}

#[test]
fn events_go_to_disk_also_while_a_push_hangs() {
    let (loki, folder) = (Loki::start(), tempfile::tempdir().expect("a temporary folder"));
    loki.always(Answer::Stall);
    let more =
        json!({"queue": {"events": 200}, "buffer": {"path": folder.path().join("buffer")}, "timeout": "5m"});
    let driver = start("loki", &loki_args(&loki.url(), &more));
    for n in 0..10 {
        driver.push(&records(n * 100..n * 100 + 100));
        wait(&driver, "they are on disk", |counts| counts.buffer_events == (n + 1) * 100);
    }
    let counts = driver.stop(std::time::Duration::from_millis(100));
    assert_eq!((counts.buffer_events, counts.lost()), (1000, 0));
}

#[test]
fn a_sink_that_hangs_does_not_hold_up_another() {
    let (loki, folder) = (Loki::start(), tempfile::tempdir().expect("a temporary folder"));
    loki.always(Answer::Stall);
    let path = folder.path().join("events.json");
    let slow = start("loki", &loki_args(&loki.url(), &json!({"timeout": "5m", "queue": {"events": 100}})));
    let quick = start("file", &json!({"path": path, "batch": {"age": "10ms"}}));
    for n in 0..100 {
        let some = records(n * 10..n * 10 + 10);
        slow.push(&some);
        quick.push(&some);
    }
    let counts = wait(&quick, "the file has them all", |counts| counts.delivered == 1000);
    assert_eq!(counts.lost(), 0);
    let counts = wait(&slow, "the rest is counted", |counts| counts.dropped_for(Reason::QueueFull) == 900);
    assert_eq!((counts.delivered, counts.queue_events), (0, 100));
    let counts = slow.stop(std::time::Duration::from_millis(50));
    assert_eq!((counts.dropped_for(Reason::Stopped), counts.queued()), (100, 0));
}
