//! Connections through IPVS: as many, with as many packets and bytes each way, as ipvsadm and the firewall of the real
//! server have counted.
//!
//! It runs in the VMs of `tests/kernels`, whose kernels have IPVS.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use netsonde_tests::lab::{between, watch};
use netsonde_tests::{Netns, Page, Pair, needs, needs_programs, needs_root, until};
use serde_json::Value;

/// In the order of ipvsadm's columns.
const COUNTERS: [&str; 5] =
    ["connections", "incoming_packets", "outgoing_packets", "incoming_bytes", "outgoing_bytes"];

fn counters(page: &Page, ns: &Netns) -> [u64; 5] {
    COUNTERS.map(|name| page.pod(ns.name()).count(&format!("netsonde_ipvs_{name}_total"), &[]))
}

/// The service of `ns` that listens on this address, as ipvsadm has counted it.
fn service(ns: &Netns, address: &str) -> [u64; 5] {
    let text = ns.run("ipvsadm --list --numeric --stats --exact");
    let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(address));
    let words = line.unwrap_or_else(|| panic!("no {address} in {text}")).split_whitespace().skip(2);
    let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
    numbers.try_into().expect("five columns")
}

/// Packets and bytes of a counter of nft.
fn nft(ns: &Netns, counter: &str) -> (u64, u64) {
    let listed: Value = serde_json::from_str(&ns.run(&format!("nft -j list counter ip lab {counter}")))
        .expect("nft prints JSON");
    let counter = listed["nftables"].as_array().and_then(|all| all.iter().find_map(|o| o.get("counter")));
    let counter = counter.unwrap_or_else(|| panic!("no counter in {listed}"));
    let number = |field: &str| counter[field].as_u64().expect("a number");
    (number("packets"), number("bytes"))
}

const CONNECTIONS: usize = 7;

#[test]
fn connections_to_a_virtual_address_are_counted_by_the_director_to_the_byte() {
    needs_root!();
    needs_programs!("ipvsadm", "nft");
    needs!(Path::new("/proc/net/ip_vs").exists().then_some(()), "the module ip_vs is not loaded");
    // The client is `a`, the director `b`, which changes the addresses, and behind it stands the real server.
    let pair = Pair::v4("director");
    let real = Netns::new("real");
    pair.b.veth("inner", &real, "eth0");
    pair.b.run("ip addr add 10.9.3.1/24 dev inner");
    real.run("ip addr add 10.9.3.2/24 dev eth0");
    real.run("ip route add default via 10.9.3.1");
    pair.b.sysctl("net/ipv4/ip_forward", "1");
    real.nft(
        "table ip lab {
            counter came { }
            counter went { }
            chain in {
                type filter hook input priority 0
                tcp dport 8000 counter name came
            }
            chain out {
                type filter hook output priority 0
                tcp sport 8000 counter name went
            }
        }",
    );
    let (agent, bystander, _) = watch("[ipvs]", &pair);
    for words in ["-A -t 10.9.0.2:8000 -s rr", "-a -t 10.9.0.2:8000 -r 10.9.3.2:8000 -m"] {
        pair.b.run(&format!("ipvsadm {words}"));
    }
    let before = agent.scrape();
    let listener = real.listen("10.9.3.2:8000", 16);
    for _ in 0..CONNECTIONS {
        let mut client = pair.a.connect("10.9.0.2:8000");
        let (mut server, _) = listener.accept().expect("a connection");
        client.write_all(&[1; 1000]).expect("a connection takes bytes");
        server.read_exact(&mut [0; 1000]).expect("they arrive");
        server.write_all(&[1; 300]).expect("a connection takes bytes");
        client.read_exact(&mut [0; 300]).expect("they arrive");
    }
    // The kernel sums its counters up every two seconds, those of a service and those of all at different times.
    let after = until("the director has counted all", Duration::from_secs(10), || {
        let page = agent.scrape();
        let (came, went) = (nft(&real, "came"), nft(&real, "went"));
        let all = [CONNECTIONS as u64, came.0, went.0, came.1, went.1];
        (page.pod(pair.b.name()).find("netsonde_ipvs_connections_total", &[]).is_some()
            && counters(&page, &pair.b) == all
            && service(&pair.b, "10.9.0.2:8000") == all)
            .then_some(page)
    });
    let bytes = counters(&after, &pair.b);
    assert!(bytes[3] > 1000 * CONNECTIONS as u64 && bytes[4] > 300 * CONNECTIONS as u64, "{bytes:?}");
    // One that balances nothing has no series, or stays where it was.
    for other in [&pair.a, &real, &bystander] {
        for name in COUNTERS.map(|name| format!("netsonde_ipvs_{name}_total")) {
            assert_eq!(after.pod(other.name()).total(&name, &[]), 0, "{name} of {}", other.name());
        }
    }
    let host = between(&before, &after);
    assert_eq!(host.grew_in_all(&real, "netsonde_ipvs_connections_total", &[]), 0);
    let own = fs::read_to_string("/proc/net/ip_vs_stats").expect("the module is loaded");
    assert_eq!(own.lines().nth(2).and_then(|line| line.split_whitespace().next()), Some("0"), "{own}");
    assert_eq!(after.pod("hostNetwork").count("netsonde_ipvs_connections_total", &[]), 0);
    agent.stop();
}
