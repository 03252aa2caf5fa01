//! From the bytes of a file to a valid [`Config`], or to every problem of the file at once.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::known::Known;
use crate::load::SIZE_LIMIT;
use crate::model::{Config, File};
use crate::report::{Problem, Report};
use crate::tree::{Kind, Mark, Node};
use crate::{rules, validate, yaml};

/// Reads `text` as a configuration. Pure: no file, no clock, no network, and never a panic, whatever the bytes are.
/// `source_name` is what the report calls the file.
pub fn parse(source_name: &str, text: impl AsRef<[u8]>, known: &Known) -> Result<Config, Report> {
    check(text.as_ref(), known).map_err(|problems| Report::new(source_name, problems))
}

fn check(bytes: &[u8], known: &Known) -> Result<Config, Vec<Problem>> {
    let schema = crate::schema(known);
    let file: File = typed(bytes, &schema, |root| rules::check(&schema, root, known))?;
    Ok(file.into_config(known))
}

/// Reads a file under a schema that was made from `T`, and under what `rules` finds beside.
pub(crate) fn typed<T: DeserializeOwned>(
    bytes: &[u8],
    schema: &Value,
    rules: impl FnOnce(&Node) -> Vec<Problem>,
) -> Result<T, Vec<Problem>> {
    let whole = |mark, message| vec![Problem::new(mark, "", message)];
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(whole(
            Mark::START,
            format!("is {} bytes long; at most {SIZE_LIMIT} are read", bytes.len()),
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        whole(
            mark_after(bytes, error.valid_up_to()),
            "this byte is not UTF-8; save the file as UTF-8".to_owned(),
        )
    })?;
    // Some editors put a byte order mark first. It is no part of the first key.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);

    let (root, mut problems) = yaml::read(text);
    let root = match root {
        Some(Node { kind: Kind::Null, mark }) => Node::empty_map(mark),
        Some(root) => root,
        None if problems.is_empty() => Node::empty_map(Mark::START),
        None => return Err(problems),
    };
    problems.extend(validate::validate(schema, schema, &root, ""));
    problems.extend(rules(&root));
    if !problems.is_empty() {
        return Err(problems);
    }
    // The schema is made from this very type, so an error here is a gap in the validator; it is still no panic.
    serde_json::from_value(root.to_json()).map_err(|error| whole(root.mark, error.to_string()))
}

/// The place of byte `at`, when everything before it is UTF-8.
pub(crate) fn mark_after(bytes: &[u8], at: usize) -> Mark {
    let before = String::from_utf8_lossy(&bytes[..at]);
    let line = before.rsplit('\n').next().unwrap_or_default();
    Mark { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fixture;

    /// Every kind of problem in one file.
    const BROKEN: &str = "\
listen: localhost:9102
probes:
  - conntrack
  - tcpxt
  - name: flow
    args:
      mode: sampel
      ports: 70000
      colour: red
      only: [{src: a, dts: b}, {dst: c}]
  - name: bananas
  - softirq
  - net_softirq
  - 7
sinks: loki
metrics:
  names: kubscoop
  nmaes: native
  extra_labels: {shard: 1, target_pod: x}
  limits: {series_per_probe: 0}
  prefix: 9x
discovery:
  interval: 1m
  interval: 30
paths:
";

    const REPORT: &str = r#"config.yaml: 21 problems
  config.yaml:1:9: listen: "localhost:9102" is not an address and a port; did you mean "127.0.0.1:9102"?
  config.yaml:4:5: probes[1]: no probe is called "tcpxt"; did you mean "tcpext"?
  config.yaml:7:13: probes[2].args.mode: "sampel" is not one of all, sample; did you mean "sample"?
  config.yaml:8:14: probes[2].args.ports: 70000 is out of range; it must be 0 to 65535
  config.yaml:9:7: probes[2].args.colour: unknown key "colour"; the keys here are mode, ports, only
  config.yaml:10:23: probes[2].args.only[0].dts: unknown key "dts"; did you mean "dst"?
  config.yaml:10:32: probes[2].args.only[1].src: is missing and has no default
  config.yaml:11:11: probes[3].name: no probe is called "bananas"; the probes are conntrack, tcpext, net_softirq, softirq, flow
  config.yaml:13:5: probes[5]: the probe net_softirq is in the list already, at line 12
  config.yaml:14:5: probes[6]: found the number 7, wanted one of conntrack, tcpext, net_softirq, softirq, flow or a mapping
  config.yaml:15:8: sinks: found the text "loki", wanted a list of names
  config.yaml:17:10: metrics.names: "kubscoop" is not one of native, kubeskoop, both; did you mean "kubeskoop"?
  config.yaml:18:3: metrics.nmaes: unknown key "nmaes"; did you mean "names"?
  config.yaml:19:25: metrics.extra_labels.shard: found the number 1, wanted text; put it in quotes
  config.yaml:19:28: metrics.extra_labels.target_pod: the label "target_pod" is taken by metrics.labels.pod; each label needs a name of its own
  config.yaml:20:30: metrics.limits.series_per_probe: 0 is out of range; it must be 1 to 10000000
  config.yaml:21:11: metrics.prefix: "9x" cannot start a metric name; write letters, digits and underscores, a letter or underscore first
  config.yaml:23:13: discovery.interval: 1m is out of range; it must be 100ms to 10s
  config.yaml:24:3: discovery.interval: this key is here twice; keep one of them
  config.yaml:24:13: discovery.interval: found the number 30, wanted a duration such as 30s
  config.yaml:25:1: paths: found nothing, wanted a mapping; remove the key to get its default"#;

    #[test]
    fn every_problem_is_reported_with_its_position() {
        let report = parse("config.yaml", BROKEN, &fixture::known()).unwrap_err();
        let found = report.to_string();
        for (found, wanted) in found.lines().zip(REPORT.lines()) {
            assert_eq!(found, wanted);
        }
        assert_eq!(found, REPORT);
    }

    #[test]
    fn aliases_become_canonical_names() {
        let config = parse("a.yaml", "probes: [softirq, {name: flow}]\n", &fixture::known()).unwrap();
        let names: Vec<_> = config.probes.iter().map(|probe| probe.name.as_str()).collect();
        assert_eq!(names, ["net_softirq", "flow"]);
    }

    #[test]
    fn byte_order_mark_is_no_part_of_the_first_key() {
        let known = fixture::known();
        assert_eq!(parse("a.yaml", "\u{feff}listen: 0.0.0.0:1\n", &known).unwrap().listen, "0.0.0.0:1");
        let report = parse("a.yaml", "\u{feff}lisen: x\n", &known).unwrap_err();
        assert_eq!((report.problems[0].line, report.problems[0].column), (1, 1));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_placed() {
        let report = parse("a.yaml", b"a: 1\nb: \xc3\xa9\xff\n", &fixture::known()).unwrap_err();
        assert_eq!(
            report.to_string(),
            "a.yaml: 1 problem\n  a.yaml:2:5: this byte is not UTF-8; save the file as UTF-8"
        );
    }

    #[test]
    fn a_file_that_is_no_mapping_says_so() {
        let report = parse("a.yaml", "- tcp\n", &fixture::known()).unwrap_err();
        assert_eq!(report.to_string(), "a.yaml: 1 problem\n  a.yaml:1:1: found a list, wanted a mapping");
    }

    #[test]
    fn null_is_allowed_where_the_default_is_to_have_none() {
        assert_eq!(parse("a.yaml", "node_name:\n", &fixture::known()).unwrap().node_name, None);
    }
}
