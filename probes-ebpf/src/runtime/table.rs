//! Reading histograms: the table of include/histograms.h, whose memory programs and this side share (mmap).
//!
//! Programs take rows into use, this side frees them. A row that is given up is retired first: programs pass it by, and
//! one that had found it before has time to end.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aya::EbpfLoader;
use aya::maps::{Map, MapData};
use netsonde_framework::{CollectError, StartError};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The maps, and the variable of the C side with the number of rows.
pub const KEYS: &str = "HISTOGRAM_KEYS";
pub const HISTOGRAMS: &str = "HISTOGRAMS";
pub const ROWS: &str = "ROWS";
const CPUS: &str = "CPUS";

/// States of a row.
const FREE: u64 = 0;
const USED: u64 = 2;
const RETIRED: u64 = 3;

/// How long a program that has found a row may still add to it. A program runs for less than a microsecond, but the
/// machine's host may take the CPU away meanwhile.
const RETIRED_FOR: Duration = Duration::from_secs(10);

const WORD: usize = size_of::<u64>();

/// The highest number that a CPU can have, plus 1.
fn possible_cpus() -> Result<u32, StartError> {
    const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
    let failed =
        |why: &dyn std::fmt::Display| StartError::Failed(format!("cannot count CPUs in {POSSIBLE}: {why}"));
    let text = fs::read_to_string(POSSIBLE).map_err(|error| failed(&error))?;
    highest(&text).map(|cpu| cpu + 1).ok_or_else(|| failed(&format_args!("{text:?}")))
}

/// The last number of a list like `0-3,8-11`.
fn highest(list: &str) -> Option<u32> {
    list.trim_end().rsplit([',', '-']).next()?.parse().ok().filter(|cpu| *cpu < u32::MAX)
}

/// What the loader is to be told of an object's table. Its variable ROWS is a setting.
#[derive(Debug)]
pub struct Room {
    rows: u32,
    cpus: u32,
    histograms: u32,
}

impl Room {
    /// For so many keys, a power of two.
    pub fn new(rows: u32) -> Result<Self, StartError> {
        let cpus = possible_cpus()?;
        let histograms = rows.checked_mul(cpus).filter(|_| rows.is_power_of_two());
        let histograms = histograms.ok_or_else(|| {
            StartError::Failed(format!("no table has room for {rows} histograms on each of {cpus} CPUs"))
        })?;
        Ok(Self { rows, cpus, histograms })
    }

    /// Tells the loader.
    pub fn make<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        loader.override_global(CPUS, &self.cpus, true);
        loader.map_max_entries(KEYS, self.rows).map_max_entries(HISTOGRAMS, self.histograms);
    }
}

/// Histograms by keys of `K` bytes, each of `V` 64-bit numbers on every CPU.
#[derive(Debug)]
pub struct Table<const K: usize, const V: usize> {
    keys: Memory,
    values: Values<V>,
    /// What was in use at the last reading, in the order of the keys.
    used: Vec<([u8; K], usize)>,
    /// Rows that are to be freed, and since when; the oldest first.
    retired: VecDeque<(usize, Instant)>,
}

/// The histograms. A row is mapped when it is first read: those of all keys that there might be would be many megabytes
/// of this process on a machine with many CPUs.
#[derive(Debug)]
struct Values<const V: usize> {
    map: MapData,
    row_bytes: usize,
    rows: Vec<Option<Memory>>,
}

impl<const V: usize> Values<V> {
    fn row(&mut self, row: usize) -> io::Result<&[AtomicU64]> {
        let memory = match self.rows[row].take() {
            Some(memory) => memory,
            None => Memory::map(self.map.fd().as_fd(), row * self.row_bytes, self.row_bytes)?,
        };
        Ok(self.rows[row].insert(memory).words())
    }
}

impl<const K: usize, const V: usize> Table<K, V> {
    /// The words of a row of keys: its state and the key.
    const ROW: usize = {
        assert!(K.is_multiple_of(WORD), "keys are read in words");
        1 + K / WORD
    };

    pub(super) fn new(keys: Map, histograms: Map) -> Result<Self, StartError> {
        let (keys, rows) = array(KEYS, keys, Self::ROW * WORD)?;
        let (histograms, values) = array(HISTOGRAMS, histograms, V * WORD)?;
        let keys = Memory::map(keys.fd().as_fd(), 0, rows * Self::ROW * WORD)
            .map_err(|error| StartError::Failed(format!("cannot map the memory of map {KEYS}: {error}")))?;
        let values = Values {
            map: histograms,
            row_bytes: values / rows.max(1) * V * WORD,
            rows: std::iter::repeat_with(|| None).take(rows).collect(),
        };
        Ok(Self { keys, values, used: Vec::new(), retired: VecDeque::new() })
    }

    /// Hands each key and its numbers, each summed over CPUs, to `each`; each key once.
    pub fn read(&mut self, each: impl FnMut(&[u8; K], &[u64; V])) -> Result<(), CollectError> {
        self.read_at(Instant::now(), each)
            .map_err(|source| CollectError::Read { what: format!("eBPF map {HISTOGRAMS}"), source })
    }

