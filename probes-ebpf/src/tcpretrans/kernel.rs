//! What the kernel side writes: `struct retransmission`, the key of its counters, and `struct resent`, its event, field
//! by field.

use netsonde_framework::{Flow, NetnsKey};

use super::metrics::Kind;
use crate::runtime::{Record, flow};

/// The size of the key.
pub const SIZE: usize = 16;

/// One kind of retransmission in one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retransmission {
    pub kind: Kind,
    /// It could not be sent.
    pub failed: bool,
    /// Why the packet was dropped, where that was on this machine: a number of the running kernel's `enum
    /// skb_drop_reason`.
    pub cause: Option<u32>,
}

impl Retransmission {
    /// Reads a key; `None` for a kind that the kernel side does not write.
    pub fn read(key: &[u8; SIZE]) -> Option<Self> {
        let reason = u32::from_ne_bytes([key[8], key[9], key[10], key[11]]);
        Some(Self { kind: kind(key[12])?, failed: key[13] != 0, cause: (key[14] != 0).then_some(reason) })
    }
}

fn kind(number: u8) -> Option<Kind> {
    Kind::ALL.get(usize::from(number)).copied()
}

/// Whether a drop for this reason is why TCP sends the packet again. It is not:
///
/// - Where nobody lost anything: queues that are purged, copies for who did not ask for them (another host's frames on
///   a bridge, a full packet socket).
/// - Without a reason: that can be such a copy too.
/// - By TCP's own judgement of what it gets: mostly it has it already, and the sender did not hear so. Of these, only
///   what it could not take is lost.
pub fn is_cause(reason: &str) -> bool {
    match reason {
        "NOT_SPECIFIED" | "NOT_DROPPED_YET" | "SKB_CONSUMED" | "QUEUE_PURGE" | "SOCKET_CLOSE"
        | "OTHERHOST" | "UNHANDLED_PROTO" | "PACKET_SOCK_ERROR" => false,
        "TCP_CSUM"
        | "TCP_ZEROWINDOW"
        | "TCP_OVERWINDOW"
        | "TCP_OFO_DROP"
        | "TCP_OFO_QUEUE_PRUNE"
        | "TCP_MINTTL"
        | "TCP_AUTH_HDR"
        | "TCP_REQQFULLDROP"
        | "TCP_LISTEN_OVERFLOW" => true,
        other => !other.starts_with("TCP_") || other.starts_with("TCP_MD5") || other.starts_with("TCP_AO"),
    }
}

/// The most frames of a stack.
const FRAMES: usize = 10;

/// Where and why the packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// Unknown where the kernel does not tell.
    pub netns: Option<NetnsKey>,
    /// An address in a kernel function.
    pub place: u64,
    pub reason: u32,
}

/// One retransmission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resent {
    pub netns: u64,
    /// Monotonic, nanoseconds.
    pub time: u64,
    pub suppressed: u64,
    pub cause: Option<Cause>,
    pub flow: Option<Flow>,
    pub sequence: u32,
    /// How many sequence numbers it has.
    pub length: u32,
    /// Smoothed, microseconds; 0 where nothing was measured yet.
    pub rtt_us: u32,
    /// Segments; 0 where there is no connection yet.
    pub window: u32,
    /// 0, or why it could not be sent: a negative errno, or a positive `NET_XMIT_*`.
    pub error: i32,
    pub kind: Kind,
    pub state: u8,
    /// How often the timer has run out in a row.
    pub timeouts: u8,
    frames: usize,
    stack: [u64; FRAMES],
}

