//! The reference page (docs/reference/config.md): every key with type, default and meaning, from the schema.

use std::fmt::Write as _;

use serde_json::Value;

use crate::example::meaning;
use crate::known::{Known, Part};
use crate::schema::{definition, schema};
use crate::words::{branches, join, resolve, types, wanted};

const HEADER: &str = "\
# The configuration file

<!-- Generated from the code by `netsonde docs config`; changes made here are lost. -->

One YAML file. Every key has a default, so an empty file is a valid one. Unknown keys are errors. A file with a problem
changes nothing: netsonde goes on with the configuration that it has and reports each problem with its line and column.

Durations are whole numbers with a unit: `500ms`, `30s`, `2m`, `1h`, `1d`, or several as in `1m30s`.
The file is at most 1 MiB of UTF-8 text with one document. Anchors and aliases work; tags and merge keys do not.

## Settings
";

const TABLE: &str = "\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n";

/// The page in Markdown.
pub fn reference(known: &Known) -> String {
    let root = schema(known);
    let mut out = format!("{HEADER}{TABLE}");
    rows(&mut out, &root, &root, "", 0);
    out.push_str(
        "\n## Probes\n\nAn entry of `probes` is a name, or `name` with `args`:\n\n```yaml\nprobes:\n  - <name>\n  - name: <name>\n    args: {<key>: <value>}\n```\n",
    );
    for part in &known.probes {
        section(&mut out, &root, "probe", part);
    }
    out.push_str("\n## Sinks\n\nAn entry of `sinks` is written like an entry of `probes`.\n");
    for part in &known.sinks {
        section(&mut out, &root, "sink", part);
    }
    out
}

/// One probe or sink.
fn section(out: &mut String, root: &Value, kind: &str, part: &Part) {
    let _ = write!(out, "\n### {}\n\n{}.", part.name, part.about.trim_end_matches('.'));
    if kind == "probe" {
        out.push_str(if part.default_on { " On by default." } else { " Off by default." });
    }
    if !part.aliases.is_empty() {
        let _ = write!(out, " Also accepted as `{}`.", part.aliases.join("`, `"));
    }
    out.push('\n');
    let mut table = String::new();
    rows(&mut table, root, &root["$defs"][definition(kind, part.name)], "", 0);
    if table.is_empty() {
        out.push_str("\nNo arguments.\n");
    } else {
        let _ = write!(out, "{TABLE}{table}");
    }
}

/// A row for each key of an object, sections before the keys inside them.
fn rows(out: &mut String, root: &Value, object: &Value, path: &str, depth: usize) {
    // A schema may contain itself; nobody writes or reads settings deeper than this.
    if depth > 6 {
        return;
    }
    let object = resolve(root, object);
    for (key, setting) in object["properties"].as_object().into_iter().flatten() {
        let path = join(path, key);
        let inner = resolve(root, setting);
        let is_section = inner["properties"].is_object();
        let required =
            object["required"].as_array().is_some_and(|names| names.iter().any(|name| name == key));
        let default = match setting.get("default") {
            _ if is_section => String::new(),
            _ if required => "required".to_owned(),
            None | Some(Value::Null) => "none".to_owned(),
            Some(Value::Array(names)) if names.len() > 8 => "see below".to_owned(),
            Some(value) => format!("`{value}`"),
        };
        let meaning = cell(&meaning(root, setting));
        let _ =
            writeln!(out, "| `{path}` | {} | {} | {meaning} |", cell(&kind(root, setting)), cell(&default));
        rows(out, root, inner, &path, depth + 1);
        // Probes and sinks have sections of their own.
        if path == "probes" || path == "sinks" {
            continue;
        }
        rows(out, root, inner.get("items").unwrap_or(&Value::Null), &format!("{path}[]"), depth + 1);
    }
    for branch in branches(object).into_iter().flatten() {
        rows(out, root, branch, path, depth + 1);
    }
}

/// The type in words, with its bounds.
fn kind(root: &Value, setting: &Value) -> String {
    let inner = resolve(root, setting);
    let mut words = wanted(root, setting);
    if types(inner).len() > 1 {
        words = words.replace(" or nothing", "");
    }
    for (least, most) in [("minimum", "maximum"), ("formatMinimum", "formatMaximum")] {
        let show = |bound: &str| inner.get(bound).map(crate::words::plain);
        if let (Some(least), Some(most)) = (show(least), show(most)) {
            let _ = write!(words, ", {least} to {most}");
        }
    }
    words
}

/// Text that does not end a table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn every_key_has_its_row() {
        let page = reference(&fixture::known());
        for row in [
            "| `listen` | text | `\"0.0.0.0:9102\"` | Address and port",
            "| `metrics.names` | one of native, kubeskoop, both | `\"native\"` | Under which names",
            "| `metrics.labels.pod` | text | `\"target_pod\"` | The label",
            "| `metrics.extra_labels` | a mapping of names to text | `{}` | Labels",
            "| `metrics.limits.series_per_probe` | a whole number, 1 to 10000000 | `100000` |",
            "| `discovery.interval` | a duration such as 30s, 100ms to 10s | `\"1s\"` |",
            "| `probes` | a list of names |",
            "| `node_name` | text | none |",
            "| `url` | text | required | Where Loki listens. |",
            "| `auth.basic.user` | text | required |",
            "| `interval` | a duration such as 30s | `\"10s\"` | How often to read. |",
        ] {
            assert!(page.contains(row), "{row}\n{page}");
        }
    }

    #[test]
    fn every_part_has_its_section() {
        let page = reference(&fixture::known());
        assert!(page.contains(
            "### net_softirq\n\nDelay of network softirqs. On by default. Also accepted as `softirq`."
        ));
        assert!(page.contains("### flow\n\nPackets | bytes of each flow. Off by default.\n\n| key"));
        assert!(page.contains("### stdout\n\nOne line for each event.\n\nNo arguments."));
    }

    #[test]
    fn rows_have_four_cells_each() {
        for line in reference(&fixture::known()).lines().filter(|line| line.starts_with("| ")) {
            assert_eq!(line.replace("\\|", "").matches('|').count(), 5, "{line}");
        }
    }

    #[test]
    fn a_schema_that_contains_itself_ends() {
        let mut known = Known::default();
        let schema = serde_json::json!({"type": "object", "properties": {"inner": {"$ref": "#"}}});
        known.probes.push(Part { name: "loop", aliases: &[], default_on: true, about: "Turns.", schema });
        assert!(reference(&known).contains("`inner.inner.inner`"));
    }
}
