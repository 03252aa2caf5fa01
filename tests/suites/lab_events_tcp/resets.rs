//! Resets: both pods tell of each, with the reason, the state, and who closed the connection.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use netsonde_tests::events::{number, text, until_events};
use netsonde_tests::{Netns, needs_root, note, truth, until};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};
use serde_json::Value;

use super::lab::{Lab, SOON, alone, bare, beside_others, have_state, labs, query};

const RESETS: &str = "[{name: tcpreset, args: {events: {per_second: 1000, burst: 100}}}]";

impl Lab {
    /// The `count` resets that there are of this kind in `ns`, all of them between these ends, and counted.
    fn resets(&self, ns: &Netns, kind: &str, count: usize) -> Vec<Value> {
        let found =
            until_events(&self.agent, &query(ns, &format!("TCPRESET_{}", kind.to_uppercase())), count);
        assert_eq!(found.len(), count, "{found:#?}");
        for event in &found {
            self.is_between(ns, event);
            assert_eq!(text(event, "probe"), "tcpreset");
        }
        let counted = self.grew(ns, "netsonde_tcpreset_resets_total", &[("kind", kind)]);
        assert_eq!(counted, count as u64, "{kind}");
        found
    }
}

/// All have this reason, or none has where the kernel has no names for any (before Linux 6.10).
fn have_reason(told: &[Value], reason: &str) {
    let types = std::fs::read("/sys/kernel/btf/vmlinux").expect("a kernel with BTF");
    let name = b"SK_RST_REASON_NO_SOCKET\0";
    let wanted = types.windows(name.len()).any(|w| w == name).then_some(reason);
    for event in told {
        assert_eq!(event["reason"].as_str(), wanted, "{event:#}");
    }
}

#[test]
fn a_refused_connection_is_told_by_both_pods() {
    needs_root!();
    let _beside = beside_others();
    for lab in labs("refused", RESETS) {
        for _ in 0..5 {
            let refused = lab.pair.a.enter(|| TcpStream::connect(format!("{}:7999", lab.b)));
            assert!(refused.is_err(), "nobody listens there");
        }
        let sent = lab.resets(&lab.pair.b, "nosock", 5);
        have_reason(&sent, "NO_SOCKET");
        assert!(sent.iter().all(|event| number(event, "sport") == 7999 && event["state"].is_null()));
        let received = lab.resets(&lab.pair.a, "receive", 5);
        have_state(&received, "SYN_SENT");
        // Both tell of the same connections.
        let ports = |told: &[Value], field| {
            let mut ports: Vec<u64> = told.iter().map(|event| number(event, field)).collect();
            ports.sort_unstable();
            ports
        };
        assert_eq!(ports(&sent, "dport"), ports(&received, "sport"));
        assert_eq!(truth::mib(&lab.pair.b, "snmp", "Tcp", "OutRsts"), 5);
        lab.agent.stop();
    }
}

#[test]
fn a_refused_connection_of_an_ipv6_socket_to_an_ipv4_address_has_ipv4_ends() {
    needs_root!();
    let _beside = beside_others();
    let lab = labs("mapped", RESETS).next().expect("one for IPv4");
    let v4: Ipv4Addr = lab.b.parse().expect("an address");
    let mapped = SocketAddr::new(IpAddr::V6(v4.to_ipv6_mapped()), 7999);
    for _ in 0..5 {
        assert!(lab.pair.a.enter(|| TcpStream::connect(mapped)).is_err(), "nobody listens there");
    }
    have_state(&lab.resets(&lab.pair.a, "receive", 5), "SYN_SENT");
    lab.resets(&lab.pair.b, "nosock", 5);
    lab.agent.stop();
}

/// The event names this thread of this process.
fn are_ours(told: &[Value]) {
    let comm = std::fs::read_to_string("/proc/thread-self/comm").expect("every thread has a name");
    for event in told {
        assert_eq!(text(event, "comm"), comm.trim_end(), "{event:#}");
        assert_eq!(number(event, "pid"), u64::from(std::process::id()));
    }
}

#[test]
fn closing_with_unread_data_tells_who_closed() {
    needs_root!();
    let _alone = alone();
    for lab in labs("unread", RESETS) {
        let listener = lab.listener();
        for _ in 0..5 {
            let (mut client, server) = lab.connection(&listener);
            client.write_all(&[1; 1000]).expect("a connection takes bytes");
            until("the bytes are there", SOON, || {
                (server.peek(&mut [0; 8]).expect("a connection") > 0).then_some(())
            });
            drop(server);
        }
        let sent = lab.resets(&lab.pair.b, "active", 5);
        have_reason(&sent, "TCP_ABORT_ON_CLOSE");
        have_state(&sent, "CLOSE");
        are_ours(&sent);
        have_state(&lab.resets(&lab.pair.a, "receive", 5), "ESTABLISHED");
        assert_eq!(truth::mib(&lab.pair.b, "netstat", "TcpExt", "TCPAbortOnClose"), 5);
        assert_eq!(truth::mib(&lab.pair.a, "snmp", "Tcp", "EstabResets"), 5);
        lab.agent.stop();
    }
}

