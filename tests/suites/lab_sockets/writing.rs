//! Writes that wait because the receiver has no room.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use netsonde_tests::lab::{between, watch};
use netsonde_tests::{Pair, needs_root};
use rustix::net::sockopt;

use super::{PROBE, SIDES, WRITES, connected, grown};

/// A write that waits because the receiver has no room; it begins to read after 200 ms. Gives the time that it took in
/// all.
pub fn stalled(client: &mut TcpStream, server: &mut TcpStream) -> Duration {
    const LENGTH: usize = 150_000;
    sockopt::set_socket_send_buffer_size(&*client, 1 << 20).expect("a buffer can be large");
    let start = Instant::now();
    assert_eq!(client.write(&vec![1; LENGTH]).expect("a connection takes bytes"), LENGTH);
    sleep(Duration::from_millis(200));
    server.read_exact(&mut vec![0; LENGTH]).expect("they come");
    start.elapsed()
}

/// A listener whose connections have little room.
pub fn narrow(pair: &Pair, b: &str) -> TcpListener {
    let listener = pair.b.listen(&format!("{b}:7000"), 16);
    sockopt::set_socket_recv_buffer_size(&listener, 4096).expect("a buffer can be small");
    listener
}

#[test]
fn a_write_waits_as_long_as_the_receiver_has_no_room() {
    needs_root!();
    for (_, b) in SIDES {
        let pair = Pair::new("stall");
        let (agent, bystander, before) = watch(PROBE, &pair);
        let listener = narrow(&pair, b);
        let mut most = 0.0;
        for _ in 0..3 {
            let (mut client, mut server) = connected(&pair, b, &listener);
            most += stalled(&mut client, &mut server).as_secs_f64();
        }
        let after = agent.scrape();
        let writes = grown(&before, &after, &pair.a, WRITES, "tcp");
        assert_eq!((writes.count, writes.quick), (3, 0), "{b}");
        // The call itself is no part of it.
        assert!(writes.sum >= 0.5 && writes.sum <= most, "{b}: {} s of {most}", writes.sum);
        let delta = between(&before, &after);
        let over =
            |ns, ms: &str| delta.grew(ns, &format!("netsonde_socketlatency_writes_over_{ms}_total"), &[]);
        assert_eq!((over(&pair.a, "1ms"), over(&pair.a, "100ms")), (3, 3));
        for other in [&pair.b, &bystander] {
            assert_eq!(over(other, "1ms"), 0);
            assert_eq!(after.pod(other.name()).find(&format!("{WRITES}_count"), &[]), None);
        }
        agent.stop();
    }
}
