//! TCP: connections that live, that are over, that are many, and that were there before the agent.

use std::io::{Read as _, Seek as _, Write as _};
use std::time::Duration;

use netsonde_tests::lab::{between, cut, let_through, watch};
use netsonde_tests::{Netns, Page, Pair, needs_programs, needs_root, truth, until};

use super::{BYTES, FLOW, PACKETS, SIDES, TUPLE_BYTES, TUPLE_PACKETS, bare, connection, pass, sums, tuples};

/// Waits until no TCP socket of either side is left but those that wait for stray packets.
fn settled(pair: &Pair) {
    for ns in [&pair.a, &pair.b] {
        until("all connections are over", Duration::from_secs(5), || {
            let left = ns.run("ss -H -tan state connected exclude time-wait");
            left.trim().is_empty().then_some(())
        });
    }
}

/// Segments that a namespace sent, and how many of them again.
struct Segments {
    all: u64,
    again: u64,
}

/// By the namespace's own MIB, which counts those that are sent again apart.
fn segments(ns: &Netns) -> Segments {
    let again = truth::mib(ns, "snmp", "Tcp", "RetransSegs");
    Segments { all: truth::mib(ns, "snmp", "Tcp", "OutSegs") + again, again }
}

#[test]
fn a_connection_is_counted_to_the_byte_while_it_lives_and_when_it_is_over() {
    needs_root!();
    for (a, b) in SIDES {
        let pair = Pair::new("tcp");
        let (agent, bystander, before) = watch(FLOW, &pair);
        let (mut client, mut server) = connection(&pair, b);
        pass(&mut client, &mut server, 3_000_000);
        pass(&mut server, &mut client, 5_000);

        let (own, peer) = ((bare(a), "*"), (bare(b), "7000"));
        let check = |page: &Page| {
            let delta = between(&before, page);
            assert_eq!(sums(&delta, &pair.a, BYTES, "tcp"), (3_000_000, 5_000), "{b}");
            assert_eq!(sums(&delta, &pair.b, BYTES, "tcp"), (5_000, 3_000_000));
            assert_eq!(tuples(&delta, &pair.a, TUPLE_BYTES, "tcp", own, peer), (3_000_000, 5_000));
            assert_eq!(tuples(&delta, &pair.b, TUPLE_BYTES, "tcp", peer, own), (5_000, 3_000_000));
            for ns in [&pair.a, &pair.b] {
                assert_eq!(sums(&delta, ns, BYTES, "udp"), (0, 0));
            }
            for protocol in ["tcp", "udp"] {
                assert_eq!(sums(&delta, &bystander, PACKETS, protocol), (0, 0));
            }
            assert_eq!(page.pod(bystander.name()).total(TUPLE_PACKETS, &[]), 0);
        };
        check(&agent.scrape());
        drop(client);
        drop(server);
        settled(&pair);
        // The kernel counts a FIN as a byte; nobody sent it.
        let after = agent.scrape();
        check(&after);
        let delta = between(&before, &after);
        let (out, back) = (segments(&pair.a), segments(&pair.b));
        let (sent, received) = sums(&delta, &pair.a, PACKETS, "tcp");
        let (answered, taken) = sums(&delta, &pair.b, PACKETS, "tcp");
        // A SYN-ACK leaves before there is a socket of the connection.
        assert_eq!((sent, answered), (out.all, back.all - 1), "{b}");
        if out.again + back.again == 0 {
            assert_eq!((received, taken), (back.all, out.all));
        }
        agent.stop();
    }
}

#[test]
fn many_connections_at_once_come_to_exactly_what_was_sent() {
    needs_root!();
    for (a, b) in SIDES {
        let pair = Pair::new("many");
        let (agent, _bystander, before) = watch(FLOW, &pair);
        let listener = pair.b.listen(&format!("{b}:7000"), 64);
        let mut both = Vec::new();
        for n in 1..=40usize {
            let mut client = pair.a.connect(&format!("{b}:7000"));
            let (mut server, _) = listener.accept().expect("a connection");
            pass(&mut client, &mut server, 1000 * n);
            both.push((client, server));
            if n % 4 == 0 {
                both.clear();
            }
            if n % 10 == 0 {
                agent.scrape();
            }
        }
        let sent = 1000 * (1..=40).sum::<u64>();
        let after = agent.scrape();
        let delta = between(&before, &after);
        let (own, peer) = ((bare(a), "*"), (bare(b), "7000"));
        assert_eq!(tuples(&delta, &pair.a, TUPLE_BYTES, "tcp", own, peer), (sent, 0), "{b}");
        assert_eq!(tuples(&delta, &pair.b, TUPLE_BYTES, "tcp", peer, own), (0, sent));
        agent.stop();
    }
}

#[test]
fn what_is_sent_from_a_file_and_what_is_sent_again_is_counted_once() {
    needs_root!();
    needs_programs!("nft");
    let pair = Pair::v4("file");
    let (agent, _bystander, before) = watch(FLOW, &pair);
    let (mut client, mut server) = connection(&pair, "10.9.0.2");
    let mut file = tempfile::tempfile().expect("a file can be made");
    file.write_all(&vec![3; 500_000]).expect("a file can be written");
    file.rewind().expect("a file has a beginning");
    let copy = std::thread::spawn(move || {
        // Without passing through this process: sendfile or splice.
        std::io::copy(&mut file, &mut client).expect("a connection takes a file");
        client
    });
    server.read_exact(&mut vec![0; 500_000]).expect("the file arrives");
    let mut client = copy.join().expect("the file was sent");

    cut(&pair.b, "tcp dport 7000");
    client.write_all(&[1; 500]).expect("a connection takes bytes");
    until("the timer fired twice", Duration::from_secs(5), || {
        (truth::mib(&pair.a, "netstat", "TcpExt", "TCPTimeouts") >= 2).then_some(())
    });
    let_through(&pair.b);
    server.read_exact(&mut [0; 500]).expect("the bytes arrive");
    let after = agent.scrape();
    let delta = between(&before, &after);
    assert_eq!(sums(&delta, &pair.a, BYTES, "tcp"), (500_500, 0));
    assert_eq!(sums(&delta, &pair.b, BYTES, "tcp"), (0, 500_500));
    agent.stop();
}

#[test]
fn a_connection_that_was_there_before_the_agent_is_counted_from_its_start_on() {
    needs_root!();
    let pair = Pair::v4("before");
    let (mut client, mut server) = connection(&pair, "10.9.0.2");
    pass(&mut client, &mut server, 100_000);
    let (agent, _bystander, before) = watch(FLOW, &pair);
    pass(&mut client, &mut server, 7_000);
    // Who connected was not seen; the ports tell: 7000 is not one that the kernel gives out.
    let (own, peer) = (("10.9.0.1", "*"), ("10.9.0.2", "7000"));
    let check = |page: &Page| {
        let all = page.pod(pair.a.name()).total(BYTES, &[("direction", "transmit")]);
        assert_eq!(all, 7_000, "nothing of what was before");
        let delta = between(&before, page);
        assert_eq!(tuples(&delta, &pair.a, TUPLE_BYTES, "tcp", own, peer), (7_000, 0));
        assert_eq!(tuples(&delta, &pair.b, TUPLE_BYTES, "tcp", peer, own), (0, 7_000));
    };
    check(&agent.scrape());
    drop(client);
    drop(server);
    settled(&pair);
    check(&agent.scrape());
    agent.stop();
}
