//! The open file: whole lines are added to it, or none of a line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file that lines are added to.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// Device and inode.
    place: (u64, u64),
    /// How long the file is, up to its last whole line.
    bytes: u64,
    /// The file ends within a line that could not be taken back.
    torn: bool,
    born: SystemTime,
}

impl Output {
    /// Opens the file, or makes it, readable for its owner and group. The error says what to do.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        // Opening a FIFO that nobody reads would wait; its type is looked at first.
        if let Ok(there) = fs::metadata(path)
            && !there.is_file()
        {
            return Err(format!("cannot write {}: it is no regular file", path.display()));
        }
        Self::open_at(path).map_err(|why| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            match why.kind() {
                io::ErrorKind::NotFound => {
                    format!("cannot write {}: make the folder {} first", path.display(), folder.display())
                }
                io::ErrorKind::PermissionDenied => {
                    format!("cannot write {}: {why}; allow this user to write there", path.display())
                }
                _ => format!("cannot write {}: {why}", path.display()),
            }
        })
    }

    fn open_at(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
        let about = file.metadata()?;
        let bytes = about.len();
        let mut last = [b'\n'];
        if bytes > 0 {
            file.read_exact_at(&mut last, bytes - 1)?;
        }
        let born = about.created().or_else(|_| about.modified())?;
        Ok(Self { file, place: (about.dev(), about.ino()), bytes, torn: last != [b'\n'], born })
    }

    /// Whether this is the file that the path leads to.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == self.place)
    }

    /// How long it is.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How long ago it was made.
    pub(super) fn age(&self) -> Duration {
        self.born.elapsed().unwrap_or_default()
    }

    /// Adds whole lines. How many of them are in the file, and what kept the others out.
    pub(super) fn write(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        if self.torn {
            if let Err(why) = self.file.write_all(b"\n") {
                return (0, Err(why));
            }
            self.torn = false;
            self.bytes += 1;
        }
        let mut written = 0;
        let mut result = Ok(());
        while written < lines.len() {
            match self.file.write(&lines[written..]) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => result = Err(why),
            }
            if result.is_err() {
                break;
            }
        }
        let whole = lines[..written].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        self.bytes += whole as u64;
        if whole < written && self.file.set_len(self.bytes).is_err() {
            self.torn = true;
            self.bytes += (written - whole) as u64;
        }
        (lines[..whole].split(|byte| *byte == b'\n').count() - 1, result)
    }
}
