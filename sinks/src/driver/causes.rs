//! What has gone wrong is said in the log once for each cause, however often it happens.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// A cause is told again when it was last told so long ago.
const AGAIN: Duration = Duration::from_mins(10);

/// At most so many causes are kept apart; one more is told only after all of them were forgotten.
const MOST: usize = 64;

/// The causes that were told.
#[derive(Debug, Default)]
pub(super) struct Causes {
    told: HashMap<String, Instant>,
}

impl Causes {
    /// Whether this is to be told now. Texts that differ only in numbers are one cause.
    pub(super) fn tell(&mut self, why: &str, now: Instant) -> bool {
        self.told.retain(|_, at| now.duration_since(*at) < AGAIN);
        let mut cause = String::new();
        for c in why.chars().take(200) {
            let c = if c.is_ascii_digit() { '#' } else { c };
            if c != '#' || !cause.ends_with('#') {
                cause.push(c);
            }
        }
        if self.told.len() >= MOST || self.told.contains_key(&cause) {
            return false;
        }
        self.told.insert(cause, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_and_again_much_later() {
        let (mut causes, start) = (Causes::default(), Instant::now());
        assert!(causes.tell("entry 17 too old", start));
        assert!(!causes.tell("entry 4711 too old", start));
        assert!(causes.tell("no such tenant", start));
        assert!(causes.tell("entry 18 too old", start + AGAIN));
    }

    #[test]
    fn causes_without_end_do_not_fill_memory() {
        let (mut causes, start) = (Causes::default(), Instant::now());
        let letters = || (b'a'..=b'z').map(char::from);
        let told = letters()
            .flat_map(|a| letters().map(move |b| format!("{a}{b}")))
            .filter(|why| causes.tell(why, start));
        assert_eq!(told.count(), MOST);
    }
}
