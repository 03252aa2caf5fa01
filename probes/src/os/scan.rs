//! Finding network namespaces: from names (`/run/netns`) and from processes.
//!
//! A scan of a quiet machine costs two small reads. Where neither names nor processes have changed, the result is the last
//! one.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::host::{Inner, Unreadable};
use super::names::Folder;
use super::netns::Netns;
use super::process::{self, Process};
use super::processes::{Processes, RARELY};

/// A namespace and what was found of it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The namespace, open.
    pub netns: Arc<Netns>,
    /// Whether it is the one that the machine started with.
    pub host: bool,
    /// Its names, sorted.
    pub names: Vec<String>,
    /// Its processes, sorted; without threads of the kernel.
    pub processes: Arc<[u32]>,
    /// The process that started first.
    pub first: Option<Process>,
    /// The cgroup paths of that process.
    pub cgroups: Vec<String>,
    /// In the host's namespace, where [`super::Host::tell_pods`] asked for it: the processes whose cgroup paths name a
    /// pod, with those paths.
    pub in_pods: Vec<(u32, Arc<[String]>)>,
}

impl Found {
    /// Whether another scan found the same namespace and the same of it.
    pub fn is_same(&self, other: &Self) -> bool {
        self.netns.key == other.netns.key
            && self.host == other.host
            && self.processes == other.processes
            && self.names == other.names
            && self.first == other.first
            && self.cgroups == other.cgroups
            && self.in_pods == other.in_pods
    }
}

/// The result of a scan.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// Every namespace that can be read; the same slice as before where nothing has changed.
    pub found: Arc<[Found]>,
    /// What could not be.
    pub unreadable: Unreadable,
}

#[derive(Debug)]
struct Entry {
    netns: Arc<Netns>,
    /// The name or process whose end releases it.
    tie: Tie,
    cgroups: Vec<String>,
    first: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
enum Tie {
    Name(PathBuf, String),
    Process(u32),
    /// A frozen tree, or the agent's own namespace, which it keeps alive anyway.
    None,
}

/// What is remembered from scan to scan.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    processes: Processes,
    entries: HashMap<u64, Entry>,
    folders: Vec<Folder>,
    scans: u32,
    told_pods: bool,
    /// The last result, unless something was missing in it.
    last: Option<Scan>,
}

#[derive(Default)]
struct Wanted {
    names: Vec<(PathBuf, String)>,
    processes: Vec<u32>,
}

impl Scanner {
    pub(super) fn scan(&mut self, host: &Inner) -> io::Result<Scan> {
        self.scans = self.scans.wrapping_add(1);
        let mut changed = self.walk(&host.paths.proc)?;
        changed |= host.live && self.list(host);
        let tell_pods = host.tell_pods.load(Ordering::Relaxed);
        changed |= std::mem::replace(&mut self.told_pods, tell_pods) != tell_pods;
        if !changed
            && let Some(last) = &self.last
            && self.entries.values().all(|entry| entry.netns.is_live())
        {
            return Ok(last.clone());
        }
        let mut wanted = self.wanted(host);
        let host_inode = self.host_inode(host);
        // A namespace that has neither name nor process is the agent's own, when all of its processes are hidden.
        if let Some(own) = host.own_inode {
            wanted.entry(own).or_default();
        }

        self.drop_gone(host, &wanted);
        let (processes, why) = self.processes.hidden();
        let mut scan = Scan { unreadable: Unreadable { processes, namespaces: 0, why }, ..Scan::default() };
        let (mut refused, mut complete) = (None, true);
        let mut found = Vec::with_capacity(wanted.len());
        for (inode, want) in wanted {
            if let Err(error) = self.open(host, inode, &want) {
                complete = false;
                if error.kind() != io::ErrorKind::NotFound {
                    scan.unreadable.namespaces += 1;
                    refused.get_or_insert_with(|| format!("network namespace net:[{inode}]: {error}"));
                }
                continue;
            }
            found.extend(self.found(host, inode, want, host_inode));
        }
        scan.found = found.into();
        // A namespace that cannot be entered is the worse news.
        scan.unreadable.why = refused.or(scan.unreadable.why);
        self.last = complete.then(|| scan.clone());
        Ok(scan)
    }

    /// Brings the processes up to date, and says whether anything that a scan tells may have changed.
    fn walk(&mut self, proc: &Path) -> io::Result<bool> {
        let mut changed = self.processes.walk(proc, self.scans)?;
        // Those that namespaces are tied to are looked at each time: one that moved holds nothing any more.
        let ties = self.entries.values().filter_map(|entry| match entry.tie {
            Tie::Process(pid) => Some(pid),
            _ => None,
        });
        changed |= self.processes.look_at(proc, ties);
        // The cgroup of a namespace's first process may change while that is young.
        changed |= self.processes.has_young(self.entries.values().filter_map(|entry| entry.first));
        Ok(changed)
    }

