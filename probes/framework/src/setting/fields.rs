//! The setting that chooses among the counters of a kernel table.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most names in a list.
const LIST_MAX: usize = 256;

/// Which fields have series.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Fields {
    /// Those that tell of faults; each probe's page lists them.
    #[default]
    Default,
    /// Everything that the kernel has.
    All,
    /// These, by the kernel's names, each once.
    These(Vec<String>),
}

impl Fields {
    /// Whether `field` has a series; `by_default` says whether it is of the default set.
    pub fn take(&self, field: &str, by_default: bool) -> bool {
        match self {
            Self::Default => by_default,
            Self::All => true,
            Self::These(names) => names.iter().any(|name| name == field),
        }
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("default, all or a list of field names for fields")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Fields, E> {
        match text {
            "default" => Ok(Fields::Default),
            "all" => Ok(Fields::All),
            other => Err(E::custom(format!(
                "fields: \"{other}\" is neither default nor all; write a single field as [{other}]"
            ))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Fields, A::Error> {
        let mut names: Vec<String> = Vec::new();
        while let Some(name) = items.next_element::<String>()? {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(serde::de::Error::custom(format!(
                    "fields: \"{name}\" cannot be a field of the kernel"
                )));
            }
            if names.contains(&name) {
                continue;
            }
            if names.len() == LIST_MAX {
                return Err(serde::de::Error::custom(format!("fields: more than {LIST_MAX} names")));
            }
            names.push(name);
        }
        Ok(Fields::These(names))
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Default => serializer.serialize_str("default"),
            Self::All => serializer.serialize_str("all"),
            Self::These(names) => serializer.collect_seq(names),
        }
    }
}

impl JsonSchema for Fields {
    fn schema_name() -> Cow<'static, str> {
        "Fields".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "enum": ["default", "all"] },
                {
                    "type": "array",
                    "items": { "type": "string", "pattern": "^[A-Za-z0-9]+$" },
                    "maxItems": LIST_MAX,
                    "uniqueItems": true
                }
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: serde_json::Value) -> Result<Fields, String> {
        serde_json::from_value(value).map_err(|e: serde_json::Error| e.to_string())
    }

    #[test]
    fn fields_is_a_word_or_a_list() {
        assert_eq!(fields(json!("default")), Ok(Fields::Default));
        assert_eq!(fields(json!("all")), Ok(Fields::All));
        let these = Fields::These(vec!["TW".into(), "TCPTimeouts".into()]);
        assert_eq!(fields(json!(["TW", "TCPTimeouts", "TW"])), Ok(these));
    }

    #[test]
    fn a_field_is_taken_by_default_by_wish_or_always() {
        assert!(Fields::Default.take("TW", true) && !Fields::Default.take("TW", false));
        assert!(Fields::All.take("TW", false));
        let these = Fields::These(vec!["TW".into()]);
        assert!(these.take("TW", false) && !these.take("ListenDrops", true));
    }

    #[test]
    fn anything_else_is_refused_with_what_was_wanted() {
        for (value, wanted) in [
            (json!("ListenDrops"), "[ListenDrops]"),
            (json!(3), "default, all or a list"),
            (json!(["a b"]), "\"a b\""),
            (json!([""]), "cannot be a field"),
            (json!((0..300).map(|i| format!("F{i}")).collect::<Vec<_>>()), "256"),
        ] {
            let error = fields(value).expect_err("wrong");
            assert!(error.contains(wanted), "{error}");
        }
    }
}
