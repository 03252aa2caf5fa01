//! Histograms of times on a page: which bucket a time belongs to, and how many fell into each.

use crate::lab::between;
use crate::{Netns, Page};

/// The bucket that a duration belongs to: the first is up to 2^12 ns, each of the others twice the one before.
pub fn bucket(nanoseconds: u64) -> usize {
    let power = nanoseconds.max(2).next_power_of_two().ilog2();
    usize::try_from(power.saturating_sub(12)).expect("a small number")
}

/// How many of `ns` with these labels fell into each bucket between two pages.
pub fn buckets(
    before: &Page,
    after: &Page,
    ns: &Netns,
    histogram: &str,
    labels: &[(&str, &str)],
) -> Vec<u64> {
    let name = format!("{histogram}_bucket");
    let delta = between(before, after);
    let mut of_series = vec![("target_pod", ns.name())];
    of_series.extend(labels);
    let bounds: Vec<&str> = after.all(&name, &of_series).map(|s| s.labels["le"].as_str()).collect();
    let count = |le| delta.grew_in_all(ns, &name, &[labels, &[("le", le)]].concat());
    let up_to: Vec<u64> = bounds.into_iter().map(count).collect();
    let below = [0].into_iter().chain(up_to.iter().copied());
    up_to.iter().zip(below).map(|(up_to, below)| up_to - below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        assert_eq!([0, 4096, 4097, 8192, 8193].map(bucket), [0, 0, 1, 1, 2]);
        assert_eq!(bucket(50_000_000), bucket(1 << 26));
    }
}
