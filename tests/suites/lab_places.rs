//! The times of packets at places in between, where this kernel lets its functions be hooked: what passes one place has
//! passed the one before, and later.

use std::io::{Read as _, Write as _};

use netsonde_tests::lab::{receive, send};
use netsonde_tests::{Agent, Page, Pair, needs_root};
use serde_json::Value;

const DATAGRAMS: u64 = 1200;
const COUNT: &str = "netsonde_kernellatency_place_seconds_count";
const SUM: &str = "netsonde_kernellatency_place_seconds_sum";

/// Name and state of each hook of the probe.
fn hooks(agent: &Agent) -> Vec<(String, String)> {
    let status = agent.status();
    let probes = status["probes"].as_array().expect("a list");
    let probe = probes.iter().find(|p| p["name"] == "kernellatency").expect("it was asked for");
    let text = |hook: &Value, key: &str| hook[key].as_str().unwrap_or_default().to_owned();
    probe["hooks"].as_array().expect("a list").iter().map(|h| (text(h, "name"), text(h, "state"))).collect()
}

fn state<'a>(hooks: &'a [(String, String)], name: &str) -> &'a str {
    let found = hooks.iter().find(|(hook, _)| hook == name);
    found.map_or_else(|| panic!("no hook {name}: {hooks:?}"), |(_, state)| state)
}

/// How many packets came by a place, and the time until then on average.
fn at(page: &Page, pod: &str, place: &str) -> (u64, f64) {
    let labels = [("place", place)];
    let count = page.pod(pod).total(COUNT, &labels);
    let sum = page.pod(pod).find(SUM, &labels).unwrap_or_default();
    (count, sum / count.max(1) as f64)
}

#[test]
fn each_place_is_passed_by_what_passes_the_next_and_earlier() {
    needs_root!();
    let pair = Pair::new("places");
    let agent = Agent::start("node_name: lab\nprobes: [{name: kernellatency, args: {places: true}}]\n");
    agent.find(pair.a.name());
    agent.find(pair.b.name());
    for (a, b) in [("10.9.0.1", "10.9.0.2"), ("[fd09::1]", "[fd09::2]")] {
        let to = pair.b.udp(&format!("{b}:6000"));
        let from = pair.a.udp(&format!("{a}:0"));
        for _ in 0..DATAGRAMS / 20 {
            send(&from, &format!("{b}:6000"), 20, 100);
            receive(&to, 20);
        }
        let listener = pair.b.listen(&format!("{b}:7000"), 4);
        let mut client = pair.a.connect(&format!("{b}:7000"));
        let (mut server, _) = listener.accept().expect("a connection");
        for _ in 0..20 {
            client.write_all(&[7; 100]).expect("a connection takes bytes");
            server.read_exact(&mut [0; 100]).expect("they arrive");
        }
    }
    let page = agent.scrape();
    let hooks = hooks(&agent);
    assert!(hooks.iter().all(|(_, state)| state != "silent" && state != "failed"), "{hooks:?}");
    // /metrics tells the same.
    for (hook, state) in &hooks {
        let labels = [("probe", "kernellatency"), ("hook", hook.as_str()), ("state", state.as_str())];
        assert_eq!(page.find("netsonde_probe_hook_info", &labels), Some(1.0), "{hook} {state}");
    }
    if state(&hooks, "udp_rcv") != "attached" {
        netsonde_tests::note("functions cannot be hooked here: there are no places in between");
        assert_eq!(page.pod(pair.b.name()).total(COUNT, &[]), 0);
        agent.stop();
        return;
    }
    let [ip, deliver, transport] =
        ["ip_rcv", "ip_local_deliver", "transport_rcv"].map(|place| at(&page, pair.b.name(), place));
    // The datagrams of both versions; of TCP on this machine only what still has the stamp of its arrival.
    assert!(transport.0 >= 2 * DATAGRAMS, "{transport:?}");
    assert!(ip.0 >= 2 * DATAGRAMS && deliver.0 >= 2 * DATAGRAMS, "{ip:?} {deliver:?}");
    assert!(ip.1 <= deliver.1 && deliver.1 <= transport.1, "{ip:?} {deliver:?} {transport:?}");
    let [output, finish] = ["ip_output", "ip_finish_output"].map(|place| at(&page, pair.a.name(), place));
    assert!(output.0 >= 40 && finish.0 >= 40, "{output:?} {finish:?}");
    assert!(output.1 <= finish.1, "{output:?} {finish:?}");
    agent.stop();
}
