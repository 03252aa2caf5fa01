//! Waiting, never for ever.
//!
//! `NETSONDE_SLOW=10` says that this machine is ten times as slow as one that the limits were written for, such as an
//! emulated one. It makes limits longer, and what happens at a time may be [`late`]; what must not happen within a time is
//! looked at as ever.

use std::time::{Duration, Instant};

/// `limit` on this machine.
pub fn allowed(limit: Duration) -> Duration {
    limit * slowness()
}

/// How much later than due a timer may ring because the CPU is slow, beyond what every machine is allowed: nothing on
/// one that is not.
pub fn late() -> Duration {
    Duration::from_millis(5) * (slowness() - 1)
}

fn slowness() -> u32 {
    let Some(slow) = std::env::var_os("NETSONDE_SLOW") else { return 1 };
    let slow = slow.to_string_lossy();
    factor(&slow).unwrap_or_else(|| panic!("NETSONDE_SLOW={slow}: not a number from 1 to 100"))
}

fn factor(slow: &str) -> Option<u32> {
    slow.parse().ok().filter(|factor| (1..=100).contains(factor))
}

/// Asks again and again until there is an answer; panics after `at_most`, which a slow machine stretches.
pub fn until<T>(what: &str, at_most: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let at_most = allowed(at_most);
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < at_most, "{what}: not within {at_most:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Like [`until`], for a condition.
pub fn until_true(what: &str, at_most: Duration, mut ask: impl FnMut() -> bool) {
    until(what, at_most, || ask().then_some(()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sane_factor_stretches_limits() {
        assert_eq!(factor("10"), Some(10));
        for wrong in ["", "0", "101", "-1", "1.5", "ten"] {
            assert_eq!(factor(wrong), None, "{wrong:?}");
        }
    }
}
