//! Plain words for values and for what a schema wants, shared by the problems and by the reference page.

use serde_json::Value;

use crate::tree::{Kind, Node};

/// The path of key `name` below `path`.
pub(crate) fn join(path: &str, name: &str) -> String {
    // Keys come from the file: a report must not carry a terminal's escape sequences or a megabyte.
    let name: String = name.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// What was found, such as `the number 3`. Long text is cut, control characters are escaped.
pub(crate) fn found(node: &Node) -> String {
    match &node.kind {
        Kind::Null => "nothing".to_owned(),
        Kind::Bool(value) => format!("{value}"),
        Kind::Int(value) => format!("the number {value}"),
        Kind::Float(value) => format!("the number {value}"),
        Kind::Text(text) => format!("the text {}", quoted(text)),
        Kind::List(_) => "a list".to_owned(),
        Kind::Map(_) => "a mapping".to_owned(),
    }
}

/// Text in quotes, cut to what fits a line.
pub(crate) fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() { format!("{cut:?}...") } else { format!("{cut:?}") }
}

/// What a schema wants, such as `a whole number` or `one of native, both`.
pub(crate) fn wanted(root: &Value, schema: &Value) -> String {
    if let Some(choices) = choices(root, schema) {
        let names: Vec<_> = choices.iter().map(|choice| plain(choice)).collect();
        return if names.len() == 1 { names.concat() } else { format!("one of {}", names.join(", ")) };
    }
    let schema = resolve(root, schema);
    if let Some(branches) = branches(schema) {
        return alternatives(branches.iter().map(|branch| wanted(root, branch)));
    }
    let mut words: Vec<_> = types(schema).into_iter().map(|name| of_type(root, schema, name)).collect();
    words.retain(|word| !word.is_empty());
    if words.is_empty() { "any value".to_owned() } else { alternatives(words) }
}

fn of_type(root: &Value, schema: &Value, name: &str) -> String {
    match name {
        "null" => "nothing".to_owned(),
        "boolean" => "true or false".to_owned(),
        "integer" => "a whole number".to_owned(),
        "number" => "a number".to_owned(),
        "string" if schema["format"] == "duration" => "a duration such as 30s".to_owned(),
        "string" => "text".to_owned(),
        "array" => match schema.get("items") {
            // Every name of the build would drown the sentence; a wrong name gets the list.
            Some(items) if items["oneOf"][0].get(crate::schema::PART).is_some() => {
                "a list of names".to_owned()
            }
            Some(items) if items.is_object() => format!("a list of {}", plural(&wanted(root, items))),
            _ => "a list".to_owned(),
        },
        "object" => match schema.get("additionalProperties") {
            Some(values) if values.is_object() => {
                format!("a mapping of names to {}", plural(&wanted(root, values)))
            }
            _ => "a mapping".to_owned(),
        },
        other => other.to_owned(),
    }
}

/// `a whole number` becomes `whole numbers`; what has no simple plural stays.
fn plural(words: &str) -> String {
    match words.strip_prefix("a ") {
        Some("duration such as 30s") => "durations such as 30s".to_owned(),
        Some(one) if !one.contains(" of ") && !one.contains(" or ") => format!("{one}s"),
        _ => words.to_owned(),
    }
}

fn alternatives(words: impl IntoIterator<Item = String>) -> String {
    let mut kept: Vec<String> = Vec::new();
    for word in words {
        if !kept.contains(&word) {
            kept.push(word);
        }
    }
    kept.join(" or ")
}

/// A JSON value as a file would write it.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The type names of a schema; none when it takes any type.
pub(crate) fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The alternatives of `oneOf` or `anyOf`.
pub(crate) fn branches(schema: &Value) -> Option<&Vec<Value>> {
    schema.get("oneOf").or_else(|| schema.get("anyOf")).and_then(Value::as_array)
}

/// Follows `$ref`. Bounded, because a schema may point at itself.
pub(crate) fn resolve<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..16 {
        let target = schema["$ref"].as_str().and_then(|to| root.pointer(to.trim_start_matches('#')));
        match target {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

/// The allowed values, when the schema is a plain enumeration: `const`, `enum`, or alternatives of those
/// (schemars writes the latter for an enum with documented variants).
pub(crate) fn choices<'a>(root: &'a Value, schema: &'a Value) -> Option<Vec<&'a Value>> {
    let schema = resolve(root, schema);
    if let Some(only) = schema.get("const") {
        return Some(vec![only]);
    }
    if let Some(values) = schema["enum"].as_array() {
        return Some(values.iter().collect());
    }
    let branches = branches(schema)?;
    let parts: Option<Vec<_>> = branches.iter().map(|branch| choices(root, branch)).collect();
    parts.map(|parts| parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_read_as_plain_words() {
        let root = json!({"$defs": {"Mode": {"oneOf": [{"const": "a"}, {"enum": ["b", "c"]}]}}});
        for (schema, words) in [
            (json!({"$ref": "#/$defs/Mode"}), "one of a, b, c"),
            (json!({"type": ["string", "null"]}), "text or nothing"),
            (json!({"type": "string", "format": "duration"}), "a duration such as 30s"),
            (json!({"type": "array", "items": {"type": "integer"}}), "a list of whole numbers"),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                "a mapping of names to text",
            ),
            (json!({"anyOf": [{"type": "boolean"}, {"type": "null"}]}), "true or false or nothing"),
            (json!(true), "any value"),
        ] {
            assert_eq!(wanted(&root, &schema), words);
        }
    }

    #[test]
    fn a_schema_that_points_at_itself_ends() {
        let root = json!({"$ref": "#"});
        assert_eq!(wanted(&root, &root), "any value");
    }

    #[test]
    fn long_text_is_cut() {
        assert!(quoted(&"é".repeat(1000)).chars().count() < 70);
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
    }
}
