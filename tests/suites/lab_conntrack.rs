//! A table of connections that is full: what is dropped and given up, as conntrack counts it and as the drops of the pod.
//!
//! How large the table may be is a setting of the whole machine, so it runs in the VMs of `tests/kernels` and nowhere
//! else.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use netsonde_tests::events::{text, until_events};
use netsonde_tests::lab::{Between, between, count_input, watch};
use netsonde_tests::{Page, Pair, needs, needs_programs, needs_root, truth, until};

const PROBES: &str = "[conntrack, packetloss]";
const SOON: Duration = Duration::from_secs(10);

/// A sysctl of the machine, as it was again on drop.
struct Limit {
    file: String,
    before: String,
}

impl Limit {
    /// `None` outside of a VM.
    fn set(name: &str, value: u32) -> Option<Self> {
        std::env::var_os("NETSONDE_VM")?;
        let file = format!("/proc/sys/net/netfilter/{name}");
        let before = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
        fs::write(&file, value.to_string()).unwrap_or_else(|e| panic!("cannot set {file}: {e}"));
        Some(Self { file, before })
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let _ = fs::write(&self.file, &self.before);
    }
}

const ONLY_IN_A_VM: &str =
    "it sets a limit of the whole machine, which it does only in a VM of tests/kernels";

/// What `b` lost: its drops by netfilter.
fn lost(pair: &Pair, delta: &Between<'_>) -> u64 {
    delta.grew_in_all(&pair.b, "netsonde_packetloss_drops_total", &[("reason", "NETFILTER_DROP")])
}

/// The counters of the page are those of `conntrack -S`.
fn assert_as_conntrack(pair: &Pair, page: &Page) {
    for stat in
        ["found", "invalid", "insert", "insert_failed", "drop", "early_drop", "error", "search_restart"]
    {
        let name = format!("netsonde_conntrack_{stat}_total");
        assert_eq!(page.pod(pair.b.name()).count(&name, &[]), truth::conntrack_stat(&pair.b, stat), "{stat}");
    }
}

#[test]
fn a_table_full_of_connections_drops_every_new_one() {
    needs_root!();
    needs_programs!("nft", "conntrack");
    let pair = Pair::v4("full");
    pair.b.track_connections();
    let (agent, bystander, _) = watch(PROBES, &pair);
    let _limit = needs!(Limit::set("nf_conntrack_max", 8), ONLY_IN_A_VM);
    let before = agent.scrape();
    let listener = pair.b.listen("10.9.0.2:7000", 16);
    let connections: Vec<_> =
        (0..8).map(|_| (pair.a.connect("10.9.0.2:7000"), listener.accept().expect("a connection"))).collect();
    assert_eq!(truth::conntrack_entries(&pair.b), 8);
    for _ in 0..12 {
        pair.a.udp("10.9.0.1:0").send_to(&[7; 100], "10.9.0.2:6000").expect("a datagram can be sent");
    }
    let after = until("all were dropped", SOON, || {
        let page = agent.scrape();
        (lost(&pair, &between(&before, &page)) >= 12).then_some(page)
    });
    let delta = between(&before, &after);
    assert_eq!((truth::conntrack_stat(&pair.b, "drop"), lost(&pair, &delta)), (12, 12));
    assert_as_conntrack(&pair, &after);
    let pod = after.pod(pair.b.name());
    assert_eq!(pod.count("netsonde_conntrack_entries", &[]), 8);
    assert_eq!(pod.count("netsonde_conntrack_max_entries", &[]), 8);
    for other in [&pair.a, &bystander] {
        assert_eq!(delta.grew(other, "netsonde_packetloss_packets_total", &[]), 0);
    }
    let query = format!("pod={}&type=PacketLoss&last=1000", pair.b.name());
    let told = until_events(&agent, &query, 1);
    for event in &told {
        assert_eq!((text(event, "reason"), text(event, "protocol")), ("NETFILTER_DROP", "udp"));
        assert_eq!((text(event, "hook"), text(event, "dst")), ("prerouting", "10.9.0.2"), "{event:#}");
    }
    drop(connections);
    agent.stop();
}

#[test]
fn a_table_full_of_unanswered_datagrams_gives_old_ones_up_for_new_ones() {
    needs_root!();
    needs_programs!("nft", "conntrack");
    let pair = Pair::v4("early");
    pair.b.track_connections();
    count_input(&pair.b, "udp dport 6000");
    let (agent, _bystander, _) = watch(PROBES, &pair);
    // The kernel looks into few chains for one to give up: with 512 of them it finds one most often.
    let _chains = needs!(Limit::set("nf_conntrack_buckets", 512), ONLY_IN_A_VM);
    let _limit = needs!(Limit::set("nf_conntrack_max", 400), ONLY_IN_A_VM);
    let before = agent.scrape();
    let receiver = pair.b.udp("10.9.0.2:6000");
    pair.a.enter(|| {
        for _ in 0..600 {
            let sender = UdpSocket::bind("10.9.0.1:0").expect("there are ports");
            sender.send_to(&[7; 10], "10.9.0.2:6000").expect("a datagram can be sent");
        }
    });
    let came = || truth::nft_counter(&pair.b, "inet", "seen");
    let after = until("all came in or were dropped", SOON, || {
        let page = agent.scrape();
        (came() + lost(&pair, &between(&before, &page)) >= 600).then_some(page)
    });
    let delta = between(&before, &after);
    assert_as_conntrack(&pair, &after);
    let (given_up, dropped) =
        (truth::conntrack_stat(&pair.b, "early_drop"), truth::conntrack_stat(&pair.b, "drop"));
    // The kernel also clears such a table up in the background, which is not counted.
    assert!(given_up + dropped > 100 && given_up > 0, "{given_up} given up, {dropped} dropped");
    assert_eq!(lost(&pair, &delta), dropped);
    drop(receiver);
    agent.stop();
}
