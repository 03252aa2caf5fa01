//! Files that nobody means well with: whatever the bytes, an answer, soon, and no panic.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use crate::{fixture, parse};

/// The same bytes on every run, so that a failure can be looked at.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default()
    }

    fn pick(&mut self, from: &[u8]) -> u8 {
        from[self.roll() % from.len()]
    }
}

/// What YAML gives a meaning.
const SIGNS: &[u8] = b"{}[]:,-?&*!|>'\"%@`#~ \t\n\r ab01.\\<=\x00\xff\xc3\xa9";

#[test]
fn random_bytes_are_answered() {
    let known = fixture::known();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..6000 {
        let length = dice.roll() % 120;
        let bytes: Vec<u8> = if round % 3 == 0 {
            (0..length).map(|_| u8::try_from(dice.roll() & 0xff).unwrap_or_default()).collect()
        } else {
            (0..length).map(|_| dice.pick(SIGNS)).collect()
        };
        if let Err(report) = parse("a.yaml", &bytes, &known) {
            assert!(!report.problems.is_empty());
            assert!(report.problems.iter().all(|p| p.line > 0 && p.column > 0));
        }
    }
}

#[test]
fn damaged_files_are_answered() {
    let known = fixture::known();
    let mut dice = Dice(42);
    for _ in 0..3000 {
        let mut bytes = fixture::FULL.as_bytes().to_vec();
        for _ in 0..=dice.roll() % 4 {
            let at = dice.roll() % bytes.len();
            match dice.roll() % 4 {
                0 => bytes[at] = dice.pick(SIGNS),
                1 => bytes.insert(at, dice.pick(SIGNS)),
                2 => drop(bytes.remove(at)),
                _ => bytes.extend_from_within(at..(at + 20).min(fixture::FULL.len() / 2).max(at)),
            }
        }
        let _ = parse("a.yaml", &bytes, &known);
    }
}

/// Within the bound on size, no pattern may take long. The limit is far above what a debug build needs.
#[test]
fn a_megabyte_of_anything_is_answered_soon() {
    let known = fixture::known();
    for pattern in [
        "[", "]", "{", "}", "- ", "? ", ": ", "a: ", "a: b\n", "&a ", "*a ", "!", "!a ", "'", "\"", "|\n",
        ">\n ", "%", "#", " ", "\t", "\n", "\r", "---\n", "...\n", "a", "\\", ",", "[a],", "{a: b},", "é",
        "- a\n", "\"a\": ", "a,", "? a\n", "-\n", "[a, ", "&a [", "\u{feff}", "a:\n ", "- [\n", "!<",
        "!a!b ", "\"\\x", "''",
    ] {
        for text in [
            pattern.repeat((1 << 20) / pattern.len()),
            format!("[{}", pattern.repeat((1 << 17) / pattern.len())),
        ] {
            let begun = Instant::now();
            let _ = parse("a.yaml", &text, &known);
            assert!(begun.elapsed() < Duration::from_secs(20), "{pattern:?} took {:?}", begun.elapsed());
        }
    }
}

#[test]
fn a_report_on_a_hostile_file_stays_short() {
    let known = fixture::known();
    let long = "x".repeat(300_000);
    let report =
        parse("a.yaml", format!("? {long}\n: 1\nlisten: {long}\nprobes: [{long}]\n"), &known).unwrap_err();
    assert_eq!(report.problems.len(), 3);
    assert!(report.to_string().len() < 2000);
}

#[test]
fn control_characters_do_not_reach_the_report() {
    let known = fixture::known();
    let report = parse("a.yaml", "listen: \"\\e[31m\"\nprobes: [\"\\0\"]\n\"\\e\": 1\n", &known).unwrap_err();
    assert!(report.to_string().chars().all(|c| c == '\n' || !c.is_control()), "{report:?}");
}
