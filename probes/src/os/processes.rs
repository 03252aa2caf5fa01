//! The processes of the machine and the network namespace of each, kept from scan to scan.
//!
//! They are only walked when one was started since the last time, when young ones are about (a container runtime changes
//! namespaces in its first moments), and now and then.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use super::process::{self, Process};

/// A process is looked at in every scan until it was seen this often; then in one of [`RARELY`].
const YOUNG: u32 = 10;
pub(super) const RARELY: u32 = 30;

#[derive(Debug)]
struct Known {
    process: Process,
    /// `Err` where we may not look, or where it has none any more.
    inode: Result<u64, i32>,
    /// Its inode number below /proc.
    entry: u64,
    seen: u32,
    /// The cgroup paths that name a pod, of a process in the host's namespace; `None` until they are asked for.
    in_pod: Option<Arc<[String]>>,
}

impl Known {
    /// Reads again what may change while a process lives, and says whether it has.
    fn look_again(&mut self, proc: &Path) -> bool {
        let mut changed = self.look_at_namespace(proc);
        if let Some(before) = &mut self.in_pod {
            let now = paths_of_pods(proc, self.process.pid);
            changed |= *before != now;
            *before = now;
        }
        changed
    }

    fn look_at_namespace(&mut self, proc: &Path) -> bool {
        let inode = inode_of(proc, self.process.pid);
        std::mem::replace(&mut self.inode, inode) != inode
    }

    /// Why the namespace that it has cannot be told. One that has ended, even if nobody has waited for it yet, has none.
    fn hidden(&self) -> Option<io::Error> {
        let error = self.inode.err().filter(|error| ![libc::ENOENT, libc::ESRCH].contains(error))?;
        (!self.process.of_kernel).then(|| io::Error::from_raw_os_error(error))
    }
}

/// What is remembered of them.
#[derive(Debug, Default)]
pub(super) struct Processes {
    known: BTreeMap<u32, Known>,
    load: Option<String>,
    young: bool,
}

impl Processes {
    /// Brings it up to date, and says whether anything that a scan tells may have changed. `round` is the number of the
    /// scan.
    pub(super) fn walk(&mut self, proc: &Path, round: u32) -> io::Result<bool> {
        // The last field is the number of the last process that was made, the fourth how many there are.
        let load = fs::read_to_string(proc.join("loadavg"))
            .ok()
            .map(|text| text.split_whitespace().skip(4).collect::<String>());
        let quiet = load.is_some() && load == self.load && !self.young && !round.is_multiple_of(RARELY);
        self.load = load;
        if quiet {
            return Ok(false);
        }
        let listed = process::list(proc)?;
        let present: HashSet<u32> = listed.iter().map(|(pid, _)| *pid).collect();
        let before = self.known.len();
        self.known.retain(|pid, _| present.contains(pid));
        let mut changed = self.known.len() != before;
        self.young = false;
        for (pid, entry) in listed {
            let known = self.known.get_mut(&pid);
            if let Some(known) = known
                && known.entry == entry
            {
                known.seen = known.seen.saturating_add(1);
                if known.seen < YOUNG {
                    self.young = true;
                    // Its program and its cgroup may have changed too.
                    if let Ok(process) = Process::read(proc, pid) {
                        changed |= known.process != process;
                        known.process = process;
                    }
                }
                if known.seen < YOUNG || (pid.wrapping_add(round)).is_multiple_of(RARELY) {
                    changed |= known.look_again(proc);
                }
                continue;
            }
            let Ok(process) = Process::read(proc, pid) else { continue };
            changed = true;
            self.young = true;
            let inode = inode_of(proc, pid);
            self.known.insert(pid, Known { process, inode, entry, seen: 0, in_pod: None });
        }
        Ok(changed)
    }

