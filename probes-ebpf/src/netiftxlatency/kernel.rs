//! What the kernel side writes: `struct stage`, the key of its counters, and `struct slow`, its event, field by field.

use netsonde_framework::Flow;

use crate::runtime::{Record, flow};

/// The size of the key.
pub const SIZE: usize = 32;
/// The numbers of its value, `struct histogram`.
pub const NUMBERS: usize = 32;
/// The place of a number in it.
pub const OVER_100MS: usize = 30;

/// What is counted of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Times in its queue.
    Qdisc,
    /// Times in its driver.
    Driver,
    /// Packets whose time in the queue is unknown.
    Unmatched,
    /// Packets that its driver refused.
    Busy,
}

/// A key. The namespace is its first eight bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub device: String,
    pub kind: Kind,
}

impl Stage {
    /// Reads a key.
    pub fn read(key: &[u8; SIZE]) -> Self {
        let record = Record(key);
        Self { device: record.text::<16>(8), kind: kind(record.u32(24)) }
    }
}

fn kind(number: u32) -> Kind {
    match number {
        0 => Kind::Qdisc,
        1 => Kind::Driver,
        2 => Kind::Unmatched,
        _ => Kind::Busy,
    }
}

/// One packet that was slow to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    pub netns: u64,
    /// Monotonic, nanoseconds.
    pub time: u64,
    pub latency_ns: u64,
    pub suppressed: u64,
    pub flow: Option<Flow>,
    pub device: String,
    /// Empty for the driver.
    pub qdisc: String,
    pub length: u32,
    pub kind: Kind,
}

impl Slow {
    /// Reads an event.
    pub fn read(record: Record<'_>) -> Self {
        Self {
            netns: record.u64(0),
            time: record.u64(8),
            latency_ns: record.u64(16),
            suppressed: record.u64(24),
            flow: flow(record.part(32)),
            device: record.text::<16>(72),
            qdisc: record.text::<16>(88),
            length: record.u32(104),
            kind: kind(record.u8(108).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{assert_layout, types};

    #[test]
    fn the_key_is_laid_out_as_in_the_kernel_side() {
        let members = &[("netns", 0), ("device", 8), ("stage", 24), ("unused", 28)];
        assert_layout(types!("netiftxlatency"), "stage", members, SIZE);
    }

    #[test]
    fn the_value_is_laid_out_as_in_the_kernel_side() {
        let members = &[
            ("tally", 0),
            ("buckets", 40),
            ("sum_ns", 224),
            ("over_1ms", 232),
            ("over_100ms", 8 * OVER_100MS),
            ("slow", 248),
        ];
        assert_layout(types!("netiftxlatency"), "histogram", members, 8 * NUMBERS);
    }

    #[test]
    fn the_event_is_laid_out_as_in_the_kernel_side() {
        let members = &[
            ("netns", 0),
            ("time", 8),
            ("latency", 16),
            ("suppressed", 24),
            ("tuple", 32),
            ("device", 72),
            ("qdisc", 88),
            ("length", 104),
            ("stage", 108),
            ("unused", 109),
        ];
        assert_layout(types!("netiftxlatency"), "slow", members, 112);
    }

    #[test]
    fn keys_are_read_as_the_kernel_side_writes_them() {
        let mut key = [0; SIZE];
        key[8..12].copy_from_slice(b"eth0");
        key[24..28].copy_from_slice(&1u32.to_ne_bytes());
        assert_eq!(Stage::read(&key), Stage { device: "eth0".into(), kind: Kind::Driver });
    }
}
