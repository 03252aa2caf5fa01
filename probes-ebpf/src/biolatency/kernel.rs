//! What the kernel side writes: `struct stage` and `struct slow_kind`, the keys of its counters, and `struct
//! slow_request`, its event, field by field.

use super::metrics::Operation;
use crate::runtime::Record;

/// The size of `struct stage`.
pub const STAGE: usize = 40;
/// The size of `struct slow_kind`.
pub const SLOW: usize = 48;

const NAME: usize = 32;

/// The name of a disk, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Disk([u8; NAME]);

impl Disk {
    /// Empty where a request has none.
    pub fn name(&self) -> String {
        Record(&self.0).text::<NAME>(0)
    }
}

/// What a distribution is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    pub disk: Disk,
    pub operation: Operation,
    /// Only the time that the driver had it.
    pub device: bool,
}

impl Stage {
    /// Reads a key.
    pub fn read(key: &[u8; STAGE]) -> Self {
        let record = Record(key);
        Self { disk: Disk(record.bytes(0)), operation: operation(record.u8(32)), device: record.u8(33) == 1 }
    }
}

/// Whether this key of slow requests is of those over 100 ms. The namespace is its first eight bytes.
pub fn is_very_slow(key: &[u8; SLOW]) -> bool {
    Record(key).u8(41) == 1
}

fn operation(number: u8) -> Operation {
    Operation::ALL.get(usize::from(number)).copied().unwrap_or(Operation::Other)
}

/// One slow request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowRequest {
    /// 0 where it is unknown, and for a kernel thread.
    pub netns: u64,
    /// Monotonic, nanoseconds.
    pub time: u64,
    pub suppressed: u64,
    pub latency_ns: u64,
    /// 0 where unknown.
    pub device_ns: u64,
    /// 0 where unknown.
    pub pid: u32,
    pub bytes: u32,
    pub device: String,
    pub comm: String,
    pub operation: Operation,
    pub very_slow: bool,
    pub failed: bool,
}

impl SlowRequest {
    /// Reads an event.
    pub fn read(record: Record<'_>) -> Self {
        Self {
            netns: record.u64(0),
            time: record.u64(8),
            suppressed: record.u64(16),
            latency_ns: record.u64(24),
            device_ns: record.u64(32),
            pid: record.u32(40),
            bytes: record.u32(44),
            device: record.text::<NAME>(48),
            comm: record.text::<16>(80),
            operation: operation(record.u8(96)),
            very_slow: record.u8(97) == 1,
            failed: record.u8(98) != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{assert_layout, types};

    #[test]
    fn the_keys_are_laid_out_as_in_the_kernel_side() {
        let stage = &[("device", 0), ("operation", 32), ("stage", 33), ("unused", 34)];
        assert_layout(types!("biolatency"), "stage", stage, STAGE);
        let slow = &[("netns", 0), ("device", 8), ("operation", 40), ("very_slow", 41), ("unused", 42)];
        assert_layout(types!("biolatency"), "slow_kind", slow, SLOW);
    }

    #[test]
    fn the_event_is_laid_out_as_in_the_kernel_side() {
        let members = &[
            ("netns", 0),
            ("time", 8),
            ("suppressed", 16),
            ("latency_ns", 24),
            ("device_ns", 32),
            ("pid", 40),
            ("bytes", 44),
            ("device", 48),
            ("comm", 80),
            ("operation", 96),
            ("very_slow", 97),
            ("status", 98),
            ("unused", 99),
        ];
        assert_layout(types!("biolatency"), "slow_request", members, 104);
    }

    #[test]
    fn keys_are_read_as_the_kernel_side_writes_them() {
        let mut key = [0; STAGE];
        key[..4].copy_from_slice(b"sda\0");
        (key[32], key[33]) = (1, 1);
        let stage = Stage::read(&key);
        assert_eq!(
            (stage.disk.name().as_str(), stage.operation, stage.device),
            ("sda", Operation::Write, true)
        );
        key[32] = 200;
        assert_eq!(Stage::read(&key).operation, Operation::Other);
    }
}