    /// Brings the names up to date, and says whether they have changed.
    fn list(&mut self, host: &Inner) -> bool {
        let now_and_then = self.scans.is_multiple_of(RARELY);
        let mut changed = self.folders.len() != host.paths.netns.len();
        self.folders.resize_with(host.paths.netns.len(), Folder::default);
        for (folder, path) in self.folders.iter_mut().zip(&host.paths.netns) {
            // It may not exist yet; then the next scan tries again.
            let _ = host.watch.folder(path);
            changed |= folder.look(path, now_and_then);
        }
        changed
    }

    /// Names and processes by namespace.
    fn wanted(&self, host: &Inner) -> BTreeMap<u64, Wanted> {
        let mut wanted: BTreeMap<u64, Wanted> = BTreeMap::new();
        for (pid, inode) in self.processes.namespaces() {
            wanted.entry(inode).or_default().processes.push(pid);
        }
        if host.live {
            for (folder, path) in self.folders.iter().zip(&host.paths.netns) {
                for (name, inode) in &folder.names {
                    wanted.entry(*inode).or_default().names.push((path.clone(), name.clone()));
                }
            }
        }
        for want in wanted.values_mut() {
            want.names.sort_by(|a, b| a.1.cmp(&b.1));
        }
        wanted
    }

    /// The namespace that the machine started with: that of process 1, or the agent's own where that may not be looked
    /// at. In a container process 1 can be the container's; a namespace that is known not to be the first one is never
    /// called the host's.
    fn host_inode(&self, host: &Inner) -> Option<u64> {
        let first = self.processes.namespace(1).or(host.own_inode)?;
        (host.own_is_initial || host.own_inode != Some(first)).then_some(first)
    }

    fn drop_gone(&mut self, host: &Inner, wanted: &BTreeMap<u64, Wanted>) {
        let processes = &self.processes;
        self.entries.retain(|inode, entry| {
            let holds = match &entry.tie {
                Tie::Name(folder, name) => {
                    wanted.get(inode).is_some_and(|w| w.names.iter().any(|(f, n)| f == folder && n == name))
                }
                Tie::Process(pid) => processes.namespace(*pid) == Some(*inode),
                Tie::None => wanted.contains_key(inode),
            };
            let keep = holds && entry.netns.is_live();
            if !keep {
                host.close(&entry.netns);
            }
            keep
        });
        host.watch.tidy();
        let mut open = host.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, netns| netns.is_live());
    }

    fn open(&mut self, host: &Inner, inode: u64, want: &Wanted) -> io::Result<()> {
        if self.entries.contains_key(&inode) {
            return Ok(());
        }
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let first = self.processes.first(&want.processes).map(|process| process.pid);
        let (netns, tie) = if !host.live {
            (host.open_tree(first.ok_or_else(gone)?, inode), Tie::None)
        } else if host.own_inode == Some(inode) {
            (host.open_live(Path::new("/proc/thread-self/ns/net"), inode)?, Tie::None)
        } else if let Some((folder, name)) = want.names.first() {
            let netns = host.open_live(&folder.join(name), inode)?;
            host.watch.name(folder, name, &netns);
            (netns, Tie::Name(folder.clone(), name.clone()))
        } else {
            let pid = first.ok_or_else(gone)?;
            let netns = host.open_live(&host.paths.proc.join(format!("{pid}/ns/net")), inode)?;
            if let Err(error) = host.tie_to_process(&netns, pid) {
                host.close(&netns);
                return Err(error);
            }
            (netns, Tie::Process(pid))
        };
        self.entries.insert(inode, Entry { netns, tie, cgroups: Vec::new(), first: None });
        Ok(())
    }

    fn found(&mut self, host: &Inner, inode: u64, want: Wanted, host_inode: Option<u64>) -> Option<Found> {
        let first = self.processes.first(&want.processes).cloned();
        let pid = first.as_ref().map(|process| process.pid);
        let entry = self.entries.get_mut(&inode)?;
        if entry.first != pid || pid.is_some_and(|pid| self.processes.is_young(pid)) {
            entry.first = pid;
            entry.cgroups = pid.map(|pid| process::cgroups(&host.paths.proc, pid)).unwrap_or_default();
        }
        let is_host = Some(inode) == host_inode;
        let in_pods = if is_host && host.tell_pods.load(Ordering::Relaxed) {
            self.processes.in_pods(&host.paths.proc, &want.processes)
        } else {
            Vec::new()
        };
        Some(Found {
            netns: Arc::clone(&entry.netns),
            host: is_host,
            names: want.names.into_iter().map(|(_, name)| name).collect(),
            first,
            processes: want.processes.into(),
            cgroups: entry.cgroups.clone(),
            in_pods,
        })
    }
}
