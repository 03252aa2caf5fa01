//! Known traffic in namespaces of the test's own: the page must show exactly it, on the right `target_pod`, and nothing
//! on a bystander's. The truth comes from nftables, iproute2, conntrack-tools and the kernel's files.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use netsonde_tests::lab::{between, count_input, receive, send, watch};
use netsonde_tests::{Netns, Pair, needs_programs, needs_root, truth, until};

const V4: &[(&str, &str)] = &[("family", "ipv4")];
const V6: &[(&str, &str)] = &[("family", "ipv6")];

#[test]
fn udp_datagrams_are_counted_exactly_and_only_where_they_went() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("udp");
    let (agent, bystander, before) = watch("[udp]", &pair);
    count_input(&pair.b, "udp dport 6000-6001");
    let (from, to) = (pair.a.udp("10.9.0.1:0"), pair.b.udp("10.9.0.2:6000"));
    send(&from, "10.9.0.2:6000", 37, 100);
    receive(&to, 37);
    send(&from, "10.9.0.2:6001", 11, 100);

    let after = agent.scrape();
    let delta = between(&before, &after);
    assert_eq!(truth::nft_counter(&pair.b, "inet", "seen"), 48);
    assert_eq!(delta.grew(&pair.b, "netsonde_udp_in_datagrams_total", V4), 37);
    assert_eq!(delta.grew(&pair.b, "netsonde_udp_no_ports_total", V4), 11);
    assert_eq!(delta.grew(&pair.a, "netsonde_udp_out_datagrams_total", V4), 48);
    assert_eq!(delta.grew(&pair.a, "netsonde_udp_in_datagrams_total", V4), 0);
    for name in ["in_datagrams", "out_datagrams", "no_ports"] {
        assert_eq!(delta.grew(&bystander, &format!("netsonde_udp_{name}_total"), V4), 0);
    }
    let all = [("target_node", "lab"), ("target_namespace", "netns"), ("target_pod", pair.b.name()), V4[0]];
    assert!(after.find("netsonde_udp_in_datagrams_total", &all).is_some(), "labels are {all:?}");
    agent.stop();
}

#[test]
fn udp_over_ipv6_is_counted_as_such() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::new("udp6");
    let (agent, bystander, before) = watch("[udp]", &pair);
    count_input(&pair.b, "udp dport 6000-6001");
    let (from, to) = (pair.a.udp("[fd09::1]:0"), pair.b.udp("[fd09::2]:6000"));
    send(&from, "[fd09::2]:6000", 23, 100);
    receive(&to, 23);
    send(&from, "[fd09::2]:6001", 5, 100);

    let after = agent.scrape();
    let delta = between(&before, &after);
    assert_eq!(truth::nft_counter(&pair.b, "inet", "seen"), 28);
    assert_eq!(delta.grew(&pair.b, "netsonde_udp_in_datagrams_total", V6), 23);
    assert_eq!(delta.grew(&pair.b, "netsonde_udp_no_ports_total", V6), 5);
    assert_eq!(delta.grew(&pair.b, "netsonde_udp_in_datagrams_total", V4), 0);
    assert_eq!(delta.grew(&bystander, "netsonde_udp_in_datagrams_total", V6), 0);
    assert_eq!(truth::mib6(&pair.b, "Udp6InDatagrams"), 23);
    agent.stop();
}

