//! Latencies as the kernel side counts them: buckets at powers of two, exposed in seconds.

/// Finite buckets: from 4.096 us (2^12 ns) to 8.59 s (2^33 ns).
pub const FINITE: usize = 22;
/// The finite ones and the one for everything above.
pub const BUCKETS: usize = FINITE + 1;
/// The first bucket holds what took at most 2 to this power nanoseconds.
pub const FIRST: u32 = 12;

/// A distribution of durations. `include/histogram.h` is its twin in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exp2 {
    /// How many fell into each bucket, not cumulative; the last is for what is beyond every bound.
    pub counts: [u64; BUCKETS],
    /// Their sum in nanoseconds.
    pub sum_ns: u64,
}

impl Default for Exp2 {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum_ns: 0 }
    }
}

impl Exp2 {
    /// The upper bound of each bucket in seconds; the last is without end.
    pub fn bounds() -> impl Iterator<Item = f64> {
        let finite = (FIRST..).take(FINITE).map(|power| (1u64 << power) as f64 / 1e9);
        finite.chain([f64::INFINITY])
    }

    /// The buckets, from numbers as the kernel side keeps them: the counts, then the sum. `None` where there are fewer.
    pub fn from_numbers(numbers: &[u64]) -> Option<Self> {
        let (counts, rest) = numbers.split_first_chunk::<BUCKETS>()?;
        Some(Self { counts: *counts, sum_ns: *rest.first()? })
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds another one to it.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
    }

    /// Counts one duration, as the kernel side does.
    pub fn observe(&mut self, nanoseconds: u64) {
        let bucket = (0..FINITE).find(|i| nanoseconds <= 1 << (FIRST + u32::try_from(*i).unwrap_or(63)));
        self.counts[bucket.unwrap_or(FINITE)] += 1;
        self.sum_ns = self.sum_ns.wrapping_add(nanoseconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut all = Exp2::default();
        for nanoseconds in [0, 4096, 4097, 1 << 33, (1 << 33) + 1] {
            all.observe(nanoseconds);
        }
        assert_eq!((all.counts[0], all.counts[1], all.counts[FINITE - 1], all.counts[FINITE]), (2, 1, 1, 1));
        assert_eq!(all.count(), 5);
        let bounds: Vec<f64> = Exp2::bounds().collect();
        assert_eq!((bounds.len(), bounds[0]), (BUCKETS, 4.096e-6));
    }

    #[test]
    fn numbers_of_the_kernel_side_are_counts_and_then_the_sum() {
        let mut numbers = [0u64; BUCKETS + 1];
        (numbers[3], numbers[BUCKETS]) = (7, 99);
        let read = Exp2::from_numbers(&numbers).expect("all are there");
        assert_eq!((read.counts[3], read.sum_ns), (7, 99));
        assert_eq!(Exp2::from_numbers(&numbers[..BUCKETS]), None);
    }
}
