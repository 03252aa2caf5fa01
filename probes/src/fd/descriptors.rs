//! The open descriptors of one process: how many, how many of them are sockets, and how many it may have.
//!
//! Nothing is allocated for a descriptor: names come from the kernel's directory records, and of each link only the
//! first bytes are taken. Descriptors come and go while they are listed, so a number is as exact as the kernel's.

use std::fmt::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use netsonde_framework::CollectError;
use rustix::fs::{Mode, OFlags, RawDir, fstat, openat, readlinkat_raw, statat};
use rustix::io::Errno;

const LISTING: usize = 32 * 1024;
const SOCKET: &[u8] = b"socket:[";
/// /proc/PID/limits has 17 lines of 78 bytes.
const LIMITS: usize = 4096;

/// What a process has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    pub descriptors: u64,
    /// `None` where they were not counted.
    pub sockets: Option<u64>,
}

/// Why there is nothing to tell of a process.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It ended.
    Gone,
    /// Its descriptors may not be listed.
    Denied,
    Read(Errno),
    Limits(&'static str),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::SRCH => Self::Gone,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            other => Self::Read(other),
        }
    }
}

impl Failure {
    /// The error to report; what is gone or denied is none.
    pub fn error(self, pid: u32) -> Option<CollectError> {
        match self {
            Self::Gone | Self::Denied => None,
            Self::Read(errno) => {
                Some(CollectError::Read { what: format!("/proc/{pid}/fd"), source: errno.into() })
            }
            Self::Limits(why) => {
                Some(CollectError::Parse { what: format!("/proc/{pid}/limits"), why: why.into() })
            }
        }
    }
}

/// Which descriptors to look at.
#[derive(Debug, Clone, Copy)]
pub enum Sockets {
    No,
    /// Of processes that have at most this many descriptors.
    UpTo(u64),
}

/// Reads processes one after the other, in buffers of its own.
#[derive(Debug)]
pub struct Reader {
    proc: OwnedFd,
    /// Whether the size of a folder tells how many descriptors are in it (procfs since Linux 6.2; before, 0).
    sized: bool,
    path: String,
    listing: Box<[MaybeUninit<u8>]>,
}

impl Reader {
    pub fn new(proc: &Path, live: bool) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            proc: rustix::fs::open(proc, flags, Mode::empty())?,
            sized: live,
            path: String::new(),
            listing: vec![MaybeUninit::uninit(); LISTING].into_boxed_slice(),
        })
    }

    /// Points `path` at a file of a process.
    fn name(&mut self, pid: u32, file: &str) {
        self.path.clear();
        let _ = write!(self.path, "{pid}/{file}");
    }

    /// The kernel's own count, where it gives one.
    fn size(&self, size: i64) -> Option<u64> {
        u64::try_from(size).ok().filter(|n| self.sized && *n > 0)
    }

    /// What a process has open.
    pub fn open(&mut self, pid: u32, sockets: Sockets) -> Result<Open, Failure> {
        self.name(pid, "fd");
        if matches!(sockets, Sockets::No)
            && let Some(descriptors) =
                self.size(statat(&self.proc, self.path.as_str(), rustix::fs::AtFlags::empty())?.st_size)
        {
            return Ok(Open { descriptors, sockets: None });
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(&self.proc, self.path.as_str(), flags, Mode::empty())?;
        let look_at = match sockets {
            Sockets::No => 0,
            Sockets::UpTo(most) => most,
        };
        if let Some(descriptors) = self.size(fstat(&folder)?.st_size)
            && descriptors > look_at
        {
            return Ok(Open { descriptors, sockets: None });
        }
        list(&folder, &mut self.listing, look_at)
    }

    /// The soft limit of open files of a process; `None` where it has none.
    pub fn limit(&mut self, pid: u32) -> Result<Option<u64>, Failure> {
        self.name(pid, "limits");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(&self.proc, self.path.as_str(), flags, Mode::empty())?;
        let mut buf = [0; LIMITS];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut buf[..]))?;
        soft_limit(&buf[..length]).map_err(Failure::Limits)
    }
}

/// Counts the entries of a folder of descriptors, and the sockets among them as long as there are at most `look_at`.
fn list(folder: &OwnedFd, listing: &mut [MaybeUninit<u8>], look_at: u64) -> Result<Open, Failure> {
    let mut open = Open { descriptors: 0, sockets: (look_at > 0).then_some(0) };
    let mut entries = RawDir::new(folder, listing);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_bytes()[0].is_ascii_digit() {
            continue;
        }
        if open.descriptors == look_at {
            open.sockets = None;
        }
        if let Some(sockets) = &mut open.sockets {
            let mut target = [MaybeUninit::<u8>::uninit(); SOCKET.len()];
            match readlinkat_raw(folder, name, &mut target) {
                Ok((start, _)) => *sockets += u64::from(start == SOCKET),
                // It was closed since the folder was listed.
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            }
        }
        open.descriptors += 1;
    }
    Ok(open)
}

