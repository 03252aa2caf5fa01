//! The key of the kernel side's counters: `struct reset` of `kernel.bpf.c`, field by field.

use super::metrics::Kind;

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
        let kind = *[Kind::Nosock, Kind::Active, Kind::Process, Kind::Receive].get(usize::from(key[12]))?;
        Some(Self { reason: u32::from_ne_bytes([key[8], key[9], key[10], key[11]]), kind })
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
    fn keys_are_read_as_the_kernel_side_writes_them() {
        let mut key = [0; SIZE];
        key[8..12].copy_from_slice(&11u32.to_ne_bytes());
        key[12] = 1;
        assert_eq!(Reset::read(&key), Some(Reset { reason: 11, kind: Kind::Active }));
        key[12] = 9;
        assert_eq!(Reset::read(&key), None);
    }
}
