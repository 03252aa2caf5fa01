//! The JSON Schema of the whole file: the model's own, with the probes and sinks of this build put in.
//!
//! Editors use it (`netsonde docs config --schema`), and the validator checks against nothing else. Each part's
//! `args` become a definition `probe.<name>` or `sink.<name>`; the definitions that it brings become
//! `probe.<name>.<definition>`, so that two parts may use one name for different things.

use serde_json::{Map, Value, json};

use crate::known::{Known, Part};
use crate::model::File;

/// Marks a list of names, so that a problem can say "no probe is called". Unknown keywords are legal in JSON Schema.
pub(crate) const PART: &str = "x-part";

/// The JSON Schema (2020-12) of the file for the probes and sinks in `known`.
pub fn schema(known: &Known) -> Value {
    let mut root = schemars::schema_for!(File).to_value();
    for (key, kind, parts) in [("probes", "probe", &known.probes), ("sinks", "sink", &known.sinks)] {
        let default: Value = parts.iter().filter(|part| part.default_on).map(|part| part.name).collect();
        let mut definitions = Map::new();
        for part in parts {
            define(kind, part, &mut definitions);
        }
        // Each step is there: the model has both keys, and its nested structs make `$defs`.
        if let Some(all) = root.get_mut("$defs").and_then(Value::as_object_mut) {
            all.append(&mut definitions);
        }
        if let Some(list) = root.pointer_mut(&format!("/properties/{key}")).and_then(Value::as_object_mut) {
            list.insert("type".to_owned(), json!("array"));
            list.insert("items".to_owned(), entry(kind, parts));
            list.insert("default".to_owned(), default);
        }
    }
    root
}

/// The definition that holds the `args` of a part.
pub(crate) fn definition(kind: &str, name: &str) -> String {
    format!("{kind}.{name}")
}

/// A name, or a mapping whose `name` decides what `args` may be.
fn entry(kind: &str, parts: &[Part]) -> Value {
    let names: Vec<_> = parts.iter().flat_map(Part::spellings).collect();
    let mut forms = vec![json!({ "type": "string", "enum": names, PART: kind })];
    for part in parts {
        let spellings: Vec<_> = part.spellings().collect();
        let name = match spellings.as_slice() {
            [only] => json!({ "const": only, PART: kind }),
            several => json!({ "enum": several, PART: kind }),
        };
        let args = json!({ "$ref": format!("#/$defs/{}", definition(kind, part.name)) });
        forms.push(json!({
            "type": "object",
            "description": part.about,
            "properties": { "name": name, "args": args },
            "required": ["name"],
            "additionalProperties": false,
        }));
    }
    json!({ "oneOf": forms })
}

/// Adds the `args` schema of `part`, and what it refers to, under names of their own.
fn define(kind: &str, part: &Part, definitions: &mut Map<String, Value>) {
    let own = definition(kind, part.name);
    let mut args = part.schema.clone();
    rename_references(&mut args, &own);
    if let Some(object) = args.as_object_mut() {
        object.remove("$schema");
        if let Some(Value::Object(inner)) = object.remove("$defs") {
            definitions.extend(inner.into_iter().map(|(name, schema)| (format!("{own}.{name}"), schema)));
        }
    }
    definitions.insert(own, args);
}

fn rename_references(schema: &mut Value, own: &str) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(target) if key == "$ref" => {
                        if let Some(name) = target.strip_prefix("#/$defs/") {
                            *target = format!("#/$defs/{own}.{name}");
                        } else if target == "#" {
                            *target = format!("#/$defs/{own}");
                        }
                    }
                    other => rename_references(other, own),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, own)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn references(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_has_its_definition() {
        let root = schema(&fixture::known());
        let mut found = Vec::new();
        references(&root, &mut found);
        assert!(found.contains(&"#/$defs/probe.flow.Mode".to_owned()));
        for target in found {
            assert!(root.pointer(target.trim_start_matches('#')).is_some(), "{target}");
        }
    }

    #[test]
    fn unknown_keys_are_refused_at_every_level() {
        let root = schema(&fixture::known());
        assert_eq!(root["additionalProperties"], false);
        for name in ["Metrics", "LabelNames", "Limits", "Paths", "Discovery"] {
            assert_eq!(root["$defs"][name]["additionalProperties"], false, "{name}");
        }
    }

    #[test]
    fn every_key_of_the_file_has_a_description_and_a_default() {
        let root = schema(&fixture::known());
        assert_eq!(root["$schema"], "https://json-schema.org/draft/2020-12/schema");
        let nested =
            ["Metrics", "LabelNames", "Limits", "Paths", "Discovery"].map(|name| &root["$defs"][name]);
        for object in nested.into_iter().chain([&root]) {
            for (key, setting) in object["properties"].as_object().expect("an object has properties") {
                assert!(setting["description"].is_string(), "{key}: {setting}");
                assert!(setting.get("default").is_some(), "{key}: {setting}");
            }
        }
        assert_eq!(root["properties"]["probes"]["default"], json!(["conntrack", "tcpext", "net_softirq"]));
        assert_eq!(root["$defs"]["Discovery"]["properties"]["interval"]["default"], "1s");
    }

    #[test]
    fn names_in_the_list_include_aliases() {
        let root = schema(&fixture::known());
        let names = &root["properties"]["probes"]["items"]["oneOf"][0]["enum"];
        assert_eq!(names, &json!(["conntrack", "tcpext", "net_softirq", "softirq", "flow"]));
    }
}
