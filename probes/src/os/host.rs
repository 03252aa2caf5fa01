//! The machine: where its /proc is, which namespaces are held open, and how to find them anew.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use netsonde_framework::probe::Failures;
use netsonde_framework::{CollectError, Namespace, NetnsKey, NsId, View};
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open, setrlimit};

use super::netns::{Netns, Shared, Way};
use super::process;
use super::scan::{Scan, Scanner};
use super::watch::{Changes, Watch};

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The procfs, `/proc`; or a frozen copy of one.
    pub proc: PathBuf,
    /// Folders with names of network namespaces, `/run/netns`.
    pub netns: Vec<PathBuf>,
}

impl Default for Paths {
    fn default() -> Self {
        Self { proc: "/proc".into(), netns: vec!["/run/netns".into()] }
    }
}

/// What the last scan could not read, and the kernel's answer for the first of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// Processes whose namespace could not be told (CAP_SYS_PTRACE is missing).
    pub processes: usize,
    /// Namespaces that could not be entered (CAP_SYS_ADMIN is missing).
    pub namespaces: usize,
    /// The first failure.
    pub why: Option<String>,
}

/// Descriptors that one kept namespace needs at most: eight files, three sockets, nsfs, pidfd.
const DESCRIPTORS_EACH: u64 = 13;
/// Left for everything else of the process.
const DESCRIPTORS_SPARE: u64 = 256;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) paths: Paths,
    pub(super) live: bool,
    pub(super) own_inode: Option<u64>,
    pub(super) own_is_initial: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) watch: Arc<Watch>,
    pub(super) open: Mutex<HashMap<NetnsKey, Arc<Netns>>>,
    pub(super) tell_pods: AtomicBool,
    keep_at_most: usize,
    generation: AtomicU64,
    scanner: Mutex<Scanner>,
}

/// The machine. Clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Host(pub(super) Arc<Inner>);

impl Host {
    /// Looks at the machine through `paths`; namespaces are found by the first [`Host::scan`].
    ///
    /// Raises the soft limit of open files to the hard one: descriptors are kept for each namespace.
    pub fn new(paths: Paths) -> io::Result<(Self, Changes)> {
        let magic = rustix::fs::statfs(&paths.proc)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot look at {}: {e}", paths.proc.display())))?
            .f_type;
        let live = magic == rustix::fs::PROC_SUPER_MAGIC;
        let (watch, changes) = Watch::start()?;
        let inner = Inner {
            live,
            own_inode: live.then(own_inode).flatten(),
            own_is_initial: Path::new(ONLY_INITIAL).exists(),
            shared: Arc::default(),
            watch,
            open: Mutex::default(),
            tell_pods: AtomicBool::new(false),
            keep_at_most: raise_limit(),
            generation: AtomicU64::new(0),
            scanner: Mutex::default(),
            paths,
        };
        Ok((Self(Arc::new(inner)), changes))
    }

    /// Whether /proc is the running kernel's, so that netlink and it tell of the same machine.
    pub fn is_live(&self) -> bool {
        self.0.live
    }

    /// The procfs.
    pub fn proc(&self) -> &Path {
        &self.0.paths.proc
    }

    /// Finds all network namespaces, opens new ones and lets go of those that are gone.
    ///
    /// Called by one thread at a time; others wait.
    pub fn scan(&self) -> io::Result<Scan> {
        let mut scanner = self.0.scanner.lock().unwrap_or_else(PoisonError::into_inner);
        scanner.scan(&self.0)
    }

    /// Whether scans tell which processes of the host's namespace are in a pod's cgroup, which takes a read for each.
    pub fn tell_pods(&self, wanted: bool) {
        self.0.tell_pods.store(wanted, Ordering::Relaxed);
    }

    /// Wakes the one who waits for [`Changes`], although no namespace came or went.
    pub fn wake(&self) {
        self.0.watch.wake();
    }

    /// The open namespace with this key; `None` once it is gone.
    pub fn netns(&self, key: NetnsKey) -> Option<Arc<Netns>> {
        self.0.netns(key)
    }

