//! Netlink requests to the kernel: one socket of one namespace, one request at a time.
//!
//! Sequence numbers are checked, so an answer to an earlier request is never taken for this one's; a dump that the
//! kernel marks as interrupted is asked again from the start.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::NetlinkHeader;
use netlink_sys::{Socket, SocketAddr};
use netsonde_framework::CollectError;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// A netlink protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, qdiscs, addresses.
    Route,
    /// Conntrack and nftables.
    Netfilter,
    /// Sockets.
    SockDiag,
}

impl Protocol {
    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route => "NETLINK_ROUTE",
            Self::Netfilter => "NETLINK_NETFILTER",
            Self::SockDiag => "NETLINK_SOCK_DIAG",
        }
    }
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const HEADER: usize = 16;
const TRIES: u32 = 4;
/// The kernel answers from the caller's own context; a longer silence is a fault.
const PATIENCE: Duration = Duration::from_secs(2);

/// One netlink socket.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// How far an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Until NLMSG_DONE.
    Dump,
    /// Exactly one message, whatever its flags say.
    ///
    /// Conntrack's GET_STATS has NLM_F_MULTI and no NLMSG_DONE: waiting for more would never end.
    One,
}

impl Netlink {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let number = match protocol {
            Protocol::Route => netlink_sys::protocols::NETLINK_ROUTE,
            Protocol::Netfilter => netlink_sys::protocols::NETLINK_NETFILTER,
            Protocol::SockDiag => netlink_sys::protocols::NETLINK_SOCK_DIAG,
        };
        let socket = Socket::new(number)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and hands each message of the answer (type and payload) to `each`.
    ///
    /// `what` names the request in errors. The result is built in a `T` that starts anew when the kernel says that
    /// the dump was interrupted by a change; after four such tries it is an error.
    pub fn ask<T: Default>(
        &mut self,
        what: &'static str,
        answer: Answer,
        kind: u16,
        payload: &[u8],
        buf: &mut Vec<u8>,
        mut each: impl FnMut(&mut T, u16, &[u8]) -> Result<(), CollectError>,
    ) -> Result<T, CollectError> {
        for _ in 0..TRIES {
            let mut result = T::default();
            self.send(what, answer, kind, payload)?;
            if self.receive(what, answer, buf, |kind, payload| each(&mut result, kind, payload))? {
                return Ok(result);
            }
        }
        Err(CollectError::Interrupted { what, tries: TRIES })
    }

    /// The socket, for requests that are no messages.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn send(
        &mut self,
        what: &'static str,
        answer: Answer,
        kind: u16,
        payload: &[u8],
    ) -> Result<(), CollectError> {
        self.sequence = self.sequence.wrapping_add(1);
        let flags = NLM_F_REQUEST | if answer == Answer::Dump { NLM_F_DUMP } else { 0 };
        let length = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
        let mut request = Vec::with_capacity(HEADER + payload.len());
        request.extend_from_slice(&length.to_ne_bytes());
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&flags.to_ne_bytes());
        request.extend_from_slice(&self.sequence.to_ne_bytes());
        request.extend_from_slice(&0u32.to_ne_bytes());
        request.extend_from_slice(payload);
        self.socket.send(&request, 0).map_err(|source| CollectError::Netlink { what, source })?;
        Ok(())
    }

    /// Gives `false` where the dump was interrupted.
    fn receive(
        &mut self,
        what: &'static str,
        answer: Answer,
        buf: &mut Vec<u8>,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), CollectError>,
    ) -> Result<bool, CollectError> {
        let fail = |source| CollectError::Netlink { what, source };
        let mut whole = true;
        loop {
            buf.clear();
            buf.reserve(64 * 1024);
            self.socket.recv(buf, 0).map_err(fail)?;
            let mut rest = buf.as_slice();
            while let Some((header, payload, after)) = message(rest) {
                rest = after;
                if header.sequence_number != self.sequence {
                    continue;
                }
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.message_type {
                    NLMSG_DONE | NLMSG_ERROR => {
                        status(payload).map_err(fail)?;
                        return Ok(whole);
                    }
                    kind => {
                        each(kind, payload)?;
                        if answer == Answer::One {
                            return Ok(whole);
                        }
                    }
                }
            }
            if !rest.is_empty() {
                let why = format!("{} bytes after the last whole message", rest.len());
                return Err(CollectError::Parse { what: format!("netlink {what}"), why });
            }
        }
    }
}

