//! Debian's Prometheus scrapes the agent, and a query for a pod's value answers with exactly it.

use std::time::Duration;

use netsonde_tests::prometheus::{Prometheus, read};
use netsonde_tests::{Agent, Netns, needs_programs, needs_root, until};
use serde_json::Value;

/// A query's only result, with its value as text.
fn only(server: &Prometheus, expression: &str) -> Option<(Value, String)> {
    let mut results = server.query(expression).unwrap_or_else(|why| panic!("{why}"));
    assert!(results.len() < 2, "{expression}: {results:#?}");
    results.pop().map(|(labels, value)| (labels, value.to_string()))
}

/// The shipped configuration, with this test's agent in place of the one on the default port, and scraped often.
fn scrape_config(agent: &Agent) -> String {
    let path = "deploy/prometheus/prometheus.yml";
    let shipped = read(path);
    let target = "127.0.0.1:9102";
    assert!(shipped.contains(target), "{path} scrapes {target}");
    let often = |line: &str| match line.split_once("scrape_interval:") {
        Some((indent, _)) => format!("{indent}scrape_interval: 1s\n"),
        None => format!("{line}\n"),
    };
    shipped.replace(target, &agent.address.to_string()).lines().map(often).collect()
}

#[test]
fn a_query_for_a_pods_value_answers() {
    needs_root!();
    needs_programs!("prometheus");
    let pod = Netns::new("queried");
    let socket = pod.udp("127.0.0.1:6000");
    for _ in 0..42 {
        socket.send_to(b"x", "127.0.0.1:6000").expect("loopback takes a datagram");
        socket.recv(&mut [0; 8]).expect("loopback gives it");
    }
    let agent = Agent::start("node_name: lab\n");
    agent.scrape_with(pod.name());

    let files = ["netsonde.rules.yml", "netsonde.alerts.yml"];
    let files = files.map(|name| (name, read(format!("deploy/prometheus/{name}"))));
    let prometheus = Prometheus::start(&scrape_config(&agent), &files);
    until("prometheus has scraped the agent", Duration::from_mins(1), || {
        only(&prometheus, "up{job=\"netsonde\"}").filter(|(_, value)| value == "1")
    });
    let expression =
        format!("netsonde_udp_in_datagrams_total{{target_pod=\"{}\",family=\"ipv4\"}}", pod.name());
    let (labels, value) =
        until("the pod's value is stored", Duration::from_secs(20), || only(&prometheus, &expression));
    assert_eq!(value, "42");
    assert_eq!(labels["target_namespace"], "netns");
    assert_eq!(labels["target_node"], "lab");

    let targets = prometheus.get("/api/v1/targets").expect("prometheus answers");
    for target in targets["data"]["activeTargets"].as_array().expect("a list of targets") {
        if target["labels"]["job"] == "netsonde" {
            assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()));
        }
    }
    // Prometheus keeps type and help under the name of the family, which OpenMetrics writes without `_total`.
    let family = "netsonde_udp_in_datagrams";
    let kept = prometheus.get(&format!("/api/v1/metadata?metric={family}")).expect("prometheus answers");
    assert_eq!(kept["data"][family][0]["type"], "counter", "{kept}");
    agent.stop();
}
