//! What the kernel side writes: `struct stage`, the key of its histograms, and `struct slow`, its event.

use netsonde_framework::{Exp2, Flow};

use super::metrics::Protocol;
use crate::runtime::{Record, TALLY, flow};

/// The size of the key.
pub const SIZE: usize = 16;
/// The numbers of `struct histogram` of include/histogram.h.
pub const NUMBERS: usize = TALLY + BUCKETS + 4;

const BUCKETS: usize = netsonde_framework::histogram::BUCKETS;
const OVER_1MS: usize = TALLY + BUCKETS + 1;
const OVER_100MS: usize = TALLY + BUCKETS + 2;
const SLOW: usize = TALLY + BUCKETS + 3;

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A program took what had arrived.
    Read,
    /// What a program had written was handed to a device's queue.
    Write,
}

impl Stage {
    fn of(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Read),
            1 => Some(Self::Write),
            _ => None,
        }
    }

    /// Reads a key. The namespace is its first eight bytes. `None` for what no program writes.
    pub fn read(key: &[u8; SIZE]) -> Option<(Self, Protocol)> {
        let protocol = match key[9] {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            _ => return None,
        };
        Some((Self::of(key[8])?, protocol))
    }
}

/// What a histogram tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    pub times: Exp2,
    pub over_1ms: u64,
    pub over_100ms: u64,
    pub slow: u64,
}

impl Measured {
    /// Reads the numbers of a key.
    pub fn read(numbers: &[u64; NUMBERS]) -> Self {
        let times = Exp2::from_numbers(&numbers[TALLY..]).expect("the numbers hold all buckets and the sum");
        Self { times, over_1ms: numbers[OVER_1MS], over_100ms: numbers[OVER_100MS], slow: numbers[SLOW] }
    }
}

/// One long wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    pub netns: u64,
    /// Its end: monotonic, nanoseconds.
    pub time: u64,
    pub suppressed: u64,
    pub latency_ns: u64,
    /// The socket's own end is the source.
    pub flow: Option<Flow>,
    /// Of the program that read or wrote.
    pub pid: u32,
    pub stage: Stage,
    /// The name of its thread.
    pub comm: String,
}

impl Slow {
    /// Reads an event. `None` for what no program writes.
    pub fn read(record: Record<'_>) -> Option<Self> {
        Some(Self {
            netns: record.u64(0),
            time: record.u64(8),
            suppressed: record.u64(16),
            latency_ns: record.u64(24),
            flow: flow(record.part(32)),
            pid: record.u32(72),
            stage: Stage::of(record.u8(92))?,
            comm: record.text::<16>(76),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{assert_layout, types};

    #[test]
    fn the_event_is_laid_out_as_in_the_kernel_side() {
        let members = &[
            ("netns", 0),
            ("time", 8),
            ("suppressed", 16),
            ("latency_ns", 24),
            ("tuple", 32),
            ("program", 72),
            ("stage", 92),
            ("unused", 93),
        ];
        assert_layout(types!("socketlatency"), "slow", members, 96);
        assert_layout(types!("socketlatency"), "program", &[("pid", 0), ("comm", 4)], 20);
    }

    #[test]
    fn the_key_and_the_histogram_are_laid_out_as_in_the_kernel_side() {
        let key = &[("netns", 0), ("stage", 8), ("protocol", 9), ("unused", 10)];
        assert_layout(types!("socketlatency"), "stage", key, SIZE);
        let histogram = &[
            ("tally", 0),
            ("buckets", 8 * TALLY),
            ("sum_ns", 8 * (TALLY + BUCKETS)),
            ("over_1ms", 8 * OVER_1MS),
            ("over_100ms", 8 * OVER_100MS),
            ("slow", 8 * SLOW),
        ];
        assert_layout(types!("socketlatency"), "histogram", histogram, 8 * NUMBERS);
    }

    #[test]
    fn keys_are_read_as_the_kernel_side_writes_them() {
        let read = |stage, protocol| {
            let mut key = [0xff; SIZE];
            (key[8], key[9]) = (stage, protocol);
            Stage::read(&key)
        };
        assert_eq!(read(0, 6), Some((Stage::Read, Protocol::Tcp)));
        assert_eq!(read(0, 17), Some((Stage::Read, Protocol::Udp)));
        assert_eq!(read(1, 6), Some((Stage::Write, Protocol::Tcp)));
        assert_eq!((read(2, 6), read(0, 1)), (None, None));
    }

    #[test]
    fn an_event_is_read_as_the_kernel_side_writes_it() {
        let mut bytes = [0u8; 96];
        bytes[24..32].copy_from_slice(&5_000u64.to_ne_bytes());
        bytes[72..76].copy_from_slice(&77u32.to_ne_bytes());
        (bytes[92], bytes[76], bytes[77]) = (1, b's', b'h');
        let slow = Slow::read(Record(&bytes)).expect("a stage that there is");
        assert_eq!(
            (slow.latency_ns, slow.pid, slow.stage, slow.comm.as_str()),
            (5_000, 77, Stage::Write, "sh")
        );
        assert_eq!(slow.flow, None);
        bytes[92] = 9;
        assert_eq!(Slow::read(Record(&bytes)), None);
    }

    #[test]
    fn numbers_are_buckets_sum_and_those_beyond_a_bound() {
        let mut numbers = [0; NUMBERS];
        (numbers[TALLY + 2], numbers[TALLY + BUCKETS]) = (4, 50_000);
        (numbers[OVER_1MS], numbers[OVER_100MS], numbers[SLOW]) = (3, 2, 1);
        let read = Measured::read(&numbers);
        assert_eq!((read.times.counts[2], read.times.sum_ns), (4, 50_000));
        assert_eq!((read.over_1ms, read.over_100ms, read.slow), (3, 2, 1));
    }
}
