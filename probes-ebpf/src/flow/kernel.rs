//! What the kernel side writes: `struct flow`, the key, and `struct traffic`, its numbers, field by field.

use std::net::IpAddr;

use super::metrics::Protocol;
use crate::runtime::{Record, flow};

/// The size of the key.
pub const SIZE: usize = 48;
/// How many numbers a value has.
pub const NUMBERS: usize = 4;

const UDP: u8 = 17;
/// Where the tuple begins, and its protocol.
const TUPLE: usize = 8;
const PROTOCOL: usize = TUPLE + 37;

/// Both ends of a flow in one namespace, its own end first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; SIZE]);

impl Key {
    /// The namespace's cookie.
    pub fn netns(&self) -> u64 {
        Record(&self.0).u64(0)
    }

    /// The transport protocol: the kernel side counts no other.
    pub fn protocol(&self) -> Protocol {
        if self.0[PROTOCOL] == UDP { Protocol::Udp } else { Protocol::Tcp }
    }

    /// Address and port of the own end and of the peer's as labels have them; `*` for what was left out or is unknown.
    pub fn ends(&self) -> [(String, String); 2] {
        let address = |a: IpAddr| if a.is_unspecified() { "*".to_owned() } else { a.to_string() };
        let port = |p: u16| if p == 0 { "*".to_owned() } else { p.to_string() };
        let Some(flow) = flow(Record(&self.0).part(TUPLE)) else {
            return std::array::from_fn(|_| ("*".to_owned(), "*".to_owned()));
        };
        let (own, peer) = flow.ports.unwrap_or_default();
        [(address(flow.src), port(own)), (address(flow.dst), port(peer))]
    }
}

/// What went over a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub sent_bytes: u64,
    pub sent_packets: u64,
    pub received_bytes: u64,
    pub received_packets: u64,
}

impl Traffic {
    /// Reads a value.
    pub fn read(numbers: &[u64; NUMBERS]) -> Self {
        let [sent_bytes, sent_packets, received_bytes, received_packets] = *numbers;
        Self { sent_bytes, sent_packets, received_bytes, received_packets }
    }

    /// The growth since `before`. A counter never falls; if one did, it would not have grown.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            sent_bytes: self.sent_bytes.saturating_sub(before.sent_bytes),
            sent_packets: self.sent_packets.saturating_sub(before.sent_packets),
            received_bytes: self.received_bytes.saturating_sub(before.received_bytes),
            received_packets: self.received_packets.saturating_sub(before.received_packets),
        }
    }

    /// Bytes of both directions.
    pub fn bytes(self) -> u64 {
        self.sent_bytes + self.received_bytes
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.sent_bytes += more.sent_bytes;
        self.sent_packets += more.sent_packets;
        self.received_bytes += more.received_bytes;
        self.received_packets += more.received_packets;
    }
}

/// A key as the kernel side would write it, for tests.
#[cfg(test)]
pub fn key(netns: u64, protocol: u8, own: (&str, u16), peer: (&str, u16)) -> Key {
    let mut bytes = [0; SIZE];
    bytes[..8].copy_from_slice(&netns.to_ne_bytes());
    for (at, address) in [(8, own.0), (24, peer.0)] {
        match address.parse().expect("an address") {
            IpAddr::V4(a) => bytes[at..at + 4].copy_from_slice(&a.octets()),
            IpAddr::V6(a) => bytes[at..at + 16].copy_from_slice(&a.octets()),
        }
    }
    bytes[40..42].copy_from_slice(&own.1.to_ne_bytes());
    bytes[42..44].copy_from_slice(&peer.1.to_ne_bytes());
    bytes[44] = if own.0.contains(':') { 6 } else { 4 };
    bytes[45] = protocol;
    Key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{assert_layout, types};

    #[test]
    fn key_and_value_are_laid_out_as_in_the_kernel_side() {
        assert_layout(types!("flow"), "flow", &[("netns", 0), ("tuple", TUPLE)], SIZE);
        let members =
            &[("sent_bytes", 0), ("sent_packets", 8), ("received_bytes", 16), ("received_packets", 24)];
        assert_layout(types!("flow"), "traffic", members, 8 * NUMBERS);
    }

    #[test]
    fn a_key_tells_its_ends_and_leaves_out_what_is_not_known() {
        let tcp = key(7, 6, ("10.9.0.1", 0), ("10.9.0.2", 80));
        assert_eq!((tcp.netns(), tcp.protocol()), (7, Protocol::Tcp));
        let text = |own: (&str, &str), peer: (&str, &str)| {
            [own, peer].map(|(address, port)| (address.to_owned(), port.to_owned()))
        };
        assert_eq!(tcp.ends(), text(("10.9.0.1", "*"), ("10.9.0.2", "80")));
        let udp = key(7, UDP, ("::", 53), ("::", 0));
        assert_eq!(udp.protocol(), Protocol::Udp);
        assert_eq!(udp.ends(), text(("*", "53"), ("*", "*")));
        assert_eq!(Key([0; SIZE]).ends(), text(("*", "*"), ("*", "*")));
    }
}
