//! RTM_NEWQDISC: `struct tcmsg` and the attributes with the statistics.
//!
//! By hand, without the options of each kind: see docs/decisions/netlink-parsing.md.

use std::fmt::{self, Display};

use netsonde_framework::CollectError;

use crate::os::link::Name;
use crate::os::netlink::attributes;

/// Where a qdisc is attached: `TC_H_ROOT`, `TC_H_INGRESS` or a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Parent(pub u32);

impl Parent {
    /// What the device sends goes through here first.
    pub const ROOT: Self = Self(0xffff_ffff);
    /// What the device receives passes here (`ingress`), and what it sends, before the root (`clsact`).
    pub const INGRESS: Self = Self(0xffff_fff1);
}

impl Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, self.0 >> 16, self.0 & 0xffff) {
            (Self::ROOT, ..) => f.write_str("root"),
            (Self::INGRESS, ..) => f.write_str("ingress"),
            (_, 0, minor) => write!(f, ":{minor:x}"),
            (_, major, 0) => write!(f, "{major:x}:"),
            (_, major, minor) => write!(f, "{major:x}:{minor:x}"),
        }
    }
}

/// One qdisc as the kernel gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qdisc {
    /// The index of its device.
    pub device: u32,
    /// Its own number; a replaced one has another, except for 0, which all have that nobody configured.
    pub handle: u32,
    /// Where it is attached.
    pub parent: Parent,
    /// Its kind.
    pub kind: Name,
    /// Bytes that left it.
    pub bytes: u64,
    /// Packets that left it: 64 bits if `packets_are_wide`, else the lower 32.
    pub packets: u64,
    /// Whether the kernel gave TCA_STATS_PKT64, which it does only above 32 bits.
    pub packets_are_wide: bool,
    /// drops, overlimits, requeues: the kernel has 32 bits, and they wrap.
    pub narrow: [u32; 3],
    /// Packets that wait.
    pub qlen: u32,
    /// Bytes that wait.
    pub backlog: u32,
}

