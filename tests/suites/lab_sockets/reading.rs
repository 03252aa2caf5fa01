//! Readers that are late by a known time, and reads that only look late.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use netsonde_tests::lab::{between, watch};
use netsonde_tests::{Pair, needs_root, truth, until};
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{SpliceFlags, pipe, splice};

use super::{MESSAGE, PROBE, READS, SIDES, SOON, WRITES, arrived, connection, grown};

#[test]
fn a_late_reader_of_a_connection_is_measured_and_nobody_else() {
    needs_root!();
    for (_, b) in SIDES {
        let pair = Pair::new("tcp");
        let (agent, bystander, before) = watch(PROBE, &pair);
        let (mut client, mut server) = connection(&pair, b);
        let start = Instant::now();
        for _ in 0..6 {
            client.write_all(&[1; MESSAGE]).expect("a connection takes bytes");
            arrived(|room| server.peek(room), MESSAGE);
            sleep(Duration::from_millis(50));
            server.read_exact(&mut [0; MESSAGE]).expect("they are there");
        }
        let most = start.elapsed().as_secs_f64();
        let after = agent.scrape();
        let reads = grown(&before, &after, &pair.b, READS, "tcp");
        assert_eq!((reads.count, reads.quick), (6, 0), "{b}: looking at data without taking it is no read");
        assert!(reads.sum >= 0.3 && reads.sum <= most, "{b}: {} s of {most}", reads.sum);
        let delta = between(&before, &after);
        assert_eq!(delta.grew(&pair.b, "netsonde_socketlatency_reads_over_1ms_total", &[]), 6);
        let writes = grown(&before, &after, &pair.a, WRITES, "tcp");
        assert_eq!((writes.count, writes.quick), (6, 6), "{b}: all were sent at once");
        for other in [&pair.a, &bystander] {
            assert_eq!(delta.grew(other, "netsonde_socketlatency_reads_over_1ms_total", &[]), 0);
            assert_eq!(after.pod(other.name()).find(&format!("{READS}_count"), &[]), None);
        }
        assert_eq!(after.pod(bystander.name()).find(&format!("{WRITES}_count"), &[]), None);
        agent.stop();
    }
}

#[test]
fn a_late_reader_of_datagrams_is_measured_and_nobody_else() {
    needs_root!();
    for (a, b) in SIDES {
        let pair = Pair::new("udp");
        let (agent, bystander, before) = watch(PROBE, &pair);
        let (from, to) = (pair.a.udp(&format!("{a}:0")), pair.b.udp(&format!("{b}:6000")));
        let start = Instant::now();
        for length in [MESSAGE, 1, 0, 1000, MESSAGE, 0] {
            from.send_to(&vec![7; length], format!("{b}:6000")).expect("a datagram can be sent");
            until("the datagram is there", SOON, || to.peek(&mut [0; 1]).is_ok().then_some(()));
            sleep(Duration::from_millis(50));
            assert_eq!(to.recv(&mut [0; 2048]).expect("it is there"), length);
        }
        let most = start.elapsed().as_secs_f64();
        let after = agent.scrape();
        let reads = grown(&before, &after, &pair.b, READS, "udp");
        assert_eq!((reads.count, reads.quick), (6, 0), "{b}: empty datagrams too");
        assert!(reads.sum >= 0.3 && reads.sum <= most, "{b}: {} s of {most}", reads.sum);
        for other in [&pair.a, &bystander] {
            assert_eq!(after.pod(other.name()).find(&format!("{READS}_count"), &[]), None);
        }
        agent.stop();
    }
}

/// Sends a message every 2 ms and reads them `lag` messages later. Gives the least and the most time that they waited
/// together: the least as if each had arrived when the next one was sent.
fn lagging(count: usize, lag: usize, mut send: impl FnMut(), mut read: impl FnMut()) -> (f64, f64) {
    let mut times = Vec::new();
    let (mut least, mut most) = (Duration::ZERO, Duration::ZERO);
    for turn in 0..count + lag {
        if turn < count {
            times.push(Instant::now());
            send();
        }
        if let Some(number) = turn.checked_sub(lag) {
            if let Some(next) = times.get(number + 1) {
                least += next.elapsed();
            }
            read();
            most += times[number].elapsed();
        }
        sleep(Duration::from_millis(2));
    }
    (least.as_secs_f64(), most.as_secs_f64())
}

