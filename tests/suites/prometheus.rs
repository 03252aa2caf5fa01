//! Debian's Prometheus scrapes the agent, and a query for a pod's value answers with exactly it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use netsonde_tests::agent::free_address;
use netsonde_tests::running::mortal;
use netsonde_tests::{Agent, Netns, Running, http, needs_programs, needs_root, until};
use serde_json::Value;

/// A query, and the value of its only result.
fn query(server: std::net::SocketAddr, expression: &str) -> Option<(Value, String)> {
    let escaped = expression.bytes().fold(String::new(), |escaped, byte| format!("{escaped}%{byte:02x}"));
    let answer = http::get(server, &format!("/api/v1/query?query={escaped}"), &[]).ok()?;
    // It answers 503 while it starts.
    let answer = (answer.status == 200).then(|| answer.json())?;
    let results = answer["data"]["result"].as_array()?;
    assert!(results.len() < 2, "{expression}: {results:#?}");
    let result = results.first()?;
    Some((result["metric"].clone(), result["value"][1].as_str()?.to_owned()))
}

/// The shipped configuration, with this test's agent in place of the one on the default port, and scraped often.
fn scrape_config(agent: &Agent) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/prometheus.yml");
    let shipped = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let target = "127.0.0.1:9102";
    assert!(shipped.contains(target), "{} scrapes {target}", path.display());
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

    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("prometheus.yml");
    std::fs::write(&config, scrape_config(&agent)).expect("written");
    let address = free_address();
    let log = std::fs::File::create(folder.path().join("log")).expect("made");
    let mut command = mortal("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address={address}"));
    let mut prometheus = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));

    until("prometheus has scraped the agent", Duration::from_mins(1), || {
        if let Some(status) = prometheus.ended() {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            panic!("prometheus ended, {status}: {log}");
        }
        query(address, "up{job=\"netsonde\"}").filter(|(_, value)| value == "1")
    });
    let expression =
        format!("netsonde_udp_in_datagrams_total{{target_pod=\"{}\",family=\"ipv4\"}}", pod.name());
    let (labels, value) =
        until("the pod's value is stored", Duration::from_secs(20), || query(address, &expression));
    assert_eq!(value, "42");
    assert_eq!(labels["target_namespace"], "netns");
    assert_eq!(labels["target_node"], "lab");

    let targets = http::get(address, "/api/v1/targets", &[]).expect("prometheus answers").json();
    for target in targets["data"]["activeTargets"].as_array().expect("a list of targets") {
        if target["labels"]["job"] == "netsonde" {
            assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()));
        }
    }
    // Prometheus keeps type and help under the name of the family, which OpenMetrics writes without `_total`.
    let family = "netsonde_udp_in_datagrams";
    let kept = http::get(address, &format!("/api/v1/metadata?metric={family}"), &[]);
    let kept = kept.expect("prometheus answers").json();
    assert_eq!(kept["data"][family][0]["type"], "counter", "{kept}");
    agent.stop();
}
