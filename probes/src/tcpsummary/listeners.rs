//! Which listening sockets have series of their own, when there may be more than the limit.
//!
//! Sockets that share address and port (SO_REUSEPORT) are one listener. A listener keeps its series until it is
//! gone; those beyond the limit are added up.

use std::net::IpAddr;

use super::diag::Listening;

/// The queue of a listener, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queue {
    pub length: u64,
    pub limit: u64,
}

impl Queue {
    fn add(&mut self, socket: &Listening) {
        self.length += u64::from(socket.length);
        self.limit += u64::from(socket.limit);
    }
}

/// A listener with series of its own. The texts are made once.
#[derive(Debug)]
pub struct Listener {
    key: (IpAddr, u16),
    pub address: String,
    pub port: String,
    pub queue: Queue,
    seen: bool,
}

/// The listeners of a namespace.
#[derive(Debug, Default)]
pub struct Listeners {
    pub own: Vec<Listener>,
    /// The sum of those beyond the limit, where there are any.
    pub other: Option<Queue>,
}

impl Listeners {
    /// Takes the listening sockets of a new reading.
    pub fn update(&mut self, mut sockets: Vec<Listening>, limit: usize) {
        for listener in &mut self.own {
            listener.queue = Queue::default();
            listener.seen = false;
        }
        self.other = None;
        // The known ones first, so that those that are gone make room.
        sockets.retain(|socket| !self.add(socket));
        self.own.retain(|listener| listener.seen);
        for socket in &sockets {
            if self.add(socket) {
                continue;
            }
            if self.own.len() < limit {
                self.own.push(Listener {
                    key: (socket.address, socket.port),
                    address: socket.address.to_string(),
                    port: socket.port.to_string(),
                    queue: Queue::default(),
                    seen: false,
                });
                self.add(socket);
            } else {
                self.other.get_or_insert_default().add(socket);
            }
        }
    }

    fn add(&mut self, socket: &Listening) -> bool {
        let own = self.own.iter_mut().find(|l| l.key == (socket.address, socket.port));
        if let Some(own) = own {
            own.queue.add(socket);
            own.seen = true;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn socket(port: u16, length: u32) -> Listening {
        Listening { address: Ipv4Addr::LOCALHOST.into(), port, length, limit: 128 }
    }

    #[test]
    fn sockets_that_share_address_and_port_are_one_listener() {
        let mut listeners = Listeners::default();
        listeners.update(vec![socket(80, 1), socket(81, 2), socket(80, 4)], 8);
        assert_eq!(listeners.own.len(), 2);
        assert_eq!(listeners.own[0].queue, Queue { length: 5, limit: 256 });
        assert_eq!((listeners.own[0].address.as_str(), listeners.own[0].port.as_str()), ("127.0.0.1", "80"));
        assert_eq!(listeners.other, None);
    }

    #[test]
    fn a_listener_keeps_its_series_and_those_beyond_the_limit_are_added_up() {
        let mut listeners = Listeners::default();
        listeners.update(vec![socket(80, 1)], 1);
        listeners.update(vec![socket(81, 2), socket(82, 3), socket(80, 4)], 1);
        assert_eq!((listeners.own.len(), listeners.own[0].port.as_str()), (1, "80"));
        assert_eq!(listeners.own[0].queue.length, 4);
        assert_eq!(listeners.other, Some(Queue { length: 5, limit: 256 }));
    }

    #[test]
    fn a_listener_that_is_gone_makes_room() {
        let mut listeners = Listeners::default();
        listeners.update(vec![socket(80, 1), socket(81, 2)], 1);
        listeners.update(vec![socket(81, 2)], 1);
        assert_eq!((listeners.own[0].port.as_str(), listeners.other), ("81", None));
        listeners.update(Vec::new(), 1);
        assert!(listeners.own.is_empty());
    }

    #[test]
    fn a_limit_of_zero_adds_all_up() {
        let mut listeners = Listeners::default();
        listeners.update(vec![socket(80, 1), socket(80, 2)], 0);
        assert_eq!(listeners.other, Some(Queue { length: 3, limit: 256 }));
    }
}
