//! Faults and traffic of known numbers, and what the probes have counted of them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use netsonde_tests::lab::{Between, between, receive, send};
use netsonde_tests::{Agent, Netns, Page, Pair, kernel, truth, until};
use serde_json::Value;

use crate::{hooks, probe};

const SIDES: [(&str, &str); 2] = [("10.9.0.1", "10.9.0.2"), ("[fd09::1]", "[fd09::2]")];

/// Whether a hook of a probe holds, by any rung.
fn holds(status: &Value, name: &str, hook: &str) -> bool {
    hooks(probe(status, name))
        .iter()
        .any(|of| of["name"].as_str().is_some_and(|name| name.contains(hook)) && of["state"] == "attached")
}

/// Provokes each fault a known number of times and holds what was counted against it, for the probes whose hooks hold.
/// Gives the names of what was looked at.
pub fn assert_counted(agent: &Agent, status: &Value) -> BTreeSet<&'static str> {
    let mut seen = BTreeSet::new();
    for (a, b) in SIDES {
        let pair = Pair::new("rungs");
        for ns in [&pair.a, &pair.b] {
            agent.find(ns.name());
        }
        pair.b.nft(
            "table inet lab {
                counter seen { }
                chain in {
                    type filter hook input priority 0
                    udp dport 6001 counter name seen drop
                }
            }",
        );
        let before = agent.scrape();
        // Drops, and datagrams between two connected sockets, which a reader takes late.
        send(&pair.a.udp(&format!("{a}:0")), &format!("{b}:6001"), 20, 100);
        let (from, to) = (pair.a.udp(&format!("{a}:6002")), pair.b.udp(&format!("{b}:6000")));
        from.connect(format!("{b}:6000")).expect("a datagram socket can be connected");
        to.connect(format!("{a}:6002")).expect("a datagram socket can be connected");
        for _ in 0..5 {
            assert_eq!(from.send(&[7; 300]).expect("a datagram can be sent"), 300);
            until("it is there", Duration::from_secs(5), || to.peek(&mut [0; 1]).is_ok().then_some(()));
            std::thread::sleep(Duration::from_millis(5));
            receive(&to, 1);
        }
        // Refused connections, and one whose reader is late.
        for _ in 0..7 {
            assert!(
                pair.a.enter(|| TcpStream::connect(format!("{b}:7999"))).is_err(),
                "nobody listens there"
            );
        }
        let listener = pair.b.listen(&format!("{b}:7000"), 16);
        let mut client = pair.a.connect(&format!("{b}:7000"));
        let (mut server, _) = listener.accept().expect("a connection");
        client.set_nodelay(true).expect("TCP can send at once");
        for _ in 0..4 {
            client.write_all(&[1; 500]).expect("a connection takes bytes");
            let peek = || server.peek(&mut [0; 500]).expect("a connection");
            until("they are there", Duration::from_secs(5), || (peek() == 500).then_some(()));
            std::thread::sleep(Duration::from_millis(5));
            server.read_exact(&mut [0; 500]).expect("they are there");
        }
        // A softirq may come late on a busy CPU, and a full backlog there has lost what the firewall did not see.
        let truth = || truth::nft_counter(&pair.b, "inet", "seen");
        let (after, dropped) = until("all were dropped", Duration::from_secs(5), || {
            let dropped = truth();
            let page = agent.scrape();
            (dropped > 0 && dropped == truth()).then_some((page, dropped))
        });
        let lab = Lab { pair: &pair, status, delta: between(&before, &after), page: &after, dropped };
        lab.assert_drops(&mut seen);
        lab.assert_resets(&mut seen);
        lab.assert_flows(&mut seen);
        lab.assert_waits(&mut seen);
    }
    seen
}

struct Lab<'a> {
    pair: &'a Pair,
    status: &'a Value,
    delta: Between<'a>,
    page: &'a Page,
    /// How many datagrams the firewall dropped.
    dropped: u64,
}

