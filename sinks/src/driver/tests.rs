//! Facts about the driver, with a sink that does as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use netsonde_framework::{Interval, Record};

use super::{Counts, Driver};
use crate::settings::{BatchLimits, Buffer, Delivery, Queue, Retry};
use crate::sink::{Opened, Reason, Refusal, Sink};

/// What the sink is told to do with its next delivery.
enum Told {
    Refuse(Refusal),
    /// Takes so many, then refuses.
    Part(usize, Refusal),
    /// Never answers.
    Hang,
    Panic,
}

#[derive(Default)]
struct Seen {
    told: VecDeque<Told>,
    /// Batches above this are too large.
    most: Option<usize>,
    batches: Vec<usize>,
    lines: Vec<String>,
    reopened: u32,
}

struct Obedient(Arc<Mutex<Seen>>);

#[async_trait]
impl Sink for Obedient {
    async fn deliver(&mut self, batch: &[Arc<Record>], done: &mut usize) -> Result<(), Refusal> {
        let told = self.0.lock().expect("unpoisoned").told.pop_front();
        match &told {
            Some(Told::Hang) => std::future::pending().await,
            Some(Told::Panic) => panic!("as told"),
            _ => {}
        }
        let mut seen = self.0.lock().expect("unpoisoned");
        seen.batches.push(batch.len());
        if seen.most.is_some_and(|most| batch.len() > most) {
            return Err(Refusal::Split { why: "too large".into() });
        }
        let (taken, result) = match told {
            Some(Told::Refuse(refusal)) => (0, Err(refusal)),
            Some(Told::Part(taken, refusal)) => (taken, Err(refusal)),
            _ => (batch.len(), Ok(())),
        };
        seen.lines.extend(batch[..taken].iter().map(|record| record.json.clone()));
        *done = taken;
        result
    }

    async fn reopen(&mut self) {
        self.0.lock().expect("unpoisoned").reopened += 1;
    }
}

fn records(range: std::ops::Range<usize>) -> Vec<Arc<Record>> {
    let record = |n| Record {
        json: format!("{{\"n\":{n}}}"),
        time_ns: n as u64,
        probe: "tcp".into(),
        kind: "Test".into(),
        severity: "info".into(),
        namespace: "".into(),
        pod: "".into(),
    };
    range.map(|n| Arc::new(record(n))).collect()
}

fn lines(range: std::ops::Range<usize>) -> Vec<String> {
    records(range).iter().map(|record| record.json.clone()).collect()
}

fn delivery() -> Delivery {
    Delivery {
        queue: Queue { events: 1000, bytes: 1 << 20 },
        batch: BatchLimits { events: 10, bytes: 1 << 20, age: Duration::from_millis(20) },
        retry: Retry { min: Interval(Duration::from_millis(5)), max: Interval(Duration::from_millis(20)) },
        buffer: None,
    }
}

fn start(told: impl IntoIterator<Item = Told>, delivery: Delivery) -> (Driver, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen { told: told.into_iter().collect(), ..Seen::default() }));
    let sink = Box::new(Obedient(Arc::clone(&seen)));
    (Driver::run("obedient", Opened { sink, delivery }).expect("started"), seen)
}

fn balanced(counts: &Counts) -> bool {
    counts.received == counts.delivered + counts.lost() + counts.queued()
}

