//! Asking the kernel for the TCP sockets of a namespace, and adding up what it answers.
//!
//! The request is `TCPDIAG_GETSOCK`, which tells of both IP versions at once; `SOCK_DIAG_BY_FAMILY` takes one, and
//! each request walks the table of connections of the **whole machine**, so two would cost twice as much.
//! See net/ipv4/inet_diag.c; the offsets below are those of include/uapi/linux/inet_diag.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netsonde_framework::CollectError;

use super::metrics::State;
use crate::os::netlink::{Answer, Netlink, Protocol};

const TCPDIAG_GETSOCK: u16 = 18;
/// `struct inet_diag_req`: 4 bytes, a socket id of 48, the wanted states, and one word that is not used.
const REQUEST: usize = 60;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;
const WHAT: &str = "TCPDIAG_GETSOCK";

/// By the kernel's number less one: include/net/tcp_states.h. A connection request (12) is in SYN_RECV as well.
const STATES: [State; 12] = [
    State::Established,
    State::SynSent,
    State::SynRecv,
    State::FinWait1,
    State::FinWait2,
    State::TimeWait,
    State::Close,
    State::CloseWait,
    State::LastAck,
    State::Listen,
    State::Closing,
    State::SynRecv,
];
const ALL_STATES: u32 = 0x1ffe;
const ONLY_LISTEN: u32 = 1 << 10;

/// A listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    pub address: IpAddr,
    pub port: u16,
    /// Connections that wait for accept().
    pub length: u32,
    /// The longest that its queue may be.
    pub limit: u32,
}

/// The sockets of a namespace, added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// In the order of [`State::ALL`].
    pub states: [u64; State::ALL.len()],
    pub receive_queue: u64,
    pub send_queue: u64,
    /// Listening sockets with a queue longer than its limit.
    pub full: u64,
}

/// One answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dump {
    pub counts: Counts,
    pub listening: Vec<Listening>,
}

impl Dump {
    /// Adds a socket: an `inet_diag_msg`; the attributes after it are not looked at.
    pub fn add(&mut self, message: &[u8]) -> Result<(), CollectError> {
        let bad = |why: String| CollectError::Parse { what: format!("netlink {WHAT}"), why };
        let message: &[u8; MESSAGE] = message
            .first_chunk()
            .ok_or_else(|| bad(format!("a socket in {} bytes, which takes {MESSAGE}", message.len())))?;
        let state = STATES
            .get(usize::from(message[1]).wrapping_sub(1))
            .ok_or_else(|| bad(format!("a socket in state {}", message[1])))?;
        self.counts.states[*state as usize] += 1;
        let (length, limit) = (word(message, 56), word(message, 60));
        if *state != State::Listen {
            self.counts.receive_queue += u64::from(length);
            self.counts.send_queue += u64::from(limit);
            return Ok(());
        }
        let [_, _, _, _, high, low, _, _, a, b, c, d, ..] = *message;
        let address = match i32::from(message[0]) {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            libc::AF_INET6 => {
                let mut address = [0; 16];
                address.copy_from_slice(&message[8..24]);
                IpAddr::V6(Ipv6Addr::from(address))
            }
            family => return Err(bad(format!("a socket of family {family}"))),
        };
        // As sk_acceptq_is_full() of include/net/sock.h has it: a queue may be one longer than asked for.
        self.counts.full += u64::from(length > limit);
        self.listening.push(Listening { address, port: u16::from_be_bytes([high, low]), length, limit });
        Ok(())
    }
}

fn word(message: &[u8; MESSAGE], at: usize) -> u32 {
    u32::from_ne_bytes([message[at], message[at + 1], message[at + 2], message[at + 3]])
}

fn ask(netlink: &mut Netlink, states: u32, buf: &mut Vec<u8>) -> Result<Dump, CollectError> {
    let mut request = [0; REQUEST];
    request[52..56].copy_from_slice(&states.to_ne_bytes());
    netlink.ask(WHAT, Answer::Dump, TCPDIAG_GETSOCK, &request, buf, |dump: &mut Dump, kind, message| {
        if kind == TCPDIAG_GETSOCK { dump.add(message) } else { Ok(()) }
    })
}