impl Lab<'_> {
    fn holds(&self, probe: &str, hook: &str) -> bool {
        holds(self.status, probe, hook)
    }

    fn grew(&self, ns: &Netns, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.delta.grew_in_all(ns, name, labels)
    }

    fn assert_drops(&self, seen: &mut BTreeSet<&'static str>) {
        if self.holds("packetloss", "kfree_skb") {
            let labels = [("reason", "NETFILTER_DROP"), ("protocol", "udp")];
            assert_eq!(self.grew(&self.pair.b, "netsonde_packetloss_drops_total", &labels), self.dropped);
            seen.insert("drops");
        }
    }

    fn assert_resets(&self, seen: &mut BTreeSet<&'static str>) {
        let kind = |ns, kind| self.grew(ns, "netsonde_tcpreset_resets_total", &[("kind", kind)]);
        if self.holds("tcpreset", "tcp_receive_reset") {
            assert_eq!(kind(&self.pair.a, "receive"), 7);
            assert_eq!(truth::mib(&self.pair.b, "snmp", "Tcp", "OutRsts"), 7);
            seen.insert("received resets");
        }
        // Before 6.10 the tracepoint tells of no reset without a socket; there a function does, or the drop.
        if self.holds(
            "tcpreset",
            if kernel::at_least(6, 10) { "tcp:tcp_send_reset" } else { "tcp_v4_send_reset" },
        ) {
            assert_eq!(kind(&self.pair.b, "nosock"), 7);
            seen.insert("resets of no socket");
        }
    }

    fn assert_flows(&self, seen: &mut BTreeSet<&'static str>) {
        for (hook, ns, direction) in
            [("udp_send_skb or", &self.pair.a, "transmit"), ("skb_consume_udp or", &self.pair.b, "receive")]
        {
            if self.holds("flow", hook) {
                let udp = [("protocol", "udp"), ("direction", direction)];
                // What a firewall drops was sent and not received.
                let (bytes, packets) =
                    if direction == "transmit" { (5 * 300 + 20 * 100, 25) } else { (5 * 300, 5) };
                assert_eq!(self.grew(ns, "netsonde_flow_bytes_total", &udp), bytes, "{hook}");
                assert_eq!(self.grew(ns, "netsonde_flow_packets_total", &udp), packets, "{hook}");
                seen.insert(if direction == "transmit" { "datagrams sent" } else { "datagrams received" });
            }
        }
        if self.holds("flow", "inet_sock_set_state") {
            let tcp = [("protocol", "tcp"), ("direction", "transmit")];
            assert_eq!(self.grew(&self.pair.a, "netsonde_flow_bytes_total", &tcp), 2000);
            seen.insert("connections");
        }
    }

    fn assert_waits(&self, seen: &mut BTreeSet<&'static str>) {
        let count = |ns: &Netns, what: &str, protocol| {
            let name = format!("netsonde_socketlatency_{what}_seconds_count");
            self.page.pod(ns.name()).total(&name, &[("protocol", protocol)])
        };
        if self.holds("socketlatency", "data ready") && self.holds("socketlatency", "tcp_rcv_space_adjust") {
            assert_eq!(count(&self.pair.b, "read", "tcp"), 4);
            seen.insert("reads of a connection");
        }
        if self.holds("socketlatency", "data ready") && self.holds("socketlatency", "datagram read") {
            // Where the segments of TCP are all that tells of new data, datagrams are not seen.
            let ready = hooks(probe(self.status, "socketlatency")).iter();
            let by_segments =
                ready.filter_map(|hook| hook["rung"].as_str()).any(|rung| rung.ends_with("tcp_probe"));
            assert_eq!(count(&self.pair.b, "read", "udp"), if by_segments { 0 } else { 5 });
            seen.insert("reads of datagrams");
        }
        if self.holds("kernellatency", "sk_data_ready") {
            let udp = [("protocol", "udp")];
            assert_eq!(self.grew(&self.pair.b, "netsonde_kernellatency_receive_seconds_count", &udp), 5);
            seen.insert("ways in of datagrams");
        }
        if self.holds("socketlatency", "written") && self.holds("socketlatency", "net_dev_queue") {
            assert_eq!(count(&self.pair.a, "write", "tcp"), 4);
            seen.insert("writes");
        }
    }
}
