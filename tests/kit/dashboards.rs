//! The Grafana dashboards of this repository, as the suites look at them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::promql::{Names, names};

/// Every dashboard, by its file's name and `uid`.
pub const DASHBOARDS: &[&str] = &[
    "netsonde-node",
    "netsonde-pod",
    "netsonde-loss",
    "netsonde-tcp",
    "netsonde-latency",
    "netsonde-queues",
    "netsonde-events",
    "netsonde-agent",
];

/// The folder of dashboards.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards")
}

/// A dashboard, by its name.
pub fn dashboard(name: &str) -> Value {
    let path = folder().join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The text under a key.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

/// The list under a key; none is an empty one.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The number under a key.
pub fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

/// The panels that show something: not the rows.
pub fn shown(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels").iter().filter(|panel| panel["type"] != "row")
}

/// The variables of a dashboard.
pub fn variables(dashboard: &Value) -> &[Value] {
    list(&dashboard["templating"], "list")
}

/// One query of a panel.
#[derive(Debug)]
pub struct Query {
    /// Where it stands: dashboard, panel, letter.
    pub place: String,
    /// The title of its panel.
    pub panel: String,
    /// What it asks, with Grafana's variables.
    pub expression: String,
    /// The labels that its legend shows.
    pub legend: Names,
}

/// The queries of all panels to data sources of this type: `prometheus` or `loki`.
pub fn queries(dashboard: &Value, datasource: &str) -> Vec<Query> {
    let mut found = Vec::new();
    for panel in shown(dashboard) {
        for target in
            list(panel, "targets").iter().filter(|target| target["datasource"]["type"] == datasource)
        {
            let place =
                format!("{}: {}: {}", text(dashboard, "uid"), text(panel, "title"), text(target, "refId"));
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            let legend = legend.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0));
            found.push(Query {
                place,
                panel: text(panel, "title").to_owned(),
                expression: text(target, "expr").to_owned(),
                legend: names(legend),
            });
        }
    }
    found
}

/// What Grafana puts for `All`, for a text that was not touched, and for ranges: as long as a lab lives.
const FILLED: &[(&str, &str)] = &[
    ("$__rate_interval", "2m"),
    ("$__interval", "1m"),
    ("$__range", "2m"),
    ("$job", "netsonde"),
    ("$search", ""),
    ("$namespace", ".*"),
    ("$instance", ".*"),
    ("$node", ".*"),
    ("$type", ".*"),
    ("$pod", ".*"),
];

/// The expression as Grafana sends it when nothing was chosen.
pub fn filled(expression: &str) -> String {
    let filled = FILLED.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
    assert!(!filled.contains('$'), "a variable that Grafana does not know: {expression}");
    filled
}
