//! The key of the kernel side's counters: `struct retransmission` of `kernel.bpf.c`, field by field.

use super::metrics::Kind;

/// The size of the key.
pub const SIZE: usize = 16;

/// One kind of retransmission in one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retransmission {
    pub kind: Kind,
    /// It could not be sent.
    pub failed: bool,
}

impl Retransmission {
    /// Reads a key; `None` for a kind that the kernel side does not write.
    pub fn read(key: &[u8; SIZE]) -> Option<Self> {
        Some(Self { kind: *Kind::ALL.get(usize::from(key[8]))?, failed: key[9] != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{assert_layout, types};

    #[test]
    fn the_key_is_laid_out_as_in_the_kernel_side() {
        let members = &[("netns", 0), ("kind", 8), ("failed", 9), ("unused", 10)];
        assert_layout(types!("tcpretrans"), "retransmission", members, SIZE);
    }

    #[test]
    fn keys_are_read_as_the_kernel_side_writes_them() {
        let mut key = [0; SIZE];
        key[8] = 3;
        assert_eq!(Retransmission::read(&key), Some(Retransmission { kind: Kind::Fast, failed: false }));
        (key[8], key[9]) = (4, 1);
        assert_eq!(Retransmission::read(&key), Some(Retransmission { kind: Kind::LossProbe, failed: true }));
        key[8] = 7;
        assert_eq!(Retransmission::read(&key), None);
    }
}
