//! Traffic between two namespaces and what it changed on the page.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Agent, Netns, Page, Pair};

/// Says that it is done when it is dropped, also by a test that fails: else the thread that asks would never end.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two pages and what lies between them.
pub struct Between<'a> {
    before: &'a Page,
    after: &'a Page,
}

impl Between<'_> {
    /// By how much the series of this name and these labels grew in `ns`.
    pub fn grew(&self, ns: &Netns, name: &str, labels: &[(&str, &str)]) -> u64 {
        let of = |page: &Page| page.pod(ns.name()).count(name, labels);
        of(self.after).checked_sub(of(self.before)).unwrap_or_else(|| panic!("{name} went down"))
    }

    /// The same, summed over all series that have these labels; one that is not there yet counts as 0.
    pub fn grew_in_all(&self, ns: &Netns, name: &str, labels: &[(&str, &str)]) -> u64 {
        let of = |page: &Page| page.pod(ns.name()).total(name, labels);
        of(self.after).checked_sub(of(self.before)).unwrap_or_else(|| panic!("{name} went down"))
    }
}

pub fn between<'a>(before: &'a Page, after: &'a Page) -> Between<'a> {
    Between { before, after }
}

/// An agent with these probes that has found both sides and a bystander.
pub fn watch(probes: &str, pair: &Pair) -> (Agent, Netns, Page) {
    let bystander = Netns::new("bystander");
    let agent = Agent::start(&format!("node_name: lab\nprobes: {probes}\n"));
    for ns in [&pair.a, &pair.b, &bystander] {
        agent.find(ns.name());
    }
    let page = agent.scrape();
    (agent, bystander, page)
}

pub fn count_input(ns: &Netns, rule: &str) {
    ns.nft(&format!(
        "table inet lab {{
            counter seen {{ }}
            chain in {{
                type filter hook input priority 0
                {rule} counter name seen
            }}
        }}"
    ));
}

/// The same, and what it counts is dropped.
pub fn count_and_drop_input(ns: &Netns, rule: &str) {
    ns.nft(&format!(
        "table inet lab {{
            counter seen {{ }}
            chain in {{
                type filter hook input priority 0
                {rule} counter name seen drop
            }}
        }}"
    ));
}

/// Drops these behind what counts them, in a table of its own, until [`let_through`].
pub fn cut(ns: &Netns, rule: &str) {
    ns.nft(&format!(
        "table inet cut {{
            chain in {{
                type filter hook input priority 1
                {rule} drop
            }}
        }}"
    ));
}

pub fn let_through(ns: &Netns) {
    ns.nft("delete table inet cut");
}

pub fn send(from: &UdpSocket, to: &str, count: usize, size: usize) {
    for _ in 0..count {
        assert_eq!(from.send_to(&vec![7; size], to).expect("a datagram can be sent"), size);
    }
}

pub fn receive(socket: &UdpSocket, count: usize) {
    for n in 0..count {
        socket.recv(&mut [0; 2048]).unwrap_or_else(|e| panic!("datagram {n} of {count}: {e}"));
    }
}
