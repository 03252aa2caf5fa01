//! Settings that sinks share: queue, batch, retry and disk buffer.

use std::path::PathBuf;
use std::time::Duration;

use netsonde_framework::Interval;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::SinkError;

/// How a driver treats its sink.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The queue in memory.
    pub queue: Queue,
    /// When a batch is ready: as soon as one of these is reached.
    pub batch: BatchLimits,
    /// Pauses between tries.
    pub retry: Retry,
    /// The disk buffer, if there is one.
    pub buffer: Option<Buffer>,
}

impl Delivery {
    /// Refuses what no schema can refuse, and what did not come through the schema.
    pub fn check(&self) -> Result<(), SinkError> {
        let wrong = |why: &str| Err(SinkError::Settings(why.to_owned()));
        match self {
            Self { queue: Queue { events: 0, .. }, .. } => wrong("queue.events: must be at least 1"),
            Self { queue, .. } if queue.bytes < LEAST_BYTES => wrong("queue.bytes: must be at least 65536"),
            Self { batch, .. } if batch.events == 0 => wrong("batch.events: must be at least 1"),
            Self { batch, .. } if !(LEAST_BATCH..=MOST_BATCH).contains(&batch.bytes) => {
                wrong("batch.bytes: must be 4096 to 67108864")
            }
            Self { batch, .. } if batch.age > MOST_AGE => wrong("batch.age: must be at most 1h"),
            Self { retry, .. } if retry.min.0.is_zero() => wrong("retry.min: must be at least 1ms"),
            Self { retry, .. } if retry.max < retry.min => {
                wrong("retry.max: must not be shorter than retry.min")
            }
            Self { retry, .. } if retry.max.0 > MOST_AGE => wrong("retry.max: must be at most 1h"),
            Self { buffer: Some(buffer), .. } if buffer.path.as_os_str().is_empty() => {
                wrong("buffer.path: must not be empty")
            }
            Self { buffer: Some(buffer), .. } if buffer.max_bytes < LEAST_BUFFER => {
                wrong("buffer.max_bytes: must be at least 1048576")
            }
            _ => Ok(()),
        }
    }
}

const LEAST_BYTES: usize = 64 << 10;
const LEAST_BATCH: usize = 4 << 10;
const MOST_BATCH: usize = 64 << 20;
const LEAST_BUFFER: u64 = 1 << 20;
const MOST_AGE: Duration = Duration::from_hours(1);

/// What waits in memory for delivery. What finds no room is dropped and counted.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// At most so many events. Default 10000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub events: usize,
    /// At most so many bytes of events. Default 8388608 (8 MiB), at least 65536.
    #[schemars(range(min = 65_536))]
    pub bytes: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self { events: 10_000, bytes: 8 << 20 }
    }
}

/// What is sent at once. A batch is ready as soon as one of these is reached.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    /// So many events. Default 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub events: usize,
    /// So many bytes of events. Default 1048576 (1 MiB), from 4096 to 67108864.
    #[schemars(range(min = 4096, max = 67_108_864))]
    pub bytes: usize,
    /// The oldest has waited so long. Default 1s, at most 1h.
    #[schemars(extend("formatMaximum" = "1h"))]
    pub age: Interval,
}

impl Default for Batch {
    fn default() -> Self {
        Self { events: 1000, bytes: 1 << 20, age: Interval::seconds(1) }
    }
}

/// What is written at once. A batch is ready as soon as one of these is reached.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LineBatch {
    /// So many events. Default 1000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub events: usize,
    /// So many bytes of events. Default 1048576 (1 MiB), from 4096 to 67108864.
    #[schemars(range(min = 4096, max = 67_108_864))]
    pub bytes: usize,
    /// The oldest has waited so long. Default 100ms, at most 1h.
    #[schemars(extend("formatMaximum" = "1h"))]
    pub age: Interval,
}

impl Default for LineBatch {
    fn default() -> Self {
        Self { events: 1000, bytes: 1 << 20, age: Interval(Duration::from_millis(100)) }
    }
}

