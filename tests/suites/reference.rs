//! The reference list, walked row by row: every metric that it has is on the page under
//! `metrics.names: kubeskoop`, none is missing and none is added; and the catalogue says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netsonde_tests::agent::netsonde;
use netsonde_tests::{Agent, Pair, fixtures, needs_programs, needs_root, note, shell, until};

/// The rows of a list: metric or type of event, and probe.
fn list(file: &str) -> BTreeMap<String, String> {
    let path = fixtures().join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| row.split_once('\t').expect("two columns")).map(|(m, p)| (m.into(), p.into())).collect()
}

fn reference() -> BTreeMap<String, String> {
    list("reference-metrics.tsv")
}

/// What `netsonde probes` tells of each probe.
fn probes() -> Vec<serde_json::Value> {
    let listed = shell::run(&mut netsonde(&["probes", "--output", "json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("netsonde probes prints JSON");
    listed.as_array().expect("a list of probes").clone()
}

fn names(of: &BTreeMap<String, String>) -> BTreeSet<&str> {
    of.keys().map(String::as_str).collect()
}

const ROWS: usize = 119;

#[test]
fn the_catalogue_has_every_name_of_the_reference_under_its_probe_and_no_other() {
    let reference = reference();
    assert_eq!(reference.len(), ROWS, "rows of the list");
    let mut catalogue = BTreeMap::new();
    for probe in probes() {
        let name = probe["name"].as_str().expect("a probe has a name");
        for metric in probe["metrics"].as_array().expect("a probe has metrics") {
            if let Some(of_reference) = metric["reference"].as_str() {
                let before = catalogue.insert(of_reference.to_owned(), name.to_owned());
                assert_eq!(before, None, "{of_reference} is there twice");
            }
        }
    }
    let (wanted, got) = (names(&reference), names(&catalogue));
    let missing: Vec<_> = wanted.difference(&got).collect();
    let extra: Vec<_> = got.difference(&wanted).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:#?}, extra {extra:#?}");
    assert_eq!(catalogue, reference, "each under the probe that the reference names");
}

#[test]
fn the_catalogue_has_every_event_of_the_reference_under_its_probe_and_no_other() {
    let mut catalogue = BTreeMap::new();
    for probe in probes() {
        let name = probe["name"].as_str().expect("a probe has a name");
        for kind in probe["events"].as_array().expect("a probe has events") {
            let kind = kind.as_str().expect("an event has a name");
            assert_eq!(catalogue.insert(kind.to_owned(), name.to_owned()), None, "{kind} is there twice");
        }
    }
    assert_eq!(catalogue, list("reference-events.tsv"));
}

/// What this kernel cannot give, and why: those are looked for in the catalogue only.
fn not_here() -> Vec<(String, String)> {
    let mut not = Vec::new();
    let stats = std::fs::read_to_string("/proc/net/stat/nf_conntrack").unwrap_or_default();
    if stats.is_empty() {
        not.push(("kubeskoop_conntrack_".into(), "there is no conntrack".into()));
    }
    if !std::path::Path::new("/proc/net/ip_vs_stats").exists() {
        not.push(("kubeskoop_ipvs_".into(), "the module ip_vs is not loaded".into()));
    }
    not
}

#[test]
fn the_page_has_every_name_of_the_reference_that_this_kernel_can_give_and_no_other() {
    needs_root!();
    needs_programs!("nft", "tc");
    let pair = Pair::new("reference");
    pair.a.run("tc qdisc add dev eth0 root tbf rate 1mbit burst 2000 limit 3000");
    pair.b.track_connections();
    let to = pair.b.udp("10.9.0.2:6000");
    pair.a.udp("10.9.0.1:0").send_to(b"one", "10.9.0.2:6000").expect("a datagram can be sent");
    to.recv(&mut [0; 10]).expect("it arrives");

    let reference = reference();
    let probes: BTreeSet<_> = reference.values().map(String::as_str).collect();
    let listed = probes.into_iter().collect::<Vec<_>>().join(", ");
    let agent = Agent::start(&format!("metrics: {{names: kubeskoop}}\nprobes: [{listed}]\n"));
    agent.scrape_with(pair.a.name());
    // tcpsummary reads at an interval of its own.
    let page = until("tcpsummary is on the page", Duration::from_secs(20), || {
        let page = agent.scrape();
        page.find("kubeskoop_tcpsummary_tcpestablishedconn", &[("target_pod", "hostNetwork")]).map(|_| page)
    });
    let on_page: BTreeSet<_> = page.samples.iter().map(|s| s.name.as_str()).collect();
    let own = |name: &&str| !name.starts_with("netsonde_") && !name.starts_with("process_");
    let on_page: BTreeSet<_> = on_page.into_iter().filter(own).collect();
    let wanted = names(&reference);
    let extra: Vec<_> = on_page.difference(&wanted).collect();
    assert!(extra.is_empty(), "not in the reference: {extra:#?}");
    let mut not_here = not_here();
    let status = agent.status();
    let unsupported =
        status["probes"].as_array().expect("a list").iter().filter(|p| p["state"] == "unsupported");
    for probe in unsupported {
        let (name, why) =
            (probe["name"].as_str().expect("a name"), probe["reason"].as_str().expect("a reason"));
        let of_probe = reference.iter().filter(|(_, probe)| *probe == name);
        not_here
            .extend(of_probe.map(|(metric, _)| (metric.clone(), format!("{name} is unsupported: {why}"))));
    }
    let mut missing: BTreeSet<_> = wanted.difference(&on_page).copied().collect();
    for (start, why) in &not_here {
        let (out, rest) =
            missing.into_iter().partition::<BTreeSet<_>, _>(|name| name.starts_with(start.as_str()));
        missing = rest;
        if !out.is_empty() {
            note(&format!("looked for in the catalogue only, because {why}: {out:?}"));
        }
    }
    assert!(missing.is_empty(), "missing on the page: {missing:#?}");

    // The three labels of the reference, and no others.
    for sample in page.samples.iter().filter(|s| wanted.contains(s.name.as_str())) {
        let labels: Vec<_> = sample.labels.keys().map(String::as_str).collect();
        assert_eq!(labels, ["target_namespace", "target_node", "target_pod"], "{}", sample.name);
    }
    agent.stop();
}