#[test]
fn closing_with_linger_0_tells_who_closed() {
    needs_root!();
    let _alone = alone();
    for lab in labs("linger", RESETS) {
        let listener = lab.listener();
        for _ in 0..5 {
            let (_client, server) = lab.connection(&listener);
            set_socket_linger(&server, Some(Duration::ZERO)).expect("a connection can linger");
            drop(server);
        }
        let sent = lab.resets(&lab.pair.b, "active", 5);
        have_reason(&sent, "TCP_STATE");
        have_state(&sent, "CLOSE");
        are_ours(&sent);
        have_state(&lab.resets(&lab.pair.a, "receive", 5), "ESTABLISHED");
        assert_eq!(truth::mib(&lab.pair.b, "netstat", "TcpExt", "TCPAbortOnData"), 5);
        lab.agent.stop();
    }
}

/// The TCP header of a bare acknowledgement from port 9000 to port 7000.
fn bare_acknowledgement(from: IpAddr, to: IpAddr) -> [u8; 20] {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut header = [0; 20];
    header[..2].copy_from_slice(&9000u16.to_be_bytes());
    header[2..4].copy_from_slice(&7000u16.to_be_bytes());
    (header[12], header[13]) = (5 << 4, 0x10);
    let pseudo = [octets(from), octets(to), vec![0, 6, 0, 20]].concat();
    let words = pseudo.chunks(2).chain(header.chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = u16::try_from(!sum & 0xffff).expect("sixteen bits");
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
    header
}

#[test]
fn a_listening_socket_that_answers_with_a_reset_tells_whom() {
    needs_root!();
    let _beside = beside_others();
    for lab in labs("listen", RESETS) {
        let _listener = lab.listener();
        let (from, to): (IpAddr, IpAddr) =
            (bare(&lab.a).parse().expect("an address"), bare(&lab.b).parse().expect("an address"));
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let segment = bare_acknowledgement(from, to);
        lab.pair.a.enter(|| {
            let raw = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::TCP))
                .expect("root can have a raw socket");
            for _ in 0..5 {
                let sent = sendto(&raw, &segment, SendFlags::empty(), &SocketAddr::new(to, 0));
                assert_eq!(sent, Ok(segment.len()));
            }
        });
        let sent = lab.resets(&lab.pair.b, "process", 5);
        have_reason(&sent, "TCP_FLAGS");
        have_state(&sent, "LISTEN");
        assert!(sent.iter().all(|event| number(event, "sport") == 7000 && number(event, "dport") == 9000));
        assert_eq!(truth::mib(&lab.pair.b, "snmp", "Tcp", "OutRsts"), 5);
        lab.agent.stop();
    }
}

#[test]
fn data_for_a_connection_in_time_wait_is_answered_by_its_rest() {
    needs_root!();
    let _beside = beside_others();
    for lab in labs("timewait", RESETS) {
        if lab.before.pod(lab.pair.b.name()).find("netsonde_tcpreset_sent_total", &[]).is_none() {
            note("this kernel does not tell of resets of sockets in TIME_WAIT");
            return;
        }
        let listener = lab.listener();
        for n in 1..=5 {
            let (mut client, server) = lab.connection(&listener);
            drop(server);
            until("only a rest is left of it", SOON, || {
                (truth::sockstat(&lab.pair.b, "TCP", "tw") == 1).then_some(())
            });
            client.write_all(&[1]).expect("the peer has only closed");
            let state = "netsonde_tcpreset_received_total";
            until("it was reset", SOON, || (lab.grew(&lab.pair.a, state, &[]) == n).then_some(()));
        }
        let sent = lab.resets(&lab.pair.b, "process", 5);
        have_reason(&sent, "TCP_TIMEWAIT_SOCKET");
        have_state(&sent, "TIME_WAIT");
        have_state(&lab.resets(&lab.pair.a, "receive", 5), "CLOSE_WAIT");
        assert_eq!(truth::mib(&lab.pair.b, "snmp", "Tcp", "OutRsts"), 5);
        lab.agent.stop();
    }
}
