//! What the dashboards show while everything fails that can be made to fail: no panel is empty that should show something.

use std::collections::BTreeMap;

use netsonde_tests::dashboards::{DASHBOARDS, dashboard, filled, list, queries, shown, text};
use netsonde_tests::faults::{Faults, OTHERS, SENSITIVE};
use netsonde_tests::{Agent, Page, needs_programs, needs_root, note};

use crate::server::{Server, alone};

/// An agent with every probe over two pods whose traffic fails, and a Prometheus that has scraped it.
struct Lab {
    agent: Agent,
    faults: Faults,
    server: Server,
}

impl Lab {
    fn new(hint: &str) -> Self {
        let mut faults = Faults::new(hint);
        let agent = Agent::start(&format!("node_name: lab\nprobes: [{OTHERS}, {SENSITIVE}]\n"));
        for ns in [&faults.pair.a, &faults.pair.b] {
            agent.scrape_with(ns.name());
        }
        let server = Server::start(&agent, "");
        server.scraped(5, || faults.provoke());
        Self { agent, faults, server }
    }
}

/// What a machine may lack, by the begin of the metrics' names and a label, and why.
const MAY_LACK: &[(&str, (&str, &str), &str)] = &[
    ("netsonde_netdev_device_", ("kind", "physical"), "a container has no physical device"),
    (
        "netsonde_qdisc_device_",
        ("target_pod", "hostNetwork"),
        "noqueue, as devices of a container have it, counts nothing",
    ),
    ("netsonde_conntrack_", ("target_pod", "hostNetwork"), "this kernel tracks no connections"),
];

/// Metrics that nothing here can provoke; they are on no page until it happens.
const NOT_PROVOKED: &[(&str, &str)] = &[
    (
        "netsonde_virtcmdlatency_",
        "the driver of virtio devices is in no module here, so the probe is unsupported",
    ),
    ("netsonde_tcpretrans_failed_total", "no retransmission is refused by a queue of this machine"),
    ("netsonde_kernellatency_forward_", "nothing leaves a pod through another namespace here"),
];

/// Why this query may be empty: the agent's page has nothing of the sort that it asks for.
fn excuse(expression: &str, page: &Page) -> Option<&'static str> {
    let excuses = |(name, (key, value), _): &&(&str, (&str, &str), &str)| {
        let asked = expression.contains(name) && expression.contains(&format!("{key}=\"{value}\""));
        let has = |label: Option<&String>| label.is_some_and(|label| label == value);
        asked && !page.samples.iter().any(|s| s.name.starts_with(name) && has(s.labels.get(*key)))
    };
    let not_provoked = NOT_PROVOKED.iter().filter(|(name, _)| expression.contains(name));
    let mut not_provoked =
        not_provoked.filter(|(name, _)| !page.samples.iter().any(|s| s.name.starts_with(name)));
    MAY_LACK.iter().find(excuses).map(|(_, _, why)| *why).or_else(|| not_provoked.next().map(|(_, why)| *why))
}

/// Panels that have to show more than nothing and more than 0, because their fault is provoked here.
const SHOW: &[(&str, &[&str])] = &[
    (
        "netsonde-node",
        &[
            "Lost by place, in the time shown",
            "Lost by place",
            "Packets lost",
            "Share of segments sent again",
            "Connections cut or failed",
            "Traffic",
        ],
    ),
    (
        "netsonde-pod",
        &[
            "Dropped, by reason",
            "Resets, by kind and reason",
            "Sent again, by cause",
            "With whom it talks",
            "Slow readers",
            "Conntrack table in use",
        ],
    ),
    (
        "netsonde-loss",
        &[
            "Dropped by reason, in the time shown",
            "Dropped by reason",
            "Pod, reason and way",
            "Dropped by pod",
            "Dropped by firewall rules",
            "By direction",
            "By protocol",
            "Sent again because of it",
            "Device queues",
            "Sockets",
            "Drops without an event",
        ],
    ),
    (
        "netsonde-tcp",
        &[
            "Resets by kind and reason, in the time shown",
            "Resets by kind and reason",
            "Pod, kind and reason",
            "Why connections were cut",
            "Established connections that were reset",
            "Resets sent and received",
            "Share of segments sent again",
            "What made TCP send again",
            "Pods that send again",
            "Lost on this node",
            "Timeouts",
            "Attempts that failed",
            "Listeners that drop",
            "SYN sent again, SYN cookies",
            "Accept queues, share of the limit",
            "Connections opened",
            "Slow readers",
            "Established",
            "Sockets by state",
            "Bytes that wait",
        ],
    ),
    (
        "netsonde-latency",
        &[
            "Data that waits to be read",
            "Wait to be read, 99 of 100 within",
            "Wait to be sent, 99 of 100 within",
            "Reads of old data",
            "Writes that waited",
            "From arrival to the socket, 99 of 100 within",
            "Slow on the way in",
            "From TCP to the queue and to the driver, 99 of 100 within",
            "Slow on the way out",
            "Wait in the qdisc, 99 of 100 within",
            "Time in the driver, 99 of 100 within",
            "Wait for the CPU, 99 of 100 within",
            "Length of a run, 99 of 100 within",
            "Slow runs",
            "Requests to disks",
            "Whole requests, 99 of 100 within",
            "In the device, 99 of 100 within",
            "Whose requests are slow",
        ],
    ),
    (
        "netsonde-queues",
        &[
            "Table in use",
            "Entries",
            "Dropped",
            "Held back",
            "Sent",
            "Accept queues",
            "Listeners that refuse",
            "Received and not read",
            "Sent and not acknowledged",
            "UDP that found no room",
        ],
    ),
    ("netsonde-events", &["Held back by the limits of probes"]),
    (
        "netsonde-agent",
        &[
            "Agents",
            "Probes that run",
            "Namespaces that are read",
            "State of each probe",
            "Time of a collection",
            "CPU of collections",
            "Series",
            "Events told",
            "Sinks: received and delivered",
            "Memory",
            "CPU",
            "Open descriptors, share of the limit",
            "Time to make a page",
            "Searches for namespaces",
            "Versions",
        ],
    ),
];

