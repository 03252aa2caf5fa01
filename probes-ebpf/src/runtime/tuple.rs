//! `struct tuple` of include/tuple.h: both ends of a packet or a connection.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netsonde_framework::Flow;

use super::ring::Record;

/// The size of the struct.
pub const TUPLE: usize = 40;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// Reads a tuple that begins where `record` begins; `None` where it is no IP packet.
pub fn flow(record: Record<'_>) -> Option<Flow> {
    let address = |at| match record.u8(36) {
        4 => Some(IpAddr::V4(Ipv4Addr::from(record.bytes::<4>(at)))),
        6 => Some(IpAddr::V6(Ipv6Addr::from(record.bytes::<16>(at)))),
        _ => None,
    };
    let protocol = record.u8(37);
    let ports = matches!(protocol, TCP | UDP | SCTP).then(|| (record.u16(32), record.u16(34)));
    Some(Flow { protocol: protocol_name(protocol), src: address(0)?, dst: address(16)?, ports })
}

/// The name of a protocol number of the IP header.
pub fn protocol_name(number: u8) -> Cow<'static, str> {
    match number {
        1 => "icmp".into(),
        TCP => "tcp".into(),
        UDP => "udp".into(),
        58 => "icmpv6".into(),
        SCTP => "sctp".into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{assert_layout, types};

    #[test]
    fn the_struct_is_laid_out_as_in_the_kernel_side() {
        let members = &[
            ("source", 0),
            ("destination", 16),
            ("source_port", 32),
            ("destination_port", 34),
            ("family", 36),
            ("protocol", 37),
            ("unused", 38),
        ];
        assert_layout(types!("packetloss"), "tuple", members, TUPLE);
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let mut bytes = [0u8; TUPLE];
        bytes[..4].copy_from_slice(&[10, 9, 0, 1]);
        bytes[16..20].copy_from_slice(&[10, 9, 0, 2]);
        bytes[32..34].copy_from_slice(&1024u16.to_ne_bytes());
        bytes[34..36].copy_from_slice(&80u16.to_ne_bytes());
        (bytes[36], bytes[37]) = (4, 6);
        let read = flow(Record(&bytes)).expect("an IPv4 packet");
        assert_eq!((read.src.to_string(), read.dst.to_string()), ("10.9.0.1".into(), "10.9.0.2".into()));
        assert_eq!((read.protocol.as_ref(), read.ports), ("tcp", Some((1024, 80))));
        (bytes[36], bytes[37]) = (6, 58);
        let read = flow(Record(&bytes)).expect("an IPv6 packet");
        assert!(read.src.is_ipv6() && read.ports.is_none());
        bytes[36] = 0;
        assert_eq!(flow(Record(&bytes)), None);
    }
}
