//! docs/reference/metrics.md.

use std::fmt::Write as _;

use netsonde_framework::{Catalogue, Kind, MetricDef};

use super::cell;
use crate::selfmetrics;

const HEAD: &str = "\
# Metrics

Made by `make docs` from the code; do not edit.

Every metric of a probe has the labels `target_node`, `target_namespace` and `target_pod` (their names can be
changed under `metrics.labels`); the labels below are beside these. The host's own network namespace is
`hostNetwork` in both. Where no container runtime tells pods apart, `target_namespace` says where the name comes
from: `netns` (a name under /run/netns), `pod` (a pod's uid), `container` (a container's id) or `process` (its first
process).

`metrics.names` chooses the names: `native` (the first column), `kubeskoop` (the reference name, for dashboards that
were made for KubeSkoop's exporter) or `both`. A reference name stands for the sum of the native series in each
namespace, or for the ones that the table names. The reference calls counters by names without `_total`; OpenMetrics
does not allow that for a counter, so there they are of type `unknown`, and `rate()` works on them all the same.
";

/// The page.
pub fn page(catalogue: &Catalogue) -> String {
    let mut out = String::from(HEAD);
    for probe in catalogue.probes() {
        let _ = write!(out, "\n## {}\n\n{}.\n", probe.name, probe.about);
        if probe.metrics.is_empty() {
            continue;
        }
        out.push_str(
            "\n| metric | type | labels | meaning | from | reference name |\n|---|---|---|---|---|---|\n",
        );
        for def in probe.metrics {
            row(&mut out, def);
        }
        labels(&mut out, probe.metrics);
    }
    out.push_str("\n## The agent itself\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for def in selfmetrics::ALL {
        let total = if def.kind == Kind::Counter { "_total" } else { "" };
        let name = selfmetrics::name_of(def);
        let labels = def.labels.join(", ");
        let _ = writeln!(out, "| `{name}{total}` | {} | {labels} | {} |", def.kind.text(), cell(def.help));
    }
    out
}

fn row(out: &mut String, def: &MetricDef) {
    let total = if def.kind == Kind::Counter { "_total" } else { "" };
    let name = if def.reference_only { String::new() } else { format!("`netsonde_{}{total}`", def.name) };
    let labels: Vec<&str> = def.labels.iter().map(|l| l.name).collect();
    let reference = def.reference.map_or_else(String::new, |r| match r.only {
        Some(only) => format!("`{}` ({})", r.name, cell(only)),
        None => format!("`{}`", r.name),
    });
    let (kind, help, source) = (def.kind.text(), cell(def.help), cell(def.source));
    let _ = writeln!(out, "| {name} | {kind} | {} | {help} | {source} | {reference} |", labels.join(", "));
}

fn labels(out: &mut String, metrics: &[&MetricDef]) {
    let mut seen = std::collections::BTreeMap::new();
    for label in metrics.iter().flat_map(|def| def.labels) {
        seen.entry(label.name).or_insert(label);
    }
    if !seen.is_empty() {
        out.push('\n');
    }
    for (name, label) in seen {
        let _ = writeln!(out, "- `{name}`: {} Values: {}.", label.help.trim(), label.bound);
    }
}
