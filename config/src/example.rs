//! The shipped file: every setting with its meaning and its default, all commented out.
//!
//! `## ` explains; `# ` is a setting. With every `# ` removed, the file is valid and means the same as an empty one,
//! so it can be read as the list of defaults. Probes and sinks that are off are therefore explained with `## `.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::known::{Known, Part};
use crate::schema::{definition, schema};
use crate::words::{plain, resolve, wanted};

const HEADER: &str = "\
## Configuration of netsonde. Every setting has a default, so an empty file is a valid one.
##
## Lines that start with ## explain. To change a setting, remove '# ' in front of it and in front of the keys that it
## is indented under. netsonde reads the file again when it changes; a file with a problem changes nothing.
";

/// Longest line of an explanation.
const WIDTH: usize = 118;

/// The commented file, made from the schema.
pub fn example(known: &Known) -> String {
    let root = schema(known);
    let mut out = String::from(HEADER);
    for (key, setting) in root["properties"].as_object().into_iter().flatten() {
        out.push('\n');
        match key.as_str() {
            "probes" => parts(&mut out, &root, (key, "probe"), &known.probes, setting),
            "sinks" => parts(&mut out, &root, (key, "sink"), &known.sinks, setting),
            _ => write_setting(&mut out, &root, key, setting, 0),
        }
    }
    out
}

/// One setting, or a section with the settings below it.
fn write_setting(out: &mut String, root: &Value, key: &str, setting: &Value, depth: usize) {
    let inner = resolve(root, setting);
    explain(out, &meaning(root, setting), depth);
    let indent = "  ".repeat(depth);
    match inner["properties"].as_object().filter(|properties| !properties.is_empty()) {
        Some(properties) => {
            let _ = writeln!(out, "# {indent}{key}:");
            for (key, setting) in properties {
                write_setting(out, root, key, setting, depth + 1);
            }
        }
        None => match setting.get("default") {
            Some(default) => {
                let _ = writeln!(out, "# {indent}{key}: {default}");
            }
            None => explain(out, &format!("{key}: <{}>", wanted(root, setting)), depth),
        },
    }
}

/// The list of probes or sinks: what is on by default as settings, the rest as explanation.
fn parts(out: &mut String, root: &Value, (key, kind): (&str, &str), parts: &[Part], setting: &Value) {
    explain(out, &meaning(root, setting), 0);
    let is_on = |part: &&Part| part.default_on;
    if parts.iter().any(|part| is_on(&part)) {
        let _ = writeln!(out, "# {key}:");
    } else if kind == "sink" {
        let _ = writeln!(out, "# {key}: []");
    }
    for part in parts.iter().filter(is_on) {
        entry(out, root, kind, part, "# ");
    }
    let mut rest = parts.iter().filter(|part| !is_on(part)).peekable();
    if rest.peek().is_some() {
        explain(out, "Off by default:", 1);
    }
    for part in rest {
        entry(out, root, kind, part, "## ");
    }
}

/// One part with all its arguments. Those without a default are shown with what they want.
fn entry(out: &mut String, root: &Value, kind: &str, part: &Part, marker: &str) {
    explain(out, part.about, 1);
    let args = resolve(root, &root["$defs"][definition(kind, part.name)]);
    let none = Map::new();
    let args = args["properties"].as_object().unwrap_or(&none);
    let any_default = args.values().any(|arg| default_of(arg).is_some());
    let needed = marker == "## " && !args.is_empty();
    if !any_default && !needed {
        let _ = writeln!(out, "{marker}  - {}", part.name);
    } else {
        let _ = writeln!(out, "{marker}  - name: {}\n{marker}    args:", part.name);
    }
    for (key, arg) in args {
        explain(out, &meaning(root, arg), 4);
        match default_of(arg) {
            Some(default) => {
                let _ = writeln!(out, "{marker}      {key}: {default}");
            }
            None => {
                let _ = writeln!(out, "##       {key}: <{}>", wanted(root, arg).replace(" or nothing", ""));
            }
        }
    }
}

/// The default worth writing down. `null` means that there is none, whatever the type allows.
fn default_of(arg: &Value) -> Option<&Value> {
    arg.get("default").filter(|default| !default.is_null())
}

/// The description of a setting and, for an enumeration, of each of its values.
pub(crate) fn meaning(root: &Value, setting: &Value) -> String {
    let inner = resolve(root, setting);
    let text = setting["description"].as_str().or_else(|| inner["description"].as_str()).unwrap_or_default();
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for value in inner["oneOf"].as_array().into_iter().flatten() {
        if let (Some(name), Some(about)) = (value.get("const"), value["description"].as_str()) {
            let about = about.split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = write!(text, " `{}`: {about}", plain(name));
        }
    }
    text
}

/// Writes text as an explanation, broken into lines between words.
fn explain(out: &mut String, text: &str, depth: usize) {
    let start = format!("## {}", "  ".repeat(depth.saturating_sub(usize::from(depth > 2))));
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && start.len() + line.len() + word.len() >= WIDTH {
            let _ = writeln!(out, "{start}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        let _ = writeln!(out, "{start}{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, fixture, parse};

    fn uncommented(text: &str) -> String {
        let lines = text.lines().filter(|line| !line.starts_with("##"));
        lines.map(|line| line.strip_prefix("# ").unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_means_the_same_as_an_empty_file() {
        let known = fixture::known();
        let text = example(&known);
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
        assert_eq!(parse("a.yaml", &text, &known), Ok(Config::default_for(&known)));
    }

    #[test]
    fn the_example_without_its_comment_marks_is_the_list_of_defaults() {
        let known = fixture::known();
        let text = uncommented(&example(&known));
        let mut config = parse("a.yaml", &text, &known).unwrap_or_else(|report| panic!("{report}\n{text}"));
        assert_eq!(config.probes[1].args, serde_json::json!({"fields": [], "interval": "10s"}));
        for probe in &mut config.probes {
            probe.args = serde_json::json!({});
        }
        assert_eq!(config, Config::default_for(&known));
    }

    #[test]
    fn every_setting_and_every_part_is_shown() {
        let text = example(&fixture::known());
        for line in [
            "# listen: \"0.0.0.0:9102\"",
            "#   names: \"native\"",
            "#     node: \"target_node\"",
            "#   extra_labels: {}",
            "#   interval: \"1s\"",
            "#   - conntrack",
            "##   - name: flow",
            "##       url: <text>",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn without_probes_there_is_still_a_valid_example() {
        let known = Known::default();
        let text = uncommented(&example(&known));
        assert_eq!(parse("a.yaml", text, &known), Ok(Config::default_for(&known)));
    }
}
