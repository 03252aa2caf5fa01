//! The body of a push: entries in streams by their labels, as protobuf in a raw block of snappy.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use loki_api::logproto::{EntryAdapter, PushRequest, StreamAdapter};
use loki_api::prost_types::Timestamp;
use netsonde_framework::Record;
use prost::Message as _;

use super::{LabelName, Settings};
use crate::{Context, SinkError};

/// Loki's own limit is 15 for all labels.
const MOST_STATIC: usize = 8;

/// Makes bodies.
pub(super) struct Streams {
    /// Labels that are the same for all events, as they are written.
    constant: String,
    /// Labels that come from the event.
    from_event: Vec<LabelName>,
}

impl Streams {
    pub(super) fn new(settings: &Settings, context: &Context) -> Result<Self, SinkError> {
        let wrong = |why: String| Err(SinkError::Settings(why));
        let mut labels = settings.labels.clone();
        labels.sort_unstable();
        labels.dedup();
        if settings.static_labels.len() > MOST_STATIC {
            return wrong(format!("static_labels: at most {MOST_STATIC}"));
        }
        let mut constant: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in &settings.static_labels {
            if !is_label(name) {
                return wrong(format!(
                    "static_labels: \"{name}\" is no label name; use letters, digits and single underscores"
                ));
            }
            if labels.iter().any(|label| label.text() == name) {
                return wrong(format!("static_labels: \"{name}\" is in labels already"));
            }
            constant.insert(name, value);
        }
        for label in &labels {
            match label {
                LabelName::Job => constant.insert("job", &settings.job),
                LabelName::Node => constant.insert("node", &context.node),
                LabelName::Probe | LabelName::Type | LabelName::Severity | LabelName::Namespace => continue,
            };
        }
        constant.retain(|_, value| !value.is_empty());
        labels.retain(|label| !matches!(label, LabelName::Job | LabelName::Node));
        // A namespace can be unknown, and Loki takes no stream without any label.
        if constant.is_empty() && labels.iter().all(|label| *label == LabelName::Namespace) {
            return wrong(
                "labels: add job, node, probe, type or severity; Loki wants a label on every event".into(),
            );
        }
        let constant = constant.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        Ok(Self { constant: constant.collect::<Vec<_>>().join(","), from_event: labels })
    }

    /// The compressed body for these events. The entries of each stream are in the order of their time.
    pub(super) fn body(&self, batch: &[Arc<Record>]) -> Vec<u8> {
        let request = self.request(batch).encode_to_vec();
        let compressed = snap::raw::Encoder::new().compress_vec(&request);
        compressed.expect("a batch is far smaller than the 4 GiB that snappy takes")
    }

    fn request(&self, batch: &[Arc<Record>]) -> PushRequest {
        let mut places: HashMap<Vec<&str>, usize> = HashMap::new();
        let mut streams: Vec<StreamAdapter> = Vec::new();
        for record in batch {
            let values: Vec<&str> = self.from_event.iter().map(|label| value(*label, record)).collect();
            let place = *places.entry(values).or_insert_with_key(|values| {
                streams.push(StreamAdapter { labels: self.labels(values), entries: Vec::new(), hash: 0 });
                streams.len() - 1
            });
            streams[place].entries.push(entry(record));
        }
        for stream in &mut streams {
            stream
                .entries
                .sort_by_key(|entry| entry.timestamp.as_ref().map(|time| (time.seconds, time.nanos)));
        }
        PushRequest { streams }
    }

    fn labels(&self, values: &[&str]) -> String {
        let mut text = format!("{{{}", self.constant);
        for (label, value) in self.from_event.iter().zip(values).filter(|(_, value)| !value.is_empty()) {
            let comma = if text.len() > 1 { "," } else { "" };
            let _ = write!(text, "{comma}{}={}", label.text(), quoted(value));
        }
        text.push('}');
        text
    }
}

fn value(label: LabelName, record: &Record) -> &str {
    match label {
        LabelName::Probe => &record.probe,
        LabelName::Type => &record.kind,
        LabelName::Severity => &record.severity,
        LabelName::Namespace => &record.namespace,
        LabelName::Job | LabelName::Node => unreachable!("these are the same for all events"),
    }
}

fn entry(record: &Record) -> EntryAdapter {
    let timestamp = Timestamp {
        seconds: i64::try_from(record.time_ns / 1_000_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(record.time_ns % 1_000_000_000).unwrap_or_default(),
    };
    EntryAdapter { timestamp: Some(timestamp), line: record.json.clone() }
}

/// What Prometheus and Loki take for a label; two underscores at the beginning are theirs.
fn is_label(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(word) && !name.starts_with("__") && name.starts_with(|c: char| !c.is_ascii_digit())
}

/// A label's value in quotes, as Go reads it.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn streams(more: &Value) -> Streams {
        let mut args = json!({"url": "http://loki/push"});
        for (key, value) in more.as_object().expect("a mapping") {
            args[key] = value.clone();
        }
        let settings = serde_json::from_value(args).expect("right");
        Streams::new(&settings, &Context { node: "n\"1".into() }).expect("right")
    }

    fn record(time_ns: u64, kind: &'static str, namespace: &str) -> Arc<Record> {
        Arc::new(Record {
            json: format!("{{\"t\":{time_ns}}}"),
            time_ns,
            probe: "tcp".into(),
            kind: kind.into(),
            severity: "info".into(),
            namespace: namespace.into(),
            pod: "p".into(),
        })
    }

    #[test]
    fn entries_are_in_streams_by_label_and_in_order_of_time() {
        let batch = [
            record(3_000_000_001, "A", "shop"),
            record(5, "B", ""),
            record(1, "A", "shop"),
            record(2, "A", ""),
        ];
        let body = streams(&json!({})).body(&batch);
        let plain = snap::raw::Decoder::new().decompress_vec(&body).expect("a raw block");
        let request = PushRequest::decode(plain.as_slice()).expect("a push");
        let streams: Vec<(&str, Vec<&str>)> = request
            .streams
            .iter()
            .map(|s| (s.labels.as_str(), s.entries.iter().map(|e| e.line.as_str()).collect()))
            .collect();
        let own = r#"{job="netsonde",node="n\"1",probe="tcp","#;
        assert_eq!(
            streams,
            [
                (
                    format!("{own}type=\"A\",namespace=\"shop\"}}").as_str(),
                    vec!["{\"t\":1}", "{\"t\":3000000001}"]
                ),
                (format!("{own}type=\"B\"}}").as_str(), vec!["{\"t\":5}"]),
                (format!("{own}type=\"A\"}}").as_str(), vec!["{\"t\":2}"]),
            ]
        );
        let last = request.streams[0].entries[1].timestamp.as_ref().expect("a time");
        assert_eq!((last.seconds, last.nanos), (3, 1));
    }

    #[test]
    fn labels_are_those_that_are_asked_for() {
        let asked =
            json!({"labels": ["severity", "job"], "job": "a\nb", "static_labels": {"cluster": "c\\d"}});
        let request = streams(&asked).request(&[record(1, "A", "shop")]);
        assert_eq!(request.streams[0].labels, r#"{cluster="c\\d",job="a\u000ab",severity="info"}"#);
        let only = streams(&json!({"labels": ["type"]})).request(&[record(1, "A", "")]);
        assert_eq!(only.streams[0].labels, r#"{type="A"}"#);
    }
}
