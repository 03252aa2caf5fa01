//! What the kernel side writes: `struct drop`, the key of its counters, and `struct loss`, its event, field by field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netsonde_framework::Flow;

use super::metrics::{Direction, Protocol};
use super::refusal::Refusal;
use crate::runtime::{Record, flow};

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
    /// Which way the packet went.
    pub direction: Direction,
}

const NOT_IP: u8 = 1;
const MULTICAST: u8 = 2;
const TCP_RESET: u8 = 4;
const CIRCUMSTANCES: u8 = 16;
const ICMPV6: u8 = 58;
/// The high half of a reason that is none of the kernel's: what a listening socket refused, with its port in the low half.
const LISTENER: u32 = 0xfff0;

fn is_refusal(reason: u32) -> bool {
    reason >> 16 == LISTENER
}

impl Drop {
    /// Reads a key. The namespace is its first eight bytes.
    pub fn read(key: &[u8; SIZE]) -> Self {
        let reason = u32::from_ne_bytes([key[8], key[9], key[10], key[11]]);
        let direction = direction(key[15]);
        Self { reason, protocol: key[12], flags: key[13], family: key[14], direction }
    }

    /// Whether a listening socket refused it, which the kernel does not take for a drop.
    pub fn is_refusal(self) -> bool {
        is_refusal(self.reason)
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

/// For the kernel side, which tells of no housekeeping: a bit for each combination of circumstances in which a drop of
/// this reason is housekeeping. Bit 3 of the combination is ICMPv6, the others are the flags of the key.
pub fn housekeeping_bits(reason: &str) -> u32 {
    (0..CIRCUMSTANCES).fold(0, |bits, circumstance| {
        let icmpv6 = circumstance & 8 != 0;
        let drop = Drop {
            reason: 0,
            protocol: if icmpv6 { ICMPV6 } else { 0 },
            flags: circumstance & 7,
            family: if icmpv6 { 6 } else { 4 },
            direction: Direction::Unknown,
        };
        bits | u32::from(drop.is_housekeeping(reason)) << circumstance
    })
}

fn direction(number: u8) -> Direction {
    Direction::ALL.get(usize::from(number)).copied().unwrap_or(Direction::Unknown)
}

/// The netfilter hook that a function of the kernel runs.
pub fn hook_of_caller(function: &str) -> Option<&'static str> {
    match function {
        "ip_rcv" | "ipv6_rcv" | "ip_list_rcv" | "ip_sublist_rcv" | "ipv6_list_rcv" | "ip6_sublist_rcv" => {
            Some("prerouting")
        }
        "ip_local_deliver" | "ip6_input" => Some("input"),
        "ip_forward" | "ip6_forward" => Some("forward"),
        "__ip_local_out" | "__ip6_local_out" => Some("output"),
        "ip_output" | "ip6_output" | "ip_mc_output" => Some("postrouting"),
        _ => None,
    }
}

/// The most frames of a stack.
const FRAMES: usize = 20;
/// Where the stack begins.
const STACK: usize = 120;

/// One dropped packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    pub netns: u64,
    /// Monotonic, nanoseconds.
    pub time: u64,
    pub suppressed: u64,
    /// Where it was freed: an address in a kernel function.
    pub place: u64,
    pub flow: Option<Flow>,
    pub reason: u32,
    pub length: u32,
    pub device: String,
    pub direction: Direction,
    /// Where address translation changed the source: what it was, and the port.
    pub sender: Option<(IpAddr, u16)>,
    /// What listening socket refused it. It has no place, no device and no stack then.
    pub refusal: Option<Refusal>,
    /// The base chain of nf_tables that looked at it last and its table, where they were noted; else empty.
    pub table: String,
    pub chain: String,
    /// How many frames the stack has.
    frames: usize,
    stack: [u64; FRAMES],
}

impl Loss {
    /// Reads an event.
    pub fn read(record: Record<'_>) -> Self {
        let mut stack = [0; FRAMES];
        for (i, frame) in stack.iter_mut().enumerate() {
            *frame = record.u64(STACK + 8 * i);
        }
        let reason = record.u32(72);
        let sender = match record.u8(98) {
            4 => Some(IpAddr::V4(Ipv4Addr::from(record.bytes::<4>(104)))),
            6 => Some(IpAddr::V6(Ipv6Addr::from(record.bytes::<16>(104)))),
            _ => None,
        };
        Self {
            netns: record.u64(0),
            time: record.u64(8),
            suppressed: record.u64(16),
            place: record.u64(24),
            flow: flow(record.part(32)),
            reason,
            length: record.u32(76),
            device: record.text::<16>(80),
            direction: direction(record.u8(96)),
            sender: sender.map(|address| (address, record.u16(102))),
            refusal: is_refusal(reason).then(|| Refusal::read(record.part(STACK))),
            table: record.text::<32>(STACK + 8 * FRAMES),
            chain: record.text::<32>(STACK + 8 * FRAMES + 32),
            frames: usize::from(record.u8(97)).min(FRAMES),
            stack,
        }
    }

    /// The addresses on the stack, innermost first.
    pub fn stack(&self) -> impl Iterator<Item = u64> {
        self.stack.iter().take(self.frames).copied()
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
            ("place", 24),
            ("tuple", 32),
            ("reason", 72),
            ("length", 76),
            ("device", 80),
            ("direction", 96),
            ("frames", 97),
            ("sender_family", 98),
            ("unused", 99),
            ("sender_port", 102),
            ("sender", 104),
            ("stack", STACK),
            ("table", STACK + 8 * FRAMES),
            ("chain", STACK + 8 * FRAMES + 32),
        ];
        assert_layout(types!("packetloss"), "loss", members, STACK + 8 * FRAMES + 64);
    }

    #[test]
    fn the_kernel_side_is_told_what_housekeeping_is() {
        assert_eq!(housekeeping_bits("QUEUE_PURGE"), 0xffff);
        assert_eq!(housekeeping_bits("NETFILTER_DROP"), 0);
        let bits = housekeeping_bits("NO_SOCKET");
        assert_eq!((bits >> TCP_RESET & 1, bits & 1), (1, 0));
        assert_eq!(housekeeping_bits("NOT_SPECIFIED") >> 8 & 1, 1, "ICMPv6");
    }

    #[test]
    fn the_key_is_laid_out_as_in_the_kernel_side() {
        let members = &[
            ("netns", 0),
            ("reason", 8),
            ("protocol", 12),
            ("flags", 13),
            ("family", 14),
            ("direction", 15),
        ];
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
