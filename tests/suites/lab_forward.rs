//! Packets that a namespace between two others drops, as the host does between pods: both ends are told, also where
//! conntrack drops and where address translation has hidden the sender.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use netsonde_tests::events::{events, number, text, until_events};
use netsonde_tests::lab::{between, send};
use netsonde_tests::{Agent, Netns, needs, needs_programs, needs_root, truth, until};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use serde_json::Value;

/// `a`, `through` and `b` in a row, with addresses of their own that no other namespace of the machine has.
struct Row {
    a: Netns,
    through: Netns,
    b: Netns,
    from: String,
    gate: String,
    to: String,
}

impl Row {
    fn new(hint: &str) -> Self {
        let [a, through, b] = ["a", "through", "b"].map(|of| Netns::new(&format!("{hint}-{of}")));
        for ns in [&a, &through, &b] {
            ns.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
            ns.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        }
        // No two namespaces have one number at a time. 198.18.0.0/15 is for such tests, and no other suite uses it.
        let number = a.inode() & 0x3fff;
        let of = |net: u64, host: u64| {
            let at = number << 3 | net << 2;
            format!("198.{}.{}.{}", 18 + (at >> 16), at >> 8 & 255, (at & 255) + host)
        };
        let (from, here, gate, to) = (of(0, 1), of(0, 2), of(1, 1), of(1, 2));
        a.veth("eth0", &through, "eth0");
        b.veth("eth0", &through, "eth1");
        a.run(&format!("ip addr add {from}/30 dev eth0"));
        through.run(&format!("ip addr add {here}/30 dev eth0"));
        through.run(&format!("ip addr add {gate}/30 dev eth1"));
        b.run(&format!("ip addr add {to}/30 dev eth0"));
        a.run(&format!("ip route add default via {here}"));
        b.run(&format!("ip route add default via {gate}"));
        through.sysctl("net/ipv4/ip_forward", "1");
        Self { a, through, b, from, gate, to }
    }

    fn watch(&self) -> Agent {
        let agent = Agent::start("node_name: lab\nprobes: [packetloss, conntrack]\n");
        for ns in [&self.a, &self.through, &self.b] {
            agent.find(ns.name());
        }
        agent
    }

    fn losses(&self) -> String {
        format!("type=PacketLoss&pod={}", self.through.name())
    }

    /// One event names the pod that dropped it and both ends.
    fn assert_both_ends(&self, event: &Value) {
        assert_eq!(
            (text(event, "namespace"), text(event, "pod")),
            ("netns", self.through.name()),
            "{event:#}"
        );
        assert_eq!(
            (text(event, "peer_pod"), text(event, "src_pod")),
            (self.a.name(), self.a.name()),
            "{event:#}"
        );
        assert_eq!(
            (text(event, "dst_namespace"), text(event, "dst_pod")),
            ("netns", self.b.name()),
            "{event:#}"
        );
        assert_eq!((text(event, "src"), text(event, "dst")), (self.from.as_str(), self.to.as_str()));
    }
}

#[test]
fn what_is_invalid_to_conntrack_is_told_with_both_pods() {
    needs_root!();
    needs_programs!("nft");
    let row = Row::new("invalid");
    row.through.nft(
        "table inet lab {
            counter seen { }
            chain c {
                type filter hook forward priority 0
                ct state invalid counter name seen drop
            }
        }",
    );
    // An answer without a connection is picked up as one unless conntrack is strict.
    row.through.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0");
    let agent = row.watch();
    let listener = row.b.listen(&format!("{}:7000", row.to), 4);
    let mut client = row.a.connect(&format!("{}:7000", row.to));
    // The table forgets the connection; what follows of it is invalid.
    row.through.run("conntrack -F");
    client.write_all(b"hello").expect("a connection takes bytes");
    let found = until_events(&agent, &row.losses(), 1);
    for event in &found {
        row.assert_both_ends(event);
        assert_eq!((text(event, "reason"), text(event, "hook")), ("NETFILTER_DROP", "forward"), "{event:#}");
        assert_eq!((number(event, "dport"), text(event, "direction")), (7000, "forward"));
    }
    assert!(truth::nft_counter(&row.through, "inet", "seen") >= 1);
    drop((client, listener));
    agent.stop();
}