#[test]
fn a_reader_that_never_catches_up_does_not_look_quick() {
    needs_root!();
    let (count, lag) = (150, 40);
    let pair = Pair::v4("lag");
    let (agent, _bystander, before) = watch(PROBE, &pair);
    let (mut client, mut server) = connection(&pair, "10.9.0.2");
    let (from, to) = (pair.a.udp("10.9.0.1:0"), pair.b.udp("10.9.0.2:6000"));
    let tcp = lagging(
        count,
        lag,
        || client.write_all(&[1; MESSAGE]).expect("a connection takes bytes"),
        || server.read_exact(&mut [0; MESSAGE]).expect("they are there"),
    );
    let udp = lagging(
        count,
        lag,
        || assert_eq!(from.send_to(&[7; MESSAGE], "10.9.0.2:6000").expect("a datagram can be sent"), MESSAGE),
        || assert_eq!(to.recv(&mut [0; MESSAGE]).expect("it is there"), MESSAGE),
    );
    let after = agent.scrape();
    for (protocol, (least, most)) in [("tcp", tcp), ("udp", udp)] {
        let reads = grown(&before, &after, &pair.b, READS, protocol);
        assert_eq!(reads.count, count as u64, "{protocol}");
        // What is told is never longer than the truth, and may be shorter by a quarter.
        let told = reads.sum;
        assert!(told <= most && told >= 0.7 * least, "{protocol}: {told} s, truth {least} to {most} s");
    }
    agent.stop();
}

#[test]
fn what_is_read_bit_by_bit_waits_until_it_is_read() {
    needs_root!();
    let pair = Pair::v4("bits");
    let (agent, _bystander, before) = watch(PROBE, &pair);
    let (mut client, mut server) = connection(&pair, "10.9.0.2");
    client.write_all(&[1; 10 * MESSAGE]).expect("a connection takes bytes");
    let start = Instant::now();
    arrived(|room| server.peek(room), 10 * MESSAGE);
    for _ in 0..10 {
        sleep(Duration::from_millis(10));
        server.read_exact(&mut [0; MESSAGE]).expect("they are there");
    }
    let most = start.elapsed().as_secs_f64() * 10.0;
    let reads = grown(&before, &agent.scrape(), &pair.b, READS, "tcp");
    assert_eq!(reads.count, 10);
    // 10 + 20 + ... + 100 ms.
    assert!(reads.sum >= 0.55 && reads.sum <= most, "{} s of {most}", reads.sum);
    agent.stop();
}

#[test]
fn data_waits_also_while_its_connection_waits_to_be_accepted() {
    needs_root!();
    let pair = Pair::v4("accept");
    let (agent, _bystander, before) = watch(PROBE, &pair);
    let listener = pair.b.listen("10.9.0.2:7000", 16);
    let mut client = pair.a.connect("10.9.0.2:7000");
    let start = Instant::now();
    client.write_all(&[1; MESSAGE]).expect("a connection takes bytes");
    until("the data is there", SOON, || (truth::queues(&pair.b).0 >= MESSAGE as u64).then_some(()));
    sleep(Duration::from_millis(50));
    let (mut server, _) = listener.accept().expect("a connection");
    server.read_exact(&mut [0; MESSAGE]).expect("they are there");
    let most = start.elapsed().as_secs_f64();
    let reads = grown(&before, &agent.scrape(), &pair.b, READS, "tcp");
    assert_eq!(reads.count, 1);
    assert!(reads.sum >= 0.05 && reads.sum <= most, "{} s of {most}", reads.sum);
    agent.stop();
}

#[test]
fn data_that_is_spliced_waits_too_and_a_read_that_waits_for_more_does_not() {
    needs_root!();
    let pair = Pair::v4("splice");
    let (agent, _bystander, before) = watch(PROBE, &pair);
    let (mut client, server) = connection(&pair, "10.9.0.2");
    client.write_all(&[1; MESSAGE]).expect("a connection takes bytes");
    arrived(|room| server.peek(room), MESSAGE);
    sleep(Duration::from_millis(50));
    let (_out, into) = pipe().expect("a pipe");
    let moved = splice(&server, None, &into, None, MESSAGE, SpliceFlags::empty()).expect("a connection");
    assert_eq!(moved, MESSAGE);
    let spliced = grown(&before, &agent.scrape(), &pair.b, READS, "tcp");
    assert_eq!((spliced.count, spliced.quick), (1, 0));
    assert!(spliced.sum >= 0.05, "{} s", spliced.sum);

    // A signal for this process (a child of another test has ended) may end a read early; then it is done again.
    let waited = until("a read waits for all it asks for", 2 * SOON, || {
        let middle = agent.scrape();
        waits_for_two(&mut client, &server).then(|| grown(&middle, &agent.scrape(), &pair.b, READS, "tcp"))
    });
    assert_eq!(waited.count, 2, "each half");
    assert!(waited.sum < 0.4, "{} s", waited.sum);
    agent.stop();
}

/// One read takes two messages that come half a second apart: each is taken when it comes, although the call returns with
/// the second. `false` where it returned before that.
fn waits_for_two(client: &mut TcpStream, server: &TcpStream) -> bool {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                sleep(Duration::from_millis(500));
                client.write_all(&[1; MESSAGE]).expect("a connection takes bytes");
            }
        });
        let mut room = [0; 2 * MESSAGE];
        let (_, length) = recv(server, room.as_mut_slice(), RecvFlags::WAITALL).expect("a connection");
        for _ in length..room.len() {
            recv(server, &mut room[..1], RecvFlags::empty()).expect("the rest comes");
        }
        length == room.len()
    })
}
