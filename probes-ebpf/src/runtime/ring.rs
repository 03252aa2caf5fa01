//! A ring buffer of events, as one probe's thread reads it, and the fields of its records.
//!
//! The kernel side wakes the reader at most every 20 ms, and for what comes in between relies on the reader looking
//! again by itself after that (include/event.h).

use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::maps::{Map, MapData, RingBuf};
use netsonde_framework::StartError;

/// The reader's end of a ring buffer.
pub struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ring").field(&self.0.as_raw_fd()).finish()
    }
}

impl Ring {
    pub(super) fn new(name: &str, map: Map) -> Result<Self, StartError> {
        let ring = RingBuf::try_from(map)
            .map_err(|error| StartError::Failed(format!("map {name} is no ring buffer: {error}")))?;
        Ok(Self(ring))
    }

    /// Readable while there are records.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the map in `self`, which outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }

    /// Hands at most `most` records to `each`, so that a flood does not keep a scrape waiting.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(Record<'_>)) {
        for _ in 0..most {
            let Some(item) = self.0.next() else { return };
            each(Record(&item));
        }
    }
}

/// One record. Fields are read by the offset that they have in the C struct; what is beyond its end reads as 0.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a>(pub &'a [u8]);

impl<'a> Record<'a> {
    /// `N` bytes at an offset.
    pub fn bytes<const N: usize>(self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    /// `__u8`.
    pub fn u8(self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or_default()
    }

    /// `__u16`.
    pub fn u16(self, at: usize) -> u16 {
        u16::from_ne_bytes(self.bytes(at))
    }

    /// `__u32`.
    pub fn u32(self, at: usize) -> u32 {
        u32::from_ne_bytes(self.bytes(at))
    }

    /// `__u64`.
    pub fn u64(self, at: usize) -> u64 {
        u64::from_ne_bytes(self.bytes(at))
    }

    /// A name of at most `N` bytes that ends at its first 0; what is not UTF-8 is replaced.
    pub fn text<const N: usize>(self, at: usize) -> String {
        let bytes = self.bytes::<N>(at);
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(N);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    /// The bytes from an offset on, as a part of their own.
    #[must_use]
    pub fn part(self, at: usize) -> Record<'a> {
        Self(self.0.get(at..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_too_short_reads_as_zero() {
        let record = Record(&[1, 2, 0, b'x']);
        assert_eq!(record.u16(0), u16::from_ne_bytes([1, 2]));
        assert_eq!((record.u32(1), record.u64(0), record.u8(9)), (0, 0, 0));
        assert_eq!(record.part(3).text::<1>(0), "x");
        assert_eq!(record.part(99).u8(0), 0);
    }

    #[test]
    fn names_end_at_their_first_zero() {
        assert_eq!(Record(b"eth0\0junk\0......").text::<16>(0), "eth0");
        assert_eq!(Record(b"fifteen-letters").text::<15>(0), "fifteen-letters");
    }
}