    /// Looks at the namespaces of these, and says whether one has moved to another.
    pub(super) fn look_at(&mut self, proc: &Path, pids: impl Iterator<Item = u32>) -> bool {
        let mut changed = false;
        for pid in pids {
            changed |= self.known.get_mut(&pid).is_some_and(|known| known.look_at_namespace(proc));
        }
        changed
    }

    /// Whether the cgroups of one of these may change still.
    pub(super) fn has_young(&self, mut pids: impl Iterator<Item = u32>) -> bool {
        self.young && pids.any(|pid| self.is_young(pid))
    }

    pub(super) fn is_young(&self, pid: u32) -> bool {
        self.known.get(&pid).is_some_and(|known| known.seen < YOUNG)
    }

    /// Each with its namespace, without threads of the kernel.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (u32, u64)> {
        self.known
            .iter()
            .filter(|(_, known)| !known.process.of_kernel)
            .filter_map(|(pid, known)| Some((*pid, known.inode.ok()?)))
    }

    /// The namespace of one.
    pub(super) fn namespace(&self, pid: u32) -> Option<u64> {
        self.known.get(&pid)?.inode.ok()
    }

    /// The one of these that started first.
    pub(super) fn first(&self, pids: &[u32]) -> Option<&Process> {
        let known = pids.iter().filter_map(|pid| self.known.get(pid));
        known.map(|known| &known.process).min_by_key(|process| (process.started, process.pid))
    }

    /// How many have a namespace that cannot be told, and why, of one of them.
    pub(super) fn hidden(&self) -> (usize, Option<String>) {
        let hidden = || self.known.values().filter_map(|known| Some((known, known.hidden()?)));
        let why = hidden().next().map(|(known, error)| {
            format!("namespace of process {} ({}): {error}", known.process.pid, known.process.comm)
        });
        (hidden().count(), why)
    }

    /// Which of these are in a cgroup that names a pod, and those paths.
    pub(super) fn in_pods(&mut self, proc: &Path, pids: &[u32]) -> Vec<(u32, Arc<[String]>)> {
        let mut found = Vec::new();
        for pid in pids {
            let Some(known) = self.known.get_mut(pid) else { continue };
            let paths = known.in_pod.get_or_insert_with(|| paths_of_pods(proc, *pid));
            if !paths.is_empty() {
                found.push((*pid, Arc::clone(paths)));
            }
        }
        found
    }
}

fn paths_of_pods(proc: &Path, pid: u32) -> Arc<[String]> {
    let mut paths = process::cgroups(proc, pid);
    paths.retain(|path| path.contains("pod"));
    paths.sort();
    paths.dedup();
    paths.into()
}

fn inode_of(proc: &Path, pid: u32) -> Result<u64, i32> {
    process::netns_inode(proc, pid).map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_that_ended_and_is_not_waited_for_has_no_namespace_and_hides_none() {
        let proc = Path::new("/proc");
        let mut child = Command::new("true").spawn().expect("true is everywhere");
        let pid = child.id();
        let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is not waited for");
        while !stat().contains(") Z ") {
            std::thread::yield_now();
        }
        let mut processes = Processes::default();
        processes.walk(proc, 0).expect("read");
        let known = processes.known.get(&pid).expect("it is listed");
        assert_eq!(known.inode, Err(libc::ENOENT));
        assert!(known.hidden().is_none());
        assert_eq!(processes.namespace(pid), None);
        child.wait().expect("it has ended");
    }

    #[test]
    fn a_process_that_may_not_be_looked_at_is_hidden() {
        let process = Process { pid: 7, started: 1, comm: "cart".into(), of_kernel: false };
        let known = Known { process, inode: Err(libc::EACCES), entry: 1, seen: 0, in_pod: None };
        let processes = Processes { known: BTreeMap::from([(7, known)]), ..Processes::default() };
        let (count, why) = processes.hidden();
        assert_eq!(count, 1);
        assert_eq!(why.as_deref(), Some("namespace of process 7 (cart): Permission denied (os error 13)"));
    }
}
