//! `loki`: pushes events to Loki.
//!
//! `streams` makes the body of a push, `client` sends it, `answer` says what an answer means.

mod answer;
mod client;
mod secret;
mod streams;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::Client;
use netsonde_framework::setting::schema;
use netsonde_framework::{Interval, Record};
use schemars::JsonSchema;
use secret::{Credentials, Secret};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use streams::Streams;

use crate::settings::{Batch, Buffer, Delivery, Queue, Retry, read};
use crate::{Context, Opened, Refusal, Sink, SinkError, SinkSpec};

/// The description of this sink.
pub static SPEC: SinkSpec = SinkSpec {
    name: "loki",
    about: "Loki, through its push endpoint",
    default_on: false,
    guide: include_str!("README.md"),
    settings: schema::<Settings>,
    open,
};

/// A label that an event can have in Loki.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LabelName {
    /// The setting `job`.
    Job,
    /// The node's name.
    Node,
    /// The probe.
    Probe,
    /// The type of the event.
    Type,
    /// `info` or `warning`.
    Severity,
    /// Kubernetes namespace of the pod.
    Namespace,
}

impl LabelName {
    fn text(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Node => "node",
            Self::Probe => "probe",
            Self::Type => "type",
            Self::Severity => "severity",
            Self::Namespace => "namespace",
        }
    }
}

/// Where to and as whom.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The whole address of the push endpoint, for example `http://loki:3100/loki/api/v1/push`.
    #[schemars(length(min = 1))]
    pub url: String,
    /// The tenant (`X-Scope-OrgID`), for a Loki that has several. Default none.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Labels of the streams. Every set of values is a stream of its own in Loki, so they are few; the rest is in the
    /// line.
    #[serde(default = "labels")]
    #[schemars(extend("uniqueItems" = true))]
    pub labels: Vec<LabelName>,
    /// Value of the label `job`.
    #[serde(default = "job")]
    #[schemars(length(min = 1))]
    pub job: String,
    /// Further labels with a constant value, such as `cluster: prod`; at most 8.
    #[serde(default)]
    pub static_labels: BTreeMap<String, String>,
    /// User name for basic authentication; needs `password_file`.
    #[serde(default)]
    pub username: Option<String>,
    /// File with the password. It is read again when it has changed.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// File with a bearer token. It is read again when it has changed.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// PEM file with the certificates that sign Loki's; then no others are trusted. Default: those of the system.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// A push that takes longer has failed. From 100ms to 5m.
    #[serde(default = "timeout")]
    #[schemars(extend("formatMinimum" = "100ms", "formatMaximum" = "5m"))]
    pub timeout: Interval,
    /// What waits in memory; what finds no room is dropped and counted.
    #[serde(default)]
    pub queue: Queue,
    /// What is pushed at once: a batch is ready as soon as one of these is reached.
    #[serde(default)]
    pub batch: Batch,
    /// Pauses between tries.
    #[serde(default)]
    pub retry: Retry,
    /// Keeps events on disk until Loki has them. Default none: they wait in memory.
    #[serde(default)]
    pub buffer: Option<Buffer>,
}

fn labels() -> Vec<LabelName> {
    vec![LabelName::Job, LabelName::Node, LabelName::Probe, LabelName::Type, LabelName::Namespace]
}

fn job() -> String {
    "netsonde".to_owned()
}

fn timeout() -> Interval {
    Interval::seconds(10)
}

fn open(args: &Value, context: &Context) -> Result<Opened, SinkError> {
    let settings: Settings = read(args)?;
    let wrong = |why: &str| Err(SinkError::Settings(why.to_owned()));
    let range = Duration::from_millis(100)..=Duration::from_mins(5);
    if !range.contains(&settings.timeout.0) {
        return wrong("timeout: must be 100ms to 5m");
    }
    let streams = Streams::new(&settings, context)?;
    let secret = |path: PathBuf| Secret::open(path).map_err(SinkError::Open);
    let credentials = match (settings.username, settings.password_file, settings.bearer_token_file) {
        (None, None, None) => Credentials::None,
        (Some(user), Some(file), None) => Credentials::Basic(user, secret(file)?),
        (None, None, Some(file)) => Credentials::Bearer(secret(file)?),
        (_, _, Some(_)) => return wrong("bearer_token_file: cannot be used together with username"),
        (Some(_), None, None) => return wrong("username: needs password_file"),
        (None, Some(_), None) => return wrong("password_file: needs username"),
    };
    let delivery = Delivery {
        queue: settings.queue,
        batch: settings.batch.into(),
        retry: settings.retry,
        buffer: settings.buffer,
    };
    delivery.check()?;
    let client = Client::new(
        &settings.url,
        settings.tenant.as_deref(),
        credentials,
        settings.ca_file,
        settings.timeout.0,
    )?;
    Ok(Opened { sink: Box::new(Loki { streams, client }), delivery })
}

/// The sink.
struct Loki {
    streams: Streams,
    client: Client,
}

#[async_trait]
impl Sink for Loki {
    async fn deliver(&mut self, batch: &[Arc<Record>], done: &mut usize) -> Result<(), Refusal> {
        let body = self.streams.body(batch);
        self.client.push(body).await?;
        *done = batch.len();
        Ok(())
    }

    /// The file of certificates is read again.
    async fn reopen(&mut self) {
        self.client.renew();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(args: &Value) -> String {
        let context = Context { node: "n1".into() };
        open(args, &context).err().map_or_else(|| panic!("{args} was taken"), |why| why.to_string())
    }

    #[test]
    fn settings_that_cannot_work_say_what_to_do() {
        let url = "http://loki:3100/loki/api/v1/push";
        for (args, wanted) in [
            (json!({}), "url"),
            (json!({"url": "loki:3100"}), "http://"),
            (json!({"url": "http://loki:3100"}), "/loki/api/v1/push"),
            (json!({"url": "http://me:secret@loki/loki/api/v1/push"}), "password_file"),
            (json!({"url": url, "username": "me"}), "password_file"),
            (json!({"url": url, "password_file": "/x"}), "username"),
            (json!({"url": url, "username": "me", "password_file": "/nonexistent/p"}), "/nonexistent/p"),
            (json!({"url": url, "bearer_token_file": "/nonexistent/t"}), "/nonexistent/t"),
            (json!({"url": url, "ca_file": "/nonexistent/ca"}), "/nonexistent/ca"),
            (json!({"url": url, "labels": []}), "labels"),
            (json!({"url": url, "labels": ["pod"]}), "pod"),
            (json!({"url": url, "static_labels": {"a-b": "c"}}), "a-b"),
            (json!({"url": url, "static_labels": {"node": "c"}}), "node"),
            (json!({"url": url, "timeout": "1h"}), "timeout"),
            (json!({"url": url, "tenant": "a\nb"}), "tenant"),
            (json!({"url": url, "buffer": {"path": "/x", "max_bytes": 5}}), "buffer.max_bytes"),
        ] {
            let error = refused(&args);
            assert!(error.contains(wanted), "{args}: {error}");
            assert!(!error.contains("secret"), "{args}: {error}");
        }
    }
}
