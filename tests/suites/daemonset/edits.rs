//! The ConfigMap is edited while the agent runs.

use netsonde_tests::manifests::Manifests;
use netsonde_tests::wait::until_true;
use netsonde_tests::{Page, needs_programs, needs_root};

use crate::node::{Agent, Change, pods, runtime, text};
use crate::{SOON, count, knock};

#[test]
fn ten_edits_of_the_configmap_are_taken_and_a_broken_one_is_refused() {
    needs_root!();
    needs_programs!("containerd", "runc", "jq");
    let manifests = Manifests::kustomize("base");
    let containerd = runtime(&manifests);
    let shipped = manifests.config();
    // The shipped text with a list of probes on top, as somebody edits it.
    let edited = |more: &str| format!("probes: [udp, packetloss{more}]\n{shipped}");
    let config = edited("");
    let mut agent =
        Agent::start(&containerd, &manifests, &Change { config: Some(&config), ..Change::default() });
    let [(web, address), (cart, _)] = pods(&containerd, ["web-0", "cart-0"]);
    agent.find(&[&web, &cart]);
    let first = agent.scrape();
    let cpu = |page: &Page| page.value("netsonde_probe_collect_cpu_seconds_total", &[("probe", "udp")]);
    let drops = |page: &Page| count(page, &web, "netsonde_packetloss_drops_total", &[("protocol", "udp")]);
    let reloads = |page: &Page, result| page.count("netsonde_config_reloads_total", &[("result", result)]);
    let (mut sent, mut seen) = (0, cpu(&first));
    let start = drops(&first);
    for edit in 1..=10 {
        let added = ["tcp", "sock", "softnet", "tcpreset"][edit % 4];
        agent.config.edit(&edited(&format!(", {added}")));
        until_true(&format!("edit {edit} is taken"), SOON, || {
            let page = agent.scrape();
            reloads(&page, "ok") >= reloads(&first, "ok") + edit as u64
                && page.find("netsonde_probe_state", &[("probe", added), ("state", "running")]).is_some()
        });
        knock(&cart, address, edit);
        sent += edit as u64;
        let page = agent.scrape();
        assert_eq!(drops(&page) - start, sent, "packetloss went on counting through edit {edit}");
        assert!(cpu(&page) >= seen, "udp began anew at edit {edit}");
        seen = cpu(&page);
    }
    let page = agent.scrape();
    assert_eq!(reloads(&page, "ok") - reloads(&first, "ok"), 10, "each edit is taken once");
    assert_eq!(count(&page, &web, "netsonde_udp_no_ports_total", &[]), sent);

    agent.config.edit(&edited(", tpc").replace("node_name", "nodename"));
    until_true("the broken edit is refused", SOON, || {
        let page = agent.scrape();
        page.count("netsonde_config_last_reload_successful", &[]) == 0
            && reloads(&page, "refused") == reloads(&first, "refused") + 1
    });
    let status = agent.status();
    let config = &status["config"];
    assert_eq!(config["in_force"], false, "{config:#}");
    let problem = text(&config["problem"]);
    assert!(problem.contains("/etc/netsonde/netsonde.yaml:1:") && problem.contains("tpc"), "{problem}");
    assert!(agent.log().contains("tpc"), "{}", agent.log());
    let probes = status["probes"].as_array().expect("probes");
    assert!(probes.iter().all(|probe| probe["state"] == "running"), "{probes:#?}");
    knock(&cart, address, 4);
    assert_eq!(drops(&agent.scrape()) - start, sent + 4, "what ran goes on");
    agent.config.edit(&edited(""));
    until_true("a good edit heals it", SOON, || {
        agent.scrape().count("netsonde_config_last_reload_successful", &[]) == 1
    });
    agent.stop(&manifests);
}
