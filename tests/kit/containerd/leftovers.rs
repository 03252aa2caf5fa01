//! What a containerd leaves behind that could not clean up after itself: shims, containers, mounts, cgroups.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Removes all that belongs to the containerd with this folder and this cgroup. Where it was `clean`, nothing runs any
/// more, and only mounts and cgroups are looked after.
pub(super) fn remove(folder: &Path, cgroup: &str, clean: bool) {
    let folder = folder.to_string_lossy().into_owned();
    if !clean {
        for _ in 0..100 {
            let left = processes(&folder, cgroup);
            if left.is_empty() {
                break;
            }
            for pid in left {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let mut ours: Vec<&str> = mounted.filter(|path| path.starts_with(&*folder)).collect();
    // What is mounted last goes first.
    ours.reverse();
    for path in ours {
        let _ = crate::shell::output(Command::new("umount").args(["--lazy", path]));
    }
    remove_cgroups(cgroup);
}

/// Shims, by their command line, and containers, by their cgroup.
fn processes(folder: &str, cgroup: &str) -> Vec<Pid> {
    let ours = |proc: &Path| {
        let read = |name| fs::read_to_string(proc.join(name)).unwrap_or_default();
        let shim = read("cmdline");
        (shim.contains("containerd-shim") && shim.contains(folder))
            || read("cgroup").lines().any(|line| line.contains(&format!("{cgroup}/")))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered =
        entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<i32>().ok()?, entry)));
    numbered.filter(|(_, entry)| ours(&entry.path())).filter_map(|(pid, _)| Pid::from_raw(pid)).collect()
}

/// In each hierarchy of version 1, and in version 2.
fn remove_cgroups(cgroup: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for top in hierarchies.chain([PathBuf::from(root)]) {
        remove_cgroup(&top.join(cgroup.trim_start_matches('/')));
    }
}

fn remove_cgroup(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    // A cgroup whose last process ended a moment ago may be busy still.
    for _ in 0..20 {
        if fs::remove_dir(folder).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
