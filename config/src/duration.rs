//! Durations as a file writes them: `30s`, `500ms`, `1m30s`.
//!
//! A string whose schema has `format: duration` is read by [`parse`], in this crate's own settings and in the
//! `args` of any probe or sink. (JSON Schema means ISO 8601 by that word; `PT30S` helps no operator.)

use std::fmt::Write as _;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

/// Units, longest first, in nanoseconds.
const UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads whole numbers with units, longest unit first: `1h`, `1m30s`. Units: d, h, m, s, ms, us, ns.
/// The error is a sentence for the operator, without the key.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "{text:.40?} is not a duration; write a whole number and a unit (ms, s, m, h, d), such as 30s"
        )
    };
    let mut rest = text;
    let mut total: u64 = 0;
    let mut units = UNITS.as_slice();
    while !rest.is_empty() || total == 0 && rest == text {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let place = units.iter().position(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let part = number.checked_mul(units[place].1).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        units = &units[place + 1..];
        rest = tail;
    }
    Ok(Duration::from_nanos(total))
}

/// The shortest text that [`parse`] reads as `duration`.
pub fn show(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, nanos) in UNITS {
        if left >= nanos {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{unit}", left / nanos);
            left %= nanos;
        }
    }
    text
}

/// For `#[serde(with = "crate::duration")]`.
pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&show(*duration))
}

/// For `#[serde(with = "crate::duration")]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// The schema of a duration, for `#[schemars(with = "Text")]`.
pub(crate) struct Text;

impl JsonSchema for Text {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_durations_are_read() {
        for (text, millis) in
            [("30s", 30_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            " 1s",
            "1s ",
            "30s1m",
            "1s1s",
            "1y",
            "99999999999999999999s",
            "9999999999d",
            "1s2",
            "١s",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for nanos in [0, 1, 999, 1_000, 90_000_000_000, 86_400_000_000_001] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(parse(&show(duration)), Ok(duration));
        }
        assert_eq!(show(Duration::from_millis(1500)), "1s500ms");
    }
}