#[test]
fn datagrams_that_a_full_receive_buffer_drops_are_rcvbuf_errors() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("rcvbuf");
    let (agent, bystander, before) = watch("[udp]", &pair);
    count_input(&pair.b, "udp dport 6000");
    let (from, to) = (pair.a.udp("10.9.0.1:0"), pair.b.udp("10.9.0.2:6000"));
    rustix::net::sockopt::set_socket_recv_buffer_size(&to, 2048).expect("a buffer can be small");
    send(&from, "10.9.0.2:6000", 60, 500);
    to.set_nonblocking(true).expect("a socket can be nonblocking");
    let mut read = 0;
    while to.recv(&mut [0; 600]).is_ok() {
        read += 1;
    }

    let after = agent.scrape();
    let delta = between(&before, &after);
    let dropped = delta.grew(&pair.b, "netsonde_udp_rcvbuf_errors_total", V4);
    assert!(read < 60, "the buffer held everything");
    assert_eq!(truth::nft_counter(&pair.b, "inet", "seen"), 60);
    assert_eq!(dropped, 60 - read);
    assert_eq!(dropped, truth::mib(&pair.b, "snmp", "Udp", "RcvbufErrors"));
    assert_eq!(delta.grew(&pair.b, "netsonde_udp_in_datagrams_total", V4), read);
    assert_eq!(delta.grew(&bystander, "netsonde_udp_rcvbuf_errors_total", V4), 0);
    agent.stop();
}

fn connections(pair: &Pair, count: usize) -> Vec<(TcpStream, TcpStream)> {
    let listener = pair.b.listen("10.9.0.2:7000", 128);
    let connect = |_| (pair.a.connect("10.9.0.2:7000"), listener.accept().expect("a connection").0);
    (0..count).map(connect).collect()
}

#[test]
fn tcp_connections_are_opened_on_one_side_and_accepted_on_the_other() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("tcp");
    let (agent, bystander, before) = watch("[tcp]", &pair);
    count_input(&pair.b, "tcp dport 7000 tcp flags & (syn | ack) == syn");
    let open = connections(&pair, 19);

    let after = agent.scrape();
    let delta = between(&before, &after);
    assert_eq!(truth::nft_counter(&pair.b, "inet", "seen"), 19, "a SYN was sent again");
    assert_eq!(delta.grew(&pair.a, "netsonde_tcp_active_opens_total", &[]), 19);
    assert_eq!(delta.grew(&pair.a, "netsonde_tcp_passive_opens_total", &[]), 0);
    assert_eq!(delta.grew(&pair.b, "netsonde_tcp_passive_opens_total", &[]), 19);
    assert_eq!(delta.grew(&pair.b, "netsonde_tcp_active_opens_total", &[]), 0);
    for ns in [&pair.a, &pair.b] {
        assert_eq!(after.pod(ns.name()).count("netsonde_tcp_curr_estab", &[]), 19);
    }
    assert_eq!(delta.grew(&bystander, "netsonde_tcp_active_opens_total", &[]), 0);
    drop(open);
    agent.stop();
}

#[test]
fn a_refused_connection_is_a_failed_attempt_here_and_a_reset_there() {
    needs_root!();
    let pair = Pair::v4("refused");
    let (agent, _bystander, before) = watch("[tcp]", &pair);
    for _ in 0..7 {
        let refused = pair.a.enter(|| TcpStream::connect("10.9.0.2:7999"));
        assert!(refused.is_err(), "nobody listens there");
    }
    let after = agent.scrape();
    let delta = between(&before, &after);
    assert_eq!(delta.grew(&pair.a, "netsonde_tcp_attempt_fails_total", &[]), 7);
    assert_eq!(delta.grew(&pair.b, "netsonde_tcp_out_rsts_total", &[]), 7);
    assert_eq!(delta.grew(&pair.a, "netsonde_tcp_out_rsts_total", &[]), 0);
    agent.stop();
}

