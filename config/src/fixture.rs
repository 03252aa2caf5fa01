//! A small catalogue of probes and sinks for the tests, with schemas as schemars writes them.

// The fields are there for their schemas.
#![allow(dead_code)]

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::known::{Known, Part};

/// A valid file that uses every setting.
pub(crate) const FULL: &str = r#"listen: "[::]:9000"
web_config: web.yml
node_name: node-1
probes:
  - name: tcpext
    args:
      fields: [ListenDrops]
      interval: 1m30s
  - softirq
  - name: flow
    args: {mode: sample, ports: 16}
sinks:
  - name: loki
    args: {url: "http://loki:3100", auth: {basic: {user: a}}}
  - stdout
metrics:
  names: both
  prefix: ns
  labels: {pod: pod}
  extra_labels: {cluster: prod}
  limits: {series_per_probe: 10}
paths:
  proc: /host/proc
  netns: [/x]
discovery:
  interval: 500ms
"#;

/// Settings of the tcpext probe.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Tcpext {
    /// Fields of /proc/net/netstat to expose.
    #[serde(default)]
    fields: Vec<String>,
    /// How often to read.
    #[schemars(with = "Option<crate::duration::Text>", extend("default" = "10s"))]
    interval: Option<String>,
}

/// Settings of the flow probe.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Flow {
    /// How flows are picked.
    #[serde(default)]
    mode: Mode,
    /// Ports kept apart.
    #[serde(default)]
    ports: u16,
    /// Only these.
    only: Option<Vec<Pair>>,
}

#[derive(Deserialize, serde::Serialize, Default, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Every flow.
    #[default]
    All,
    /// One in many.
    Sample,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pair {
    src: String,
    dst: Option<String>,
}

/// Settings of the loki sink.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Loki {
    /// Where Loki listens.
    url: String,
    auth: Option<Auth>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Auth {
    None,
    Basic { user: String },
    Bearer { token: String },
}

fn part<Args: JsonSchema>(name: &'static str, default_on: bool, about: &'static str) -> Part {
    Part { name, aliases: &[], default_on, about, schema: schemars::schema_for!(Args).to_value() }
}

fn bare(name: &'static str, aliases: &'static [&'static str], about: &'static str) -> Part {
    let schema = json!({"type": "object", "properties": {}, "additionalProperties": false});
    Part { name, aliases, default_on: true, about, schema }
}

pub(crate) fn known() -> Known {
    Known {
        probes: vec![
            bare("conntrack", &[], "Entries and failed inserts of the connection table."),
            part::<Tcpext>("tcpext", true, "TCP counters beyond RFC 1213."),
            bare("net_softirq", &["softirq"], "Delay of network softirqs."),
            part::<Flow>("flow", false, "Packets | bytes of each flow."),
        ],
        sinks: vec![
            bare("stdout", &[], "One line for each event."),
            part::<Loki>("loki", false, "Pushes to Loki."),
        ],
    }
}
