//! What a namespace's flows look like from one round to the next.

use super::*;
use crate::flow::kernel::key;

const TCP: u8 = 6;

fn flow(n: u16) -> Key {
    key(1, TCP, ("10.0.0.1", 0), ("10.0.0.2", n + 1))
}

fn sent(bytes: u64) -> Traffic {
    Traffic { sent_bytes: bytes, sent_packets: 1, ..Traffic::default() }
}

/// Flows that grew by so many bytes, each as hot as that.
fn grown(flows: &[(u16, u64)], now: Instant) -> Vec<Grown> {
    let of = |&(n, bytes): &(u16, u64)| {
        let mut heat = Heat::new(now);
        heat.add(sent(bytes), now);
        Grown { key: flow(n), by: sent(bytes), heat }
    };
    flows.iter().map(of).collect()
}

fn shown(pod: &Pod) -> Vec<(Key, u64)> {
    pod.own().map(|(key, own)| (*key, own.traffic.sent_bytes)).collect()
}

#[test]
fn the_heaviest_flows_have_series_and_the_others_are_the_rest() {
    let mut pod = Pod::default();
    let now = Instant::now();
    pod.take(grown(&[(1, 10), (2, 300), (3, 20), (4, 100)], now), 2, now);
    assert_eq!(shown(&pod), [(flow(2), 300), (flow(4), 100)]);
    assert_eq!(pod.rest(Protocol::Tcp), Traffic { sent_bytes: 30, sent_packets: 2, ..Traffic::default() });
    assert_eq!(pod.total(Protocol::Tcp).sent_bytes, 430);
    assert_eq!(pod.total(Protocol::Udp), Traffic::default());
}

#[test]
fn a_much_heavier_flow_takes_the_place_of_a_series_that_is_old_enough() {
    let mut pod = Pod::default();
    let start = Instant::now();
    pod.take(grown(&[(1, 100), (2, 200)], start), 2, start);
    let soon = start + TENURE / 2;
    pod.take(grown(&[(3, 1_000_000)], soon), 2, soon);
    assert_eq!(shown(&pod), [(flow(1), 100), (flow(2), 200)], "too new to go");
    let later = start + TENURE;
    pod.take(grown(&[(1, 50), (2, 200), (3, 150)], later), 2, later);
    assert_eq!(
        shown(&pod),
        [(flow(2), 400), (flow(3), 150)],
        "what it had before it had a series stays in the rest"
    );
    assert_eq!(
        (pod.rest(Protocol::Tcp).sent_bytes, pod.total(Protocol::Tcp).sent_bytes),
        (1_000_000, 1_000_700)
    );
    let after = later + TENURE;
    pod.take(grown(&[(2, 100), (3, 100), (1, 199)], after), 2, after);
    assert!(!pod.has(&flow(1)), "not twice as heavy");
}

#[test]
fn a_series_that_comes_back_goes_on_where_it_was() {
    let mut pod = Pod::default();
    let now = Instant::now();
    pod.take(grown(&[(1, 100)], now), 1, now);
    pod.leave(&flow(1), now);
    assert_eq!(shown(&pod), []);
    pod.take(grown(&[(1, 5)], now), 1, now);
    assert_eq!(shown(&pod), [(flow(1), 105)]);
    assert_eq!(pod.rest(Protocol::Tcp), Traffic::default());
    assert_eq!(pod.total(Protocol::Tcp).sent_bytes, 105);
}

#[test]
fn without_room_for_any_series_everything_is_the_rest() {
    let mut pod = Pod::default();
    let now = Instant::now();
    pod.take(grown(&[(1, 100), (2, 1)], now), 0, now);
    assert_eq!((pod.own().count(), pod.rest(Protocol::Tcp).sent_bytes), (0, 101));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut pod = Pod::default();
    let now = Instant::now();
    for n in 0..3000 {
        pod.take(grown(&[(n, 1)], now), 1, now);
        pod.leave(&flow(n), now + Duration::from_secs(n.into()));
    }
    assert_eq!(pod.left.len(), REMEMBERED);
    assert!(pod.left.contains_key(&flow(2999)) && !pod.left.contains_key(&flow(0)));
}

/// A generator of numbers that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn nothing_ever_runs_backwards_and_nothing_is_lost_or_counted_twice() {
    const LIMIT: usize = 8;
    let mut numbers = Numbers(1);
    let mut pod = Pod::default();
    let mut now = Instant::now();
    let (mut truth, mut last_rest) = (0, 0);
    let mut last: HashMap<Key, u64> = HashMap::new();
    let mut changes = 0;
    for _ in 0..2000 {
        now += Duration::from_secs(15);
        let mut flows = BTreeMap::new();
        for _ in 0..numbers.below(30) {
            // Some flows are always heavier than others, and now and then one is much heavier.
            let n = numbers.below(60);
            let bytes = 1 + numbers.below(100 * (n + 1)) * if numbers.below(20) == 0 { 1000 } else { 1 };
            flows.insert(u16::try_from(n).expect("a small number"), bytes);
        }
        let flows: Vec<_> = flows.into_iter().collect();
        let held: Vec<Key> = pod.own().map(|(key, _)| *key).collect();
        pod.take(grown(&flows, now), LIMIT, now);
        truth += flows.iter().map(|(_, bytes)| bytes).sum::<u64>();

        assert!(pod.own().count() <= LIMIT);
        let rest = pod.rest(Protocol::Tcp).sent_bytes;
        let left: u64 = pod.left.values().map(|(had, _)| had.sent_bytes).sum();
        let own: u64 = pod.own().map(|(_, own)| own.traffic.sent_bytes).sum();
        assert_eq!(pod.total(Protocol::Tcp).sent_bytes, truth);
        assert_eq!(own + left + rest, truth, "each byte is in one place");
        assert!(rest >= last_rest);
        last_rest = rest;
        for (key, own) in pod.own() {
            let before = last.insert(*key, own.traffic.sent_bytes).unwrap_or_default();
            assert!(own.traffic.sent_bytes >= before);
            changes += usize::from(!held.contains(key));
        }
        if numbers.below(50) == 0
            && let Some(key) = held.first()
        {
            pod.leave(key, now);
        }
    }
    assert!(changes > 3 * LIMIT, "only {changes} series were ever given to another flow");
}
