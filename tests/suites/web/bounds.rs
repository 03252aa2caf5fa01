//! Who is sent away: the slow, and those beyond the number of connections.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use netsonde_tests::wait::until_true;
use netsonde_tests::{Agent, http, until};

use super::SOON;

#[test]
fn who_says_nothing_or_says_it_slowly_is_sent_away_and_counted() {
    let agent = Agent::start("probes: [udp]\n");
    let connect = || {
        let stream = TcpStream::connect(agent.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
        stream
    };
    let start = Instant::now();
    let mut open: Vec<_> = (0..6).map(|_| connect()).collect();
    let head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ";
    let mut sent = 0;
    while !open.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(40), "{} are still open", open.len());
        // Half of them say nothing, half of them a byte now and then.
        for stream in open.iter_mut().skip(3) {
            let _ = stream.write_all(&[head.get(sent).copied().unwrap_or(b'a')]);
        }
        sent += 1;
        // 0: closed; an error in time: open still.
        open.retain_mut(|stream| match stream.read(&mut [0; 512]) {
            Ok(0) => false,
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        });
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(start.elapsed() > Duration::from_secs(15), "a client may take its time: {:?}", start.elapsed());
    let page = agent.scrape();
    assert_eq!(page.count("netsonde_http_refused_connections_total", &[("reason", "slow")]), 6);
    agent.stop();
}

#[test]
fn more_connections_than_may_be_are_closed_at_once_and_counted() {
    let agent = Agent::start("probes: [udp]\n");
    let open: Vec<_> = (0..300).map(|_| TcpStream::connect(agent.address).expect("connected")).collect();
    let closed = |stream: &TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout can be set");
        matches!((&*stream).read(&mut [0; 16]), Ok(0))
            || stream.take_error().is_ok_and(|error| error.is_some())
    };
    until_true("those beyond are closed", SOON, || {
        open.iter().filter(|stream| closed(stream)).count() >= 300 - 256
    });
    assert!(http::get(agent.address, "/healthz", &[]).is_err(), "there is no room");
    drop(open);
    let page = until("there is room again", SOON, || {
        http::get(agent.address, "/healthz", &[]).ok().map(|_| agent.scrape())
    });
    let refused = page.count("netsonde_http_refused_connections_total", &[("reason", "too_many")]);
    assert!((45..=60).contains(&refused), "{refused} of 301 were refused");
    assert!(page.count("netsonde_http_connections", &[]) < 20);
    agent.stop();
}