/// The first message of `bytes`: header, payload and what comes after.
fn message(bytes: &[u8]) -> Option<(NetlinkHeader, &[u8], &[u8])> {
    let word = |i: usize| Some(u32::from_ne_bytes(bytes.get(i..i + 4)?.try_into().ok()?));
    let half = |i: usize| Some(u16::from_ne_bytes(bytes.get(i..i + 2)?.try_into().ok()?));
    let mut header = NetlinkHeader::default();
    header.length = word(0)?;
    header.message_type = half(4)?;
    header.flags = half(6)?;
    header.sequence_number = word(8)?;
    header.port_number = word(12)?;
    let length = header.length as usize;
    let payload = bytes.get(HEADER..length)?;
    Some((header, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The error number at the start of NLMSG_ERROR and NLMSG_DONE: zero or a negative errno.
fn status(payload: &[u8]) -> io::Result<()> {
    let code = payload.first_chunk::<4>().map_or(0, |b| i32::from_ne_bytes(*b));
    if code < 0 { Err(io::Error::from_raw_os_error(-code)) } else { Ok(()) }
}

/// The attributes of a message: type (without flag bits) and value. Stops at the first malformed one.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const TYPE: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd as _, IntoRawFd as _};
    use std::os::unix::net::UnixDatagram;
    use std::thread;

    use super::*;

    const RTM_GETLINK: u16 = 18;

    #[test]
    fn links_are_dumped_and_the_socket_can_be_used_again() {
        let mut netlink = Netlink::open(Protocol::Route).expect("every kernel has it");
        let mut buf = Vec::new();
        for _ in 0..3 {
            let count: usize = netlink
                .ask("RTM_GETLINK", Answer::Dump, RTM_GETLINK, &[0; 16], &mut buf, |n: &mut usize, _, _| {
                    *n += 1;
                    Ok(())
                })
                .expect("answered");
            assert!(count >= 1, "there is at least lo");
        }
    }

    #[test]
    fn an_errno_of_the_kernel_is_the_error() {
        let mut netlink = Netlink::open(Protocol::Route).expect("every kernel has it");
        let error = netlink
            .ask("nonsense", Answer::One, 0xfff0, &[], &mut Vec::new(), |(): &mut (), _, _| Ok(()))
            .expect_err("no such type");
        assert!(error.to_string().contains("nonsense"), "{error}");
    }

    /// A kernel of the test's own: answers each request with the datagrams that `answer` makes for its sequence number.
    fn answered(answer: impl Fn(u32) -> Vec<Vec<u8>> + Send + 'static) -> Netlink {
        let (mine, kernel) = UnixDatagram::pair().expect("a pair");
        thread::spawn(move || {
            let mut request = [0; 256];
            while let Ok(n) = kernel.recv(&mut request) {
                let Some(sequence) = request[..n].get(8..12).and_then(|b| b.try_into().ok()) else { return };
                for datagram in answer(u32::from_ne_bytes(sequence)) {
                    if kernel.send(&datagram).is_err() {
                        return;
                    }
                }
            }
        });
        // SAFETY: the descriptor is open and nobody else's after `into_raw_fd`.
        let socket = unsafe { Socket::from_raw_fd(mine.into_raw_fd()) };
        set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_millis(200))).expect("a timeout");
        Netlink { socket, sequence: 0 }
    }

    fn reply(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).expect("short");
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(payload);
        message
    }

    fn count(netlink: &mut Netlink) -> Result<usize, CollectError> {
        netlink.ask("the dump", Answer::Dump, 1, &[], &mut Vec::new(), |n: &mut usize, _, _| {
            *n += 1;
            Ok(())
        })
    }

    #[test]
    fn a_dump_that_is_interrupted_is_asked_again_and_its_parts_are_not_mixed() {
        // The first two are interrupted after two messages each.
        let mut netlink = answered(|sequence| {
            let flags = if sequence <= 2 { NLM_F_DUMP_INTR } else { 0 };
            let part = reply(16, flags, sequence, &[0; 4]);
            vec![part.clone(), part, reply(NLMSG_DONE, 0, sequence, &[0; 4])]
        });
        assert_eq!(count(&mut netlink).expect("the third is whole"), 2);
    }

    #[test]
    fn a_dump_that_is_always_interrupted_is_an_error_that_says_so() {
        let mut netlink = answered(|sequence| vec![reply(NLMSG_DONE, NLM_F_DUMP_INTR, sequence, &[0; 4])]);
        let error = count(&mut netlink).expect_err("never whole");
        assert_eq!(error.reason(), "interrupted");
        assert!(error.to_string().contains("the dump"), "{error}");
    }

    #[test]
    fn late_answers_to_an_earlier_request_are_not_taken() {
        let mut netlink = answered(|sequence| {
            let late = reply(16, 0, sequence.wrapping_sub(1), &[0; 4]);
            vec![late.clone(), late, reply(16, 0, sequence, &[0; 4]), reply(NLMSG_DONE, 0, sequence, &[0; 4])]
        });
        assert_eq!(count(&mut netlink).expect("answered"), 1);
    }

    #[test]
    fn silence_and_broken_messages_are_errors_and_not_a_hang() {
        let error = count(&mut answered(|_| Vec::new())).expect_err("silence");
        assert_eq!(error.reason(), "netlink");
        let error = count(&mut answered(|sequence| {
            let mut cut = reply(16, 0, sequence, &[0; 40]);
            cut.truncate(30);
            vec![cut]
        }))
        .expect_err("cut off");
        assert_eq!(error.reason(), "parse");
    }

    #[test]
    fn cut_off_messages_and_attributes_end_the_walk() {
        assert!(message(&[1, 2, 3]).is_none());
        assert!(message(&[255; 16]).is_none());
        assert_eq!(attributes(&[255, 255, 1, 0]).count(), 0);
        assert_eq!(
            attributes(&[8, 0, 1, 0x80, 9, 9, 9, 9, 5]).collect::<Vec<_>>(),
            [(1, &[9u8, 9, 9, 9][..])]
        );
        assert_eq!(attributes(&[0, 0, 0, 0, 0, 0]).count(), 0);
    }
}
