//! The shipped rules and alerts: promtool passes them, they ask only for what there is, and each alert has its page.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use netsonde_tests::prometheus::{Prometheus, read, shipped};
use netsonde_tests::promql::{Catalogue, Known, Names, metrics, names};
use netsonde_tests::{needs_programs, shell};
use serde_json::Value;

const RULES: &str = "deploy/prometheus/netsonde.rules.yml";
const ALERTS: &str = "deploy/prometheus/netsonde.alerts.yml";
const PAGES: &str = "https://github.com/netsonde/netsonde/blob/main/docs/runbooks";

/// What every runbook answers.
const SECTIONS: [&str; 5] =
    ["## What it means", "## Look closer", "## Usual causes", "## What to do", "## How to silence it"];

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().expect("a path has a last part")
}

/// The rules as Prometheus reads them: the recording ones, and the alerts.
fn rules() -> (Vec<Value>, Vec<Value>) {
    let config = "rule_files: ['netsonde.*.yml']\n";
    let files = [RULES, ALERTS].map(|path| (file_name(path), read(path)));
    let rules = Prometheus::start(config, &files).rules();
    rules.into_iter().partition(|rule| rule["type"] == "recording")
}

/// The catalogue with what Prometheus and the recording rules add, and with all that is wrong with the latter.
fn catalogue(recording: &[Value]) -> (Catalogue, Vec<String>) {
    let mut catalogue = Catalogue::read();
    let known = |labels: Names| Known { counter: false, labels, probe: None, default_on: true };
    catalogue.add("up", known(names(["instance", "job"])));
    let mut wrong = Vec::new();
    for rule in recording {
        match catalogue.check(text(rule, "query")) {
            Ok(labels) => catalogue.add(text(rule, "name"), known(labels)),
            Err(why) => wrong.push(format!("{}: {why}", text(rule, "name"))),
        }
    }
    (catalogue, wrong)
}

#[test]
fn promtool_passes_the_rules_and_their_tests() {
    needs_programs!("promtool");
    let folder = shipped("deploy/prometheus");
    let promtool = |args: &[&str]| shell::run(Command::new("promtool").args(args).current_dir(&folder));
    let files = [RULES, ALERTS].map(file_name);
    promtool(&[&["check", "rules", "--lint=all", "--lint-fatal"][..], &files].concat());
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "netsonde.test.yml"]);
}

