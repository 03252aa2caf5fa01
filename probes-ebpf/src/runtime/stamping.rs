//! Making the kernel stamp every packet with the moment of its arrival, for as long as a probe wants it to.
//!
//! The kernel stamps packets while any socket of the machine, in whatever namespace, asks for it. So one is held open that
//! nothing is ever sent to. The stamps are the time of day (CLOCK_REALTIME).

use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use netsonde_framework::StartError;
use rustix::time::{ClockId, DynamicClockId, clock_gettime, clock_gettime_dynamic};

use super::clock::nanoseconds;

/// While it lives, packets are stamped. The first ones after its start may not be yet: the kernel switches later.
#[derive(Debug)]
pub struct Stamping {
    _socket: UdpSocket,
}

impl Stamping {
    /// Asks for stamps.
    pub fn start() -> Result<Self, StartError> {
        let socket = open().map_err(|error| {
            StartError::Failed(format!("cannot make the kernel stamp arriving packets: {error}"))
        })?;
        Ok(Self { _socket: socket })
    }
}

fn open() -> std::io::Result<UdpSocket> {
    // On loopback, and at a port that nobody is told.
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).expect("an int is four bytes");
    // SAFETY: the descriptor is open, and the option's value is an int of the size that is told.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            size,
        )
    };
    if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(socket) }
}

/// How many seconds TAI, which programs in the kernel can ask for, is ahead of the time of day, which they cannot. It is
/// 0 until something like chrony has told the kernel of leap seconds.
pub fn tai_ahead_seconds() -> u32 {
    let Ok(tai) = clock_gettime_dynamic(DynamicClockId::Tai) else { return 0 };
    // Read a moment later, so it is ahead by the whole number of seconds less that moment.
    let ahead = nanoseconds(tai) - nanoseconds(clock_gettime(ClockId::Realtime));
    u32::try_from((ahead + 500_000_000).div_euclid(1_000_000_000)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_one_that_asks_for_stamps() {
        let socket = open().expect("any process may ask");
        let (mut on, mut size): (libc::c_int, _) = (0, 4);
        // SAFETY: the descriptor is open, and there is room for an int of the size that is told.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_TIMESTAMPNS,
                (&raw mut on).cast(),
                &raw mut size,
            )
        };
        assert_eq!((answer, on), (0, 1));
    }

    #[test]
    fn tai_is_ahead_by_what_the_kernel_was_told() {
        // SAFETY: all zeros is a `struct timex` that only asks, and it outlives the call.
        let tai = unsafe {
            let mut asked: libc::timex = std::mem::zeroed();
            assert!(libc::adjtimex(&raw mut asked) >= 0);
            asked.tai
        };
        assert_eq!(i64::from(tai_ahead_seconds()), i64::from(tai));
    }
}
