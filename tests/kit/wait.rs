//! Waiting, never for ever.

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer; panics after `at_most`.
pub fn until<T>(what: &str, at_most: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
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