#[test]
fn drops_of_a_full_qdisc_are_those_that_tc_counts() {
    needs_root!();
    needs_programs!("tc");
    let pair = Pair::v4("tbf");
    pair.a.run("tc qdisc add dev eth0 root tbf rate 100kbit burst 2000 limit 3000");
    let (agent, bystander, before) = watch("[qdisc]", &pair);
    let from = pair.a.udp("10.9.0.1:0");
    // The kernel tells the sender of a drop of its own as ENOBUFS only where IP_RECVERR is set.
    send(&from, "10.9.0.2:6000", 50, 1000);

    let device = [("device", "eth0"), ("kind", "tbf"), ("parent", "root")];
    // Until the bucket has let the queue go, so that nothing moves while two ask for it.
    until("the queue is empty", Duration::from_secs(10), || {
        (truth::root_qdisc(&pair.a, "eth0", "backlog") == 0).then_some(())
    });
    let after = agent.scrape();
    let drops = truth::root_qdisc(&pair.a, "eth0", "drops");
    let delta = between(&before, &after);
    assert!(drops >= 40, "{drops} drops");
    assert_eq!(delta.grew(&pair.a, "netsonde_qdisc_drops_total", &[]), drops);
    let pod = after.pod(pair.a.name());
    assert_eq!(pod.count("netsonde_qdisc_device_drops_total", &device), drops);
    assert_eq!(pod.count("netsonde_qdisc_packets_total", &[]), 50 - drops);
    for field in ["bytes", "packets", "overlimits", "requeues"] {
        let name = format!("netsonde_qdisc_device_{field}_total");
        assert_eq!(pod.count(&name, &device), truth::root_qdisc(&pair.a, "eth0", field), "{name}");
    }
    assert_eq!(after.pod(bystander.name()).total("netsonde_qdisc_drops_total", &[]), 0);
    agent.stop();
}

#[test]
fn a_queue_that_is_not_empty_shows_its_length() {
    needs_root!();
    needs_programs!("tc");
    let pair = Pair::v4("backlog");
    pair.a.run("tc qdisc add dev eth0 root tbf rate 8kbit burst 2000 limit 100000");
    let (agent, _bystander, _) = watch("[qdisc]", &pair);
    send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6000", 20, 1000);
    // A second for each datagram: what tc says before and after the page cannot differ by much, and mostly not at all.
    until("tc and the page agree", Duration::from_secs(5), || {
        let backlog = |field| truth::root_qdisc(&pair.a, "eth0", field);
        let truth = (backlog("qlen"), backlog("backlog"));
        let page = agent.scrape();
        let pod = page.pod(pair.a.name());
        let shown = (pod.count("netsonde_qdisc_qlen", &[]), pod.count("netsonde_qdisc_backlog_bytes", &[]));
        assert!(truth.0 > 5, "the queue is nearly empty");
        (shown == truth).then_some(())
    });
    agent.stop();
}

#[test]
fn bytes_and_packets_of_a_device_are_those_of_ip_link() {
    needs_root!();
    let pair = Pair::v4("netdev");
    let (agent, bystander, before) = watch("[netdev]", &pair);
    let (from, to) = (pair.a.udp("10.9.0.1:0"), pair.b.udp("10.9.0.2:6000"));
    send(&from, "10.9.0.2:6000", 40, 958);
    receive(&to, 40);
    // Loopback does not count for the pod.
    let lo = pair.a.udp("127.0.0.1:6002");
    send(&lo, "127.0.0.1:6002", 9, 100);
    receive(&lo, 9);

    let after = agent.scrape();
    let delta = between(&before, &after);
    // 958 bytes of payload, 8 of UDP, 20 of IP, 14 of Ethernet.
    for (ns, way) in [(&pair.a, "tx"), (&pair.b, "rx")] {
        assert_eq!(delta.grew(ns, &format!("netsonde_netdev_{way}_packets_total"), &[]), 40);
        assert_eq!(delta.grew(ns, &format!("netsonde_netdev_{way}_bytes_total"), &[]), 40_000);
        for counter in ["bytes", "packets", "errors", "dropped"] {
            let device = [("device", "eth0"), ("kind", "veth")];
            let shown =
                after.pod(ns.name()).count(&format!("netsonde_netdev_device_{way}_{counter}_total"), &device);
            assert_eq!(shown, truth::link(ns, "eth0", way, counter), "{way} {counter}");
        }
    }
    let device = [("device", "lo"), ("kind", "loopback")];
    assert_eq!(delta.grew(&pair.a, "netsonde_netdev_device_rx_packets_total", &device), 9);
    assert_eq!(delta.grew(&bystander, "netsonde_netdev_rx_packets_total", &[]), 0);
    agent.stop();
}

