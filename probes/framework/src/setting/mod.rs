//! Types that settings share.

mod fields;

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use fields::Fields;

/// A length of time, written `50us`, `500ms`, `30s`, `2m`, `1h`, `1d`, or several as in `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(pub Duration);

impl Interval {
    /// So many seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
}

fn parse(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let n: u64 = text[..digits].parse().ok()?;
    let rest = &text[digits..];
    let (unit, rest) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
    let length = match unit {
        "ns" => Duration::from_nanos(n),
        "us" => Duration::from_micros(n),
        "ms" => Duration::from_millis(n),
        "s" => Duration::from_secs(n),
        "m" => Duration::from_secs(n.checked_mul(60)?),
        "h" => Duration::from_secs(n.checked_mul(3600)?),
        "d" => Duration::from_secs(n.checked_mul(86400)?),
        _ => return None,
    };
    if rest.is_empty() { Some(length) } else { length.checked_add(parse(rest)?) }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        parse(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "\"{text}\" is not a length of time; write 500ms, 30s, 2m, 1h or 1d"
            ))
        })
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut number = self.0.as_nanos();
        let mut unit = "ns";
        for larger in ["us", "ms", "s"] {
            if !number.is_multiple_of(1000) {
                break;
            }
            number /= 1000;
            unit = larger;
        }
        serializer.collect_str(&format_args!("{number}{unit}"))
    }
}

impl JsonSchema for Interval {
    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration" })
    }
}

/// The JSON Schema of a settings type, as [`crate::ProbeInfo::settings`] wants it.
pub fn schema<T: JsonSchema>() -> serde_json::Value {
    schemars::schema_for!(T).into()
}

/// The settings of a probe that has none.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_and_written() {
        for (text, us) in [
            ("3000ns", 3),
            ("50us", 50),
            ("500ms", 500_000),
            ("30s", 30_000_000),
            ("2m", 120_000_000),
            ("1h", 3_600_000_000),
            ("1d", 86_400_000_000),
            ("1m30s", 90_000_000),
            ("1ms500us", 1_500),
        ] {
            assert_eq!(parse(text), Some(Duration::from_micros(us)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1.5s", "1 s", "99999999999999999999s"] {
            assert_eq!(parse(text), None, "{text}");
        }
        for (duration, text) in [
            (Duration::ZERO, "\"0s\""),
            (Duration::from_secs(90), "\"90s\""),
            (Duration::from_millis(1500), "\"1500ms\""),
            (Duration::from_micros(50), "\"50us\""),
            (Duration::from_nanos(1), "\"1ns\""),
        ] {
            assert_eq!(serde_json::to_string(&Interval(duration)).ok().as_deref(), Some(text));
        }
    }
}
