//! `file`: one JSON object a line, in a file that is rotated.
//!
//! `output` writes whole lines to the file; `rotate` names, compresses and removes old files.

mod output;
mod rotate;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netsonde_framework::setting::schema;
use netsonde_framework::{Interval, Record};
use output::Output;
use rotate::Old;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::settings::{Delivery, LineBatch, Queue, Retry, read};
use crate::{Context, Opened, Refusal, Sink, SinkError, SinkSpec};

/// The description of this sink.
pub static SPEC: SinkSpec = SinkSpec {
    name: "file",
    about: "one JSON object a line in a file that is rotated",
    default_on: false,
    guide: include_str!("README.md"),
    settings: schema::<Settings>,
    open,
};

/// Where to and how much.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file. Its folder must exist. What the file holds already is kept.
    #[schemars(length(min = 1))]
    pub path: PathBuf,
    /// Begin a new file before this one has more than so many bytes. Default 104857600 (100 MiB), at least 4096.
    #[serde(default = "max_bytes")]
    #[schemars(range(min = 4096))]
    pub max_bytes: u64,
    /// Begin a new file, with the next event, when this one is so old. At least 1s. Default never.
    #[serde(default)]
    #[schemars(extend("formatMinimum" = "1s"))]
    pub max_age: Option<Interval>,
    /// How many old files are kept. Default 5; 0 keeps none.
    #[serde(default = "keep")]
    #[schemars(range(max = 1000))]
    pub keep: u32,
    /// Compress old files with gzip, in the background. Default false.
    #[serde(default)]
    pub compress: bool,
    /// What waits in memory; what finds no room is dropped and counted.
    #[serde(default)]
    pub queue: Queue,
    /// What is written at once: a batch is ready as soon as one of these is reached.
    #[serde(default)]
    pub batch: LineBatch,
    /// Pauses between tries, for example while the disk is full.
    #[serde(default)]
    pub retry: Retry,
}

fn max_bytes() -> u64 {
    100 << 20
}

fn keep() -> u32 {
    5
}

fn open(args: &Value, _: &Context) -> Result<Opened, SinkError> {
    let settings: Settings = read(args)?;
    if settings.path.file_name().is_none() {
        return Err(SinkError::Settings("path: must name a file".into()));
    }
    if settings.max_bytes < 4096 {
        return Err(SinkError::Settings("max_bytes: must be at least 4096".into()));
    }
    if settings.max_age.is_some_and(|age| age < Interval::seconds(1)) {
        return Err(SinkError::Settings("max_age: must be at least 1s".into()));
    }
    if settings.keep > 1000 {
        return Err(SinkError::Settings("keep: must be at most 1000".into()));
    }
    let delivery =
        Delivery { queue: settings.queue, batch: settings.batch.into(), retry: settings.retry, buffer: None };
    delivery.check()?;
    let sink = File::open(
        settings.path,
        Limits { bytes: settings.max_bytes, age: settings.max_age.map(|age| age.0) },
        settings.keep as usize,
        settings.compress,
    )?;
    Ok(Opened { sink: Box::new(sink), delivery })
}

/// When a new file is begun.
#[derive(Debug, Clone, Copy)]
struct Limits {
    bytes: u64,
    age: Option<Duration>,
}

/// The sink.
struct File {
    path: PathBuf,
    limits: Limits,
    old: Old,
    /// `None` where the file could not be opened anew yet.
    output: Option<Output>,
}

/// Lines are put together up to so many bytes before they are written.
const AT_ONCE: usize = 64 << 10;

impl File {
    fn open(path: PathBuf, limits: Limits, keep: usize, compress: bool) -> Result<Self, SinkError> {
        let output = Output::open(&path).map_err(SinkError::Open)?;
        let old = Old::new(&path, keep, compress).map_err(SinkError::Open)?;
        Ok(Self { path, limits, old, output: Some(output) })
    }

    /// Where the next line goes: the file that is at the path now, begun anew if it is full or old.
    fn output(&mut self, next: u64) -> Result<&mut Output, String> {
        let mut output = match self.output.take() {
            Some(output) if output.is_at(&self.path) => output,
            // Moved or removed by someone else.
            _ => Output::open(&self.path)?,
        };
        let full = output.bytes() > 0 && output.bytes() + next > self.limits.bytes;
        let old = output.bytes() > 0 && self.limits.age.is_some_and(|age| output.age() >= age);
        if full || old {
            if let Err(why) = self.old.take(&self.path) {
                self.output = Some(output);
                return Err(why);
            }
            output = Output::open(&self.path)?;
        }
        Ok(self.output.insert(output))
    }

    fn write(&mut self, batch: &[Arc<Record>], done: &mut usize) -> Result<(), String> {
        while let Some(first) = batch.get(*done) {
            let most = self.limits.bytes;
            let output = self.output(first.json.len() as u64 + 1)?;
            let mut lines = Vec::new();
            for record in &batch[*done..] {
                let length = lines.len() + record.json.len() + 1;
                if !lines.is_empty() && (length > AT_ONCE || output.bytes() + length as u64 > most) {
                    break;
                }
                lines.extend_from_slice(record.json.as_bytes());
                lines.push(b'\n');
            }
            let (written, result) = output.write(&lines);
            *done += written;
            result.map_err(|why| format!("cannot write {}: {why}", self.path.display()))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for File {
    async fn deliver(&mut self, batch: &[Arc<Record>], done: &mut usize) -> Result<(), Refusal> {
        self.write(batch, done).map_err(Refusal::retry)
    }

    async fn reopen(&mut self) {
        match Output::open(&self.path) {
            Ok(output) => self.output = Some(output),
            Err(why) => {
                tracing::warn!(why, "the file cannot be opened anew; it is tried again with the next event");
                self.output = None;
            }
        }
    }
}
