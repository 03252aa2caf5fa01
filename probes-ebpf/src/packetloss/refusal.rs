//! What a listening socket refused: `struct refusal` of the kernel side, and its fields of an event.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netsonde_framework::Field;

use crate::runtime::Record;

/// The state of a listening socket just after it refused a connection, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    listener: SocketAddr,
    /// Connections that wait for accept(), and above how many it takes no more.
    waiting: u32,
    limit: u32,
    /// Connections whose handshake is not over.
    requests: u32,
    pid: u32,
    comm: String,
}

impl Refusal {
    /// Reads the struct.
    pub fn read(record: Record<'_>) -> Self {
        let address = match record.u8(50) {
            4 => IpAddr::V4(Ipv4Addr::from(record.bytes::<4>(0))),
            _ => IpAddr::V6(Ipv6Addr::from(record.bytes::<16>(0))),
        };
        Self {
            listener: SocketAddr::new(address, record.u16(48)),
            waiting: record.u32(16),
            limit: record.u32(20),
            requests: record.u32(24),
            pid: record.u32(28),
            comm: record.text::<16>(32),
        }
    }

    /// The kernel's own reason of Linux 6.18 for a full accept queue, on every kernel; the others have no name there.
    /// What was looked at late may have room again by then.
    pub fn reason(&self) -> &'static str {
        if self.waiting > self.limit {
            "TCP_LISTEN_OVERFLOW"
        } else if self.requests >= self.limit {
            "TCP_REQUEST_QUEUE_FULL"
        } else {
            "TCP_LISTEN_DROP"
        }
    }

    /// The fields of the event.
    pub fn fields(self) -> impl Iterator<Item = (&'static str, Field)> {
        let known = self.pid != 0;
        [
            ("listener", Some(self.listener.to_string().into())),
            ("listener_pid", known.then(|| self.pid.into())),
            ("listener_comm", known.then(|| self.comm.into())),
            ("accept_queue", Some(self.waiting.into())),
            ("accept_queue_limit", Some(self.limit.into())),
            ("request_queue", Some(self.requests.into())),
        ]
        .into_iter()
        .filter_map(|(name, field)| Some((name, field?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{assert_layout, types};

    #[test]
    fn the_struct_is_laid_out_as_in_the_kernel_side() {
        let members = &[
            ("address", 0),
            ("waiting", 16),
            ("limit", 20),
            ("requests", 24),
            ("pid", 28),
            ("comm", 32),
            ("port", 48),
            ("family", 50),
            ("unused", 51),
        ];
        assert_layout(types!("packetloss"), "refusal", members, 56);
    }

    fn refusal(waiting: u32, limit: u32, requests: u32, pid: u32) -> Refusal {
        let mut bytes = [0; 56];
        bytes[..4].copy_from_slice(&[10, 9, 0, 2]);
        for (at, number) in [(16, waiting), (20, limit), (24, requests), (28, pid)] {
            bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
        }
        bytes[32..37].copy_from_slice(b"nginx");
        bytes[48..50].copy_from_slice(&8080u16.to_ne_bytes());
        bytes[50] = 4;
        Refusal::read(Record(&bytes))
    }

    #[test]
    fn the_reason_is_the_queue_that_is_full() {
        assert_eq!(refusal(2, 1, 0, 7).reason(), "TCP_LISTEN_OVERFLOW");
        assert_eq!(
            refusal(1, 1, 1, 7).reason(),
            "TCP_REQUEST_QUEUE_FULL",
            "one more still fits for accept()"
        );
        assert_eq!(refusal(1, 128, 3, 7).reason(), "TCP_LISTEN_DROP");
    }

    #[test]
    fn the_fields_name_listener_and_process_where_that_is_known() {
        let fields: Vec<_> = refusal(2, 1, 0, 7).fields().collect();
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        let all = [
            "listener",
            "listener_pid",
            "listener_comm",
            "accept_queue",
            "accept_queue_limit",
            "request_queue",
        ];
        assert_eq!(names, all);
        assert_eq!(fields[0].1, Field::from("10.9.0.2:8080".to_owned()));
        assert_eq!((&fields[1].1, &fields[2].1), (&Field::from(7u32), &Field::from("nginx".to_owned())));
        let names: Vec<_> = refusal(2, 1, 0, 0).fields().map(|(name, _)| name).collect();
        assert_eq!(names, ["listener", "accept_queue", "accept_queue_limit", "request_queue"]);
    }
}
