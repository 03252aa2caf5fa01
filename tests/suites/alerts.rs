//! Debian's Prometheus and Alertmanager with the shipped configuration, rules and alerts: what is provoked arrives at the
//! Alertmanager with the right pod, and what is quiet raises nothing.
//!
//! The shipped files are used as they are, but for the places to scrape and to alert, and for how often and how long.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use netsonde_tests::agent::free_address;
use netsonde_tests::lab::{cut, send};
use netsonde_tests::prometheus::{Alertmanager, Prometheus, read};
use netsonde_tests::{Agent, Netns, Pair, needs_programs, needs_root, note, until};
use serde_json::Value;

/// How long nothing may be told of what is quiet; every alert is due before.
const QUIET: Duration = Duration::from_secs(20);

type Labels = BTreeMap<String, String>;

fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The shipped Prometheus configuration for these agents, every second.
fn config(agents: &[SocketAddr], manager: SocketAddr) -> String {
    let shipped = read("deploy/prometheus/prometheus.yml");
    let targets: Vec<_> = agents.iter().map(|address| format!("\"{address}\"")).collect();
    let (scraped, alerted) = ("\"127.0.0.1:9102\"", "\"127.0.0.1:9093\"");
    assert!(shipped.contains(scraped) && shipped.contains(alerted));
    let shipped = shipped.replace(scraped, &targets.join(", ")).replace(alerted, &format!("\"{manager}\""));
    often(&shipped, &["scrape_interval:", "evaluation_interval:"], "1s")
}

