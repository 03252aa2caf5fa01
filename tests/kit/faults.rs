//! Faults of every sort between two pods, again and again: what a dashboard or a query about events has to show.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::wait::allowed;
use crate::{Pair, Running};

/// The eBPF probes that are off by default, and biolatency, so sensitive that everything is slow.
pub const SENSITIVE: &str = "{name: biolatency, args: {slow: 0s}}, {name: kernellatency, args: {slow: 0s}}, \
     {name: net_softirq, args: {slow: 0s}}, {name: netiftxlatency, args: {slow: 0s}}, \
     {name: socketlatency, args: {slow: 0s}}, virtcmdlatency";
/// Every other probe; the one that reads at an interval of its own reads often.
pub const OTHERS: &str = "conntrack, fd, flow, io, ip, ipvs, netdev, packetloss, qdisc, sock, softnet, tcp, tcpext, \
     tcpreset, tcpretrans, {name: tcpsummary, args: {interval: 1s}}, udp";

/// Two pods, of which `a` sends and `b` loses.
pub struct Faults {
    /// `a` is 10.9.0.1 behind a shaper, `b` is 10.9.0.2 with rules that drop, and tracks connections.
    pub pair: Pair,
    service: TcpListener,
    /// A listener that never accepts.
    _full: TcpListener,
    from: UdpSocket,
    to: UdpSocket,
    _unread: UdpSocket,
    /// A connection whose data no longer arrives.
    cut: TcpStream,
    /// A connection whose reader is slow; the writing end first.
    slow: (TcpStream, TcpStream),
    /// Connections that nobody accepts.
    waiting: Vec<OwnedFd>,
    disk: tempfile::NamedTempFile,
    _process: Running,
    _kept: TcpStream,
}

impl Faults {
    /// Makes the pods and everything in them.
    pub fn new(hint: &str) -> Self {
        let pair = Pair::v4(hint);
        let (a, b) = (&pair.a, &pair.b);
        a.run("tc qdisc add dev eth0 root tbf rate 8mbit burst 4kb limit 20kb");
        b.track_connections();
        let process = Running::start(b.mortal("sleep").arg("600"));
        let service = b.listen("10.9.0.2:7000", 64);
        let full = b.listen("10.9.0.2:7003", 0);
        let unread = b.udp("10.9.0.2:6001");
        rustix::net::sockopt::set_socket_recv_buffer_size(&unread, 2048).expect("a buffer can be small");
        let pipe = || {
            let client = a.connect("10.9.0.2:7000");
            (client, service.accept().expect("a connection").0)
        };
        let slow = pipe();
        slow.0.set_nonblocking(true).expect("a writer need not wait");
        slow.1.set_read_timeout(Some(allowed(Duration::from_secs(20)))).expect("a timeout can be set");
        let listener = b.listen("10.9.0.2:7001", 1);
        let cut = a.connect("10.9.0.2:7001");
        let kept = listener.accept().expect("a connection").0;
        cut.set_nonblocking(true).expect("a writer need not wait");
        b.nft(
            "table inet cut {
                chain in {
                    type filter hook input priority 0
                    tcp dport { 7001, 7009 } drop
                    udp dport 6009 drop
                }
            }",
        );
        let (from, to) = (a.udp("10.9.0.1:0"), b.udp("10.9.0.2:6000"));
        to.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout can be set");
        Self {
            service,
            _full: full,
            from,
            to,
            _unread: unread,
            cut,
            slow,
            waiting: Vec::new(),
            // Not in /tmp, which may be in memory.
            disk: tempfile::NamedTempFile::new_in("/var/tmp").expect("a file"),
            _process: process,
            _kept: kept,
            pair,
        }
    }

    /// One of each fault, and some traffic that is well.
    pub fn provoke(&mut self) {
        self.answer();
        self.lose();
        self.reset();
        self.write_slowly();
        self.disk
            .write_all(&[7; 16384])
            .and_then(|()| self.disk.as_file().sync_all())
            .expect("a disk takes it");
        std::thread::sleep(Duration::from_millis(50));
    }

    /// A request and its answer.
    fn answer(&self) {
        let (mut client, mut server) = self.connection();
        client.write_all(&[7; 1000]).expect("a connection takes bytes");
        server.read_exact(&mut [0; 1000]).expect("and gives them");
        // One that the queue is too full for is lost.
        let _ = self.from.send_to(&[7; 100], "10.9.0.2:6000");
        let _ = self.to.recv(&mut [0; 100]);
    }

    /// Packets that a rule drops, that no socket wants, that a full buffer and a full queue have no room for.
    fn lose(&mut self) {
        for (port, count) in [(6009, 3), (6010, 3), (6001, 60)] {
            for _ in 0..count {
                // The queue of the device is as small as to be full in the middle of this.
                let _ = self.from.send_to(&[7; 1000], format!("10.9.0.2:{port}"));
            }
        }
        self.waiting.push(self.pair.a.begin_connect("10.9.0.2:7009"));
        for _ in 0..3 {
            self.waiting.push(self.pair.a.begin_connect("10.9.0.2:7003"));
        }
        // A full buffer is what this is for.
        let _ = (&self.cut).write(&[7; 100]);
    }

    /// Connections that are refused, and that are closed with data that was not read.
    fn reset(&self) {
        let refused = self.pair.a.enter(|| TcpStream::connect("10.9.0.2:7010"));
        refused.expect_err("nobody listens there");
        let (mut client, server) = self.connection();
        client.write_all(&[7; 1000]).expect("a connection takes bytes");
        server.peek(&mut [0; 1000]).expect("they arrive");
        drop(server);
    }

    /// Fills a connection until its window is shut, and reads from its other end a little.
    fn write_slowly(&mut self) {
        while self.slow.0.write(&[7; 4096]).is_ok() {}
        self.slow.1.read_exact(&mut [0; 16384]).expect("there is something to read");
    }

    fn connection(&self) -> (TcpStream, TcpStream) {
        let client = self.pair.a.connect("10.9.0.2:7000");
        (client, self.service.accept().expect("a connection").0)
    }
}