/// All TCP sockets of the namespace that `netlink` belongs to.
pub fn dump(netlink: &mut Netlink, buf: &mut Vec<u8>) -> Result<Dump, CollectError> {
    ask(netlink, ALL_STATES, buf)
}

/// Whether this kernel can be asked for TCP sockets; the answer to "not" is in the error.
pub fn supported() -> Result<(), CollectError> {
    let failed = |source| CollectError::Netlink { what: WHAT, source };
    let mut netlink = Netlink::open(Protocol::SockDiag).map_err(failed)?;
    ask(&mut netlink, ONLY_LISTEN, &mut Vec::new()).map(|_| ())
}

/// Whether an error says that the kernel was built without this, or its module cannot be loaded.
pub fn is_absent(error: &CollectError) -> bool {
    let CollectError::Netlink { source, .. } = error else { return false };
    source.kind() == io::ErrorKind::NotFound
        || matches!(source.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: i32, state: u8, port: u16, queues: (u32, u32)) -> Vec<u8> {
        let mut bytes = vec![0; MESSAGE + 8];
        bytes[0] = u8::try_from(family).expect("small");
        bytes[1] = state;
        bytes[4..6].copy_from_slice(&port.to_be_bytes());
        bytes[8..12].copy_from_slice(&[10, 0, 0, 1]);
        bytes[56..60].copy_from_slice(&queues.0.to_ne_bytes());
        bytes[60..64].copy_from_slice(&queues.1.to_ne_bytes());
        bytes
    }

    #[test]
    fn connections_are_counted_by_state_and_their_queues_added_up() {
        let mut dump = Dump::default();
        dump.add(&message(libc::AF_INET, 1, 80, (100, 7))).expect("well formed");
        dump.add(&message(libc::AF_INET6, 1, 80, (11, 0))).expect("well formed");
        dump.add(&message(libc::AF_INET, 12, 80, (0, 0))).expect("a connection request");
        let counts = &dump.counts;
        assert_eq!(counts.states[State::Established as usize], 2);
        assert_eq!(counts.states[State::SynRecv as usize], 1);
        assert_eq!((counts.receive_queue, counts.send_queue), (111, 7));
        assert!(dump.listening.is_empty());
    }

    #[test]
    fn a_listeners_numbers_are_its_queue_and_no_bytes() {
        let mut dump = Dump::default();
        dump.add(&message(libc::AF_INET, 10, 8080, (3, 3))).expect("well formed");
        dump.add(&message(libc::AF_INET6, 10, 8080, (4, 3))).expect("well formed");
        assert_eq!((dump.counts.receive_queue, dump.counts.send_queue), (0, 0));
        assert_eq!(dump.counts.full, 1, "a queue as long as its limit still takes one");
        let first = dump.listening[0];
        assert_eq!((first.address.to_string(), first.port, first.length), ("10.0.0.1".into(), 8080, 3));
        assert_eq!(dump.listening[1].address.to_string(), "a00:1::");
    }

    #[test]
    fn every_state_of_the_kernel_has_a_name_and_others_are_refused() {
        for state in 1..=12 {
            let mut dump = Dump::default();
            dump.add(&message(libc::AF_INET, state, 1, (0, 0))).expect("known");
            assert_eq!(dump.counts.states.iter().sum::<u64>(), 1);
        }
        for state in [0, 13, 255] {
            let error = Dump::default().add(&message(libc::AF_INET, state, 1, (0, 0))).expect_err("unknown");
            assert!(error.to_string().contains(&format!("state {state}")), "{error}");
        }
    }

    #[test]
    fn a_message_that_is_cut_off_or_of_another_family_is_refused_by_name() {
        let whole = message(libc::AF_INET, 1, 1, (0, 0));
        for end in 0..MESSAGE {
            let error = Dump::default().add(&whole[..end]).expect_err("cut off").to_string();
            assert!(error.contains("TCPDIAG_GETSOCK"), "{error}");
        }
        assert!(Dump::default().add(&message(77, 10, 1, (0, 0))).is_err());
    }
}
