//! The reference list, walked row by row: every metric that it has for these probes is on the page under
//! `metrics.names: kubeskoop`, none is missing and none is added; and the catalogue says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netsonde_tests::agent::netsonde;
use netsonde_tests::{Agent, Pair, fixtures, needs_programs, needs_root, note, shell, until};

/// The rows of the list: metric and probe.
fn reference() -> BTreeMap<String, String> {
    let path = fixtures().join("reference-metrics.tsv");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let rows = text.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| row.split_once('\t').expect("two columns")).map(|(m, p)| (m.into(), p.into())).collect()
}

fn names(of: &BTreeMap<String, String>) -> BTreeSet<&str> {
    of.keys().map(String::as_str).collect()
}

#[test]
fn the_catalogue_has_every_name_of_the_reference_under_its_probe_and_no_other() {
    let reference = reference();
    assert_eq!(reference.len(), 99, "rows of the thirteen probes");
    let probes: BTreeSet<_> = reference.values().cloned().collect();
    assert_eq!(probes.len(), 13);

    let listed = shell::run(&mut netsonde(&["probes", "--output", "json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("netsonde probes prints JSON");
    let mut catalogue = BTreeMap::new();
    for probe in listed.as_array().expect("a list of probes") {
        let name = probe["name"].as_str().expect("a probe has a name");
        for metric in probe["metrics"].as_array().expect("a probe has metrics") {
            if let Some(of_reference) = metric["reference"].as_str().filter(|_| probes.contains(name)) {
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

/// What this kernel cannot give, and why: those are looked for in the catalogue only.
fn not_here() -> Vec<(&'static str, &'static str)> {
    let mut not = Vec::new();
    let stats = std::fs::read_to_string("/proc/net/stat/nf_conntrack").unwrap_or_default();
    if stats.is_empty() {
        not.push(("kubeskoop_conntrack_", "there is no conntrack"));
    }
    if !std::path::Path::new("/proc/net/ip_vs_stats").exists() {
        not.push(("kubeskoop_ipvs_", "the module ip_vs is not loaded"));
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
    let not_here = not_here();
    let mut missing: BTreeSet<_> = wanted.difference(&on_page).copied().collect();
    for (start, why) in &not_here {
        let (out, rest) = missing.into_iter().partition::<BTreeSet<_>, _>(|name| name.starts_with(start));
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