impl Resent {
    /// Reads an event; `None` for a kind that the kernel side does not write.
    pub fn read(record: Record<'_>) -> Option<Self> {
        let mut stack = [0; FRAMES];
        for (i, frame) in stack.iter_mut().enumerate() {
            *frame = record.u64(112 + 8 * i);
        }
        let netns = record.u64(24);
        let cause = Cause {
            netns: (netns != 0).then_some(NetnsKey(netns)),
            place: record.u64(32),
            reason: record.u32(96),
        };
        Some(Self {
            netns: record.u64(0),
            time: record.u64(8),
            suppressed: record.u64(16),
            cause: (record.u8(107) != 0).then_some(cause),
            flow: flow(record.part(40)),
            sequence: record.u32(80),
            length: record.u32(84),
            rtt_us: record.u32(88) / 8,
            window: record.u32(92),
            error: i32::from_ne_bytes(record.bytes(100)),
            kind: kind(record.u8(104))?,
            state: record.u8(105),
            timeouts: record.u8(106),
            frames: usize::from(record.u8(108)).min(FRAMES),
            stack,
        })
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
    fn the_key_is_laid_out_as_in_the_kernel_side() {
        let members =
            &[("netns", 0), ("reason", 8), ("kind", 12), ("failed", 13), ("caused", 14), ("unused", 15)];
        assert_layout(types!("tcpretrans"), "retransmission", members, SIZE);
    }

    #[test]
    fn the_event_is_laid_out_as_in_the_kernel_side() {
        let members = &[
            ("netns", 0),
            ("time", 8),
            ("suppressed", 16),
            ("cause_netns", 24),
            ("cause_place", 32),
            ("tuple", 40),
            ("sequence", 80),
            ("length", 84),
            ("rtt", 88),
            ("window", 92),
            ("reason", 96),
            ("error", 100),
            ("kind", 104),
            ("state", 105),
            ("timeouts", 106),
            ("caused", 107),
            ("frames", 108),
            ("unused", 109),
            ("stack", 112),
        ];
        assert_layout(types!("tcpretrans"), "resent", members, 192);
    }

    #[test]
    fn keys_are_read_as_the_kernel_side_writes_them() {
        let mut key = [0; SIZE];
        key[12] = 3;
        let read = |key: &[u8; SIZE]| Retransmission::read(key).map(|r| (r.kind, r.failed, r.cause));
        assert_eq!(read(&key), Some((Kind::Fast, false, None)));
        (key[12], key[13]) = (4, 1);
        assert_eq!(read(&key), Some((Kind::LossProbe, true, None)));
        (key[8], key[12], key[13], key[14]) = (12, 0, 0, 1);
        assert_eq!(read(&key), Some((Kind::Syn, false, Some(12))));
        key[12] = 7;
        assert_eq!(read(&key), None);
    }

    #[test]
    fn events_are_read_as_the_kernel_side_writes_them() {
        let mut bytes = [0; 192];
        bytes[24] = 9;
        bytes[88..92].copy_from_slice(&8007u32.to_ne_bytes());
        bytes[96] = 12;
        bytes[100..104].copy_from_slice(&(-16i32).to_ne_bytes());
        (bytes[104], bytes[108], bytes[112]) = (2, 1, 77);
        let resent = Resent::read(Record(&bytes)).expect("a retransmission");
        assert_eq!((resent.cause, resent.rtt_us, resent.error), (None, 1000, -16));
        assert_eq!((resent.kind, resent.stack().collect::<Vec<_>>()), (Kind::Timeout, vec![77]));
        bytes[107] = 1;
        let cause = Cause { netns: Some(NetnsKey(9)), place: 0, reason: 12 };
        assert_eq!(Resent::read(Record(&bytes)).expect("a retransmission").cause, Some(cause));
        bytes[104] = 7;
        assert_eq!(Resent::read(Record(&bytes)), None);
    }

    #[test]
    fn only_losses_are_causes() {
        for cause in
            ["NETFILTER_DROP", "QDISC_DROP", "NO_SOCKET", "TCP_CSUM", "TCP_ZEROWINDOW", "TCP_AOFAILURE"]
        {
            assert!(is_cause(cause), "{cause}");
        }
        for other in ["NOT_SPECIFIED", "QUEUE_PURGE", "OTHERHOST", "TCP_OLD_DATA", "TCP_OLD_SEQUENCE"] {
            assert!(!is_cause(other), "{other}");
        }
    }
}