#[test]
fn an_overflowing_accept_queue_shows_its_length_its_limit_and_every_overflow() {
    needs_root!();
    needs_programs!("ss");
    let pair = Pair::v4("overflow");
    pair.b.sysctl("net/ipv4/tcp_syncookies", "0");
    let (agent, bystander, before) = watch("[tcpext, {name: tcpsummary, args: {interval: 1s}}]", &pair);
    let listener = pair.b.listen("10.9.0.2:7001", 1);
    let clients: Vec<_> = (0..20).map(|_| pair.a.begin_connect("10.9.0.2:7001")).collect();

    let socket = [("address", "10.9.0.2"), ("port", "7001")];
    let full = truth::accept_queue(&pair.b, 7001);
    assert_eq!(full, (2, 1), "the queue holds one more than its limit");
    until("the accept queue is on the page", Duration::from_secs(5), || {
        let page = agent.scrape();
        let pod = page.pod(pair.b.name());
        let length = pod.find("netsonde_tcpsummary_accept_queue_length", &socket)?;
        let limit = pod.find("netsonde_tcpsummary_accept_queue_limit", &socket)?;
        (format!("{length} {limit}") == "2 1").then_some(())
    });
    // Without the clients no SYN is sent again, and the counters stand still.
    drop(clients);
    let after = agent.scrape();
    let delta = between(&before, &after);
    let overflows = truth::mib(&pair.b, "netstat", "TcpExt", "ListenOverflows");
    assert!(overflows >= 18, "{overflows} overflows");
    assert_eq!(delta.grew(&pair.b, "netsonde_tcpext_listen_overflows_total", &[]), overflows);
    let drops = truth::mib(&pair.b, "netstat", "TcpExt", "ListenDrops");
    assert_eq!(delta.grew(&pair.b, "netsonde_tcpext_listen_drops_total", &[]), drops);
    assert_eq!(delta.grew(&bystander, "netsonde_tcpext_listen_overflows_total", &[]), 0);
    drop(listener);
    agent.stop();
}

#[test]
fn connections_are_summed_by_state_as_ss_sees_them() {
    needs_root!();
    needs_programs!("ss");
    let pair = Pair::v4("states");
    let (agent, bystander, _) = watch("[sock, {name: tcpsummary, args: {interval: 1s}}]", &pair);
    let mut open = connections(&pair, 12);
    // Five that the client has closed and the server has not: CLOSE_WAIT there, FIN_WAIT2 here.
    let half: Vec<_> = open.drain(..5).map(|(client, server)| (drop(client), server)).collect();
    // Three that both have closed, the client first: TIME_WAIT here.
    for (client, server) in open.drain(..3) {
        drop(client);
        let mut end = server;
        assert_eq!(end.read(&mut [0]).expect("the end of the stream"), 0);
    }
    // A hundred bytes that the server does not read.
    open[0].0.write_all(&[1; 100]).expect("a connection takes bytes");

    assert_eq!(truth::sockets(&pair.a, "established"), 4);
    assert_eq!(truth::sockets(&pair.b, "close-wait"), 5);
    assert_eq!(truth::sockets(&pair.a, "time-wait"), 3);
    let page = until("the states are on the page", Duration::from_secs(5), || {
        let page = agent.scrape();
        let state =
            |ns: &Netns, state| page.pod(ns.name()).total("netsonde_tcpsummary_sockets", &[("state", state)]);
        let seen = state(&pair.a, "established") == 4
            && state(&pair.a, "fin_wait2") == 5
            && state(&pair.a, "time_wait") == 3
            && state(&pair.b, "established") == 4
            && state(&pair.b, "close_wait") == 5;
        seen.then_some(page)
    });
    let queue =
        |ns: &Netns, way| page.pod(ns.name()).count(&format!("netsonde_tcpsummary_{way}_queue_bytes"), &[]);
    // The kernel counts an unread end of stream as one byte, so it is 100 and one for each in CLOSE_WAIT.
    assert_eq!(truth::queues(&pair.b), (105, 0));
    for ns in [&pair.a, &pair.b] {
        assert_eq!((queue(ns, "receive"), queue(ns, "send")), truth::queues(ns));
    }
    // Those in FIN_WAIT2 that no process has any more count too: the kernel keeps them in the same small form.
    let tw = truth::sockstat(&pair.a, "TCP", "tw");
    assert!(tw >= 3, "{tw} in TIME_WAIT");
    assert_eq!(page.pod(pair.a.name()).count("netsonde_sock_tcp_tw", &[]), tw);
    let states = page.pod(bystander.name()).sum("netsonde_tcpsummary_sockets", &[]);
    assert!(states.abs() < f64::EPSILON, "the bystander has {states} connections");
    drop(half);
    agent.stop();
}

