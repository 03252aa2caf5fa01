//! The key of the kernel side's counters: `struct drop` of `kernel.bpf.c`, field by field.

use super::metrics::Protocol;

/// The size of the key.
pub const SIZE: usize = 16;

/// One kind of drop in one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drop {
    /// A number of the running kernel's `enum skb_drop_reason`.
    pub reason: u32,
    protocol: u8,
    flags: u8,
    family: u8,
}

const NOT_IP: u8 = 1;
const MULTICAST: u8 = 2;
const TCP_RESET: u8 = 4;

impl Drop {
    /// Reads a key. The namespace is its first eight bytes.
    pub fn read(key: &[u8; SIZE]) -> Self {
        let reason = u32::from_ne_bytes([key[8], key[9], key[10], key[11]]);
        Self { reason, protocol: key[12], flags: key[13], family: key[14] }
    }

    pub fn protocol(self) -> Protocol {
        match self.protocol {
            _ if self.flags & NOT_IP != 0 => Protocol::NotIp,
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            1 | 58 => Protocol::Icmp,
            132 => Protocol::Sctp,
            _ => Protocol::Other,
        }
    }

    /// Whether the kernel freed this packet as dropped although nobody lost anything.
    ///
    /// - Purged queues: a socket was closed with data that nobody read any more.
    /// - No reason and no IP packet, or no reason and multicast or ICMPv6: answers to neighbour discovery and group
    ///   memberships, netlink messages, frames that no protocol wants.
    /// - Neighbour discovery that is ignored on purpose.
    /// - A reset for a connection that is gone: there is nothing left to lose.
    pub fn is_housekeeping(self, reason: &str) -> bool {
        const ICMPV6: u8 = 58;
        match reason {
            "QUEUE_PURGE" | "SKB_CONSUMED" | "NOT_DROPPED_YET" => true,
            "NOT_SPECIFIED" => {
                self.flags & (NOT_IP | MULTICAST) != 0 || self.protocol == ICMPV6 && self.family == 6
            }
            "NO_SOCKET" => self.flags & TCP_RESET != 0,
            // An unwanted multicast datagram is dropped in every namespace of a segment but the one that joined.
            "UNHANDLED_PROTO" | "OTHERHOST" | "IP_INADDRERRORS" => self.flags & (NOT_IP | MULTICAST) != 0,
            other => other.starts_with("IPV6_NDISC_"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{assert_layout, types};

    #[test]
    fn the_key_is_laid_out_as_in_the_kernel_side() {
        let members =
            &[("netns", 0), ("reason", 8), ("protocol", 12), ("flags", 13), ("family", 14), ("unused", 15)];
        assert_layout(types!("packetloss"), "drop", members, SIZE);
    }

    fn drop(protocol: u8, flags: u8, family: u8) -> Drop {
        let mut key = [0; SIZE];
        key[8..12].copy_from_slice(&7u32.to_ne_bytes());
        (key[12], key[13], key[14]) = (protocol, flags, family);
        Drop::read(&key)
    }

    #[test]
    fn keys_are_read_as_the_kernel_side_writes_them() {
        let read = drop(6, TCP_RESET, 4);
        assert_eq!((read.reason, read.protocol(), read.flags, read.family), (7, Protocol::Tcp, TCP_RESET, 4));
        assert_eq!(drop(58, 0, 6).protocol(), Protocol::Icmp);
        assert_eq!(drop(0, NOT_IP, 0).protocol(), Protocol::NotIp);
    }

    #[test]
    fn housekeeping_is_told_from_loss() {
        assert!(drop(6, TCP_RESET, 4).is_housekeeping("NO_SOCKET"));
        assert!(!drop(6, 0, 4).is_housekeeping("NO_SOCKET"), "a connection was refused");
        assert!(!drop(17, 0, 4).is_housekeeping("NO_SOCKET"));
        assert!(drop(58, MULTICAST, 6).is_housekeeping("NOT_SPECIFIED"));
        assert!(!drop(17, 0, 4).is_housekeeping("NOT_SPECIFIED"));
        assert!(drop(0, NOT_IP, 0).is_housekeeping("NOT_SPECIFIED"));
        assert!(drop(6, 0, 4).is_housekeeping("QUEUE_PURGE"));
        assert!(!drop(6, 0, 4).is_housekeeping("NETFILTER_DROP"));
        assert!(
            !drop(17, MULTICAST, 4).is_housekeeping("NETFILTER_DROP"),
            "a rule that drops multicast was meant"
        );
    }
}
