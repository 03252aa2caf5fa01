//! Facts about the validator, on small schemas of each kind.

use serde_json::{Value, json};

use super::validate;

fn problems(schema: &Value, text: &str) -> Vec<String> {
    let (root, problems) = crate::yaml::read(text);
    assert_eq!(problems, []);
    let root = root.expect("the document has a root");
    let found = validate(schema, schema, &root, "");
    found.iter().map(|p| format!("{}:{}: {p}", p.line, p.column)).collect()
}

/// The problems of a single setting `a`.
fn of(setting: &Value, value: &str) -> Vec<String> {
    problems(&json!({"type": "object", "properties": {"a": setting}}), &format!("a: {value}\n"))
}

#[test]
fn wrong_types_say_what_was_found_and_what_is_wanted() {
    for (setting, value, message) in [
        (json!({"type": "integer"}), "x", r#"found the text "x", wanted a whole number"#),
        (json!({"type": "integer"}), "1.0", "found the number 1, wanted a whole number"),
        (json!({"type": "string"}), "12", "found the number 12, wanted text; put it in quotes"),
        (json!({"type": "string"}), "", "found nothing, wanted text; remove the key to get its default"),
        (
            json!({"type": "boolean"}),
            "yes",
            r#"found the text "yes", wanted true or false; did you mean "true"?"#,
        ),
        (
            json!({"type": "string", "format": "duration"}),
            "30",
            "found the number 30, wanted a duration such as 30s",
        ),
        (json!({"type": ["array", "null"]}), "{}", "found a mapping, wanted a list or nothing"),
        (json!({"type": "object"}), "[]", "found a list, wanted a mapping"),
    ] {
        assert_eq!(
            of(&setting, value),
            [format!("1:{}: a: {message}", if value.is_empty() { 1 } else { 4 })]
        );
    }
}

#[test]
fn values_out_of_range_name_the_range() {
    for (setting, value, message) in [
        (
            json!({"type": "integer", "minimum": 1, "maximum": 9}),
            "10",
            "10 is out of range; it must be 1 to 9",
        ),
        (json!({"type": "number", "exclusiveMinimum": 0}), "0", "0 is out of range; it must be above 0"),
        (json!({"type": "number"}), ".inf", "must be a finite number"),
        (
            json!({"type": "integer", "format": "uint16"}),
            "65536",
            "65536 is out of range; it must be 0 to 65535",
        ),
        (json!({"type": "string", "minLength": 1}), "''", "must not be empty"),
        (json!({"type": "string", "maxLength": 2}), "abc", "is 3 characters long; at most 2 are allowed"),
        (
            json!({"type": "array", "minItems": 1}),
            "[]",
            "has 0 items; the count is out of range: it must be at least 1",
        ),
        (
            json!({"type": "string", "format": "duration", "formatMinimum": "100ms", "formatMaximum": "10s"}),
            "1m",
            "1m is out of range; it must be 100ms to 10s",
        ),
    ] {
        assert_eq!(of(&setting, value), [format!("1:4: a: {message}")]);
    }
}

#[test]
fn integers_at_the_edges_of_64_bits_are_told_apart() {
    let setting = json!({"type": "integer", "format": "uint64", "minimum": 0});
    assert!(of(&setting, "18446744073709551615").is_empty());
    assert_eq!(of(&setting, "18446744073709551616").len(), 1);
    assert_eq!(of(&json!({"type": "integer"}), "9223372036854775808").len(), 1);
}

#[test]
fn unknown_and_missing_keys_are_reported_together() {
    let schema = json!({
        "type": "object", "required": ["url"], "additionalProperties": false,
        "properties": {"url": {"type": "string"}, "timeout": {"type": "string"}},
    });
    let found = problems(&schema, "timeuot: x\nbananas: y\n");
    assert_eq!(found[0], r#"1:1: timeuot: unknown key "timeuot"; did you mean "timeout"?"#);
    assert_eq!(found[1], r#"2:1: bananas: unknown key "bananas"; the keys here are url, timeout"#);
    assert_eq!(found[2], "1:1: url: is missing and has no default");
}

#[test]
fn a_key_that_names_the_alternative_decides_which_problems_count() {
    let form = |kind: &str, key: &str| {
        json!({
            "type": "object", "additionalProperties": false, "required": ["type", key],
            "properties": {"type": {"const": kind}, key: {"type": "integer"}},
        })
    };
    let schema = json!({"oneOf": [form("tcp", "port"), form("unix", "mode"), {"type": "null"}]});
    assert!(problems(&schema, "{type: tcp, port: 1}").is_empty());
    assert_eq!(problems(&schema, "{type: unix, mode: x}").len(), 1);
    assert_eq!(problems(&schema, "{port: 1}"), ["1:1: type: is missing; it says what this entry is"]);
    assert_eq!(
        problems(&schema, "{type: unx}"),
        [r#"1:8: type: "unx" is not one of tcp, unix; did you mean "unix"?"#]
    );
    assert_eq!(problems(&schema, "x"), [r#"1:1: found the text "x", wanted a mapping or nothing"#]);
}

#[test]
fn without_such_a_key_the_alternative_with_fewest_problems_counts() {
    let known = crate::fixture::known();
    let loki = &known.sinks[1].schema;
    assert!(problems(loki, "url: x\nauth: {bearer: {token: t}}\n").is_empty());
    assert!(problems(loki, "url: x\nauth: none\n").is_empty());
    let found = problems(loki, "url: x\nauth: {basic: {user: 7}}\n");
    assert_eq!(found, ["2:22: auth.basic.user: found the number 7, wanted text; put it in quotes"]);
}

#[test]
fn repeated_items_are_found_where_items_must_differ() {
    let found = of(&json!({"type": "array", "uniqueItems": true}), "[x, y, x]");
    assert_eq!(found, ["1:11: a[2]: is in this list already"]);
}

#[test]
fn unknown_keywords_are_passed_over() {
    assert!(of(&json!({"type": "string", "pattern": "^b$", "x-own": 1}), "a").is_empty());
    assert!(of(&json!(true), "a").is_empty());
    assert_eq!(of(&json!(false), "a"), ["1:4: a: has no use here; remove it"]);
}