/// The soft limit in the line "Max open files" of /proc/PID/limits.
fn soft_limit(text: &[u8]) -> Result<Option<u64>, &'static str> {
    const NAME: &[u8] = b"Max open files";
    let line = text
        .split_inclusive(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(NAME)?.strip_suffix(b"\n"))
        .ok_or("there is no line \"Max open files\"")?;
    let soft =
        line.split(u8::is_ascii_whitespace).find(|w| !w.is_empty()).ok_or("Max open files is empty")?;
    if soft == b"unlimited" {
        return Ok(None);
    }
    let number = std::str::from_utf8(soft).ok().and_then(|n| n.parse().ok());
    number.map(Some).ok_or("Max open files is no number")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Command, Stdio};

    use super::*;

    const TEXT: &[u8] = b"Limit                     Soft Limit           Hard Limit           Units     \nMax processes             96365                96365                processes \nMax open files            1024                 524288               files     \nMax locked memory         8388608              8388608              bytes     \n";

    #[test]
    fn the_soft_limit_is_the_first_number_of_its_line() {
        assert_eq!(soft_limit(TEXT), Ok(Some(1024)));
        assert_eq!(soft_limit(b"Max open files   unlimited  unlimited  files\n"), Ok(None));
    }

    #[test]
    fn a_broken_limits_file_is_refused_and_says_why() {
        assert!(soft_limit(b"").is_err());
        assert!(soft_limit(b"Max open files   \n").is_err());
        assert!(soft_limit(b"Max open files   many\n").is_err());
        let end = TEXT.len()
            - b"Max locked memory         8388608              8388608              bytes     \n".len();
        for cut in 0..end {
            assert!(soft_limit(&TEXT[..cut]).is_err(), "{cut} bytes");
        }
    }

    /// A folder like /proc with process 1 and these link targets.
    fn tree(targets: &[&str]) -> (tempfile::TempDir, Reader) {
        let tree = tempfile::tempdir().expect("writable");
        let fd = tree.path().join("1/fd");
        std::fs::create_dir_all(&fd).expect("writable");
        for (target, number) in targets.iter().zip(0..) {
            symlink(target, fd.join(number.to_string())).expect("writable");
        }
        let reader = Reader::new(tree.path(), false).expect("there");
        (tree, reader)
    }

    #[test]
    fn descriptors_of_the_same_file_count_each() {
        let (_tree, mut reader) = tree(&["/dev/null", "/dev/null", "socket:[77]", "socket:[77]", "pipe:[4]"]);
        assert_eq!(reader.open(1, Sockets::UpTo(10)), Ok(Open { descriptors: 5, sockets: Some(2) }));
        assert_eq!(reader.open(1, Sockets::No), Ok(Open { descriptors: 5, sockets: None }));
    }

    #[test]
    fn a_file_that_is_called_like_a_socket_is_none() {
        let (_tree, mut reader) = tree(&["/tmp/socket:[1]", "socket", "/socket:[1]"]);
        assert_eq!(reader.open(1, Sockets::UpTo(10)), Ok(Open { descriptors: 3, sockets: Some(0) }));
    }

    #[test]
    fn beyond_the_bound_sockets_are_not_counted_and_descriptors_still_are() {
        let (_tree, mut reader) = tree(&["socket:[1]", "socket:[2]", "socket:[3]"]);
        assert_eq!(reader.open(1, Sockets::UpTo(3)), Ok(Open { descriptors: 3, sockets: Some(3) }));
        assert_eq!(reader.open(1, Sockets::UpTo(2)), Ok(Open { descriptors: 3, sockets: None }));
    }

    #[test]
    fn a_process_that_is_gone_and_one_that_is_denied_are_no_errors() {
        let (_tree, mut reader) = tree(&[]);
        assert_eq!(reader.open(2, Sockets::UpTo(10)), Err(Failure::Gone));
        assert_eq!(reader.limit(2), Err(Failure::Gone));
        assert_eq!(Failure::from(Errno::ACCESS), Failure::Denied);
        assert!(Failure::Gone.error(1).is_none() && Failure::Denied.error(1).is_none());
        let error = Failure::from(Errno::MFILE).error(9).expect("ours").to_string();
        assert!(error.contains("/proc/9/fd"), "{error}");
    }

    /// A process with a socket, a file and a pipe open and nothing else.
    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Self {
            let (end, _) = UnixStream::pair().expect("possible");
            let end: OwnedFd = end.into();
            let child = Command::new("sleep")
                .arg("60")
                .stdin(Stdio::from(end))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn();
            let child = Self(child.expect("there is sleep"));
            // It still closes what it inherited and opens libraries for a moment.
            while child.listed() != {
                std::thread::sleep(std::time::Duration::from_millis(50));
                child.listed()
            } {}
            child
        }

        fn listed(&self) -> u64 {
            std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).expect("ours").count() as u64
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_real_process_is_counted_as_the_kernel_lists_it() {
        let sleeper = Sleeper::start();
        let pid = sleeper.0.id();
        let listed = sleeper.listed();
        let mut reader = Reader::new(Path::new("/proc"), true).expect("there");
        let open = reader.open(pid, Sockets::UpTo(1000)).expect("ours");
        assert_eq!((open.descriptors, open.sockets), (listed, Some(1)));
        // The same from the size of the folder, and where a kernel gives none.
        assert_eq!(reader.open(pid, Sockets::No).expect("ours").descriptors, listed);
        assert_eq!(
            reader.open(pid, Sockets::UpTo(1)).expect("ours"),
            Open { descriptors: listed, sockets: None }
        );
        reader.sized = false;
        assert_eq!(reader.open(pid, Sockets::No).expect("ours").descriptors, listed);
        assert_eq!(
            reader.open(pid, Sockets::UpTo(1)).expect("ours"),
            Open { descriptors: listed, sockets: None }
        );
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert!(reader.limit(pid).expect("ours") <= limit.maximum.or(Some(u64::MAX)));
    }
}
