//! The way out of the disk buffer: the next records, and what was delivered of them.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use netsonde_framework::Record;

use super::Buffer;
use super::frame::{self, Frame};
use super::segment::{self, Cursor, FIRST};

/// So many bytes are read for each event that is wanted, but at least [`LEAST_READ`].
const USUAL: usize = 2 << 10;
const LEAST_READ: usize = 64 << 10;

/// Records, and how many were damaged.
type Front = (Vec<Arc<Record>>, u64);

impl Buffer {
    /// The next records, which stay there: at most so many, and so many bytes but for one record. And how many
    /// records turned out to be damaged; they are gone. After an error it is worth another try.
    pub(in super::super) fn front(&mut self, events: usize, bytes: usize) -> Result<Front, String> {
        let mut damaged = 0;
        while let Some(segment) = self.segments.front() {
            if segment.events > 0 {
                let usual = events.saturating_mul(USUAL).min(bytes).max(LEAST_READ);
                match self.read(events, bytes, usual) {
                    Ok(records) if !records.is_empty() => return Ok((records, damaged)),
                    Ok(_) => {}
                    // Someone has cut or removed the file: what it held is gone.
                    Err(why) if matches!(why.kind(), ErrorKind::UnexpectedEof | ErrorKind::NotFound) => {}
                    Err(why) => {
                        return Err(format!("cannot read the disk buffer {}: {why}", self.folder.display()));
                    }
                }
            } else if self.segments.len() == 1 && self.writer.is_some() {
                break;
            }
            damaged += self.remove_first();
        }
        Ok((Vec::new(), damaged))
    }

    /// Records from the next so many bytes of the first segment, or more if they hold no whole one.
    fn read(&mut self, events: usize, bytes: usize, usual: usize) -> io::Result<Vec<Arc<Record>>> {
        self.taken.clear();
        let segment = self.segments.front().expect("asked only where there is one");
        if self.reader.as_ref().is_none_or(|(number, _)| *number != segment.number) {
            self.reader = Some((segment.number, File::open(segment::path(&self.folder, segment.number))?));
        }
        let (_, file) = self.reader.as_ref().expect("opened above");
        let left = usize::try_from(segment.bytes.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let mut chunk = vec![0; left.min(usual)];
        file.read_exact_at(&mut chunk, self.offset)?;
        let (mut rest, mut records) = (chunk.as_slice(), Vec::new());
        let (mut length, mut sum) = (0, 0);
        while records.len() < events && !rest.is_empty() {
            let taken = match frame::read(rest) {
                Frame::Whole(record, taken) => {
                    sum += crate::driver::ledger::size(&record);
                    if sum > bytes && !records.is_empty() {
                        break;
                    }
                    records.push(Arc::new(record));
                    self.taken.push_back(length + taken as u64);
                    length = 0;
                    taken
                }
                Frame::Damaged(taken) => {
                    length += taken as u64;
                    taken
                }
                Frame::Broken => break,
            };
            rest = &rest[taken..];
        }
        if records.is_empty() && length > 0 {
            // Nothing but damage so far: what follows it is looked at.
            self.offset += length;
            return self.read(events, bytes, usual);
        }
        if records.is_empty() && usual < left && usual < frame::LARGEST {
            return self.read(events, bytes, frame::LARGEST);
        }
        Ok(records)
    }

    /// The first `count` records of the last [`Buffer::front`] are delivered or dropped. An error means that a crash
    /// would repeat them.
    pub(in super::super) fn acknowledge(&mut self, count: usize) -> Result<(), String> {
        let lengths: Vec<u64> = self.taken.drain(..count.min(self.taken.len())).collect();
        let segment = self.segments.front_mut().expect("what was taken is in the first segment");
        segment.events = segment.events.saturating_sub(lengths.len() as u64);
        self.offset += lengths.iter().sum::<u64>();
        let number = segment.number;
        // A segment that may still grow is replaced once it is large, so that a quiet buffer takes little room.
        let drained = segment.events == 0;
        let large = self.segments.len() > 1 || self.writer.is_none() || self.offset > self.segment_bytes / 8;
        if drained && large {
            self.remove_first();
        }
        let cursor = match self.segments.front() {
            Some(first) => Cursor { number: first.number, offset: self.offset },
            None => Cursor { number: number + 1, offset: FIRST },
        };
        self.cursor.save(cursor).map_err(|why| {
            format!("cannot save how far the disk buffer {} was delivered: {why}", self.folder.display())
        })
    }

    /// Removes the first segment; how many of its events were not delivered.
    fn remove_first(&mut self) -> u64 {
        let Some(gone) = self.segments.pop_front() else { return 0 };
        if self.segments.is_empty() {
            self.writer = None;
        }
        self.reader = None;
        self.taken.clear();
        self.offset = FIRST;
        let path = segment::path(&self.folder, gone.number);
        if let Err(why) = fs::remove_file(&path) {
            tracing::warn!(%why, path = %path.display(), "cannot remove a delivered part of the disk buffer");
        }
        gone.events
    }
}
