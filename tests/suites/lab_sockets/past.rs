//! A socket in the place of one that was closed.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use netsonde_tests::lab::{between, watch};
use netsonde_tests::{Pair, needs_root};

use super::{MESSAGE, PROBE, READS, SOON, arrived, grown};

/// Opens `count` connections from where it runs, and sends a message on each. Gives how many of the messages that were
/// read took longer than 100 ms.
fn connections(listener: &TcpListener, count: usize, read: bool) -> u64 {
    let to = listener.local_addr().expect("a bound socket has an address");
    let mut late = 0;
    for _ in 0..count {
        let mut client = TcpStream::connect(to).expect("somebody listens");
        let (mut server, _) = listener.accept().expect("a connection");
        let start = Instant::now();
        client.write_all(&[1; MESSAGE]).expect("a connection takes bytes");
        if read {
            server.read_exact(&mut [0; MESSAGE]).expect("they come");
        } else {
            arrived(|room| server.peek(room), MESSAGE);
        }
        late += u64::from(start.elapsed() > Duration::from_millis(100));
    }
    late
}

/// The same with datagrams, and a new socket for each.
fn datagrams(from: &UdpSocket, count: usize, read: bool) -> u64 {
    let mut late = 0;
    for _ in 0..count {
        let to = UdpSocket::bind("10.9.0.2:0").expect("a port is free");
        to.set_read_timeout(Some(SOON)).expect("a timeout can be set");
        let address = to.local_addr().expect("a bound socket has an address");
        let start = Instant::now();
        from.send_to(&[7; MESSAGE], address).expect("a datagram can be sent");
        if read {
            to.recv(&mut [0; MESSAGE]).expect("it comes");
        } else {
            arrived(|room| to.peek(room), MESSAGE);
        }
        late += u64::from(start.elapsed() > Duration::from_millis(100));
    }
    late
}

/// Sockets that are opened and closed, of each protocol.
const COUNT: usize = 2000;

#[test]
fn a_socket_that_takes_the_place_of_a_closed_one_has_no_past() {
    needs_root!();
    let pair = Pair::v4("past");
    let (agent, _bystander, start) = watch(PROBE, &pair);
    let listener = pair.b.listen("10.9.0.2:7000", 16);
    let from = pair.a.udp("10.9.0.1:0");
    pair.a.enter(|| connections(&listener, COUNT, false));
    pair.b.enter(|| datagrams(&from, COUNT, false));
    sleep(Duration::from_millis(300));
    let before = agent.scrape();
    for protocol in ["tcp", "udp"] {
        assert_eq!(grown(&start, &before, &pair.b, READS, protocol).count, 0, "nobody read");
    }
    let late =
        pair.a.enter(|| connections(&listener, COUNT, true)) + pair.b.enter(|| datagrams(&from, COUNT, true));
    let after = agent.scrape();
    for protocol in ["tcp", "udp"] {
        let reads = grown(&before, &after, &pair.b, READS, protocol);
        assert_eq!(reads.count, COUNT as u64, "{protocol}");
    }
    let over = between(&before, &after).grew(&pair.b, "netsonde_socketlatency_reads_over_100ms_total", &[]);
    assert!(over <= late, "{over} reads over 100 ms, and {late} can have been");
    agent.stop();
}
