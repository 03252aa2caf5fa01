//! What the kernel side writes: `struct stage`, the key of its histograms, and `struct slow`, its event, field by field.

use netsonde_framework::{Exp2, Flow};

use super::metrics::{Place, Protocol, Reason};
use crate::runtime::{Record, TALLY, flow};

/// The size of the key.
pub const SIZE: usize = 16;
/// The numbers of `struct histogram` of include/histogram.h.
pub const NUMBERS: usize = TALLY + BUCKETS + 4;

const BUCKETS: usize = netsonde_framework::histogram::BUCKETS;
const OVER_100MS: usize = TALLY + BUCKETS + 2;
const SLOW: usize = TALLY + BUCKETS + 3;

/// Which part of a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From its arrival until a CPU takes it up.
    Backlog,
    /// From its arrival to its socket.
    Receive(Protocol),
    /// From TCP to a device's queue.
    Stack,
    /// From TCP to a device's driver.
    Transmit,
    /// The same at a device of another namespace than the socket's.
    Forward,
    /// Until it came to a place in between.
    Place(Place),
}

impl Stage {
    /// Reads a key. The namespace is its first eight bytes. `None` for what no program writes.
    pub fn read(key: &[u8; SIZE]) -> Option<Self> {
        Some(match (key[8], key[9]) {
            (0, _) => Self::Backlog,
            (RECEIVE, 6) => Self::Receive(Protocol::Tcp),
            (RECEIVE, 17) => Self::Receive(Protocol::Udp),
            (2, _) => Self::Stack,
            (3, _) => Self::Transmit,
            (FORWARD, _) => Self::Forward,
            (5, place) => Self::Place(*Place::ALL.get(usize::from(place))?),
            _ => return None,
        })
    }
}

const RECEIVE: u8 = 1;
const FORWARD: u8 = 4;

/// The places in the map UNMEASURED.
pub const UNMEASURED: [(u32, Reason); 3] = [(0, Reason::NoStamp), (1, Reason::Clock), (2, Reason::Taken)];

/// What a histogram tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    pub times: Exp2,
    pub over_100ms: u64,
    pub slow: u64,
}

impl Measured {
    /// Reads the numbers of a key.
    pub fn read(numbers: &[u64; NUMBERS]) -> Self {
        let times = Exp2::from_numbers(&numbers[TALLY..]).expect("the numbers hold all buckets and the sum");
        Self { times, over_100ms: numbers[OVER_100MS], slow: numbers[SLOW] }
    }
}

/// One slow packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    pub netns: u64,
    /// Monotonic, nanoseconds.
    pub time: u64,
    pub suppressed: u64,
    pub latency_ns: u64,
    /// At the first place of its way, where that was noted.
    pub first_ns: Option<u64>,
    pub flow: Option<Flow>,
    pub length: u32,
    pub device_index: u32,
    /// Empty on the way in.
    pub device: String,
    /// On the way in; else on the way out.
    pub received: bool,
    /// On the way out at a device of another namespace than the socket's.
    pub forwarded: bool,
}

impl Slow {
    /// Reads an event.
    pub fn read(record: Record<'_>) -> Self {
        Self {
            netns: record.u64(0),
            time: record.u64(8),
            suppressed: record.u64(16),
            latency_ns: record.u64(24),
            first_ns: (record.u8(105) != 0).then(|| record.u64(32)),
            flow: flow(record.part(40)),
            length: record.u32(80),
            device_index: record.u32(84),
            device: record.text::<16>(88),
            received: record.u8(104) == RECEIVE,
            forwarded: record.u8(104) == FORWARD,
        }
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
            ("first_ns", 32),
            ("tuple", 40),
            ("length", 80),
            ("device_index", 84),
            ("device", 88),
            ("stage", 104),
            ("first_known", 105),
            ("unused", 106),
        ];
        assert_layout(types!("kernellatency"), "slow", members, 112);
    }

    #[test]
    fn the_key_and_the_histogram_are_laid_out_as_in_the_kernel_side() {
        let key = &[("netns", 0), ("stage", 8), ("protocol", 9), ("unused", 10)];
        assert_layout(types!("kernellatency"), "stage", key, SIZE);
        let histogram = &[
            ("tally", 0),
            ("buckets", 8 * TALLY),
            ("sum_ns", 8 * (TALLY + BUCKETS)),
            ("over_1ms", 8 * (OVER_100MS - 1)),
            ("over_100ms", 8 * OVER_100MS),
            ("slow", 8 * SLOW),
        ];
        assert_layout(types!("kernellatency"), "histogram", histogram, 8 * NUMBERS);
    }

    #[test]
    fn keys_are_read_as_the_kernel_side_writes_them() {
        let read = |stage, protocol| {
            let mut key = [0xff; SIZE];
            (key[8], key[9]) = (stage, protocol);
            Stage::read(&key)
        };
        assert_eq!(read(0, 0), Some(Stage::Backlog));
        assert_eq!(read(1, 17), Some(Stage::Receive(Protocol::Udp)));
        assert_eq!(read(1, 6), Some(Stage::Receive(Protocol::Tcp)));
        assert_eq!(read(4, 0), Some(Stage::Forward));
        assert_eq!(read(5, 2), Some(Stage::Place(Place::Transport)));
        assert_eq!((read(1, 1), read(5, 5)), (None, None));
    }

    #[test]
    fn numbers_are_buckets_sum_and_those_beyond_a_bound() {
        let mut numbers = [0; NUMBERS];
        (numbers[TALLY + 2], numbers[TALLY + BUCKETS]) = (4, 50_000);
        (numbers[OVER_100MS], numbers[SLOW]) = (2, 3);
        let read = Measured::read(&numbers);
        assert_eq!((read.times.counts[2], read.times.sum_ns), (4, 50_000));
        assert_eq!((read.over_100ms, read.slow), (2, 3));
    }
}
