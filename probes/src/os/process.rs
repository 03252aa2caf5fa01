//! What /proc says of a process: its namespace, its cgroups, its age.

use std::path::Path;
use std::{fs, io};

use procfs::FromRead;
use procfs::process::Stat;

/// PF_KTHREAD of include/linux/sched.h.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// A process, when it was first seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number (the thread group leader's).
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
    /// The name of its program, at most 15 bytes.
    pub comm: String,
    /// Whether it is a thread of the kernel.
    pub of_kernel: bool,
}

impl Process {
    /// Reads `/proc/PID/stat`.
    pub fn read(proc: &Path, pid: u32) -> io::Result<Self> {
        let stat = Stat::from_file(proc.join(pid.to_string()).join("stat")).map_err(io_error)?;
        let of_kernel = stat.flags & KERNEL_THREAD != 0;
        Ok(Self { pid, started: stat.starttime, comm: stat.comm, of_kernel })
    }
}

/// The inode number of the process's network namespace: `/proc/PID/ns/net` is a link to `net:[4026531840]`.
pub fn netns_inode(proc: &Path, pid: u32) -> io::Result<u64> {
    let target = fs::read_link(proc.join(pid.to_string()).join("ns/net"))?;
    target.to_str().and_then(|t| t.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is no net:[N]", target.display()))
    })
}

/// The cgroup paths of a process, version 2 first; none where it is gone or may not be read.
pub fn cgroups(proc: &Path, pid: u32) -> Vec<String> {
    let path = proc.join(pid.to_string()).join("cgroup");
    let Ok(groups) = procfs::ProcessCGroups::from_file(path) else { return Vec::new() };
    let mut groups = groups.0;
    groups.sort_by_key(|g| g.hierarchy);
    groups.into_iter().map(|g| g.pathname).collect()
}

/// The processes of the machine: numeric names below /proc, each with its inode number there, which changes when
/// a number is used again.
pub(super) fn list(proc: &Path) -> io::Result<Vec<(u32, u64)>> {
    let dir = rustix::fs::open(
        proc,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::new(dir)? {
        let entry = entry?;
        if let Some(pid) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
            found.push((pid, entry.ino()));
        }
    }
    Ok(found)
}

fn io_error(error: procfs::ProcError) -> io::Error {
    match error {
        procfs::ProcError::NotFound(_) => io::Error::from_raw_os_error(libc::ENOENT),
        procfs::ProcError::PermissionDenied(_) => io::Error::from_raw_os_error(libc::EACCES),
        procfs::ProcError::Io(error, _) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_the_list_and_can_be_read() {
        let proc = Path::new("/proc");
        let me = std::process::id();
        assert!(list(proc).expect("readable").iter().any(|(pid, _)| *pid == me));
        let process = Process::read(proc, me).expect("readable");
        assert!(!process.of_kernel && process.started > 0 && !process.comm.is_empty());
        assert!(netns_inode(proc, me).expect("readable") > 0);
        assert!(!cgroups(proc, me).is_empty());
    }

    #[test]
    fn a_process_that_is_gone_is_not_found() {
        let error = Process::read(Path::new("/proc"), u32::MAX).expect_err("no such process");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
