//! What a probe's thread sleeps on: its bell, its probe's records, or a moment.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Wakes a thread that waits for a message of a channel and for a descriptor at once.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Call it after the message was sent.
    pub fn ring(&self) {
        // It can fail only when it has been rung 2^64 times without anyone listening.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Sleeps until the bell rings, `records` is readable or the time is over. Gives whether `records` is readable.
    pub fn wait(&self, records: Option<BorrowedFd<'_>>, at_most: Option<Duration>) -> bool {
        let own = self.0.as_fd();
        let mut fds =
            [PollFd::from_borrowed_fd(own, PollFlags::IN), PollFd::from_borrowed_fd(own, PollFlags::IN)];
        let mut waiting = 1;
        if let Some(records) = records {
            fds[1] = PollFd::from_borrowed_fd(records, PollFlags::IN);
            waiting = 2;
        }
        // A time that does not fit is centuries.
        let timeout = at_most.and_then(|d| Timespec::try_from(d).ok());
        if poll(&mut fds[..waiting], timeout.as_ref()).is_err() {
            return false;
        }
        if fds[0].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
        }
        waiting == 2 && fds[1].revents().contains(PollFlags::IN)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_ring_ends_the_wait_also_when_it_came_before() {
        let bell = Arc::new(Bell::new().expect("a descriptor"));
        bell.ring();
        assert!(!bell.wait(None, None));
        let ringer = Arc::clone(&bell);
        let thread = std::thread::spawn(move || ringer.ring());
        assert!(!bell.wait(None, None));
        thread.join().expect("it only rang");
        let start = Instant::now();
        assert!(!bell.wait(None, Some(Duration::from_millis(20))));
        assert!(start.elapsed() >= Duration::from_millis(20), "it rang once only");
    }

    #[test]
    fn records_end_the_wait() {
        let bell = Bell::new().expect("a descriptor");
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        assert!(!bell.wait(Some(read.as_fd()), Some(Duration::ZERO)));
        rustix::io::write(&write, b"x").expect("a pipe takes a byte");
        assert!(bell.wait(Some(read.as_fd()), None));
    }
}
