//! Checks a tree against a JSON Schema and collects every problem, each at its place in the file.
//!
//! It knows the part of JSON Schema that schemars writes for settings. Patterns are not checked here: the few rules on
//! spelling are in `rules`, in words an operator understands. A keyword that it does not know is passed over, so a
//! part's own deserialisation stays the last word on its `args`.

mod choose;
mod value;

use serde_json::Value;

use crate::nearest::nearest;
use crate::report::Problem;
use crate::tree::{Entry, Kind, Mark, Node};
use crate::words::{choices, found, join, quoted, resolve, types, wanted};

/// Every problem of `node` under `schema`, which is somewhere inside `root`.
pub(crate) fn validate(root: &Value, schema: &Value, node: &Node, path: &str) -> Vec<Problem> {
    let mut check = Check { root, problems: Vec::new() };
    check.node(node, schema, path);
    check.problems
}

struct Check<'a> {
    root: &'a Value,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, mark: Mark, path: &str, message: String) {
        self.problems.push(Problem::new(mark, path, message));
    }

    fn node(&mut self, node: &Node, schema: &Value, path: &str) {
        let schema = resolve(self.root, schema);
        if schema == &Value::Bool(false) {
            return self.problem(node.mark, path, "has no use here; remove it".to_owned());
        }
        if let Some(choices) = choices(self.root, schema) {
            return self.choice(node, &choices, schema, path);
        }
        if !types(schema).is_empty() && !types(schema).iter().any(|name| is_of_type(node, name)) {
            return self.wrong_type(node, schema, path);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.node(node, part, path);
        }
        if let Some(branches) = crate::words::branches(schema) {
            self.choose(node, branches, path);
        }
        match &node.kind {
            Kind::Int(_) | Kind::Float(_) => self.number(node, schema, path),
            Kind::Text(text) => self.text(node.mark, text, schema, path),
            Kind::List(items) => self.list(node.mark, items, schema, path),
            Kind::Map(entries) => self.map(node.mark, entries, schema, path),
            Kind::Null | Kind::Bool(_) => {}
        }
    }

    fn wrong_type(&mut self, node: &Node, schema: &Value, path: &str) {
        let mut message = format!("found {}, wanted {}", found(node), wanted(self.root, schema));
        let types = types(schema);
        match &node.kind {
            // YAML 1.1 took these for booleans, and many files still hold them.
            Kind::Text(text) if types.contains(&"boolean") => {
                let meant = match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" => Some("true"),
                    "no" | "off" => Some("false"),
                    _ => None,
                };
                return self.problems.push(Problem::new(node.mark, path, message).suggest(meant));
            }
            Kind::Bool(_) | Kind::Int(_) | Kind::Float(_)
                if types.contains(&"string") && schema["format"] != "duration" =>
            {
                message.push_str("; put it in quotes");
            }
            Kind::Null => message.push_str("; remove the key to get its default"),
            _ => {}
        }
        self.problem(node.mark, path, message);
    }

    fn list(&mut self, mark: Mark, items: &[Node], schema: &Value, path: &str) {
        if let Some(each) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.node(item, each, &format!("{path}[{index}]"));
            }
        }
        self.count(mark, items.len(), schema, path);
        if schema["uniqueItems"] == true {
            let mut seen = std::collections::HashSet::new();
            for (index, item) in items.iter().enumerate() {
                if !seen.insert(item.to_json().to_string()) {
                    self.problem(
                        item.mark,
                        &format!("{path}[{index}]"),
                        "is in this list already".to_owned(),
                    );
                }
            }
        }
    }

    fn map(&mut self, mark: Mark, entries: &[Entry], schema: &Value, path: &str) {
        let properties = schema["properties"].as_object();
        for entry in entries {
            let below = join(path, &entry.name);
            match (properties.and_then(|all| all.get(&entry.name)), schema.get("additionalProperties")) {
                (Some(setting), _) => self.node(&entry.value, setting, &below),
                (None, Some(Value::Bool(false))) if schema.get("patternProperties").is_none() => {
                    let known: Vec<_> =
                        properties.into_iter().flat_map(|all| all.keys().map(String::as_str)).collect();
                    self.unknown_key(entry, &known, &below);
                }
                (None, Some(others)) => self.node(&entry.value, others, &below),
                (None, None) => {}
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !entries.iter().any(|entry| entry.name == name) {
                self.problem(mark, &join(path, name), "is missing and has no default".to_owned());
            }
        }
    }

    fn unknown_key(&mut self, entry: &Entry, known: &[&str], path: &str) {
        let near = nearest(&entry.name, known.iter().copied());
        let message = match (near, known) {
            (Some(_), _) => format!("unknown key {}", quoted(&entry.name)),
            (None, []) => format!("unknown key {}; there are no keys here", quoted(&entry.name)),
            (None, _) => {
                format!("unknown key {}; the keys here are {}", quoted(&entry.name), known.join(", "))
            }
        };
        self.problems.push(Problem::new(entry.mark, path, message).suggest(near));
    }
}

/// Whether a value is of the JSON type `name`. A float is no integer even when it is whole: serde has the same view.
fn is_of_type(node: &Node, name: &str) -> bool {
    match &node.kind {
        Kind::Null => name == "null",
        Kind::Bool(_) => name == "boolean",
        Kind::Int(_) => name == "integer" || name == "number",
        Kind::Float(_) => name == "number",
        Kind::Text(_) => name == "string",
        Kind::List(_) => name == "array",
        Kind::Map(_) => name == "object",
    }
}

#[cfg(test)]
mod tests;