impl Lab {
    /// What is wrong with what the dashboards show now, and what is empty and may be.
    fn judge(&self) -> (Vec<String>, Vec<String>) {
        let page = self.agent.scrape();
        // Other tests have faults of their own at the same time, in pods of their own.
        let pods = format!("{}|{}|hostNetwork", self.faults.pair.a.name(), self.faults.pair.b.name());
        let (mut wrong, mut excused) = (Vec::new(), Vec::new());
        for name in DASHBOARDS {
            let mut highest: BTreeMap<String, f64> = BTreeMap::new();
            for query in queries(&dashboard(name), "prometheus") {
                match self.server.values(&filled(&query.expression.replace("$pod", &pods))) {
                    Err(error) => wrong.push(format!("{}: {error}", query.place)),
                    Ok(values) if values.is_empty() => match excuse(&query.expression, &page) {
                        Some(why) => excused.push(format!("{} is empty here: {why}", query.place)),
                        None => wrong.push(format!("{}: no answer to {}", query.place, query.expression)),
                    },
                    Ok(values) => {
                        let most = highest.entry(query.panel).or_default();
                        *most = values.into_iter().fold(*most, f64::max);
                    }
                }
            }
            let wanted = SHOW.iter().find(|(of, _)| of == name).map_or(&[] as &[&str], |(_, panels)| panels);
            for panel in wanted.iter().filter(|panel| highest.get(**panel).is_none_or(|most| *most <= 0.0)) {
                wrong.push(format!("{name}: {panel}: shows nothing but 0"));
            }
        }
        (wrong, excused)
    }
}

#[test]
fn no_panel_is_empty_that_should_show_something() {
    needs_root!();
    needs_programs!("prometheus", "nft", "tc");
    let _alone = alone();
    let mut lab = Lab::new("dashboard");
    let (mut wrong, mut excused) = lab.judge();
    // On a busy machine a scrape goes without the probe that is too late, and a gauge of it has no value until the next.
    for scrapes in [8, 11, 14, 17] {
        if wrong.is_empty() {
            break;
        }
        lab.server.scraped(scrapes, || lab.faults.provoke());
        (wrong, excused) = lab.judge();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for text in excused {
        note(&text);
    }
    lab.agent.stop();
}

#[test]
fn the_first_row_names_the_pod_that_loses_and_where() {
    needs_root!();
    needs_programs!("prometheus", "nft", "tc");
    let _alone = alone();
    let lab = Lab::new("loser");
    let (a, b) = (lab.faults.pair.a.name(), lab.faults.pair.b.name());
    // Other tests lose packets too, in namespaces of their own.
    let pods = format!("target_pod=~\"{a}|{b}\"");
    let told = |dashboard_name: &str, title: &str| {
        let dashboard = dashboard(dashboard_name);
        let panel = shown(&dashboard).find(|panel| panel["title"] == title).expect("a panel of this title");
        let query = filled(text(&list(panel, "targets")[0], "expr")).replace("target_pod=~\".*\"", &pods);
        lab.server.ask(&query).expect("an answer")
    };
    let by_place = told("netsonde-pod", "Lost by place, in the time shown");
    // Sixty datagrams at once are for a queue with room for twenty, and what it lets through is for a buffer with room
    // for one. IP and the socket of the sender count what the queue drops once more.
    let most = by_place.iter().max_by(|(_, x), (_, y)| x.total_cmp(y)).expect("a place");
    assert!(
        ["qdisc", "IP discarded, out", "UDP send buffer"].contains(&text(&most.0, "place")),
        "{by_place:?}"
    );
    let who = told("netsonde-pod", "Which pod loses them");
    for (place, pod) in [("qdisc", a), ("UDP receive buffer", b), ("TCP accept queue", b)] {
        let found = who.iter().find(|(labels, value)| labels["place"] == place && *value > 1.0);
        assert_eq!(found.unwrap_or_else(|| panic!("{place}: {who:?}")).0["target_pod"], pod, "{place}");
    }
    let reasons = told("netsonde-loss", "Pod, reason and way");
    for (reason, pod) in [("SOCKET_RCVBUFF", b), ("NETFILTER_DROP", b), ("NO_SOCKET", b)] {
        let found = reasons.iter().find(|(labels, _)| labels["reason"] == reason);
        assert_eq!(found.expect(reason).0["target_pod"], pod, "{reason}");
    }
    lab.agent.stop();
}
