//! The disk buffer: events in segment files, from when they were pushed until they are delivered.
//!
//! Used by the driver's thread only. An event is in the page cache once it is appended, so it survives the end of this
//! process (kill -9 too); there is no fsync, so a power cut may take the last seconds. The cursor is saved after each
//! delivery: a process that ends in between repeats that one batch.
//!
//! When the buffer is full, new events are dropped and not old ones: how an outage began is what one looks for later,
//! and an event that is on its way can then not be dropped under it.

mod delivered;
mod frame;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netsonde_framework::Record;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use segment::{Cursor, CursorFile, FIRST, Segment};

use crate::sink::{Reason, Refusal, SinkError};

/// A segment is at most this large, and at most an eighth of the buffer.
const SEGMENT: u64 = 8 << 20;

/// What was found in a folder when it was opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Whole events that were not delivered.
    pub(super) events: u64,
    /// Damaged events, and broken ends of files.
    pub(super) damaged: u64,
}

/// How far an append came.
#[derive(Debug)]
pub(super) struct Appended {
    /// So many are on disk.
    pub(super) taken: usize,
    /// Why the next one is not. A record that is too large concerns that one only, everything else also what follows.
    pub(super) end: Result<(), Refusal>,
}

/// An open disk buffer.
#[derive(Debug)]
pub(super) struct Buffer {
    folder: PathBuf,
    /// Locked as long as the buffer is open.
    _lock: File,
    cursor: CursorFile,
    max_bytes: u64,
    segment_bytes: u64,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// The file of the last segment, if it may grow.
    writer: Option<File>,
    /// The file of the first segment, with its number.
    reader: Option<(u64, File)>,
    /// Where the next frame to be delivered begins in the first segment.
    offset: u64,
    /// Lengths of the frames of the last [`Buffer::front`], damaged ones before them included.
    taken: VecDeque<u64>,
    next: u64,
}

impl Buffer {
    /// Opens the folder and looks through what it holds.
    pub(super) fn open(folder: &Path, max_bytes: u64) -> Result<(Self, Found), SinkError> {
        let wrong = |what: &str, why: &dyn std::fmt::Display| {
            SinkError::Open(format!("cannot use the disk buffer {}: {what}: {why}", folder.display()))
        };
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(why) if why.kind() != io::ErrorKind::AlreadyExists => {
                return Err(wrong("the folder cannot be made", &why));
            }
            _ => {}
        }
        let lock = folder.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock);
        let lock = lock.map_err(|why| wrong("its lock cannot be opened", &why))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                return Err(wrong("another sink has it open", &"give this one a path of its own"));
            }
            Err(why) => return Err(wrong("it cannot be locked", &why)),
            Ok(()) => {}
        }
        let (file, cursor) =
            CursorFile::open(folder).map_err(|why| wrong("its cursor cannot be opened", &why))?;
        let mut buffer = Self {
            folder: folder.to_owned(),
            _lock: lock,
            cursor: file,
            max_bytes,
            segment_bytes: SEGMENT.min(max_bytes / 8),
            segments: VecDeque::new(),
            writer: None,
            reader: None,
            offset: FIRST,
            taken: VecDeque::new(),
            next: 1,
        };
        let cursor = cursor.unwrap_or(Cursor { number: 0, offset: FIRST });
        let found = buffer.load(cursor).map_err(|why| wrong("it cannot be read", &why))?;
        Ok((buffer, found))
    }

    /// Looks through the folder, from where it was delivered.
    fn load(&mut self, cursor: Cursor) -> io::Result<Found> {
        let mut found = Found { events: 0, damaged: 0 };
        // Never the cursor's own number: its offset is not for a new file.
        self.next = cursor.number.saturating_add(1);
        for number in segment::list(&self.folder)? {
            self.next = self.next.max(number.saturating_add(1));
            if number < cursor.number {
                // Delivered, but the process ended before it was removed.
                fs::remove_file(segment::path(&self.folder, number))?;
                continue;
            }
            let offset = if number == cursor.number { cursor.offset } else { FIRST };
            let (segment, damaged) = segment::scan(&self.folder, number, offset)?;
            found.damaged += damaged;
            if segment.events == 0 {
                fs::remove_file(segment::path(&self.folder, number))?;
                continue;
            }
            if self.segments.is_empty() {
                self.offset = offset;
            }
            found.events += segment.events;
            self.segments.push_back(segment);
        }
        Ok(found)
    }

    /// Events that wait.
    pub(super) fn events(&self) -> u64 {
        self.segments.iter().map(|segment| segment.events).sum()
    }

    /// The size of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The size of what waits.
    pub(super) fn waiting_bytes(&self) -> u64 {
        self.bytes().saturating_sub(self.offset)
    }

    /// Adds records, in order, as far as there is room.
    pub(super) fn append(&mut self, records: &[Arc<Record>]) -> Appended {
        let mut frames = Vec::new();
        let (mut taken, mut pending) = (0, 0);
        let mut end = Ok(());
        for record in records {
            let before = frames.len();
            if !frame::write(record, &mut frames) {
                let why = "an event is too large for the disk buffer".to_owned();
                end = Err(Refusal::Drop { reason: Reason::TooLarge, why });
                break;
            }
            let length = frames.len() as u64;
            if self.bytes() + FIRST + length > self.max_bytes {
                frames.truncate(before);
                let why = format!("the disk buffer {} is full", self.folder.display());
                end = Err(Refusal::Drop { reason: Reason::BufferFull, why });
                break;
            }
            pending += 1;
            let last =
                self.writer.as_ref().and_then(|_| self.segments.back()).map_or(FIRST, |last| last.bytes);
            if last + length >= self.segment_bytes {
                match self.write(&frames, pending) {
                    Ok(()) => taken += std::mem::take(&mut pending),
                    Err(why) => return Appended { taken, end: Err(why) },
                }
                frames.clear();
                self.writer = None;
            }
        }
        if pending > 0 {
            match self.write(&frames, pending) {
                Ok(()) => taken += pending,
                Err(why) => return Appended { taken, end: Err(why) },
            }
        }
        Appended { taken, end }
    }

    /// Writes whole frames to the last segment, or none of them.
    fn write(&mut self, frames: &[u8], events: usize) -> Result<(), Refusal> {
        let wrong = |why: io::Error| {
            Refusal::retry(format!("cannot write the disk buffer {}: {why}", self.folder.display()))
        };
        let mut file = if let Some(file) = self.writer.take() {
            file
        } else {
            let file = segment::create(&self.folder, self.next).map_err(wrong)?;
            self.segments.push_back(Segment { number: self.next, bytes: FIRST, events: 0 });
            self.next += 1;
            file
        };
        let segment = self.segments.back_mut().expect("a writer has a segment");
        if let Err(why) = file.write_all(frames) {
            // What was written of them is cut off; if that fails too, this file is not written any more, and a
            // reader goes no further than it is known to be whole.
            if file.set_len(segment.bytes).is_ok() {
                self.writer = Some(file);
            }
            return Err(wrong(why));
        }
        segment.bytes += frames.len() as u64;
        segment.events += events as u64;
        self.writer = Some(file);
        Ok(())
    }
}
