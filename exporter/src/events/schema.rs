//! The JSON Schema of events, from the catalogue.

use netsonde_framework::event::{COMMON, SUPPRESSED};
use netsonde_framework::{Catalogue, EventDef, FieldDef, Form};
use serde_json::{Map, Value, json};

/// Fields that every event has; the other common ones only where they are known.
const ALWAYS: &[&str] = &["id", "time", "node", "probe", "type", "severity"];

/// One schema for every event: a choice by `type`.
pub fn schema(catalogue: &Catalogue) -> Value {
    let types: Vec<Value> =
        catalogue.probes().flat_map(|probe| probe.events.iter().map(|def| event(probe.name, def))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "netsonde event",
        "description": "One event of netsonde: a flat JSON object.",
        "oneOf": types,
    })
}

fn event(probe: &str, def: &EventDef) -> Value {
    let mut properties = Map::new();
    for field in COMMON.iter().chain(def.fields).chain([&SUPPRESSED]) {
        properties.insert(field.name.to_owned(), property(field));
    }
    properties["probe"]["const"] = probe.into();
    properties["type"]["const"] = def.name.into();
    properties["severity"]["const"] = def.severity.text().into();
    properties["time"]["format"] = "date-time".into();
    for port in ["sport", "dport"] {
        properties[port]["maximum"] = u16::MAX.into();
    }
    json!({
        "title": def.name,
        "description": def.help,
        "type": "object",
        "properties": properties,
        "required": ALWAYS,
        "additionalProperties": false,
    })
}

fn property(field: &FieldDef) -> Value {
    let mut property = match field.form {
        Form::Text => json!({ "type": "string" }),
        Form::Number => json!({ "type": "integer", "minimum": 0 }),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Texts => json!({ "type": "array", "items": { "type": "string" } }),
    };
    property["description"] = field.help.into();
    property
}

#[cfg(test)]
mod tests {
    use netsonde_probes::os::{Host, Paths};

    use super::*;

    /// What is wrong with the declared events; empty when all is well.
    fn lint(catalogue: &Catalogue) -> Vec<String> {
        let mut remarks = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for def in catalogue.probes().flat_map(|probe| probe.events) {
            if !seen.insert(def.name) {
                remarks.push(format!("{}: is declared twice", def.name));
            }
            for text in std::iter::once(def.help).chain(def.fields.iter().map(|field| field.help)) {
                if !text.ends_with('.') {
                    remarks.push(format!("{}: \"{text}\" does not end with a full stop", def.name));
                }
            }
            for field in def.fields {
                let plain =
                    field.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                let common = COMMON.iter().chain([&SUPPRESSED]).any(|other| other.name == field.name);
                if !plain || common {
                    remarks.push(format!("{}: {} is no name for a field of its own", def.name, field.name));
                }
            }
        }
        remarks
    }

    fn catalogue() -> Catalogue {
        let (host, _) = Host::new(Paths::default()).expect("this machine has a /proc");
        crate::parts::catalogue(&host)
    }

    #[test]
    fn every_declared_event_follows_the_rules() {
        let remarks = lint(&catalogue());
        assert!(remarks.is_empty(), "{remarks:#?}");
    }

    #[test]
    fn the_schema_names_every_type_and_field() {
        let schema = schema(&catalogue());
        let types = schema["oneOf"].as_array().expect("a choice");
        let loss = types.iter().find(|t| t["title"] == "PacketLoss").expect("packetloss makes it");
        assert_eq!(loss["properties"]["type"]["const"], "PacketLoss");
        assert_eq!(loss["properties"]["stack"]["items"]["type"], "string");
        assert_eq!(loss["properties"]["dport"]["maximum"], 65535);
        assert_eq!(loss["additionalProperties"], false);
    }
}