#[test]
fn the_configuration_for_a_cluster_is_good_but_for_what_this_prometheus_was_built_without() {
    needs_programs!("promtool");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = read("deploy/prometheus/kubernetes.yml");
    let (before, rest) = config.split_once("    kubernetes_sd_configs:\n").expect("it finds pods");
    let after = rest.find("    relabel_configs:").expect("it relabels");
    let plain =
        format!("{before}    static_configs: [{{targets: [\"127.0.0.1:9102\"]}}]\n{}", &rest[after..]);
    fs::write(folder.path().join("prometheus.yml"), plain).expect("written");
    for path in [RULES, ALERTS] {
        fs::write(folder.path().join(file_name(path)), read(path)).expect("written");
    }
    shell::run(Command::new("promtool").args(["check", "config"]).arg(folder.path().join("prometheus.yml")));
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not() {
    let cases = read("deploy/prometheus/netsonde.test.yml");
    for name in alerts_by_text() {
        for end in ["fires", "does not fire"] {
            let case = format!("  - name: {name} {end}");
            let line = |line: &str| line == case || line.starts_with(&format!("{case} ("));
            assert!(cases.lines().any(line), "no case called {case:?}");
        }
    }
}

/// The names of the alerts, without Prometheus.
fn alerts_by_text() -> BTreeSet<String> {
    let alerts = read(ALERTS);
    let found: BTreeSet<_> =
        alerts.lines().filter_map(|line| Some(line.split_once("- alert: ")?.1.to_owned())).collect();
    assert!(found.len() > 10, "{found:?}");
    found
}

#[test]
fn rules_ask_only_for_metrics_and_labels_of_the_catalogue() {
    needs_programs!("prometheus");
    let (recording, alerts) = rules();
    let (catalogue, mut wrong) = catalogue(&recording);
    for rule in &recording {
        let name = text(rule, "name");
        assert_eq!(name.split(':').count(), 3, "{name} is not level:metric:operations");
    }
    for alert in &alerts {
        let name = text(alert, "name");
        let labels = match catalogue.check(text(alert, "query")) {
            Ok(labels) => labels,
            Err(why) => {
                wrong.push(format!("{name}: {why}"));
                continue;
            }
        };
        for (key, annotation) in alert["annotations"].as_object().expect("annotations") {
            for rest in annotation.as_str().expect("a text").split("$labels.").skip(1) {
                let label: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !labels.contains(&label) {
                    wrong.push(format!("{name}: {key}: the alert has no label {label}"));
                }
            }
        }
        // Over what a probe counts, the alert names the pod or the node; over the agent's own, the agent.
        let who = if labels.contains("target_node") { "target_node" } else { "instance" };
        assert!(labels.contains(who), "{name} does not say where: {labels:?}");
    }
    let used: Names = alerts.iter().flat_map(|alert| metrics(text(alert, "query"))).collect();
    for rule in &recording {
        let (name, inner) = (
            text(rule, "name"),
            recording.iter().any(|other| metrics(text(other, "query")).contains(text(rule, "name"))),
        );
        if !used.contains(name) && !inner && !read("docs/guides/prometheus.md").contains(name) {
            wrong.push(format!("{name} is recorded for nobody"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_alert_says_what_is_wrong_how_much_and_where_to_read_on() {
    needs_programs!("prometheus");
    let (_, alerts) = rules();
    for alert in &alerts {
        let name = text(alert, "name");
        let severity = text(&alert["labels"], "severity");
        assert!(["info", "warning", "critical"].contains(&severity), "{name}: {severity}");
        let annotations = &alert["annotations"];
        assert!(!text(annotations, "summary").ends_with('.'), "{name}: a summary is a headline");
        assert!(text(annotations, "description").ends_with('.'), "{name}: a description is a sentence");
        assert_eq!(text(annotations, "runbook_url"), format!("{PAGES}/{name}.md"));
        assert!(
            alert["duration"].as_f64().is_some_and(|seconds| seconds >= 120.0),
            "{name} waits before it fires"
        );
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let pages: BTreeSet<String> = fs::read_dir(shipped("docs/runbooks"))
        .expect("the folder of the runbooks")
        .filter_map(|entry| {
            entry.expect("an entry").file_name().into_string().ok()?.strip_suffix(".md").map(str::to_owned)
        })
        .filter(|name| name != "README")
        .collect();
    assert_eq!(pages, alerts_by_text());
    let index = read("docs/runbooks/README.md");
    for name in &pages {
        let page = read(format!("docs/runbooks/{name}.md"));
        assert!(page.starts_with(&format!("# {name}\n")), "{name}: its title");
        let places: Vec<_> = SECTIONS.iter().map(|section| page.find(section)).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{name}: {places:?}");
        assert!(index.contains(&format!("]({name}.md)")), "{name} is not in the list");
    }
}

#[test]
fn what_the_pages_tell_to_ask_can_be_asked() {
    needs_programs!("prometheus");
    let (recording, _) = rules();
    let (catalogue, mut wrong) = catalogue(&recording);
    let mut asked = 0;
    let runbooks = alerts_by_text().into_iter().map(|name| format!("docs/runbooks/{name}.md"));
    for path in runbooks.chain(["docs/guides/prometheus.md".to_owned()]) {
        let page = read(&path);
        for block in page.split("```promql\n").skip(1) {
            let query = block.split("```").next().unwrap_or_default();
            asked += 1;
            if let Err(why) = catalogue.check(query) {
                wrong.push(format!("{path}: {why}: {query}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(asked > 14, "only {asked} queries were found");
}
