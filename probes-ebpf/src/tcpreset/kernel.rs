//! What the kernel side writes: `struct reset`, the key of its counters, and `struct told`, its event, field by field.

use netsonde_framework::Flow;

use super::metrics::Kind;
use crate::runtime::{Record, flow};

/// The size of the key.
pub const SIZE: usize = 16;

/// One kind of reset in one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// A number of the running kernel's `enum sk_rst_reason`.
    pub reason: u32,
    pub kind: Kind,
}

impl Reset {
    /// Reads a key; `None` for a kind that the kernel side does not write.
    pub fn read(key: &[u8; SIZE]) -> Option<Self> {
        Some(Self { reason: u32::from_ne_bytes([key[8], key[9], key[10], key[11]]), kind: kind(key[12])? })
    }
}

fn kind(number: u8) -> Option<Kind> {
    Kind::ALL.get(usize::from(number)).copied()
}

/// One reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub netns: u64,
    /// Monotonic, nanoseconds.
    pub time: u64,
    pub suppressed: u64,
    /// The source is the end in `netns`.
    pub flow: Option<Flow>,
    pub reason: u32,
    /// The process that closed the connection, and its name.
    pub closer: Option<(u32, String)>,
    pub kind: Kind,
    /// `sk_state`; 0 where there is no socket.
    pub state: u8,
}

impl Told {
    /// Reads an event; `None` for a kind that the kernel side does not write.
    pub fn read(record: Record<'_>) -> Option<Self> {
        let pid = record.u32(68);
        Some(Self {
            netns: record.u64(0),
            time: record.u64(8),
            suppressed: record.u64(16),
            flow: flow(record.part(24)),
            reason: record.u32(64),
            closer: (pid != 0).then(|| (pid, record.text::<16>(72))),
            kind: kind(record.u8(88))?,
            state: record.u8(89),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{assert_layout, types};

    #[test]
    fn the_key_is_laid_out_as_in_the_kernel_side() {
        let members = &[("netns", 0), ("reason", 8), ("kind", 12), ("unused", 13)];
        assert_layout(types!("tcpreset"), "reset", members, SIZE);
    }

    #[test]
    fn the_event_is_laid_out_as_in_the_kernel_side() {
        let members = &[
            ("netns", 0),
            ("time", 8),
            ("suppressed", 16),
            ("tuple", 24),
            ("reason", 64),
            ("pid", 68),
            ("comm", 72),
            ("kind", 88),
            ("state", 89),
            ("unused", 90),
        ];
        assert_layout(types!("tcpreset"), "told", members, 96);
    }

    #[test]
    fn events_are_read_as_the_kernel_side_writes_them() {
        let mut bytes = [0; 96];
        bytes[..8].copy_from_slice(&5u64.to_ne_bytes());
        bytes[68..72].copy_from_slice(&42u32.to_ne_bytes());
        bytes[72..76].copy_from_slice(b"cart");
        (bytes[88], bytes[89]) = (1, 7);
        let told = Told::read(Record(&bytes)).expect("a reset");
        assert_eq!((told.netns, told.kind, told.state), (5, Kind::Active, 7));
        assert_eq!(told.closer, Some((42, "cart".to_owned())));
        bytes[68..72].fill(0);
        assert_eq!(Told::read(Record(&bytes)).expect("a reset").closer, None);
        bytes[88] = 4;
        assert_eq!(Told::read(Record(&bytes)), None);
    }

    #[test]
    fn keys_are_read_as_the_kernel_side_writes_them() {
        let mut key = [0; SIZE];
        key[8..12].copy_from_slice(&11u32.to_ne_bytes());
        key[12] = 1;
        assert_eq!(Reset::read(&key), Some(Reset { reason: 11, kind: Kind::Active }));
        key[12] = 9;
        assert_eq!(Reset::read(&key), None);
    }
}