#[test]
fn conntrack_of_a_namespace_is_its_own() {
    needs_root!();
    needs_programs!("nft", "conntrack");
    let pair = Pair::v4("ct");
    pair.b.track_connections();
    let (agent, bystander, _) = watch("[conntrack]", &pair);
    let to = pair.b.udp("10.9.0.2:6000");
    // All at once: a port that is free again may be given to the next one.
    let senders: Vec<_> = (0..31).map(|_| pair.a.udp("10.9.0.1:0")).collect();
    for from in &senders {
        send(from, "10.9.0.2:6000", 1, 10);
        receive(&to, 1);
    }
    for port in 1..=4 {
        pair.b.run(&format!("conntrack -I -s 10.9.0.9 -d 10.9.0.2 -p udp --sport {port} --dport 53 -t 60"));
    }
    let page = agent.scrape();
    let pod = page.pod(pair.b.name());
    assert_eq!(truth::conntrack_entries(&pair.b), 35);
    assert_eq!(pod.count("netsonde_conntrack_entries", &[]), 35);
    assert_eq!(pod.count("netsonde_conntrack_insert_total", &[]), truth::conntrack_stat(&pair.b, "insert"));
    assert_eq!(pod.count("netsonde_conntrack_insert_total", &[]), 4, "the ones that conntrack -I made");
    for stat in ["found", "invalid", "insert_failed", "drop", "early_drop", "error", "search_restart"] {
        let name = format!("netsonde_conntrack_{stat}_total");
        assert_eq!(pod.count(&name, &[]), truth::conntrack_stat(&pair.b, stat), "{stat}");
    }
    let host: u64 = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")
        .expect("readable")
        .trim()
        .parse()
        .expect("a number");
    assert_eq!(pod.count("netsonde_conntrack_max_entries", &[]), host);
    for other in [&pair.a, &bystander] {
        assert_eq!(
            page.pod(other.name()).total("netsonde_conntrack_entries", &[]),
            0,
            "nothing tracks there"
        );
    }
    agent.stop();
}

#[test]
fn sockets_of_a_namespace_are_counted_there() {
    needs_root!();
    let pair = Pair::v4("sock");
    let (agent, bystander, before) = watch("[sock]", &pair);
    let sockets: Vec<_> = (0..13).map(|_| pair.a.udp("10.9.0.1:0")).collect();
    let open = connections(&pair, 6);
    let after = agent.scrape();
    let delta = between(&before, &after);
    let inuse =
        |ns, protocol| delta.grew(ns, "netsonde_sock_inuse", &[("protocol", protocol), ("family", "ipv4")]);
    assert_eq!(inuse(&pair.a, "udp"), 13);
    assert_eq!(inuse(&pair.a, "tcp"), 6);
    assert_eq!(inuse(&pair.b, "tcp"), 6);
    assert_eq!(inuse(&bystander, "udp"), 0);
    let pod = after.pod(pair.a.name());
    let shown = pod.count("netsonde_sock_inuse", &[("protocol", "udp"), ("family", "ipv4")]);
    assert_eq!(shown, truth::sockstat(&pair.a, "UDP", "inuse"));
    drop((sockets, open));
    agent.stop();
}
