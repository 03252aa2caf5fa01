//! Network namespaces of a test's own, with devices between them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::shell::{run, words};
use crate::until;
use crate::wait::allowed;

const PREFIX: &str = "nst";
static COUNT: AtomicU32 = AtomicU32::new(0);
static TIDY: Once = Once::new();

/// A named network namespace, removed on drop.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one. Its name holds `hint`, this process's number and a counter, so that tests never share one.
    pub fn new(hint: &str) -> Self {
        TIDY.call_once(remove_leftovers);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::called(&format!("{PREFIX}{}-{count}-{hint}", std::process::id()))
    }

    /// Makes one with exactly this name.
    pub fn called(name: &str) -> Self {
        run(Command::new("ip").args(["netns", "add", name]));
        let netns = Self { name: name.to_owned() };
        netns.run("ip link set lo up");
        netns
    }

    /// One that somebody else has made and will remove.
    pub fn of_others(name: &str) -> std::mem::ManuallyDrop<Self> {
        std::mem::ManuallyDrop::new(Self { name: name.to_owned() })
    }

    /// Its name: the `target_pod` of its series.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its nsfs file.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// The number that processes in it show in /proc/PID/ns/net.
    pub fn inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(self.path()).unwrap_or_else(|e| panic!("{}: {e}", self.name)).ino()
    }

    /// A command that will run in it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Like [`Netns::command`], for a process that must not outlive the calling thread.
    pub fn mortal(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    }

    /// Runs a line of words without quotes in it.
    pub fn run(&self, line: &str) -> String {
        let mut command = self.command("env");
        command.args(line.split_whitespace());
        run(&mut command)
    }

    /// Feeds a script to `nft` in it.
    pub fn nft(&self, rules: &str) {
        run(self.command("nft").arg(rules));
    }

    /// Gives it a rule that needs conntrack, so that the kernel tracks its connections.
    pub fn track_connections(&self) {
        self.nft(
            "table ip track {
                chain in {
                    type filter hook input priority 0
                    ct state new accept
                }
            }",
        );
    }

    /// Sets a sysctl of it, such as `net/ipv4/tcp_syncookies`.
    pub fn sysctl(&self, key: &str, value: &str) {
        let set = || fs::write(Path::new("/proc/sys").join(key), value);
        self.enter(set).unwrap_or_else(|e| panic!("cannot set {key} in {}: {e}", self.name));
    }

    /// Runs `work` on a thread of its own that is in this namespace. A socket made there stays there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let here = File::open(self.path()).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let inside = move || {
            move_into_link_name_space(here.as_fd(), Some(LinkNameSpaceType::Network))
                .unwrap_or_else(|e| panic!("cannot enter a namespace: {e}"));
            work()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// A UDP socket in it, bound to `address`.
    pub fn udp(&self, address: &str) -> std::net::UdpSocket {
        let bound = self.enter(|| std::net::UdpSocket::bind(address));
        let socket = bound.unwrap_or_else(|e| panic!("UDP {address} in {}: {e}", self.name));
        socket.set_read_timeout(Some(allowed(Duration::from_secs(5)))).expect("a timeout can be set");
        socket
    }

    /// A TCP socket in it that listens on `address` with this backlog.
    pub fn listen(&self, address: &str, backlog: i32) -> std::net::TcpListener {
        let address: SocketAddr = address.parse().expect("an address and port");
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let open = || -> rustix::io::Result<std::os::fd::OwnedFd> {
            let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &address)?;
            listen(&socket, backlog)?;
            Ok(socket)
        };
        self.enter(open).unwrap_or_else(|e| panic!("TCP {address} in {}: {e}", self.name)).into()
    }

    /// A TCP connection from it.
    pub fn connect(&self, address: &str) -> std::net::TcpStream {
        let address: SocketAddr = address.parse().expect("an address and port");
        let limit = allowed(Duration::from_secs(5));
        let connected = self.enter(|| std::net::TcpStream::connect_timeout(&address, limit));
        connected.unwrap_or_else(|e| panic!("TCP to {address} from {}: {e}", self.name))
    }

    /// A TCP socket in it that has begun to connect and does not wait.
    pub fn begin_connect(&self, address: &str) -> std::os::fd::OwnedFd {
        let address: SocketAddr = address.parse().expect("an address and port");
        self.enter(|| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket_with(family, SocketType::STREAM, flags, None)
                .unwrap_or_else(|e| panic!("no TCP socket: {e}"));
            match connect(&socket, &address) {
                Ok(()) | Err(rustix::io::Errno::INPROGRESS) => socket,
                Err(e) => panic!("TCP to {address}: {e}"),
            }
        })
    }

    /// Lays a pair of devices between two namespaces, `mine` here and `theirs` in `peer`, both up.
    pub fn veth(&self, mine: &str, peer: &Self, theirs: &str) {
        self.run(&format!("ip link add {mine} type veth peer name {theirs} netns {}", peer.name));
        self.run(&format!("ip link set {mine} up"));
        peer.run(&format!("ip link set {theirs} up"));
    }

    /// Waits until a device that was set up does not throw packets away any more. On a busy machine that takes a while.
    pub fn wait_for_device(&self, device: &str) {
        until(&format!("{device} in {} is up", self.name), Duration::from_secs(10), || {
            self.run(&format!("ip link show dev {device}")).contains(" state UP ").then_some(())
        });
    }

    /// Waits until packets for an own address of IPv6 are taken in. The kernel does that from a thread of its own, after
    /// it has listed the address.
    pub fn wait_for_address(&self, address: &str) {
        let route = format!("local {address} ");
        until(&format!("{address} in {} is there", self.name), Duration::from_secs(10), || {
            self.run("ip -6 route show table local").contains(&route).then_some(())
        });
    }

    /// Whether there is a device of this name in it.
    pub fn has_device(&self, device: &str) -> bool {
        crate::shell::output(self.command("ip").args(["link", "show", "dev", device])).status.success()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // The test may have removed it already.
        let _ = crate::shell::output(Command::new("ip").args(["netns", "del", &self.name]));
    }
}

