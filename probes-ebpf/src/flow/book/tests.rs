//! Rounds over tables as the kernel would have them.

use super::*;
use crate::flow::kernel::key;
use crate::flow::metrics::Protocol;

const TCP: u8 = 6;
const UDP: u8 = 17;
const POD: u64 = 11;

/// A book with the kernel's two tables beside it.
struct Desk {
    book: Book,
    flows: HashMap<Key, Traffic>,
    overflow: HashMap<Key, Traffic>,
    known: HashSet<u64>,
    now: Instant,
    /// What each entry that is removed grew by since it was read.
    meanwhile: Traffic,
}

impl Desk {
    fn new(limit: usize) -> Self {
        Self {
            book: Book::new(limit),
            flows: HashMap::new(),
            overflow: HashMap::new(),
            known: HashSet::from([POD]),
            now: Instant::now(),
            meanwhile: Traffic::default(),
        }
    }

    fn sends(&mut self, key: Key, bytes: u64) {
        *self.flows.entry(key).or_default() += sent(bytes);
    }

    /// A round, so long after the one before.
    fn round(&mut self, after: Duration) {
        self.now += after;
        self.book.begin(self.known.clone());
        for (key, all) in &self.overflow {
            self.book.overflow(*key, *all, self.now);
        }
        for (key, all) in &self.flows {
            self.book.flow(*key, *all, self.now);
        }
        let removals = self.book.finish(self.now);
        for (table, entries) in [(&mut self.overflow, removals.overflow), (&mut self.flows, removals.flows)] {
            for (key, told) in entries {
                let all = table.remove(&key).expect("only entries that are there are removed");
                self.book.late(key, plus(all, self.meanwhile).since(told));
            }
        }
    }

    fn total(&self) -> u64 {
        let pod = self.book.pod(POD);
        pod.map_or(0, |pod| Protocol::ALL.iter().map(|p| pod.total(*p).sent_bytes).sum())
    }

    fn shown(&self) -> Vec<u64> {
        let pod = self.book.pod(POD);
        pod.map_or_else(Vec::new, |pod| pod.own().map(|(_, own)| own.traffic.sent_bytes).collect())
    }
}

fn plus(mut a: Traffic, b: Traffic) -> Traffic {
    a += b;
    a
}

fn sent(bytes: u64) -> Traffic {
    Traffic { sent_bytes: bytes, sent_packets: 1, ..Traffic::default() }
}

fn to_port(netns: u64, port: u16) -> Key {
    key(netns, TCP, ("10.0.0.1", 0), ("10.0.0.2", port))
}

const SCRAPE: Duration = Duration::from_secs(15);

#[test]
fn only_growth_is_added() {
    let mut desk = Desk::new(4);
    let flow = to_port(POD, 80);
    for _ in 0..3 {
        desk.sends(flow, 100);
        desk.round(SCRAPE);
        desk.round(SCRAPE);
    }
    assert_eq!((desk.total(), desk.shown()), (300, vec![300]));
}

#[test]
fn a_silent_flow_leaves_the_kernel_and_the_page_and_comes_back_with_what_it_had() {
    let mut desk = Desk::new(1);
    let (own, light) = (to_port(POD, 80), to_port(POD, 81));
    desk.sends(own, 100);
    desk.sends(light, 1);
    desk.round(SCRAPE);
    desk.round(IDLE);
    assert!(desk.flows.contains_key(&own) && !desk.flows.contains_key(&light));
    desk.round(OVER);
    assert!(desk.flows.is_empty() && desk.book.seen.is_empty());
    assert_eq!((desk.total(), desk.shown()), (101, vec![]), "the sum keeps what it was");
    desk.sends(own, 7);
    desk.round(SCRAPE);
    assert_eq!((desk.total(), desk.shown()), (108, vec![107]));
}

