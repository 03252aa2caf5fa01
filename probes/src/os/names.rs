//! The names of namespaces in a folder such as `/run/netns`.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

/// A file system's clock is coarse: what happened in a folder this long ago cannot have the time of what happens now.
const SETTLED_NS: i128 = 1_000_000_000;

/// One folder, and what was seen in it.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// The names that are nsfs files, with their inode numbers.
    pub(super) names: Vec<(String, u64)>,
    /// Device, inode and time of the folder when it was read, unless it has to be read again.
    read: Option<(u64, u64, i128)>,
}

impl Folder {
    /// Reads the folder again where something was made or removed in it, or where `surely` says so. A name that is not a
    /// namespace yet becomes one without a trace in the folder, so with such names it is read each time. Says whether
    /// the names are others.
    pub(super) fn look(&mut self, path: &Path, surely: bool) -> bool {
        let now = rustix::fs::stat(path).ok().map(|stat| stamp(&stat));
        if now.is_some() && now == self.read && !surely {
            return false;
        }
        let (names, all) = names(path);
        self.read =
            now.filter(|(_, _, modified)| all && (0..i128::MAX).contains(&(clock() - modified - SETTLED_NS)));
        let changed = names != self.names;
        self.names = names;
        changed
    }
}

fn stamp(stat: &Stat) -> (u64, u64, i128) {
    let modified = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    (stat.st_dev, stat.st_ino, modified)
}

fn clock() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or_default()
}

/// The names that are nsfs files, sorted, with their inode numbers; and whether all files were.
fn names(folder: &Path) -> (Vec<(String, u64)>, bool) {
    let nothing = (Vec::new(), false);
    let Ok(nsfs) = rustix::fs::stat("/proc/thread-self/ns/net").map(|s| s.st_dev) else { return nothing };
    let Ok(entries) = fs::read_dir(folder) else { return nothing };
    let (mut names, mut all) = (Vec::new(), true);
    for entry in entries {
        let namespace = entry.ok().and_then(|entry| {
            let stat = rustix::fs::stat(entry.path()).ok().filter(|stat| stat.st_dev == nsfs)?;
            Some((entry.file_name().into_string().ok()?, stat.st_ino))
        });
        all &= namespace.is_some();
        names.extend(namespace);
    }
    names.sort();
    (names, all)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_folder_is_read_again_when_a_name_comes_or_goes() {
        let folder = tempfile::tempdir().expect("the temporary folder is ours");
        let own = "/proc/self/ns/net";
        let name = |name: &str| folder.path().join(name);
        let mut seen = Folder::default();
        assert!(!seen.look(folder.path(), false));
        std::os::unix::fs::symlink(own, name("a")).expect("the temporary folder is ours");
        assert!(seen.look(folder.path(), false));
        std::os::unix::fs::symlink(own, name("b")).expect("the temporary folder is ours");
        assert!(seen.look(folder.path(), false));
        assert_eq!(seen.names.len(), 2);
        assert!(seen.read.is_none(), "the clock may not have ticked since");
        std::thread::sleep(Duration::from_millis(1100));
        assert!(!seen.look(folder.path(), false));
        assert!(seen.read.is_some());
        fs::remove_file(name("a")).expect("the temporary folder is ours");
        assert!(seen.look(folder.path(), false));
        assert_eq!(seen.names[0].0, "b");
    }

    #[test]
    fn a_file_that_is_no_namespace_yet_is_looked_at_each_time() {
        let folder = tempfile::tempdir().expect("the temporary folder is ours");
        let file = folder.path().join("a");
        fs::write(&file, "").expect("the temporary folder is ours");
        std::thread::sleep(Duration::from_millis(1100));
        let mut seen = Folder::default();
        assert!(!seen.look(folder.path(), false));
        assert!(seen.read.is_none());
    }

    #[test]
    fn a_folder_that_is_gone_has_no_names() {
        let folder = tempfile::tempdir().expect("the temporary folder is ours");
        std::os::unix::fs::symlink("/proc/self/ns/net", folder.path().join("a"))
            .expect("the temporary folder is ours");
        let mut seen = Folder::default();
        assert!(seen.look(folder.path(), false));
        let path = folder.path().to_owned();
        drop(folder);
        assert!(seen.look(&path, false));
        assert!(seen.names.is_empty());
    }
}
