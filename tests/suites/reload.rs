//! A configuration that changes while the agent runs.

use std::time::Duration;

use netsonde_tests::wait::until_true;
use netsonde_tests::{Agent, Page, until};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(5);
const HOST: &[(&str, &str)] = &[("target_pod", "hostNetwork")];

fn has(page: &Page, probe: &str) -> bool {
    let start = format!("netsonde_{probe}_");
    page.samples.iter().any(|s| s.name.starts_with(&start) && s.labels.contains_key("target_pod"))
}

#[test]
fn a_good_file_adds_and_removes_probes_while_the_others_keep_counting() {
    let agent = Agent::start("probes: [udp, tcp]\n");
    let before = agent.scrape();
    assert!(has(&before, "udp") && has(&before, "tcp") && !has(&before, "sock"));
    let cpu = |page: &Page| page.value("netsonde_probe_collect_cpu_seconds_total", &[("probe", "udp")]);
    agent.write_config("probes: [udp, sock]\n");
    let after = until("the new probes are on the page", SOON, || {
        let page = agent.scrape();
        (has(&page, "sock") && !has(&page, "tcp")).then_some(page)
    });
    assert!(has(&after, "udp"));
    assert!(cpu(&after) > cpu(&before), "udp was not kept: its own counter began anew");
    assert_eq!(after.count("netsonde_config_last_reload_successful", &[]), 1);
    agent.stop();
}

#[test]
fn a_broken_file_changes_nothing_and_is_told_of_everywhere() {
    let agent = Agent::start("probes: [udp]\nnode_name: before\n");
    let refused = |page: &Page| page.count("netsonde_config_reloads_total", &[("result", "refused")]);
    let before = agent.scrape();
    agent.write_config("probes: [udp, tpc]\nnode_name: after\nlisten: here\n");
    until_true("it is refused", SOON, || {
        let page = agent.scrape();
        refused(&page) > refused(&before) && page.count("netsonde_config_last_reload_successful", &[]) == 0
    });
    let page = agent.scrape();
    assert!(has(&page, "udp"));
    assert!(
        page.find(
            "netsonde_udp_out_datagrams_total",
            &[HOST[0], ("target_node", "before"), ("family", "ipv4")]
        )
        .is_some()
    );
    let config = &agent.status()["config"];
    assert_eq!(config["in_force"], false);
    let problem = config["problem"].as_str().expect("the problem is told");
    for part in ["netsonde.yaml:1", "tpc", "tcp", "listen"] {
        assert!(problem.contains(part), "{part} is not in: {problem}");
    }
    assert!(agent.log().contains("tpc"), "{}", agent.log());

    agent.write_config("probes: [udp]\nnode_name: after\n");
    until_true("a good file heals it", SOON, || {
        agent.scrape().count("netsonde_config_last_reload_successful", &[]) == 1
    });
    assert_eq!(agent.status()["config"]["in_force"], true);
    let healed = agent.scrape();
    assert!(healed.samples.iter().any(|s| s.labels.get("target_node").is_some_and(|n| n == "after")));
    agent.stop();
}

#[test]
fn sighup_reads_the_file_again_and_ends_nothing() {
    let mut agent = Agent::start("probes: [udp]\n");
    let taken = |agent: &Agent| agent.scrape().count("netsonde_config_reloads_total", &[("result", "ok")]);
    let before = taken(&agent);
    agent.process().signal(Signal::HUP);
    until_true("the file is taken again", SOON, || taken(&agent) > before);
    assert!(has(&agent.scrape(), "udp"));
    agent.stop();
}

#[test]
fn a_configmap_swap_is_seen_again_and_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    // As the kubelet lays it: file -> ..data/file, ..data -> a folder, replaced by rename.
    let swap = |version: u32, text: &str| {
        let data = format!("..v{version}");
        std::fs::create_dir(at(&data)).expect("made");
        std::fs::write(at(&data).join("netsonde.yaml"), text).expect("written");
        std::os::unix::fs::symlink(&data, at("..data_tmp")).expect("linked");
        std::fs::rename(at("..data_tmp"), at("..data")).expect("swapped");
        if version > 0 {
            std::fs::remove_dir_all(at(&format!("..v{}", version - 1))).expect("removed");
        }
    };
    swap(0, "probes: [udp]\n");
    std::os::unix::fs::symlink("..data/netsonde.yaml", at("netsonde.yaml")).expect("linked");
    let agent = Agent::start_with_file(&at("netsonde.yaml"));
    for (version, probe) in [(1, "tcp"), (2, "sock"), (3, "udp"), (4, "tcp")] {
        swap(version, &format!("probes: [{probe}]\n"));
        until_true(&format!("swap {version} is seen"), SOON, || has(&agent.scrape(), probe));
    }
    agent.stop();
}

#[test]
fn the_address_can_move() {
    let mut agent = Agent::start_listening_by_file("probes: [udp]\n");
    let old = agent.address;
    agent.address = netsonde_tests::agent::free_address();
    agent.write_config(&format!("probes: [udp]\nlisten: {}\n", agent.address));
    let new = agent.address;
    until_true("the new address answers", SOON, || netsonde_tests::http::get(new, "/readyz", &[]).is_ok());
    until_true("the old one does not", SOON, || std::net::TcpStream::connect(old).is_err());
    agent.stop();
}
