//! Pauses between tries: they double up to a limit, and chance keeps many agents from knocking at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::settings::Retry;

/// The longest pause that the other side can ask for.
const MOST_ASKED: Duration = Duration::from_mins(5);

/// Counts the tries in a row that failed.
#[derive(Debug)]
pub(super) struct Backoff {
    retry: Retry,
    failed: u32,
}

impl Backoff {
    pub(super) fn new(retry: Retry) -> Self {
        Self { retry, failed: 0 }
    }

    /// A delivery has worked.
    pub(super) fn reset(&mut self) {
        self.failed = 0;
    }

    /// A delivery has failed: how long to wait, at least as long as `asked` but for a limit.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let longest = self.retry.max.0;
        let factor = 2u32.saturating_pow(self.failed);
        self.failed = self.failed.saturating_add(1);
        let pause = self.retry.min.0.saturating_mul(factor).min(longest);
        // Each RandomState has keys of its own.
        let chance = RandomState::new().hash_one(()) >> 32;
        let cut = pause.mul_f64(0.5 * chance as f64 / f64::from(u32::MAX));
        pause.saturating_sub(cut).max(asked.unwrap_or_default().min(MOST_ASKED))
    }
}

#[cfg(test)]
mod tests {
    use netsonde_framework::Interval;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_begin_again() {
        let retry = Retry { min: Interval(Duration::from_millis(100)), max: Interval::seconds(1) };
        let mut backoff = Backoff::new(retry);
        for full in [100, 200, 400, 800, 1000, 1000].map(Duration::from_millis) {
            let pause = backoff.next(None);
            assert!(pause <= full && pause >= full / 2, "{pause:?} of {full:?}");
        }
        for _ in 0..100 {
            assert!(backoff.next(None) <= Duration::from_secs(1));
        }
        backoff.reset();
        assert!(backoff.next(None) <= Duration::from_millis(100));
    }

    #[test]
    fn what_the_other_side_asks_for_is_kept_within_reason() {
        let mut backoff = Backoff::new(Retry::default());
        assert_eq!(backoff.next(Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff.next(Some(Duration::from_hours(9))), MOST_ASKED);
    }

    #[test]
    fn pauses_differ() {
        let pauses: std::collections::HashSet<_> =
            (0..20).map(|_| Backoff::new(Retry::default()).next(None)).collect();
        assert!(pauses.len() > 10, "{pauses:?}");
    }
}
