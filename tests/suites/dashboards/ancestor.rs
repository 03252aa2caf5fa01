//! The dashboards that were made for KubeSkoop's exporter find what they ask for, with the settings of the README.

use std::time::Duration;

use netsonde_tests::dashboards::folder;
use netsonde_tests::faults::Faults;
use netsonde_tests::{Agent, fixtures, needs_programs, needs_root, note};
use serde_json::Value;

use crate::server::{Server, alone};

/// What they ask for and do not get, and why. Whatever comes to be there must leave this list.
const NOT_THERE: &[(&str, &str, &str)] = &[
    ("kubeskoop_tcpsummary_tcpclosewaitconn", "", "younger than the reference list"),
    ("kubeskoop_tcpsummary_tcpsynsentconn", "", "younger than the reference list"),
    ("kubeskoop_tcpsummary_tcpsynrecvconn", "", "younger than the reference list"),
    ("kubeskoop_sock_orphan", "pods", "the kernel counts orphans of the whole machine"),
    ("kubeskoop_sock_orphan", "pod", "the kernel counts orphans of the whole machine"),
];

/// The YAML examples under the README's heading, in order: the agent's configuration, and Prometheus's.
fn examples() -> [String; 2] {
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("the folder has a README");
    let (_, section) = readme.split_once("## Dashboards made for KubeSkoop").expect("a section about them");
    let blocks: Vec<_> =
        section.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [agent, prometheus] = blocks[..] else { panic!("two examples, not {blocks:#?}") };
    [agent.to_owned(), prometheus.to_owned()]
}

/// What Prometheus answers. On a busy machine a scrape goes without the probe that is too late, and a gauge of it has no
/// value until the next; so one that is expected is asked for again.
fn answer(server: &Server, query: &str, expected: bool) -> Vec<(Value, f64)> {
    for _ in 0..30 {
        let found = server.ask(query).unwrap_or_else(|why| panic!("{query}: {why}"));
        if !found.is_empty() || !expected {
            return found;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Vec::new()
}

#[test]
fn dashboards_of_the_ancestor_find_what_they_ask_for() {
    needs_root!();
    needs_programs!("prometheus", "nft", "tc");
    let _alone = alone();
    let [config, scrape] = examples();
    let mut faults = Faults::new("ancestor");
    let pod = faults.pair.b.name().to_owned();
    let agent = Agent::start(&format!("node_name: lab\n{config}"));
    agent.find(&pod);
    let server = Server::start(&agent, &scrape);
    server.scraped(5, || faults.provoke());

    let asked =
        std::fs::read_to_string(fixtures().join("ancestor-dashboards.tsv")).expect("a list of queries");
    let rows: Vec<Vec<&str>> =
        asked.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 28, "metrics of the list");
    let mut wrong = Vec::new();
    for row in &rows {
        let [metric, shown, whose] = row[..] else { panic!("three columns: {row:?}") };
        for of in whose.split(' ') {
            let selector = match of {
                "node" => "k8s_node=\"lab\"".to_owned(),
                "host" => "k8s_node=\"lab\", k8s_pod=\"\"".to_owned(),
                "pods" => "k8s_node=\"lab\", k8s_pod!=\"\"".to_owned(),
                _ => format!("k8s_namespace=\"netns\", k8s_pod=\"{pod}\""),
            };
            let series = format!("{metric}{{{selector}}}");
            let query = if shown == "rate" { format!("sum(rate({series}[2m]))") } else { series };
            let not_there =
                NOT_THERE.iter().find(|(name, rows, _)| *name == metric && (rows.is_empty() || *rows == of));
            let found = answer(&server, &query, not_there.is_none());
            match (found.is_empty(), not_there) {
                (true, Some((_, _, why))) => note(&format!("{query} is empty: {why}")),
                (true, None) => wrong.push(format!("{query} is empty")),
                (false, Some(_)) => wrong.push(format!("{query} has an answer: take it from the list")),
                (false, None) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    // Their variables: label_values(node), label_values(k8s_namespace) and label_values(k8s_pod).
    for (label, value) in [("node", "lab"), ("k8s_namespace", "netns"), ("k8s_pod", &*pod)] {
        let found = answer(&server, &format!("count by ({label}) (kubeskoop_tcp_currestab)"), true);
        assert!(found.iter().any(|(labels, _)| labels[label] == value), "{label}: {found:?}");
    }
    let lost =
        server.values("sum(rate(kubeskoop_packetloss_total{k8s_node=\"lab\"}[2m]))").expect("an answer");
    assert!(lost[0] > 0.0, "loss is shown: {lost:?}");
    agent.stop();
}