/// Begins a connection from this port.
fn begin_from(ns: &Netns, from: &str, to: &str) -> rustix::fd::OwnedFd {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap_or_else(|e| panic!("{text}: {e}"));
    ns.enter(|| {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket");
        bind(&socket, &address(from)).unwrap_or_else(|e| panic!("{from}: {e}"));
        match connect(&socket, &address(to)) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => socket,
            Err(e) => panic!("TCP to {to}: {e}"),
        }
    })
}

#[test]
fn a_connection_that_conntrack_cannot_insert_is_told_with_both_pods() {
    needs_root!();
    needs_programs!("nft", "conntrack");
    let row = Row::new("insert");
    row.through.track_connections();
    let agent = row.watch();
    let before = agent.scrape();
    // Another connection has the way back of the one to come: that is found only when the new one is inserted.
    let (from, to) = (&row.from, &row.to);
    row.through.run(&format!(
        "conntrack -I -p tcp --timeout 100 --state ESTABLISHED -s {to} -d {from} --sport 7000 --dport 5000 \
         -r 192.0.2.1 -q 192.0.2.2 --reply-port-src 1 --reply-port-dst 2"
    ));
    let client = begin_from(&row.a, &format!("{from}:5000"), &format!("{to}:7000"));
    let found = until_events(&agent, &row.losses(), 1);
    let event = &found[0];
    row.assert_both_ends(event);
    assert_eq!((text(event, "reason"), text(event, "hook")), ("NETFILTER_DROP", "postrouting"), "{event:#}");
    assert_eq!((number(event, "sport"), number(event, "dport")), (5000, 7000));
    assert!(event.get("filter").is_none(), "no rule did it: {event:#}");
    drop(client);
    until("counter and truth agree", Duration::from_secs(5), || {
        let after = agent.scrape();
        let failed = truth::conntrack_stat(&row.through, "insert_failed");
        let delta = between(&before, &after);
        let counted = delta.grew(&row.through, "netsonde_packetloss_netfilter_packets_total", &[]);
        let own = delta.grew_in_all(&row.through, "netsonde_conntrack_insert_failed_total", &[]);
        (failed > 0 && counted == failed && own == failed).then_some(())
    });
    agent.stop();
}

#[test]
fn who_sent_a_packet_is_told_also_after_its_address_was_translated() {
    needs_root!();
    needs_programs!("nft");
    let row = Row::new("snat");
    let rules = "table ip lab {
            counter seen { }
            chain nat {
                type nat hook postrouting priority 100
                oifname eth1 masquerade
            }
            chain late {
                type filter hook postrouting priority 200
                udp dport 6000 counter name seen drop
            }
        }";
    let translates = row.through.command("nft").arg(rules).output().expect("nft runs").status.success();
    needs!(
        translates.then_some(()),
        "this kernel has no address translation (modules nft_chain_nat, nft_masq)"
    );
    let agent = row.watch();
    let from = row.a.udp(&format!("{}:0", row.from));
    let port = from.local_addr().expect("bound").port();
    send(&from, &format!("{}:6000", row.to), 3, 100);
    let found = until_events(&agent, &row.losses(), 3);
    for event in &found {
        row.assert_both_ends(event);
        assert_eq!((text(event, "hook"), text(event, "filter")), ("postrouting", "nf_tables"), "{event:#}");
        assert_eq!((text(event, "nat_src"), number(event, "sport")), (row.gate.as_str(), u64::from(port)));
        assert!(number(event, "nat_sport") > 0);
    }
    assert_eq!(truth::nft_counter(&row.through, "ip", "seen"), 3);
    assert_eq!(events(&agent, &format!("type=PacketLoss&pod={}", row.a.name())), Vec::<Value>::new());
    agent.stop();
}