/// A [`Batch`] or a [`LineBatch`].
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// So many events.
    pub events: usize,
    /// So many bytes of events.
    pub bytes: usize,
    /// The oldest has waited so long.
    pub age: Duration,
}

impl From<Batch> for BatchLimits {
    fn from(Batch { events, bytes, age }: Batch) -> Self {
        Self { events, bytes, age: age.0 }
    }
}

impl From<LineBatch> for BatchLimits {
    fn from(LineBatch { events, bytes, age }: LineBatch) -> Self {
        Self { events, bytes, age: age.0 }
    }
}

/// Pauses between tries. They double from `min` to `max`; each is cut by a random part of at most a half.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// The first pause. Default 500ms.
    #[schemars(extend("formatMinimum" = "1ms", "formatMaximum" = "1h"))]
    pub min: Interval,
    /// The longest pause. Default 30s.
    #[schemars(extend("formatMinimum" = "1ms", "formatMaximum" = "1h"))]
    pub max: Interval,
}

impl Default for Retry {
    fn default() -> Self {
        Self { min: Interval(Duration::from_millis(500)), max: Interval::seconds(30) }
    }
}

/// Events are kept on disk until they are delivered, so that they outlast an outage and a restart.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// A folder for this buffer alone; it is made if only its last part is missing.
    #[schemars(length(min = 1))]
    pub path: PathBuf,
    /// At most so many bytes on disk; then new events are dropped and counted. Default 268435456 (256 MiB), at least
    /// 1048576.
    #[serde(default = "buffer_bytes")]
    #[schemars(range(min = 1_048_576))]
    pub max_bytes: u64,
}

fn buffer_bytes() -> u64 {
    256 << 20
}

/// Reads a sink's settings; no `args` at all are the same as empty ones.
pub(crate) fn read<T: DeserializeOwned>(args: &Value) -> Result<T, SinkError> {
    let args = if args.is_null() { json!({}) } else { args.clone() };
    serde_json::from_value(args).map_err(|why| SinkError::Settings(why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Both {
        #[serde(default)]
        queue: Queue,
        #[serde(default)]
        batch: LineBatch,
        #[serde(default)]
        retry: Retry,
        buffer: Option<Buffer>,
    }

    fn delivery(args: &Value) -> Result<Delivery, SinkError> {
        let Both { queue, batch, retry, buffer } = read(args)?;
        let delivery = Delivery { queue, batch: batch.into(), retry, buffer };
        delivery.check().map(|()| delivery)
    }

    #[test]
    fn a_part_that_is_given_leaves_the_other_defaults() {
        let given = delivery(&json!({"batch": {"events": 7}, "queue": {"bytes": 65536}})).expect("right");
        assert_eq!((given.batch.events, given.batch.bytes), (7, 1 << 20));
        assert_eq!(given.batch.age, Duration::from_millis(100));
        assert_eq!((given.queue.events, given.queue.bytes), (10_000, 65_536));
        assert!(delivery(&Value::Null).is_ok());
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (args, wanted) in [
            (json!({"queue": {"events": 0}}), "queue.events"),
            (json!({"queue": {"bytes": 1}}), "queue.bytes"),
            (json!({"batch": {"events": 0}}), "batch.events"),
            (json!({"batch": {"bytes": 1}}), "batch.bytes"),
            (json!({"batch": {"age": "2h"}}), "batch.age"),
            (json!({"retry": {"min": "0ms"}}), "retry.min"),
            (json!({"retry": {"min": "2s", "max": "1s"}}), "retry.max"),
            (json!({"buffer": {"path": ""}}), "buffer.path"),
            (json!({"buffer": {"path": "/x", "max_bytes": 1}}), "buffer.max_bytes"),
            (json!({"batch": {"age": "soon"}}), "soon"),
            (json!({"bacth": {}}), "bacth"),
        ] {
            let error = delivery(&args).expect_err("wrong").to_string();
            assert!(error.contains(wanted), "{args}: {error}");
        }
    }
}