    fn read_at(&mut self, now: Instant, mut each: impl FnMut(&[u8; K], &[u64; V])) -> io::Result<()> {
        self.free(now)?;
        self.used.clear();
        for (row, words) in self.keys.words().chunks_exact(Self::ROW).enumerate() {
            if words[0].load(Ordering::Acquire) == USED {
                self.used.push((key(&words[1..]), row));
            }
        }
        self.used.sort_unstable();
        for rows in self.used.chunk_by(|(one, _), (other, _)| one == other) {
            let mut sums = [0u64; V];
            for (_, row) in rows {
                for of_cpu in self.values.row(*row)?.chunks_exact(V) {
                    for (sum, value) in sums.iter_mut().zip(of_cpu) {
                        *sum = sum.wrapping_add(value.load(Ordering::Relaxed));
                    }
                }
            }
            each(&rows[0].0, &sums);
        }
        Ok(())
    }

    /// Removes a key of the last reading; one that is gone already is no fault. What it counts from now on is lost, and
    /// then it begins anew.
    pub fn remove(&mut self, key: &[u8; K]) {
        self.remove_at(Instant::now(), key);
    }

    fn remove_at(&mut self, now: Instant, key: &[u8; K]) {
        let first = self.used.partition_point(|(used, _)| used < key);
        for (_, row) in self.used[first..].iter().take_while(|(used, _)| used == key) {
            // Programs change only rows that are free or claimed.
            let words = &self.keys.words()[row * Self::ROW..][..Self::ROW];
            if words[0].load(Ordering::Relaxed) == USED {
                words[0].store(RETIRED, Ordering::Relaxed);
                // Long before the row may have another key: no program can mix up the two.
                words[1..].iter().for_each(|word| word.store(0, Ordering::Relaxed));
                self.retired.push_back((*row, now));
            }
        }
    }

    /// Empties the rows that were retired long enough ago, and gives them back to the programs.
    fn free(&mut self, now: Instant) -> io::Result<()> {
        while let Some((row, since)) = self.retired.front().copied() {
            if now.duration_since(since) < RETIRED_FOR {
                return Ok(());
            }
            self.values.row(row)?.iter().for_each(|value| value.store(0, Ordering::Relaxed));
            self.values.rows[row] = None;
            // Whoever sees that it is free sees that it is empty.
            self.keys.words()[row * Self::ROW].store(FREE, Ordering::Release);
            self.retired.pop_front();
        }
        Ok(())
    }
}

/// The map, if it is an array of values of this size, and its length.
fn array(name: &str, map: Map, value_bytes: usize) -> Result<(MapData, usize), StartError> {
    let failed = |why: &dyn std::fmt::Display| StartError::Failed(format!("map {name}: {why}"));
    let Map::Array(map) = map else { return Err(failed(&"it is no array")) };
    let info = map.info().map_err(|error| failed(&error))?;
    if info.value_size() as usize != value_bytes {
        return Err(failed(&format_args!("its values have {} bytes, not {value_bytes}", info.value_size())));
    }
    Ok((map, info.max_entries() as usize))
}

/// The key that a row holds, each word complemented.
fn key<const K: usize>(words: &[AtomicU64]) -> [u8; K] {
    let mut key = [0; K];
    for (bytes, word) in key.chunks_exact_mut(WORD).zip(words) {
        bytes.copy_from_slice(&(!word.load(Ordering::Relaxed)).to_ne_bytes());
    }
    key
}

/// A part of a map's memory.
#[derive(Debug)]
struct Memory {
    /// Of whole pages.
    mapping: *mut libc::c_void,
    mapped: usize,
    /// Where the part begins in them, and its length, in words.
    from: usize,
    words: usize,
}

// SAFETY: a mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Memory {}

impl Memory {
    /// Of `bytes` bytes from `offset` on; both in whole words.
    fn map(map: BorrowedFd<'_>, offset: usize, bytes: usize) -> io::Result<Self> {
        // SAFETY: it takes no pointers.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page).expect("every system knows the size of its pages");
        let before = offset % page;
        let mapped = (before + bytes).next_multiple_of(page);
        // SAFETY: the kernel chooses a place where nothing is.
        let mapping = unsafe {
            mmap(
                std::ptr::null_mut(),
                mapped,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map,
                (offset - before) as u64,
            )
        }?;
        Ok(Self { mapping, mapped, from: before / WORD, words: bytes / WORD })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is at least so long, begins at a page and stays until `self` is dropped. Others write to it
        // at any time, and we only through what they and we use atomically.
        unsafe { std::slice::from_raw_parts(self.mapping.cast::<AtomicU64>().add(self.from), self.words) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing borrows from `self`.
        let _ = unsafe { munmap(self.mapping, self.mapped) };
    }
}

#[cfg(test)]
mod tests;
