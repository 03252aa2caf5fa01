//! What eBPF sees of faults that are provoked a known number of times: the right pod, the right reason, the exact count,
//! and somebody else's counter that agrees.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use netsonde_tests::lab::{between, count_and_drop_input, count_input, cut, let_through, send, watch};
use netsonde_tests::{Netns, Pair, kernel, needs_programs, needs_root, truth, until};

const LOSS: &str = "[packetloss]";

/// The addresses of both sides, as they stand in front of a port.
const SIDES: [(&str, &str); 2] = [("10.9.0.1", "10.9.0.2"), ("[fd09::1]", "[fd09::2]")];

#[test]
fn datagrams_that_a_firewall_drops_are_netfilter_drops_of_the_pod_that_dropped_them() {
    needs_root!();
    needs_programs!("nft");
    for (a, b) in SIDES {
        let pair = Pair::new("nft");
        let (agent, bystander, before) = watch(LOSS, &pair);
        count_and_drop_input(&pair.b, "udp dport 6000");
        send(&pair.a.udp(&format!("{a}:0")), &format!("{b}:6000"), 20, 100);

        let after = agent.scrape();
        let delta = between(&before, &after);
        assert_eq!(truth::nft_counter(&pair.b, "inet", "seen"), 20);
        let labels = [("reason", "NETFILTER_DROP"), ("protocol", "udp")];
        assert_eq!(delta.grew_in_all(&pair.b, "netsonde_packetloss_drops_total", &labels), 20, "{b}");
        assert_eq!(delta.grew(&pair.b, "netsonde_packetloss_netfilter_packets_total", &[]), 20);
        assert_eq!(delta.grew(&pair.b, "netsonde_packetloss_packets_total", &[]), 20);
        for other in [&pair.a, &bystander] {
            assert_eq!(delta.grew(other, "netsonde_packetloss_packets_total", &[]), 0);
        }
        agent.stop();
    }
}

#[test]
fn datagrams_for_a_closed_port_and_for_a_full_buffer_have_the_kernels_reasons() {
    needs_root!();
    for (a, b) in SIDES {
        let pair = Pair::new("udp");
        let (agent, _bystander, before) = watch("[packetloss, udp]", &pair);
        let from = pair.a.udp(&format!("{a}:0"));
        send(&from, &format!("{b}:6001"), 11, 100);
        let to = pair.b.udp(&format!("{b}:6000"));
        rustix::net::sockopt::set_socket_recv_buffer_size(&to, 2048).expect("a buffer can be small");
        // Each answer to the closed port is an error on the sender's socket, so another one sends.
        send(&pair.a.udp(&format!("{a}:0")), &format!("{b}:6000"), 60, 500);

        let after = agent.scrape();
        let delta = between(&before, &after);
        let drops = |reason| {
            let labels = [("reason", reason), ("protocol", "udp")];
            delta.grew_in_all(&pair.b, "netsonde_packetloss_drops_total", &labels)
        };
        assert_eq!(drops("NO_SOCKET"), 11, "{b}");
        let full = delta.grew_in_all(&pair.b, "netsonde_udp_rcvbuf_errors_total", &[]);
        assert!(full > 0);
        assert_eq!(drops("SOCKET_RCVBUFF"), full);
        drop(to);
        agent.stop();
    }
}

#[test]
fn drops_of_a_full_qdisc_have_their_reason_in_the_sending_pod() {
    needs_root!();
    needs_programs!("tc");
    let pair = Pair::v4("tbf");
    pair.a.run("tc qdisc add dev eth0 root tbf rate 100kbit burst 2000 limit 3000");
    let (agent, _bystander, before) = watch(LOSS, &pair);
    send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6000", 50, 1000);
    let after = agent.scrape();
    let drops = truth::root_qdisc(&pair.a, "eth0", "drops");
    assert!(drops >= 40, "{drops} drops");
    let delta = between(&before, &after);
    // QDISC_OVERLIMIT where the kernel tells it apart (6.18), QDISC_DROP before.
    assert_eq!(delta.grew(&pair.a, "netsonde_packetloss_packets_total", &[]), drops);
    let udp = [("protocol", "udp")];
    assert_eq!(delta.grew_in_all(&pair.a, "netsonde_packetloss_drops_total", &udp), drops);
    agent.stop();
}

#[test]
fn a_hundred_thousand_drops_are_counted_to_the_packet() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("flood");
    let (agent, _bystander, before) = watch(LOSS, &pair);
    pair.b.nft(
        "table inet lab {
            counter seen { }
            chain in {
                type filter hook prerouting priority 0
                udp dport 6000 counter name seen drop
            }
        }",
    );
    send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6000", 100_000, 20);
    // A softirq may still be at work on the last of them.
    let mut before_that = 0;
    let seen = until("all packets have been dealt with", Duration::from_secs(5), || {
        std::thread::sleep(Duration::from_millis(50));
        let now = truth::nft_counter(&pair.b, "inet", "seen");
        (std::mem::replace(&mut before_that, now) == now).then_some(now)
    });
    let after = agent.scrape();
    let delta = between(&before, &after);
    assert_eq!(delta.grew(&pair.b, "netsonde_packetloss_netfilter_packets_total", &[]), seen);
    // What did not arrive was lost on the way, and that is counted too: at the queue between the two ends.
    let backlog = [("reason", "CPU_BACKLOG")];
    let lost = |ns: &Netns| delta.grew_in_all(ns, "netsonde_packetloss_drops_total", &backlog);
    assert_eq!(seen + lost(&pair.a) + lost(&pair.b), 100_000);
    agent.stop();
}

