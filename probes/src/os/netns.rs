//! One network namespace, held open: its files under /proc/net and its netlink sockets.
//!
//! What is kept here **pins** the namespace (its veth stays after the pod is gone), so [`super::watch`] releases
//! it as soon as its process ends or its name is removed, and from then on every read says it is gone.
//! Kept descriptors halve the cost of a read; see docs/decisions.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use netsonde_framework::{CollectError, NetnsKey};
use rustix::fs::{Mode, OFlags};

use super::addresses;
use super::enter::Enterer;
use super::link::{self, Links};
use super::mib::{Layouts, Mib, Table};
use super::netlink::{Netlink, Protocol};

/// A file below /proc/PID/net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetFile {
    /// `netstat`: TcpExt and IpExt.
    Netstat,
    /// `snmp`: Ip, Icmp, Tcp, Udp.
    Snmp,
    /// `snmp6`: Ip6, Icmp6, Udp6.
    Snmp6,
    /// `sockstat`.
    Sockstat,
    /// `sockstat6`.
    Sockstat6,
    /// `dev`: counters of each device.
    Dev,
    /// `softnet_stat`: per CPU, the same in every namespace.
    SoftnetStat,
    /// `ip_vs_stats`.
    IpVsStats,
}

const FILES: usize = 8;

impl NetFile {
    /// The name below /proc/PID/net.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netstat => "netstat",
            Self::Snmp => "snmp",
            Self::Snmp6 => "snmp6",
            Self::Sockstat => "sockstat",
            Self::Sockstat6 => "sockstat6",
            Self::Dev => "dev",
            Self::SoftnetStat => "softnet_stat",
            Self::IpVsStats => "ip_vs_stats",
        }
    }

    /// Whether the kernel writes it record by record, so that one read gives only a part.
    const fn in_parts(self) -> bool {
        matches!(self, Self::Dev | Self::SoftnetStat)
    }
}

/// How a namespace is reached.
#[derive(Debug)]
pub(super) enum Way {
    /// A live one: its nsfs file.
    Live { ns: Mutex<Option<Arc<OwnedFd>>>, own: bool },
    /// A frozen tree: the `net` folder of one of its processes.
    Tree { net: PathBuf },
}

#[derive(Debug, Default)]
enum Slot<T> {
    #[default]
    Closed,
    Open(T),
    /// The kernel does not have it; asked again after this moment.
    Absent(Instant),
}

/// A table, and the scrape that it was read for.
type Reading = Option<(u64, Arc<Mib>)>;

const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What all namespaces use together.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) enterer: Enterer,
    pub(super) layouts: Layouts,
}

/// One network namespace, held open.
#[derive(Debug)]
pub struct Netns {
    /// Its key.
    pub key: NetnsKey,
    /// Its inode number.
    pub inode: u64,
    way: Way,
    shared: Arc<Shared>,
    /// Whether descriptors stay open between scrapes.
    keep: bool,
    released: AtomicBool,
    files: [Mutex<Slot<OwnedFd>>; FILES],
    sockets: [Mutex<Slot<Netlink>>; 3],
    tables: [Mutex<Reading>; 3],
    links: Mutex<Option<Arc<Links>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close<T>(slot: &Mutex<Slot<T>>) {
    for _ in 0..20 {
        match slot.try_lock() {
            Ok(mut slot) => {
                *slot = Slot::Closed;
                return;
            }
            Err(TryLockError::Poisoned(slot)) => {
                *slot.into_inner() = Slot::Closed;
                return;
            }
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EOPNOTSUPP)
    )
}

impl Netns {
    pub(super) fn new(key: NetnsKey, inode: u64, way: Way, shared: Arc<Shared>, keep: bool) -> Self {
        Self {
            key,
            inode,
            way,
            shared,
            keep,
            released: AtomicBool::new(false),
            files: Default::default(),
            sockets: Default::default(),
            tables: Default::default(),
            links: Mutex::default(),
        }
    }

    /// Whether reads still work. A namespace that was released is gone, or about to be.
    pub fn is_live(&self) -> bool {
        !self.released.load(Ordering::Acquire)
    }