/// Waits until the counts are as wanted; they are balanced all the time.
fn until(driver: &Driver, what: &str, wanted: impl Fn(&Counts) -> bool) -> Counts {
    let start = Instant::now();
    loop {
        let counts = driver.counts();
        assert!(balanced(&counts), "{counts:?}");
        if wanted(&counts) {
            return counts;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: {counts:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn retry() -> Told {
    Told::Refuse(Refusal::retry("not now"))
}

#[test]
fn what_is_pushed_arrives_in_order_in_batches() {
    let (driver, seen) = start([], delivery());
    driver.push(&records(0..25));
    let counts = until(&driver, "all are delivered", |counts| counts.delivered == 25);
    assert!(counts.last_success.is_some() && !counts.failing && counts.lost() == 0, "{counts:?}");
    let seen = seen.lock().expect("unpoisoned");
    assert_eq!(seen.lines, lines(0..25));
    assert!(seen.batches.iter().all(|batch| *batch <= 10), "{:?}", seen.batches);
}

#[test]
fn a_refused_batch_is_tried_again_from_where_it_stopped() {
    let (driver, seen) = start([retry(), Told::Part(3, Refusal::retry("half way")), retry()], delivery());
    driver.push(&records(0..20));
    let counts = until(&driver, "all are delivered", |counts| counts.delivered == 20);
    assert_eq!((counts.retries, counts.lost()), (3, 0));
    assert_eq!(counts.last_error.as_deref(), Some("not now"));
    assert_eq!(seen.lock().expect("unpoisoned").lines, lines(0..20));
}

#[test]
fn pauses_do_not_grow_while_a_part_of_each_batch_arrives() {
    let retry = Retry { min: Interval(Duration::from_millis(1)), max: Interval::seconds(3600) };
    // Twenty pauses that doubled would be a quarter of an hour.
    let slow = (0..20).map(|_| Told::Part(1, Refusal::retry("slow reader")));
    let (driver, seen) = start(slow, Delivery { retry, ..delivery() });
    driver.push(&records(0..30));
    let counts = until(&driver, "all are delivered", |counts| counts.delivered == 30);
    assert_eq!((counts.retries, counts.lost()), (20, 0));
    assert_eq!(seen.lock().expect("unpoisoned").lines, lines(0..30));
}

#[test]
fn what_will_never_work_is_dropped_and_counted_by_reason() {
    let refused = || Refusal::Drop { reason: Reason::Refused, why: "no".into() };
    let (driver, seen) = start([Told::Refuse(refused()), Told::Part(4, refused())], delivery());
    driver.push(&records(0..30));
    let counts = until(&driver, "nothing waits", |counts| counts.queued() == 0);
    assert_eq!((counts.delivered, counts.dropped_for(Reason::Refused), counts.retries), (14, 16, 0));
    assert_eq!(seen.lock().expect("unpoisoned").lines, [lines(10..14), lines(20..30)].concat());
}

#[test]
fn a_batch_that_is_too_large_is_halved_and_order_is_kept() {
    let (driver, seen) = start([], delivery());
    seen.lock().expect("unpoisoned").most = Some(3);
    driver.push(&records(0..40));
    let counts = until(&driver, "all are delivered", |counts| counts.delivered == 40);
    assert_eq!(counts.lost(), 0);
    assert_eq!(seen.lock().expect("unpoisoned").lines, lines(0..40));
}

#[test]
fn an_event_that_is_too_large_alone_is_dropped_and_the_others_arrive() {
    let large = || Told::Refuse(Refusal::Split { why: "too large".into() });
    // 10, 5, 2, 1: the first event is refused alone.
    let (driver, seen) = start([large(), large(), large(), large()], delivery());
    driver.push(&records(0..10));
    let counts = until(&driver, "nothing waits", |counts| counts.queued() == 0);
    assert_eq!((counts.delivered, counts.dropped_for(Reason::TooLarge)), (9, 1));
    assert_eq!(seen.lock().expect("unpoisoned").lines, lines(1..10));
}

#[test]
fn what_finds_no_room_is_counted_and_memory_is_bounded() {
    let queue = Queue { events: 50, bytes: 1 << 20 };
    let (driver, seen) = start([Told::Hang], Delivery { queue, ..delivery() });
    for n in 0..100 {
        driver.push(&records(n * 10..n * 10 + 10));
    }
    let counts = until(&driver, "the rest is refused", |counts| counts.dropped_for(Reason::QueueFull) == 950);
    assert_eq!((counts.queue_events, counts.delivered), (50, 0));
    let counts = driver.stop(Duration::from_millis(20));
    assert_eq!((counts.dropped_for(Reason::Stopped), counts.queued()), (50, 0));
    assert!(balanced(&counts) && seen.lock().expect("unpoisoned").lines.is_empty());
}

#[test]
fn the_queue_is_bounded_by_bytes_too() {
    let queue = Queue { events: 100_000, bytes: 65_536 };
    let (driver, _) = start([Told::Hang], Delivery { queue, ..delivery() });
    driver.push(&records(0..10_000));
    let counts = until(&driver, "some are refused", |counts| counts.dropped_for(Reason::QueueFull) > 0);
    assert!(counts.queue_bytes <= 65_536 && counts.queue_events > 100, "{counts:?}");
}

#[test]
fn stopping_delivers_what_it_can() {
    let slow = BatchLimits { age: Duration::from_hours(1), ..delivery().batch };
    let (driver, seen) = start([retry()], Delivery { batch: slow, ..delivery() });
    driver.push(&records(0..5));
    let counts = driver.stop(Duration::from_secs(20));
    assert_eq!((counts.delivered, counts.lost(), counts.queued()), (5, 0, 0));
    assert_eq!(seen.lock().expect("unpoisoned").lines, lines(0..5));
}

#[test]
fn a_stopped_driver_with_a_disk_buffer_leaves_the_rest_to_the_next() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let buffer = Some(Buffer { path: folder.path().join("buffer"), max_bytes: 1 << 20 });
    let (driver, seen) = start([retry(), retry()], Delivery { buffer: buffer.clone(), ..delivery() });
    driver.push(&records(0..30));
    until(&driver, "it has failed", |counts| counts.retries > 0);
    seen.lock().expect("unpoisoned").told.extend((0..1000).map(|_| retry()));
    let counts = driver.stop(Duration::from_secs(20));
    assert_eq!((counts.queue_events, counts.lost()), (0, 0));
    assert_eq!(counts.delivered + counts.buffer_events, 30);
    let before = seen.lock().expect("unpoisoned").lines.clone();

    let (driver, seen) = start([], Delivery { buffer, ..delivery() });
    let after = until(&driver, "the rest arrives", |counts| counts.queued() == 0);
    assert_eq!((after.restored, after.delivered), (counts.buffer_events, counts.buffer_events));
    assert_eq!([before, seen.lock().expect("unpoisoned").lines.clone()].concat(), lines(0..30));
}

#[test]
fn a_full_disk_buffer_counts_what_it_refuses() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let buffer = Some(Buffer { path: folder.path().join("buffer"), max_bytes: 1 << 20 });
    let queue = Queue { events: 100_000, bytes: 64 << 20 };
    let (driver, seen) = start([Told::Hang], Delivery { queue, buffer, ..delivery() });
    driver.push(&records(0..40_000));
    let counts = until(&driver, "all are on disk or refused", |counts| counts.queue_events == 0);
    assert!(counts.dropped_for(Reason::BufferFull) > 0 && counts.buffer_bytes <= 1 << 20, "{counts:?}");
    assert_eq!(counts.buffer_events + counts.dropped_for(Reason::BufferFull), 40_000);
    assert!(counts.buffer_error.is_some_and(|why| why.contains("full")));
    assert!(seen.lock().expect("unpoisoned").lines.is_empty());
}

#[test]
fn two_drivers_do_not_share_a_disk_buffer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let buffer = Some(Buffer { path: folder.path().join("buffer"), max_bytes: 1 << 20 });
    let (_driver, _) = start([], Delivery { buffer: buffer.clone(), ..delivery() });
    let sink = Box::new(Obedient(Arc::default()));
    let second = Driver::run("obedient", Opened { sink, delivery: Delivery { buffer, ..delivery() } });
    let why = second.expect_err("refused").to_string();
    assert!(why.contains("path of its own"), "{why}");
}

#[test]
fn files_are_opened_anew_on_request() {
    let (driver, seen) = start([], delivery());
    driver.reopen();
    let start = Instant::now();
    while seen.lock().expect("unpoisoned").reopened == 0 {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_panic_is_told_and_its_events_stay_counted() {
    let (driver, _) = start([Told::Panic], delivery());
    driver.push(&records(0..10));
    let counts = until(&driver, "the panic is told", |counts| counts.failing);
    assert!(counts.last_error.is_some_and(|why| why.contains("panicked")));
    let counts = driver.stop(Duration::from_secs(1));
    assert_eq!(counts.dropped_for(Reason::Stopped), 10);
}
