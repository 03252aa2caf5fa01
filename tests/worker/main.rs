//! A process for the suites to look at: it opens files and sockets, listens, writes and reads a known number of times, starts
//! threads, says `ready`, and waits until its standard input ends.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

fn main() -> std::io::Result<()> {
    let mut files = Vec::new();
    let mut sockets = Vec::new();
    let mut listeners = Vec::new();
    let mut threads = 0;
    for word in std::env::args().skip(1) {
        let (what, count) = word.split_once('=').expect("words are like files=3");
        let count: usize = count.parse().expect("a number follows =");
        match what {
            "files" => {
                for _ in 0..count {
                    files.push(File::open("/dev/null")?);
                }
            }
            "sockets" => {
                for _ in 0..count {
                    sockets.push(UdpSocket::bind("127.0.0.1:0")?);
                }
            }
            "listens4" | "listens6" => {
                let port = u16::try_from(count).expect("a port");
                let listener = if what == "listens4" {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?
                } else {
                    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?
                };
                // A queue for one; nobody accepts.
                rustix::net::listen(&listener, 1)?;
                listeners.push(listener);
            }
            "threads" => threads = count,
            "writes" => {
                let mut null = File::create("/dev/null")?;
                for _ in 0..count {
                    null.write_all(b"x")?;
                }
            }
            "reads" => {
                let mut zero = File::open("/dev/zero")?;
                for _ in 0..count {
                    zero.read_exact(&mut [0])?;
                }
            }
            other => panic!("there is no {other}"),
        }
    }
    for _ in 0..threads {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    std::io::stdout().write_all(b"ready\n")?;
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