    /// Calls `read` for each namespace of the view that is still there.
    ///
    /// An error of one costs only that one: the others are read, and the errors are told together at the end.
    pub fn each(
        &self,
        view: &View<'_>,
        mut read: impl FnMut(NsId, &Namespace, &Netns) -> Result<(), CollectError>,
    ) -> Result<(), CollectError> {
        let mut failures = Failures::default();
        for (id, ns) in view.topology.iter() {
            let Some(netns) = self.netns(ns.key) else { continue };
            if let Err(error) = read(id, ns, &netns) {
                failures.add(&ns.identity.pod, error);
            }
        }
        failures.finish()
    }
}

impl Inner {
    fn netns(&self, key: NetnsKey) -> Option<Arc<Netns>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&key).filter(|n| n.is_live()).cloned()
    }

    /// Opens the namespace behind an nsfs file, if its inode number is still `inode`.
    pub(super) fn open_live(&self, nsfs: &Path, inode: u64) -> io::Result<Arc<Netns>> {
        let ns: OwnedFd = fs::File::open(nsfs)?.into();
        if rustix::fs::fstat(&ns)?.st_ino != inode {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the namespace changed while it was opened"));
        }
        let ns = Arc::new(ns);
        let own = self.own_inode == Some(inode);
        let cookie = if own { cookie() } else { self.shared.enterer.run(&ns, cookie) }?;
        let key =
            NetnsKey(cookie.unwrap_or_else(|| (1 << 63) | self.generation.fetch_add(1, Ordering::Relaxed)));
        Ok(self.keep(key, inode, Way::Live { ns: Mutex::new(Some(ns)), own }))
    }

    /// A namespace of a frozen tree.
    pub(super) fn open_tree(&self, pid: u32, inode: u64) -> Arc<Netns> {
        let net = self.paths.proc.join(pid.to_string()).join("net");
        self.keep(NetnsKey(inode), inode, Way::Tree { net })
    }

    fn keep(&self, key: NetnsKey, inode: u64, way: Way) -> Arc<Netns> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = self.live && open.len() < self.keep_at_most;
        let netns = Arc::new(Netns::new(key, inode, way, Arc::clone(&self.shared), keep));
        if let Some(before) = open.insert(key, Arc::clone(&netns)) {
            before.release();
        }
        netns
    }

    /// Lets go of one namespace.
    pub(super) fn close(&self, netns: &Arc<Netns>) {
        netns.release();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(&netns.key).is_some_and(|n| Arc::ptr_eq(n, netns)) {
            open.remove(&netns.key);
        }
    }

    /// Releases `netns` when `pid` ends; an error where it has ended or has moved to another namespace.
    pub(super) fn tie_to_process(&self, netns: &Arc<Netns>, pid: u32) -> io::Result<()> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| match error {
            rustix::io::Errno::SRCH => gone(),
            other => other.into(),
        })?;
        // Asked after the pidfd is open: this number cannot be another process any more.
        if process::netns_inode(&self.paths.proc, pid)? != netns.inode {
            return Err(gone());
        }
        self.watch.process(pidfd, netns)
    }
}

/// A setting that the kernel shows only to processes in the network namespace that it started with.
const ONLY_INITIAL: &str = "/proc/sys/net/core/netdev_max_backlog";

fn own_inode() -> Option<u64> {
    Some(rustix::fs::stat("/proc/thread-self/ns/net").ok()?.st_ino)
}

/// The cookie of the calling thread's namespace; `None` before Linux 5.14.
fn cookie() -> io::Result<Option<u64>> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let mut value = 0u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which is that long; both live past the call.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    match (answer, io::Error::last_os_error()) {
        (0, _) => Ok(Some(value)),
        (_, error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
        (_, error) => Err(error),
    }
}

/// Raises the limit of open files and gives the number of namespaces that may be kept open within it.
fn raise_limit() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = limit.maximum;
        limit.current = wanted;
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit = getrlimit(Resource::Nofile);
        }
    }
    let descriptors = limit.current.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_SPARE);
    usize::try_from(descriptors / DESCRIPTORS_EACH).unwrap_or(usize::MAX)
}
