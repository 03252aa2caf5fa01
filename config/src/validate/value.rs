//! Bounds of a single value: numbers, text, durations, and how many items a list has.

use std::time::Duration;

use serde_json::Value;

use super::Check;
use crate::duration;
use crate::tree::{Kind, Mark, Node};

/// The ranges of Rust's integers, for which schemars writes a format and at most half of the bounds.
const RANGES: [(&str, i128, i128); 8] = [
    ("int8", i8::MIN as i128, i8::MAX as i128),
    ("int16", i16::MIN as i128, i16::MAX as i128),
    ("int32", i32::MIN as i128, i32::MAX as i128),
    ("uint8", 0, u8::MAX as i128),
    ("uint16", 0, u16::MAX as i128),
    ("uint32", 0, u32::MAX as i128),
    ("uint64", 0, u64::MAX as i128),
    ("uint", 0, u64::MAX as i128),
];

impl Check<'_> {
    pub(super) fn number(&mut self, node: &Node, schema: &Value, path: &str) {
        let number = match node.kind {
            Kind::Int(value) => value as f64,
            Kind::Float(value) => value,
            _ => return,
        };
        if !number.is_finite() {
            return self.problem(node.mark, path, "must be a finite number".to_owned());
        }
        let bound = |name: &str| schema[name].as_f64();
        let (least, most) = (bound("minimum"), bound("maximum"));
        let outside = least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most);
        if outside {
            return self.problem(
                node.mark,
                path,
                format!("{number} is out of range; {}", range(least, most)),
            );
        }
        if let Some(least) = bound("exclusiveMinimum").filter(|least| number <= *least) {
            return self.problem(
                node.mark,
                path,
                format!("{number} is out of range; it must be above {least}"),
            );
        }
        if let Some(most) = bound("exclusiveMaximum").filter(|most| number >= *most) {
            return self.problem(
                node.mark,
                path,
                format!("{number} is out of range; it must be below {most}"),
            );
        }
        if let Kind::Int(value) = node.kind {
            let format = schema["format"].as_str().unwrap_or("int64");
            let named = RANGES.iter().find(|(name, ..)| *name == format);
            let (least, most) =
                named.map_or((i64::MIN.into(), i64::MAX.into()), |(_, least, most)| (*least, *most));
            // Beyond 64 bits JSON has no integer, whatever the schema says.
            if value < least || value > most {
                self.problem(
                    node.mark,
                    path,
                    format!("{value} is out of range; it must be {least} to {most}"),
                );
            }
        }
    }

    pub(super) fn text(&mut self, mark: Mark, text: &str, schema: &Value, path: &str) {
        if schema["format"] == "duration" {
            return self.duration(mark, text, schema, path);
        }
        let length = text.chars().count() as u64;
        if schema["minLength"].as_u64().is_some_and(|least| length < least) {
            let message =
                if length == 0 { "must not be empty".to_owned() } else { format!("{text:?} is too short") };
            self.problem(mark, path, message);
        }
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
            self.problem(mark, path, format!("is {length} characters long; at most {most} are allowed"));
        }
    }

    /// `formatMinimum` and `formatMaximum` are what other validators call bounds on a formatted string.
    fn duration(&mut self, mark: Mark, text: &str, schema: &Value, path: &str) {
        let value = match duration::parse(text) {
            Ok(value) => value,
            Err(message) => return self.problem(mark, path, message),
        };
        let bound = |name: &str| schema[name].as_str().and_then(|text| duration::parse(text).ok());
        let (least, most) = (bound("formatMinimum"), bound("formatMaximum"));
        if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
            let show = |bound: Option<Duration>| bound.map(duration::show);
            self.problem(mark, path, format!("{text} is out of range; {}", range(show(least), show(most))));
        }
    }

    pub(super) fn count(&mut self, mark: Mark, items: usize, schema: &Value, path: &str) {
        let items = items as u64;
        let (least, most) = (schema["minItems"].as_u64(), schema["maxItems"].as_u64());
        if least.is_some_and(|least| items < least) || most.is_some_and(|most| items > most) {
            self.problem(
                mark,
                path,
                format!("has {items} items; the count is out of range: {}", range(least, most)),
            );
        }
    }
}

fn range<T: std::fmt::Display>(least: Option<T>, most: Option<T>) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!("it must be {least} to {most}"),
        (Some(least), None) => format!("it must be at least {least}"),
        (None, Some(most)) => format!("it must be at most {most}"),
        (None, None) => String::new(),
    }
}