    /// Closes every descriptor, so that the kernel can free the namespace.
    ///
    /// A read that is on its way is waited for, but not for long: its caller closes the descriptor itself when it
    /// is done, and whoever releases has other namespaces to look after.
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Release);
        if let Way::Live { ns, .. } = &self.way {
            *lock(ns) = None;
        }
        self.files.iter().for_each(close);
        self.sockets.iter().for_each(close);
    }

    /// Runs `open` inside the namespace.
    fn inside<T: Send + 'static>(
        &self,
        open: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match &self.way {
            Way::Live { own: true, .. } => open(),
            Way::Live { ns, own: false } => {
                let ns = lock(ns).clone().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
                self.shared.enterer.run(&ns, open)
            }
            Way::Tree { .. } => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
    }

    fn open(&self, file: NetFile) -> io::Result<OwnedFd> {
        match &self.way {
            Way::Tree { net } => Ok(fs::File::open(net.join(file.name()))?.into()),
            Way::Live { .. } => self.inside(move || {
                let path = format!("/proc/thread-self/net/{}", file.name());
                Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
            }),
        }
    }

    /// Reads a whole file into `buf` and gives it as text; `None` where this kernel or namespace has none.
    pub fn read<'b>(&self, file: NetFile, buf: &'b mut Vec<u8>) -> Result<Option<&'b [u8]>, CollectError> {
        let fail = |source| CollectError::Read { what: format!("/proc/net/{}", file.name()), source };
        let mut slot = lock(&self.files[file as usize]);
        if !self.is_live() {
            return Ok(None);
        }
        if let Slot::Absent(until) = *slot {
            if Instant::now() < until {
                return Ok(None);
            }
            *slot = Slot::Closed;
        }
        if matches!(*slot, Slot::Closed) {
            match self.open(file) {
                Ok(fd) => *slot = Slot::Open(fd),
                Err(error) if is_absent(&error) => {
                    *slot = Slot::Absent(Instant::now() + ASK_AGAIN);
                    return Ok(None);
                }
                Err(error) => return Err(fail(error)),
            }
        }
        let Slot::Open(fd) = &*slot else { return Ok(None) };
        let got = read_all(fd, file.in_parts(), buf);
        if !self.keep || got.is_err() || !self.is_live() {
            *slot = Slot::Closed;
        }
        got.map_err(|e| fail(e.into()))?;
        Ok(Some(buf))
    }

    /// A table of counters; however many probes use it, it is read once for each `scrape`.
    pub fn mib(
        &self,
        table: Table,
        scrape: u64,
        buf: &mut Vec<u8>,
    ) -> Result<Option<Arc<Mib>>, CollectError> {
        let mut kept = lock(&self.tables[table as usize]);
        if let Some((at, mib)) = &*kept
            && *at == scrape
        {
            return Ok(Some(Arc::clone(mib)));
        }
        *kept = None;
        let Some(text) = self.read(table.file(), buf)? else { return Ok(None) };
        let mib = Arc::new(self.shared.layouts.parse(table, text)?);
        *kept = Some((scrape, Arc::clone(&mib)));
        Ok(Some(mib))
    }

    /// Uses this namespace's socket of a netlink protocol; `None` where the kernel lacks the protocol, and once
    /// the namespace is gone. After an error the socket is opened anew, so no late answer is taken for another.
    pub fn netlink<T>(
        &self,
        protocol: Protocol,
        ask: impl FnOnce(&mut Netlink) -> Result<T, CollectError>,
    ) -> Result<Option<T>, CollectError> {
        let fail = |source| CollectError::Netlink { what: protocol.name(), source };
        let mut slot = lock(&self.sockets[protocol as usize]);
        if !self.is_live() {
            return Ok(None);
        }
        if let Slot::Absent(until) = *slot {
            if Instant::now() < until {
                return Ok(None);
            }
            *slot = Slot::Closed;
        }
        if matches!(*slot, Slot::Closed) {
            match self.inside(move || Netlink::open(protocol)) {
                Ok(socket) => *slot = Slot::Open(socket),
                Err(error) if is_absent(&error) => {
                    *slot = Slot::Absent(Instant::now() + ASK_AGAIN);
                    return Ok(None);
                }
                Err(error) => return Err(fail(error)),
            }
        }
        let Slot::Open(socket) = &mut *slot else { return Ok(None) };
        let answer = ask(socket);
        if answer.is_err() || !self.keep || !self.is_live() {
            *slot = Slot::Closed;
        }
        answer.map(Some)
    }

    /// The devices; `None` in a frozen tree and once the namespace is gone.
    ///
    /// What was read before is given again as long as `fits` says so and it is not older than about a minute.
    pub fn links(
        &self,
        buf: &mut Vec<u8>,
        fits: impl FnOnce(&Links) -> bool,
    ) -> Result<Option<Arc<Links>>, CollectError> {
        let mut kept = lock(&self.links);
        if let Some(links) = &*kept
            && !links.is_due(self.key, Instant::now())
            && fits(links)
        {
            return Ok(Some(Arc::clone(links)));
        }
        *kept = self.netlink(Protocol::Route, |netlink| link::dump(netlink, buf))?.map(Arc::new);
        Ok(kept.clone())
    }

    /// The addresses that others can reach; none in a frozen tree and once the namespace is gone.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, CollectError> {
        Ok(self.netlink(Protocol::Route, addresses::dump)?.unwrap_or_default())
    }
}

/// Reads from the start, whatever was read before. `pread` at 0 makes the kernel write the file anew.
fn read_all(fd: &OwnedFd, in_parts: bool, buf: &mut Vec<u8>) -> rustix::io::Result<()> {
    const STEP: usize = 64 * 1024;
    const LIMIT: usize = 64 * 1024 * 1024;
    buf.clear();
    loop {
        let start = buf.len();
        buf.reserve(STEP);
        let n = rustix::io::retry_on_intr(|| {
            rustix::io::pread(fd, rustix::buffer::spare_capacity(buf), start as u64)
        })?;
        if n == 0 || (!in_parts && n < STEP) {
            return Ok(());
        }
        if buf.len() > LIMIT {
            return Err(rustix::io::Errno::FBIG);
        }
    }
}
