//! `stdout`: one JSON object a line. Logs go to stderr.
//!
//! A write is only made where the kernel says that it does not block, and of a pipe at most as much as is written at
//! once or not at all. So a reader that stands still stalls this sink alone, and it can be stopped.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use netsonde_framework::setting::schema;
use netsonde_framework::{Interval, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::settings::{Delivery, LineBatch, Queue, Retry, read};
use crate::{Context, Opened, Reason, Refusal, Sink, SinkError, SinkSpec};

/// The description of this sink.
pub static SPEC: SinkSpec = SinkSpec {
    name: "stdout",
    about: "one JSON object a line on stdout",
    default_on: true,
    guide: include_str!("README.md"),
    settings: schema::<Settings>,
    open,
};

/// How batches are made.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What waits in memory; what finds no room is dropped and counted.
    pub queue: Queue,
    /// What is written at once: a batch is ready as soon as one of these is reached.
    pub batch: LineBatch,
}

/// Pauses while nobody reads: short, for a reader that comes back finds a full pipe and is soon through with it.
const RETRY: Retry = Retry { min: Interval(Duration::from_millis(50)), max: Interval::seconds(1) };

fn open(args: &Value, _: &Context) -> Result<Opened, SinkError> {
    let Settings { queue, batch } = read(args)?;
    let delivery = Delivery { queue, batch: batch.into(), retry: RETRY, buffer: None };
    delivery.check()?;
    let out = io::stdout().as_fd().try_clone_to_owned();
    let out = out.map_err(|why| SinkError::Open(format!("cannot use stdout: {why}")))?;
    Ok(Opened { sink: Box::new(Lines::new(out)), delivery })
}

/// A pipe takes so much at once, or nothing.
const AT_ONCE: usize = rustix::pipe::PIPE_BUF;

/// How long a delivery waits for the reader before it says so.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it looks.
const LOOK: Duration = Duration::from_millis(5);

/// A stream of lines that may stand still.
struct Lines {
    out: OwnedFd,
    /// The line that is partly written, and how much of it.
    begun: usize,
}

enum Step {
    Wrote(usize),
    Full,
    Failed(Errno),
}

impl Lines {
    fn new(out: OwnedFd) -> Self {
        Self { out, begun: 0 }
    }

    fn step(&self, bytes: &[u8]) -> Step {
        let mut ready = [PollFd::new(&self.out, PollFlags::OUT)];
        match poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) | Err(Errno::INTR) => return Step::Full,
            Ok(_) => {}
            Err(why) => return Step::Failed(why),
        }
        match write(&self.out, bytes) {
            Ok(wrote) => Step::Wrote(wrote),
            Err(Errno::AGAIN | Errno::INTR) => Step::Full,
            Err(why) => Step::Failed(why),
        }
    }
}

/// Whole lines up to [`AT_ONCE`], or the beginning of one that is longer. `begun` bytes of the first are out already.
fn chunk(batch: &[Arc<Record>], begun: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(AT_ONCE);
    for record in batch {
        if !bytes.is_empty() && bytes.len() + record.json.len() + 1 > AT_ONCE {
            break;
        }
        let skip = if bytes.is_empty() { begun } else { 0 };
        bytes.extend_from_slice(&record.json.as_bytes()[skip.min(record.json.len())..]);
        bytes.push(b'\n');
    }
    bytes.truncate(AT_ONCE);
    bytes
}

#[async_trait]
impl Sink for Lines {
    async fn deliver(&mut self, batch: &[Arc<Record>], done: &mut usize) -> Result<(), Refusal> {
        let mut moved = Instant::now();
        while *done < batch.len() {
            let bytes = chunk(&batch[*done..], self.begun);
            match self.step(&bytes) {
                Step::Wrote(wrote) => {
                    moved = Instant::now();
                    self.begun += wrote;
                    while let Some(record) = batch.get(*done).filter(|record| record.json.len() < self.begun)
                    {
                        self.begun -= record.json.len() + 1;
                        *done += 1;
                    }
                }
                Step::Full if moved.elapsed() > PATIENCE => {
                    return Err(Refusal::retry("nobody reads stdout at the moment"));
                }
                Step::Full => tokio::time::sleep(LOOK).await,
                Step::Failed(Errno::NOSPC | Errno::DQUOT) => {
                    return Err(Refusal::retry("the disk that stdout goes to is full"));
                }
                Step::Failed(why) => {
                    self.begun = 0;
                    let why = format!("cannot write to stdout: {why}");
                    return Err(Refusal::Drop { reason: Reason::Closed, why });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use rustix::pipe::pipe;

    use super::*;

    fn record(json: &str) -> Arc<Record> {
        Arc::new(Record {
            json: json.to_owned(),
            time_ns: 1,
            probe: "tcp".into(),
            kind: "Test".into(),
            severity: "info".into(),
            namespace: "".into(),
            pod: "".into(),
        })
    }

    fn deliver(lines: &mut Lines, batch: &[Arc<Record>]) -> (usize, Result<(), Refusal>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut done = 0;
        let result = runtime.block_on(lines.deliver(batch, &mut done));
        (done, result)
    }

    #[test]
    fn every_event_is_a_line_in_order() {
        let (reader, writer) = pipe().expect("a pipe");
        let batch: Vec<_> = (0..100).map(|n| record(&format!("{{\"n\":{n}}}"))).collect();
        assert_eq!(deliver(&mut Lines::new(writer), &batch), (100, Ok(())));
        let mut text = String::new();
        std::fs::File::from(reader).read_to_string(&mut text).expect("read");
        let wanted: String = batch.iter().flat_map(|record| [record.json.as_str(), "\n"]).collect();
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_closed_pipe_is_counted_and_no_crash() {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let (done, result) = deliver(&mut Lines::new(writer), &[record("{}")]);
        assert_eq!(done, 0);
        assert!(matches!(result, Err(Refusal::Drop { reason: Reason::Closed, .. })), "{result:?}");
    }

    #[test]
    fn a_full_pipe_ends_the_delivery_and_it_goes_on_in_the_middle_of_a_line() {
        let (reader, writer) = pipe().expect("a pipe");
        let long = record(&"x".repeat(200_000));
        let batch = [record("{\"n\":1}"), long, record("{\"n\":2}")];
        let mut lines = Lines::new(writer);
        let (done, result) = deliver(&mut lines, &batch);
        assert_eq!(done, 1, "the first line is out");
        assert!(matches!(result, Err(Refusal::Retry { .. })), "{result:?}");
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            std::fs::File::from(reader).read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(deliver(&mut lines, &batch[1..]), (2, Ok(())));
        drop(lines);
        let text = reading.join().expect("no panic").expect("read");
        let wanted: String = batch.iter().flat_map(|record| [record.json.as_str(), "\n"]).collect();
        assert!(text == wanted, "{} bytes of {}", text.len(), wanted.len());
    }
}