/// The text with another value after each of these keys.
fn often(text: &str, keys: &[&str], value: &str) -> String {
    let line = |line: &str| match keys.iter().find(|key| line.trim_start().starts_with(**key)) {
        Some(key) => format!("{}{key} {value}\n", &line[..line.len() - line.trim_start().len()]),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// The alerts with seconds for minutes in `for:`, so that one that waits longer than another still does.
fn soon(alerts: &str) -> String {
    let line =
        |line: &str| match line.trim_start().strip_prefix("for:").and_then(|wait| wait.strip_suffix('m')) {
            Some(minutes) => format!("        for:{minutes}s\n"),
            None => format!("{line}\n"),
        };
    alerts.lines().map(line).collect()
}

/// Everything that runs.
struct Lab {
    agent: Agent,
    blind: Agent,
    quiet: Netns,
    drops: Pair,
    retransmits: Pair,
    prometheus: Prometheus,
    manager: Alertmanager,
    web: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let (drops, retransmits) = (Pair::v4("drops"), Pair::v4("retransmits"));
        let quiet = Netns::new("quiet");
        drops.b.sysctl("net/ipv4/tcp_syncookies", "0");
        let agent = Agent::start("node_name: lab\nsinks: []\n");
        for ns in [&drops.a, &drops.b, &retransmits.a, &retransmits.b, &quiet] {
            agent.scrape_with(ns.name());
        }
        let web = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(web.path().join("web.yml"), "").expect("written");
        let blind = Agent::start(&blind_config("[udp, tcp]", &web));
        let manager = Alertmanager::start();
        let alerts = soon(&read("deploy/prometheus/netsonde.alerts.yml"));
        let files = [
            ("netsonde.rules.yml", read("deploy/prometheus/netsonde.rules.yml")),
            ("netsonde.alerts.yml", alerts),
        ];
        let agents = [agent.address, blind.address];
        let prometheus = Prometheus::start(&config(&agents, manager.address), &files);
        until("both agents are scraped", Duration::from_secs(30), || {
            let up = prometheus.query("up{job=\"netsonde\"} == 1").ok()?;
            (up.len() == agents.len()).then_some(())
        });
        Self { agent, blind, quiet, drops, retransmits, prometheus, manager, web }
    }

    /// The alerts that concern these agents and these pods. Others on this machine lose packets, too.
    fn alerts(&self) -> Vec<(Labels, Value)> {
        let ours = [&self.drops.a, &self.drops.b, &self.retransmits.a, &self.retransmits.b, &self.quiet];
        let own = |labels: &Labels| match labels.get("target_pod") {
            Some(pod) => ours.iter().any(|ns| ns.name() == pod),
            None => labels.contains_key("instance"),
        };
        let alerts = self.manager.alerts().into_iter().map(|alert| {
            let labels: Labels = serde_json::from_value(alert["labels"].clone()).expect("labels");
            (labels, alert["annotations"].clone())
        });
        alerts.filter(|(labels, _)| own(labels)).collect()
    }
}

fn blind_config(probes: &str, web: &tempfile::TempDir) -> String {
    format!("node_name: blind\nprobes: {probes}\nweb_config: {}\n", web.path().join("web.yml").display())
}

/// Datagrams for a socket that nobody reads, handshakes for a listener that does not accept, connections to a port
/// where nobody listens: each is a fault of its own in `b`.
fn drop_and_reset(pair: &Pair, full: &std::net::UdpSocket) {
    let from = pair.a.udp("10.9.0.1:0");
    send(&from, &full.local_addr().expect("bound").to_string(), 200, 1000);
    let waiting: Vec<_> = (0..40).map(|_| pair.a.begin_connect("10.9.0.2:7001")).collect();
    pair.a.enter(|| {
        for _ in 0..300 {
            assert!(TcpStream::connect("10.9.0.2:7999").is_err(), "nobody listens there");
        }
    });
    std::thread::sleep(Duration::from_millis(300));
    drop(waiting);
}

/// Connections whose segments a rule of the other side drops, so that they are sent again and again.
fn retransmit(pair: &Pair) -> (TcpListener, Vec<TcpStream>) {
    let listener = pair.b.listen("10.9.0.2:7100", 512);
    let connections: Vec<_> = (0..300).map(|_| pair.a.connect("10.9.0.2:7100")).collect();
    cut(&pair.b, "tcp dport 7100");
    for mut connection in &connections {
        std::io::Write::write_all(&mut connection, b"are you there?").expect("the socket takes it");
    }
    // Without its listener it would reset them.
    (listener, connections)
}

#[test]
fn what_is_provoked_reaches_the_alertmanager_and_what_is_quiet_does_not() {
    needs_root!();
    needs_programs!("prometheus", "prometheus-alertmanager", "nft");
    let lab = Lab::new();

    let start = Instant::now();
    while start.elapsed() < QUIET {
        let alerts = lab.alerts();
        assert!(alerts.is_empty(), "nothing has happened yet: {alerts:#?}");
        std::thread::sleep(Duration::from_secs(1));
    }
    let rules = lab.prometheus.rules();
    assert!(rules.len() > 20 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:#?}");

    // The agents' own troubles: a Loki that is not there, with next to no queue, and two files that are wrong.
    let loki = "{url: \"http://127.0.0.1:1/loki/api/v1/push\", queue: {events: 1}, batch: {events: 1}}";
    lab.agent.write_config(&format!("node_name: lab\nsinks: [{{name: loki, args: {loki}}}]\n"));
    let Lab { blind, web, .. } = &lab;
    blind.write_config("probes: [udp, tpc]\n");
    std::fs::write(web.path().join("web.yml"), "basic_auth_users: {ali: sesame}\n").expect("written");

    // The pods'.
    let full = lab.drops.b.udp("10.9.0.2:6001");
    rustix::net::sockopt::set_socket_recv_buffer_size(&full, 2048).expect("a buffer can be small");
    let _listener = lab.drops.b.listen("10.9.0.2:7001", 1);
    let _connections = retransmit(&lab.retransmits);

    let (a, b) = (lab.drops.a.name(), lab.drops.b.name());
    let pod = |name, more: &[(&'static str, &'static str)]| {
        let place = [("target_node", "lab"), ("target_namespace", "netns"), ("target_pod", name)];
        labels(place.into_iter().chain(more.iter().copied()))
    };
    let (agent, broken) = (lab.agent.address.to_string(), lab.blind.address.to_string());
    let of_agent = |instance, more: &[(&'static str, &'static str)]| {
        labels([("job", "netsonde"), ("instance", instance)].into_iter().chain(more.iter().copied()))
    };
    let mut wanted = vec![
        ("NetsondePacketLoss", pod(b, &[("reason", "SOCKET_RCVBUFF")])),
        ("NetsondeListenOverflow", pod(b, &[])),
        ("NetsondeResetStorm", pod(b, &[("kind", "nosock")])),
        ("NetsondeResetStorm", pod(a, &[("kind", "receive")])),
        ("NetsondeRetransmissionRatio", pod(lab.retransmits.a.name(), &[])),
        ("NetsondeConfigRejected", of_agent(&broken, &[])),
        ("NetsondeWebConfigRejected", of_agent(&broken, &[])),
        ("NetsondeSinkLosingEvents", of_agent(&agent, &[("sink", "loki"), ("reason", "queue_full")])),
    ];
    let has = |alerts: &[(Labels, Value)], (name, wanted): &(&str, Labels)| {
        let fits = |labels: &Labels| wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
        alerts.iter().any(|(labels, _)| labels["alertname"] == *name && fits(labels))
    };
    let start = Instant::now();
    let told = loop {
        drop_and_reset(&lab.drops, &full);
        let alerts = lab.alerts();
        wanted.retain(|wanted| {
            let there = has(&alerts, wanted);
            if there {
                note(&format!("{} after {:.0?}", wanted.0, start.elapsed()));
            }
            !there
        });
        if wanted.is_empty() {
            break alerts;
        }
        assert!(start.elapsed() < Duration::from_mins(2), "not told: {wanted:#?}; told: {alerts:#?}");
    };
    for (labels, annotations) in &told {
        let name = &labels["alertname"];
        let page = annotations["runbook_url"].as_str().expect("a runbook");
        assert!(page.ends_with(&format!("/{name}.md")), "{page}");
        let said = annotations["description"].as_str().expect("a description");
        assert!(!said.contains("{{") && !said.contains("<no value>"), "{name}: {said}");
    }
    let bystander =
        told.iter().find(|(labels, _)| labels.get("target_pod").is_some_and(|pod| pod == lab.quiet.name()));
    assert!(bystander.is_none(), "{bystander:#?}");
    let healthy = told
        .iter()
        .find(|(labels, _)| labels["alertname"] == "NetsondeConfigRejected" && labels["instance"] == agent);
    assert!(healthy.is_none(), "{healthy:#?}");
    lab.blind.stop();
    lab.agent.stop();
}

#[test]
fn an_agent_that_is_gone_and_a_probe_without_its_rights_are_told_of() {
    needs_root!();
    needs_programs!("prometheus", "prometheus-alertmanager");
    let sees = Agent::start("node_name: sees\nprobes: [udp, packetloss]\n");
    let blind =
        Agent::start_without("bpf,-perfmon,-sys_admin", "node_name: blind\nprobes: [udp, packetloss]\n");
    let (gone, manager) = (free_address(), Alertmanager::start());
    let alerts = soon(&read("deploy/prometheus/netsonde.alerts.yml"));
    let files = [
        ("netsonde.rules.yml", read("deploy/prometheus/netsonde.rules.yml")),
        ("netsonde.alerts.yml", alerts),
    ];
    let _prometheus =
        Prometheus::start(&config(&[sees.address, blind.address, gone], manager.address), &files);
    let at = |instance: SocketAddr, name: &str, more: &[(&str, &str)]| {
        manager.alerts().iter().any(|alert| {
            let has = |key: &str, value: &str| alert["labels"][key] == value;
            has("alertname", name)
                && has("instance", &instance.to_string())
                && more.iter().all(|(k, v)| has(k, v))
        })
    };
    let lacks = [("probe", "packetloss"), ("state", "unsupported")];
    until("both are told", Duration::from_mins(1), || {
        (at(gone, "NetsondeAgentDown", &[("severity", "critical")])
            && at(blind.address, "NetsondeProbeNotRunning", &lacks))
        .then_some(())
    });
    for name in ["NetsondeAgentDown", "NetsondeProbeNotRunning", "NetsondeConfigRejected"] {
        assert!(!at(sees.address, name, &[]), "{name} of an agent that is well");
    }
    sees.stop();
    blind.stop();
}
