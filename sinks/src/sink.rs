//! What a sink is: its description, how it is opened, and how it delivers a batch or says why not.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use netsonde_framework::Record;
use serde_json::Value;

use crate::settings::Delivery;

/// A sink's name, settings and manual.
#[derive(Debug)]
pub struct SinkSpec {
    /// Folder and configuration key.
    pub name: &'static str,
    /// One line: where events go.
    pub about: &'static str,
    /// Whether events go there when the configuration names no sinks.
    pub default_on: bool,
    /// The operator's page.
    pub guide: &'static str,
    /// JSON Schema of its `args`.
    pub settings: fn() -> Value,
    /// Checks the settings and opens what they name. Says what is wrong, where, and what to do.
    pub open: fn(&Value, &Context) -> Result<Opened, SinkError>,
}

/// What every sink may use.
#[derive(Debug, Clone)]
pub struct Context {
    /// The node's name.
    pub node: String,
}

/// A sink that is ready, and how its driver is to treat it.
pub struct Opened {
    /// The sink.
    pub sink: Box<dyn Sink>,
    /// Queue, batches, retries and disk buffer.
    pub delivery: Delivery,
}

/// Why a sink could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A setting is wrong.
    #[error("{0}")]
    Settings(String),
    /// What the settings name cannot be used.
    #[error("{0}")]
    Open(String),
    /// No thread for it.
    #[error("cannot start a thread for this sink: {0}")]
    Thread(std::io::Error),
}

/// One place that events go to. Called on the driver's thread only, one call after the other.
#[async_trait]
pub trait Sink: Send {
    /// Delivers a batch whole and in order, or says why not.
    ///
    /// `done` counts what has arrived, as it arrives: after a refusal, or when the driver gave up waiting, the rest of
    /// the batch is what has not. A future that is dropped leaves the sink fit for the next call.
    async fn deliver(&mut self, batch: &[Arc<Record>], done: &mut usize) -> Result<(), Refusal>;

    /// SIGHUP: opens files anew.
    async fn reopen(&mut self) {}
}

/// Why the rest of a batch was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It may work later.
    Retry {
        /// Not before so long, where the other side said so.
        after: Option<Duration>,
        /// What went wrong.
        why: String,
    },
    /// Too large; smaller batches may work.
    Split {
        /// What was said.
        why: String,
    },
    /// It will never work.
    Drop {
        /// What it is counted as.
        reason: Reason,
        /// What was said.
        why: String,
    },
}

impl Refusal {
    /// Worth another try, at the driver's own pace.
    pub fn retry(why: impl Into<String>) -> Self {
        Self::Retry { after: None, why: why.into() }
    }

    /// What was said.
    pub fn why(&self) -> &str {
        match self {
            Self::Retry { why, .. } | Self::Split { why } | Self::Drop { why, .. } => why,
        }
    }
}

/// Why an event was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The queue in memory had no room.
    QueueFull,
    /// The disk buffer had no room.
    BufferFull,
    /// What the disk buffer held was damaged.
    BufferCorrupt,
    /// Nobody reads the other end any more.
    Closed,
    /// The other side will not have it.
    Refused,
    /// A single event was too large.
    TooLarge,
    /// The sink was stopped before it could be delivered.
    Stopped,
}

/// Every reason for which events are dropped, as they are counted.
pub const REASONS: &[&str] =
    &["queue_full", "buffer_full", "buffer_corrupt", "closed", "refused", "too_large", "stopped"];

impl Reason {
    /// Its word in [`REASONS`].
    pub fn text(self) -> &'static str {
        REASONS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_word() {
        let all = [
            (Reason::QueueFull, "queue_full"),
            (Reason::BufferFull, "buffer_full"),
            (Reason::BufferCorrupt, "buffer_corrupt"),
            (Reason::Closed, "closed"),
            (Reason::Refused, "refused"),
            (Reason::TooLarge, "too_large"),
            (Reason::Stopped, "stopped"),
        ];
        assert_eq!(all.map(|(reason, _)| reason.text()), all.map(|(_, word)| word));
        assert_eq!(all.len(), REASONS.len());
    }
}
