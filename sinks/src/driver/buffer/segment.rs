//! The files of a disk buffer: numbered segments, and the cursor that says how far they were delivered.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::Crc;

use super::frame::{self, Frame};

/// How every segment begins; the digit is the version of the format.
pub(super) const MAGIC: &[u8; 8] = b"nsndbuf1";

/// Where the first frame begins.
pub(super) const FIRST: u64 = MAGIC.len() as u64;

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number, one more than that of the segment before.
    pub(super) number: u64,
    /// How far it is known to be whole.
    pub(super) bytes: u64,
    /// Whole events that are not delivered.
    pub(super) events: u64,
}

pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.events"))
}

/// The numbers of the segments of a folder, in order.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".events"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// A new file that begins with the magic.
pub(super) fn create(folder: &Path, number: u64) -> io::Result<File> {
    let path = path(folder, number);
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
    if let Err(why) = file.write_all(MAGIC) {
        // Without its magic it would be counted as damaged.
        let _ = fs::remove_file(&path);
        return Err(why);
    }
    Ok(file)
}

/// What a segment holds from `offset` on, and how much of it is damaged: events, and one for a broken end.
pub(super) fn scan(folder: &Path, number: u64, offset: u64) -> io::Result<(Segment, u64)> {
    let bytes = fs::read(path(folder, number))?;
    let mut segment = Segment { number, bytes: bytes.len() as u64, events: 0 };
    if bytes.is_empty() {
        return Ok((segment, 0));
    }
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let Some(mut rest) = bytes.get(from..).filter(|_| bytes.starts_with(MAGIC)) else {
        return Ok((segment, 1));
    };
    let mut damaged = 0;
    while !rest.is_empty() {
        let taken = match frame::read(rest) {
            Frame::Whole(_, taken) => {
                segment.events += 1;
                taken
            }
            Frame::Damaged(taken) => {
                damaged += 1;
                taken
            }
            Frame::Broken => {
                segment.bytes -= rest.len() as u64;
                return Ok((segment, damaged + 1));
            }
        };
        rest = &rest[taken..];
    }
    Ok((segment, damaged))
}

/// How far the segments were delivered. It only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cursor {
    /// The oldest segment that is not wholly delivered.
    pub(super) number: u64,
    /// Where its next frame begins.
    pub(super) offset: u64,
}

/// The file that the cursor is kept in: two slots, written in turn, so that one of them is always whole. They are
/// overwritten in place, which needs no room on a full disk.
#[derive(Debug)]
pub(super) struct CursorFile {
    file: File,
    slot: u64,
}

/// A slot takes so many bytes.
const SLOT: usize = 64;

impl CursorFile {
    /// Opens or makes the file, and gives the cursor that was saved last, if one is whole.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Option<Cursor>)> {
        let path = folder.join("cursor");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut slots = [b' '; 2 * SLOT];
        if file.metadata()?.len() == slots.len() as u64 {
            file.read_exact_at(&mut slots, 0)?;
        } else {
            file.set_len(0)?;
            file.write_all_at(&slots, 0)?;
        }
        let (first, second) = slots.split_at(SLOT);
        let (first, second) = (parse(first), parse(second));
        Ok((Self { file, slot: u64::from(first > second) }, first.max(second)))
    }

    /// Saves a cursor over the older one.
    pub(super) fn save(&mut self, cursor: Cursor) -> io::Result<()> {
        let line = format!("{} {}", cursor.number, cursor.offset);
        let text = format!("{:width$}\n", format!("{line} {:08x}", checksum(&line)), width = SLOT - 1);
        self.file.write_all_at(text.as_bytes(), self.slot * SLOT as u64)?;
        self.slot = 1 - self.slot;
        Ok(())
    }
}

fn parse(slot: &[u8]) -> Option<Cursor> {
    let (line, sum) = std::str::from_utf8(slot).ok()?.trim_end().rsplit_once(' ')?;
    let (number, offset) = line.split_once(' ')?;
    let right = u32::from_str_radix(sum, 16).ok()? == checksum(line);
    right.then_some(Cursor { number: number.parse().ok()?, offset: offset.parse().ok()? })
}

fn checksum(line: &str) -> u32 {
    let mut crc = Crc::new();
    crc.update(line.as_bytes());
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spoilt_slot_costs_one_save_and_no_more() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cursor = |number, offset| Cursor { number, offset };
        let (mut file, none) = CursorFile::open(folder.path()).expect("made");
        assert_eq!(none, None);
        let largest = cursor(u64::MAX - 1, u64::MAX);
        for saved in [cursor(1, 8), cursor(1, 900), cursor(2, 8), largest] {
            file.save(saved).expect("saved");
            assert_eq!(CursorFile::open(folder.path()).expect("opened").1, Some(saved));
        }
        let path = folder.path().join("cursor");
        let whole = fs::read(&path).expect("read");
        for byte in 0..SLOT - 1 {
            let mut spoilt = whole.clone();
            spoilt[SLOT + byte] ^= 1;
            fs::write(&path, spoilt).expect("written");
            let (mut file, found) = CursorFile::open(folder.path()).expect("opened");
            // Blanks at the end mean nothing.
            assert!([Some(cursor(2, 8)), Some(largest)].contains(&found), "{found:?}");
            file.save(largest).expect("saved");
            assert_eq!(CursorFile::open(folder.path()).expect("opened").1, Some(largest));
        }
    }
}