/// Two namespaces with a veth between them, `eth0` in both: `a` is 10.9.0.1 and fd09::1, `b` is 10.9.0.2 and fd09::2.
///
/// The neighbours are fixed, and nothing but the test's own traffic crosses.
#[derive(Debug)]
pub struct Pair {
    /// 10.9.0.1 and fd09::1.
    pub a: Netns,
    /// 10.9.0.2 and fd09::2.
    pub b: Netns,
}

impl Pair {
    /// With IPv4 and IPv6.
    pub fn new(hint: &str) -> Self {
        let pair = Self::v4(hint);
        for (ns, own, other) in [(&pair.a, 1, 2), (&pair.b, 2, 1)] {
            // Otherwise the kernel asks within the next second whether anybody has its link-local address, and for routers.
            for asks in ["dad_transmits", "router_solicitations"] {
                ns.sysctl(&format!("net/ipv6/conf/eth0/{asks}"), "0");
            }
            ns.sysctl("net/ipv6/conf/all/disable_ipv6", "0");
            ns.sysctl("net/ipv6/conf/eth0/disable_ipv6", "0");
            ns.run(&format!("ip addr add fd09::{own}/64 dev eth0 nodad"));
            ns.run(&format!(
                "ip neigh replace fd09::{other} lladdr 02:09:00:00:00:0{other} dev eth0 nud permanent"
            ));
        }
        for (ns, own) in [(&pair.a, "fd09::1"), (&pair.b, "fd09::2")] {
            ns.wait_for_address(own);
        }
        pair
    }

    /// With IPv4 only, so that not even a multicast report of the kernel's crosses.
    pub fn v4(hint: &str) -> Self {
        let pair = Self { a: Netns::new(&format!("{hint}-a")), b: Netns::new(&format!("{hint}-b")) };
        let Self { a, b } = &pair;
        for ns in [a, b] {
            for of in ["all", "default"] {
                ns.sysctl(&format!("net/ipv6/conf/{of}/disable_ipv6"), "1");
            }
        }
        a.run(&format!(
            "ip link add eth0 address 02:09:00:00:00:01 type veth peer name eth0 address 02:09:00:00:00:02 netns {}",
            b.name
        ));
        for (ns, own, other) in [(a, 1, 2), (b, 2, 1)] {
            ns.run(&format!("ip addr add 10.9.0.{own}/24 dev eth0"));
            ns.run("ip link set eth0 up");
            ns.run(&format!(
                "ip neigh replace 10.9.0.{other} lladdr 02:09:00:00:00:0{other} dev eth0 nud permanent"
            ));
        }
        for ns in [a, b] {
            ns.wait_for_device("eth0");
        }
        pair
    }
}

/// Removes what a run that was killed left behind: namespaces that carry the number of a process that is gone.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = crate::shell::output(&mut words(&format!("ip netns del {name}")));
        }
    }
}
