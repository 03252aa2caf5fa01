//! Sums that never run backwards although their parts come and go.
//!
//! A pod's total over its processes or devices would fall when one of them ends, and Prometheus would read that
//! as a restart and count everything again. These types remember each part and add only what it grew.

use std::collections::HashMap;
use std::hash::Hash;

/// The growth of `N` counters of many parts, summed.
///
/// A part that is seen for the first time counts with its whole value; one whose value fell started anew and
/// counts with its whole value too; one that is gone keeps what it had added.
#[derive(Debug, Clone)]
pub struct MonotonicSum<K, const N: usize> {
    parts: HashMap<K, ([u64; N], u64)>,
    total: [u64; N],
    round: u64,
}

impl<K, const N: usize> Default for MonotonicSum<K, N> {
    fn default() -> Self {
        Self { parts: HashMap::new(), total: [0; N], round: 0 }
    }
}

impl<K: Eq + Hash, const N: usize> MonotonicSum<K, N> {
    /// Takes the current values of one part.
    pub fn add(&mut self, part: K, values: [u64; N]) {
        let (last, seen) = self.parts.entry(part).or_insert(([0; N], 0));
        *seen = self.round;
        for ((total, last), now) in self.total.iter_mut().zip(last).zip(values) {
            *total = total.wrapping_add(if now >= *last { now - *last } else { now });
            *last = now;
        }
    }

    /// Forgets the parts that were not added since the last call, and gives the total.
    pub fn finish(&mut self) -> [u64; N] {
        let round = self.round;
        self.parts.retain(|_, (_, seen)| *seen == round);
        self.round += 1;
        self.total
    }

    /// How many parts are remembered.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }
}

/// Which parts have series of their own, when there may be more than `limit`; the rest is summed.
///
/// A part that has its own series keeps it until it is gone, so no series stops and starts again.
#[derive(Debug, Clone)]
pub struct Folded<K, const N: usize> {
    own: HashMap<K, u64>,
    rest: MonotonicSum<K, N>,
    used: bool,
    round: u64,
}

impl<K, const N: usize> Default for Folded<K, N> {
    fn default() -> Self {
        Self { own: HashMap::new(), rest: MonotonicSum::default(), used: false, round: 0 }
    }
}

impl<K: Eq + Hash + Clone, const N: usize> Folded<K, N> {
    /// Whether `part` may have its own series; if not, its values are added to the rest.
    pub fn take(&mut self, part: &K, values: [u64; N], limit: usize) -> bool {
        if let Some(seen) = self.own.get_mut(part) {
            *seen = self.round;
            return true;
        }
        // A part that was summed stays summed: with a series of its own it would be counted twice.
        if self.own.len() < limit && !self.rest.parts.contains_key(part) {
            self.own.insert(part.clone(), self.round);
            return true;
        }
        self.used = true;
        self.rest.add(part.clone(), values);
        false
    }

    /// Ends a round: the sum of the rest, if there ever was one.
    pub fn finish(&mut self) -> Option<[u64; N]> {
        let round = self.round;
        self.own.retain(|_, seen| *seen == round);
        self.round += 1;
        let rest = self.rest.finish();
        self.used.then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_ends_keeps_what_it_added() {
        let mut sum = MonotonicSum::<u32, 1>::default();
        sum.add(1, [100]);
        sum.add(2, [50]);
        assert_eq!(sum.finish(), [150]);
        sum.add(2, [60]);
        assert_eq!(sum.finish(), [160]);
        assert_eq!(sum.parts(), 1);
    }

    #[test]
    fn a_part_that_starts_anew_adds_its_whole_value() {
        let mut sum = MonotonicSum::<&str, 2>::default();
        sum.add("eth0", [100, 10]);
        assert_eq!(sum.finish(), [100, 10]);
        sum.add("eth0", [5, 11]);
        assert_eq!(sum.finish(), [105, 11]);
    }

    #[test]
    fn parts_beyond_the_limit_are_summed_and_never_run_backwards() {
        let mut folded = Folded::<&str, 1>::default();
        assert!(folded.take(&"a", [1], 1));
        assert!(!folded.take(&"b", [10], 1));
        assert!(!folded.take(&"c", [20], 1));
        assert_eq!(folded.finish(), Some([30]));
        assert!(folded.take(&"a", [1], 1));
        assert!(!folded.take(&"c", [25], 1));
        assert_eq!(folded.finish(), Some([35]));
        // b is gone and a too: c stays in the rest, a new part may have its own series
        assert!(!folded.take(&"c", [25], 1));
        assert_eq!(folded.finish(), Some([35]));
        assert!(folded.take(&"d", [7], 1));
        assert!(!folded.take(&"c", [26], 1));
        assert_eq!(folded.finish(), Some([36]));
    }
}