#[test]
fn what_an_entry_is_given_while_it_is_removed_is_in_the_sum() {
    let mut desk = Desk::new(1);
    desk.sends(to_port(POD, 80), 100);
    desk.round(SCRAPE);
    desk.meanwhile = sent(7);
    desk.round(OVER);
    assert!(desk.flows.is_empty());
    assert_eq!((desk.total(), desk.shown()), (107, vec![]));
    desk.sends(to_port(99, 80), 5);
    desk.round(SCRAPE);
    desk.round(UNKNOWN_FOR + SCRAPE);
    assert_eq!((desk.total(), desk.book.unattributed()), (107, 12), "nobody's stays nobody's");
}

#[test]
fn what_found_no_room_in_the_kernel_is_in_the_sum_and_in_the_rest() {
    let mut desk = Desk::new(4);
    let rest = key(POD, UDP, ("0.0.0.0", 0), ("0.0.0.0", 0));
    for bytes in [50, 80] {
        *desk.overflow.entry(rest).or_default() += sent(bytes);
        desk.round(SCRAPE);
    }
    let pod = desk.book.pod(POD).expect("it had traffic");
    assert_eq!(
        (pod.total(Protocol::Udp), pod.rest(Protocol::Udp)),
        (pod.rest(Protocol::Udp), desk.overflow[&rest])
    );
    assert_eq!((desk.total(), desk.book.overflowed()), (130, 130));
}

#[test]
fn a_namespace_that_is_found_late_has_all_that_it_sent() {
    let mut desk = Desk::new(4);
    desk.known.clear();
    desk.sends(to_port(POD, 80), 100);
    desk.round(SCRAPE);
    assert_eq!((desk.total(), desk.book.unattributed()), (0, 0));
    desk.known.insert(POD);
    desk.sends(to_port(POD, 80), 1);
    desk.round(SCRAPE);
    assert_eq!((desk.total(), desk.shown()), (101, vec![101]));
}

#[test]
fn what_nobody_claims_is_told_apart_once() {
    let mut desk = Desk::new(4);
    desk.sends(to_port(99, 80), 100);
    *desk.overflow.entry(key(99, UDP, ("0.0.0.0", 0), ("0.0.0.0", 0))).or_default() += sent(5);
    desk.round(SCRAPE);
    desk.round(UNKNOWN_FOR + SCRAPE);
    assert_eq!(desk.book.unattributed(), 105);
    assert!(desk.flows.is_empty() && desk.overflow.is_empty(), "removed from the kernel");
    desk.round(SCRAPE);
    assert_eq!(desk.book.unattributed(), 105);
    assert!(desk.book.unknown.is_empty());
}

#[test]
fn the_last_bytes_of_a_namespace_that_is_gone_are_of_nobody_else() {
    let mut desk = Desk::new(4);
    desk.sends(to_port(POD, 80), 100);
    desk.round(SCRAPE);
    desk.known.clear();
    desk.book.forget(std::iter::once(POD));
    desk.sends(to_port(POD, 80), 3);
    desk.round(SCRAPE);
    assert_eq!((desk.total(), desk.book.unattributed()), (0, 3));
    assert!(desk.flows.is_empty() && desk.book.seen.is_empty());
}

#[test]
fn a_crowded_table_is_cleared_of_what_is_silent_and_has_no_series() {
    let mut desk = Desk::new(2);
    for n in 0..20_000u16 {
        desk.sends(to_port(POD, n + 1), 1 + u64::from(n == 7) * 1000);
    }
    desk.round(SCRAPE);
    assert_eq!(desk.flows.len(), 20_000, "all of them grew");
    desk.sends(to_port(POD, 1), 1);
    desk.round(SCRAPE);
    assert!(desk.flows.len() <= 3, "{} entries", desk.flows.len());
    assert!(desk.flows.contains_key(&to_port(POD, 8)) && desk.flows.contains_key(&to_port(POD, 1)));
    assert_eq!(desk.total(), 20_000 + 1000 + 1);
}