#[test]
fn a_refused_connection_is_a_reset_of_no_socket_there_and_a_received_one_here() {
    needs_root!();
    for (_, b) in SIDES {
        let pair = Pair::new("refused");
        let (agent, bystander, before) = watch("[tcpreset]", &pair);
        for _ in 0..7 {
            let refused = pair.a.enter(|| TcpStream::connect(format!("{b}:7999")));
            assert!(refused.is_err(), "nobody listens there");
        }
        let after = agent.scrape();
        let delta = between(&before, &after);
        let kind = |ns, kind| delta.grew_in_all(ns, "netsonde_tcpreset_resets_total", &[("kind", kind)]);
        assert_eq!(kind(&pair.a, "receive"), 7);
        assert_eq!(truth::mib(&pair.b, "snmp", "Tcp", "OutRsts"), 7);
        assert_eq!(kind(&pair.b, "nosock"), 7, "{b}");
        match after.pod(pair.b.name()).find("netsonde_tcpreset_sent_total", &[]) {
            Some(_) => assert_eq!(delta.grew(&pair.b, "netsonde_tcpreset_sent_total", &[]), 7),
            // Without a hook on the functions, older kernels do not tell of all of them, and there is no sum.
            None => assert!(!kernel::at_least(6, 10)),
        }
        assert_eq!(delta.grew(&pair.a, "netsonde_tcpreset_received_total", &[]), 7);
        assert_eq!(kind(&pair.a, "nosock") + kind(&pair.b, "receive") + kind(&bystander, "nosock"), 0);
        agent.stop();
    }
}

#[test]
fn closing_with_unread_data_is_an_active_reset_of_the_pod_that_closed() {
    needs_root!();
    for (_, b) in SIDES {
        let pair = Pair::new("unread");
        let (agent, _bystander, before) = watch("[tcpreset]", &pair);
        let listener = pair.b.listen(&format!("{b}:7000"), 16);
        for _ in 0..5 {
            let mut client = pair.a.connect(&format!("{b}:7000"));
            let (server, _) = listener.accept().expect("a connection");
            client.write_all(&[1; 1000]).expect("a connection takes bytes");
            until("the bytes are there", Duration::from_secs(2), || {
                (server.peek(&mut [0; 8]).expect("a connection") > 0).then_some(())
            });
            drop(server);
        }
        let after = agent.scrape();
        let delta = between(&before, &after);
        let kind = |ns, kind| delta.grew_in_all(ns, "netsonde_tcpreset_resets_total", &[("kind", kind)]);
        assert_eq!(kind(&pair.b, "active"), 5, "{b}");
        assert_eq!(kind(&pair.a, "receive"), 5);
        assert_eq!(truth::mib(&pair.b, "netstat", "TcpExt", "TCPAbortOnClose"), 5);
        agent.stop();
    }
}

#[test]
fn a_syn_without_an_answer_is_sent_again_and_counted_as_such() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("syn");
    let (agent, bystander, before) = watch("[tcpretrans]", &pair);
    cut(&pair.b, "tcp dport 7000");
    let waiting: Vec<_> = (0..4).map(|_| pair.a.begin_connect("10.9.0.2:7000")).collect();
    until("each SYN was sent again", Duration::from_secs(5), || {
        (truth::mib(&pair.a, "netstat", "TcpExt", "TCPSynRetrans") >= 4).then_some(())
    });
    // Without them nothing is sent again while two ask.
    drop(waiting);
    let truth = truth::mib(&pair.a, "netstat", "TcpExt", "TCPSynRetrans");
    let after = agent.scrape();
    let delta = between(&before, &after);
    let syn = [("kind", "syn")];
    assert_eq!(delta.grew_in_all(&pair.a, "netsonde_tcpretrans_retransmissions_total", &syn), truth);
    assert_eq!(delta.grew(&pair.a, "netsonde_tcpretrans_packets_total", &[]), truth);
    assert_eq!(delta.grew(&bystander, "netsonde_tcpretrans_packets_total", &[]), 0);
    agent.stop();
}

#[test]
fn segments_that_are_lost_are_sent_again_by_the_timer() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("rto");
    let (agent, _bystander, before) = watch("[tcpretrans]", &pair);
    let listener = pair.b.listen("10.9.0.2:7000", 16);
    let mut client = pair.a.connect("10.9.0.2:7000");
    let (server, _) = listener.accept().expect("a connection");
    count_input(&pair.b, "tcp dport 7000");
    cut(&pair.b, "tcp dport 7000");
    client.write_all(&[1; 500]).expect("a connection takes bytes");
    until("the timer fired twice", Duration::from_secs(5), || {
        (truth::mib(&pair.a, "netstat", "TcpExt", "TCPTimeouts") >= 2).then_some(())
    });
    // Let through again, the next one is answered and all is quiet.
    let_through(&pair.b);
    until("all is acknowledged", Duration::from_secs(5), || (truth::queues(&pair.a).1 == 0).then_some(()));
    let after = agent.scrape();
    let delta = between(&before, &after);
    let kind =
        |kind| delta.grew_in_all(&pair.a, "netsonde_tcpretrans_retransmissions_total", &[("kind", kind)]);
    let truth = |field| truth::mib(&pair.a, "netstat", "TcpExt", field);
    assert_eq!(kind("timeout"), truth("TCPTimeouts"));
    assert_eq!(kind("loss_probe"), truth("TCPLossProbes"));
    assert_eq!(
        delta.grew(&pair.a, "netsonde_tcpretrans_packets_total", &[]),
        truth::mib(&pair.a, "snmp", "Tcp", "RetransSegs")
    );
    drop(server);
    agent.stop();
}
