//! UDP: datagrams of sockets that are connected, that are not, and that have both families.

use netsonde_tests::lab::{between, receive, send, watch};
use netsonde_tests::{Pair, needs_root};

use super::{BYTES, FLOW, PACKETS, SIDES, TUPLE_BYTES, TUPLE_PACKETS, bare, sums, tuples};

#[test]
fn datagrams_are_counted_to_the_byte_at_both_ends() {
    needs_root!();
    for (a, b) in SIDES {
        let pair = Pair::new("udp");
        let (agent, bystander, before) = watch(FLOW, &pair);
        let server = pair.b.udp(&format!("{b}:6000"));
        let client = pair.a.udp(&format!("{a}:0"));
        client.connect(format!("{b}:6000")).expect("a datagram socket can be connected");
        for (count, size) in [(1000, 700), (1000, 300), (10, 0)] {
            for _ in 0..count {
                assert_eq!(client.send(&vec![7; size]).expect("a datagram can be sent"), size);
                server.peek(&mut [0; 2048]).expect("a datagram can be looked at");
                server.recv(&mut [0; 2048]).expect("a datagram arrives");
            }
        }
        send(&server, &client.local_addr().expect("a bound socket").to_string(), 20, 100);
        receive(&client, 20);

        let after = agent.scrape();
        let delta = between(&before, &after);
        let (own, peer) = ((bare(a), "*"), (bare(b), "6000"));
        assert_eq!(sums(&delta, &pair.a, BYTES, "udp"), (1_000_000, 2_000), "{b}");
        assert_eq!(sums(&delta, &pair.a, PACKETS, "udp"), (2_010, 20));
        assert_eq!(tuples(&delta, &pair.a, TUPLE_BYTES, "udp", own, peer), (1_000_000, 2_000));
        assert_eq!(tuples(&delta, &pair.a, TUPLE_PACKETS, "udp", own, peer), (2_010, 20));
        assert_eq!(sums(&delta, &pair.b, BYTES, "udp"), (2_000, 1_000_000));
        assert_eq!(sums(&delta, &pair.b, PACKETS, "udp"), (20, 2_010));
        // The server's socket is not connected: its peer is known only where functions can be hooked.
        let at = [("dst", bare(b)), ("dport", "6000"), ("direction", "receive")];
        assert_eq!(delta.grew_in_all(&pair.b, TUPLE_BYTES, &at), 1_000_000);
        let from = [("src", bare(b)), ("sport", "6000"), ("direction", "transmit")];
        assert_eq!(delta.grew_in_all(&pair.b, TUPLE_PACKETS, &from), 20);
        for ns in [&pair.a, &pair.b] {
            assert_eq!(sums(&delta, ns, PACKETS, "tcp"), (0, 0));
        }
        assert_eq!(sums(&delta, &bystander, PACKETS, "udp"), (0, 0));
        agent.stop();
    }
}

#[test]
fn a_socket_on_every_address_of_both_families_is_one_flow() {
    needs_root!();
    let pair = Pair::new("any");
    let (agent, _bystander, before) = watch(FLOW, &pair);
    let all = pair.b.udp("[::]:6000");
    for (a, b) in SIDES {
        send(&pair.a.udp(&format!("{a}:0")), &format!("{b}:6000"), 30, 100);
        receive(&all, 30);
    }
    drop(all);
    let v4 = pair.b.udp("0.0.0.0:6000");
    send(&pair.a.udp("10.9.0.1:0"), "10.9.0.2:6000", 5, 100);
    receive(&v4, 5);
    // The page is parsed strictly: no series is there twice.
    let after = agent.scrape();
    let delta = between(&before, &after);
    let labels = [("protocol", "udp"), ("dport", "6000"), ("direction", "receive")];
    assert_eq!(delta.grew_in_all(&pair.b, TUPLE_PACKETS, &labels), 65);
    agent.stop();
}