/// Reads one message; `None` for a qdisc that counts nothing: noqueue, or one without statistics.
pub fn parse(payload: &[u8]) -> Result<Option<Qdisc>, CollectError> {
    const TCMSG: usize = 20;
    const TCA_KIND: u16 = 1;
    const TCA_STATS2: u16 = 7;
    let bad = |why: &str| CollectError::Parse { what: "netlink RTM_NEWQDISC".into(), why: why.into() };
    let (head, rest) = payload.split_at_checked(TCMSG).ok_or_else(|| bad("is shorter than its header"))?;
    let (mut kind, mut stats) = (None, None);
    for (attribute, value) in attributes(rest) {
        match attribute {
            TCA_KIND if is_noqueue(value) => return Ok(None),
            TCA_KIND => kind = Name::new(value),
            TCA_STATS2 => stats = Some(value),
            _ => {}
        }
    }
    let kind = kind.ok_or_else(|| bad("has no kind of 1 to 15 bytes"))?;
    let Some(stats) = stats else { return Ok(None) };
    let word =
        |bytes: &[u8], i: usize| bytes.get(i..i + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let mut qdisc = Qdisc {
        device: word(head, 4).unwrap_or(0),
        handle: word(head, 8).unwrap_or(0),
        parent: Parent(word(head, 12).unwrap_or(0)),
        kind,
        bytes: 0,
        packets: 0,
        packets_are_wide: false,
        narrow: [0; 3],
        qlen: 0,
        backlog: 0,
    };
    read_stats(&mut qdisc, stats).ok_or_else(|| bad("has statistics that are too short"))?;
    Ok(Some(qdisc))
}

fn is_noqueue(kind: &[u8]) -> bool {
    kind.strip_suffix(&[0]).unwrap_or(kind) == b"noqueue"
}

/// `None` where there is no `gnet_stats_basic` and `gnet_stats_queue`, or where one is cut off.
fn read_stats(qdisc: &mut Qdisc, stats: &[u8]) -> Option<()> {
    const TCA_STATS_BASIC: u16 = 1;
    const TCA_STATS_QUEUE: u16 = 3;
    const TCA_STATS_PKT64: u16 = 8;
    let long = |bytes: &[u8]| bytes.first_chunk::<8>().map(|b| u64::from_ne_bytes(*b));
    let words = |bytes: &[u8]| {
        let bytes = bytes.first_chunk::<20>()?;
        let word = |i: usize| u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        Some([word(0), word(4), word(8), word(12), word(16)])
    };
    let (mut basic, mut queue) = (false, false);
    for (attribute, value) in attributes(stats) {
        match attribute {
            TCA_STATS_BASIC => {
                qdisc.bytes = long(value)?;
                let packets = value.get(8..)?.first_chunk::<4>()?;
                if !qdisc.packets_are_wide {
                    qdisc.packets = u32::from_ne_bytes(*packets).into();
                }
                basic = true;
            }
            TCA_STATS_PKT64 => {
                qdisc.packets = long(value)?;
                qdisc.packets_are_wide = true;
            }
            TCA_STATS_QUEUE => {
                let [qlen, backlog, drops, requeues, overlimits] = words(value)?;
                (qdisc.qlen, qdisc.backlog) = (qlen, backlog);
                qdisc.narrow = [drops, overlimits, requeues];
                queue = true;
            }
            _ => {}
        }
    }
    (basic && queue).then_some(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).expect("short");
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    fn message(kind: &str, stats: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = words(&[0, 3, 0x8001_0000, u32::MAX, 2]);
        bytes.extend(attribute(1, format!("{kind}\0").as_bytes()));
        // options of some new kind, which are not read
        bytes.extend(attribute(2, &[1, 2, 3]));
        bytes.extend(attribute(7, &stats.concat()));
        bytes
    }

    fn basic(bytes: u64, packets: u32) -> Vec<u8> {
        attribute(1, &[bytes.to_ne_bytes().to_vec(), words(&[packets, 0])].concat())
    }

    fn queue() -> Vec<u8> {
        attribute(3, &words(&[4, 5000, 6, 7, 8]))
    }

    #[test]
    fn statistics_are_read_from_their_attributes() {
        let bytes = message("tbf", &[basic(5_000_000_000, 9), queue()]);
        let qdisc = parse(&bytes).expect("well formed").expect("it counts");
        assert_eq!((qdisc.device, qdisc.handle, qdisc.parent), (3, 0x8001_0000, Parent::ROOT));
        assert_eq!((qdisc.bytes, qdisc.packets, qdisc.packets_are_wide), (5_000_000_000, 9, false));
        assert_eq!((qdisc.qlen, qdisc.backlog, qdisc.narrow), (4, 5000, [6, 8, 7]));
        assert_eq!(qdisc.kind.text(), "tbf");
    }

    #[test]
    fn packets_above_32_bits_come_from_their_own_attribute() {
        let wide = attribute(8, &((1u64 << 32) + 9).to_ne_bytes());
        for stats in [vec![basic(1, 9), wide.clone(), queue()], vec![wide, basic(1, 9), queue()]] {
            let qdisc = parse(&message("mq", &stats)).expect("well formed").expect("it counts");
            assert_eq!((qdisc.packets, qdisc.packets_are_wide), ((1 << 32) + 9, true));
        }
    }

    #[test]
    fn noqueue_and_what_has_no_statistics_count_nothing() {
        assert_eq!(parse(&message("noqueue", &[basic(0, 0), queue()])).expect("well formed"), None);
        let bytes = [words(&[0, 3, 0, u32::MAX, 2]), attribute(1, b"mq\0")].concat();
        assert_eq!(parse(&bytes).expect("well formed"), None);
    }

    #[test]
    fn odd_messages_are_errors_that_name_them() {
        let long = message("a-name-of-16-byt", &[basic(0, 0), queue()]);
        let no_kind =
            [words(&[0, 3, 0, u32::MAX, 2]), attribute(7, &[basic(0, 0), queue()].concat())].concat();
        let short_basic = message("tbf", &[attribute(1, &[0; 9]), queue()]);
        let short_queue = message("tbf", &[basic(0, 0), attribute(3, &[0; 19])]);
        let no_queue = message("tbf", &[basic(0, 0)]);
        let empty = message("tbf", &[]);
        for bytes in [&[0; 19][..], &long, &no_kind, &short_basic, &short_queue, &no_queue, &empty] {
            let error = parse(bytes).expect_err("odd").to_string();
            assert!(error.contains("RTM_NEWQDISC"), "{error}");
        }
    }

    #[test]
    fn a_message_cut_anywhere_never_panics_and_never_gives_other_numbers() {
        let bytes = message("tbf", &[basic(1, 2), queue()]);
        let whole = parse(&bytes).expect("well formed");
        for end in 0..bytes.len() {
            if let Ok(Some(qdisc)) = parse(&bytes[..end]) {
                assert_eq!(Some(qdisc), whole, "{end}");
            }
        }
    }

    #[test]
    fn parents_are_written_as_tc_writes_them() {
        for (parent, text) in [
            (0xffff_ffff, "root"),
            (0xffff_fff1, "ingress"),
            (0x8001_0001, "8001:1"),
            (0x0001_0040, "1:40"),
            (1, ":1"),
            (0x0001_0000, "1:"),
        ] {
            assert_eq!(Parent(parent).to_string(), text);
        }
    }
}
