//! A YAML document as a tree in which every key and every value knows its place in the file.

use serde_json::{Map, Number, Value};

/// A place in the file; line and column count from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub line: usize,
    pub column: usize,
}

impl Mark {
    pub const START: Self = Self { line: 1, column: 1 };
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub mark: Mark,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a mapping with its value. `mark` is the place of the key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub name: String,
    pub mark: Mark,
    pub value: Node,
}

impl Node {
    /// A mapping without keys.
    pub fn empty_map(mark: Mark) -> Self {
        Self { mark, kind: Kind::Map(Vec::new()) }
    }

    /// The entry of key `name`, if this is a mapping that has it.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.name == name)
    }

    /// The value under a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| node.entry(name).map(|entry| &entry.value))
    }

    /// The entries of a mapping; of anything else, none.
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; of anything else, none.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same value without places. A number that JSON cannot hold becomes null; the validator refuses those first.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(value) => Number::from_i128(*value).map_or(Value::Null, Value::Number),
            Kind::Float(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Kind::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.name.clone(), entry.value.to_json()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_meaning_in_json() {
        let (root, problems) = crate::yaml::read("a: [1, -2, 1.5, x, true, ~]\nb: {c: '1'}\n");
        assert!(problems.is_empty());
        let root = root.expect("the document has a root");
        assert_eq!(root.to_json(), serde_json::json!({"a": [1, -2, 1.5, "x", true, null], "b": {"c": "1"}}));
        assert_eq!(root.at(&["b", "c"]).and_then(Node::text), Some("1"));
        assert_eq!(root.at(&["b", "d"]), None);
    }

    #[test]
    fn a_number_too_large_for_json_is_no_panic() {
        let node = Node { mark: Mark::START, kind: Kind::Int(i128::MAX) };
        assert_eq!(node.to_json(), Value::Null);
    }
}
