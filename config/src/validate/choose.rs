//! Alternatives: which of several schemas a value was meant for, so that only that one's problems are reported.

use serde_json::Value;

use super::{Check, is_of_type, validate};
use crate::nearest::nearest;
use crate::report::Problem;
use crate::schema::PART;
use crate::tree::{Kind, Node};
use crate::words::{choices, found, join, plain, quoted, resolve, types};

impl Check<'_> {
    /// A value that must be one of `choices`.
    pub(super) fn choice(&mut self, node: &Node, choices: &[&Value], schema: &Value, path: &str) {
        let json = node.to_json();
        if choices.contains(&&json) {
            return;
        }
        let names: Vec<String> = choices.iter().map(|choice| plain(choice)).collect();
        let list = names.join(", ");
        let near = node.text().and_then(|text| nearest(text, names.iter().map(String::as_str)));
        let message = match (node.text(), schema[PART].as_str()) {
            (Some(text), Some(kind)) if near.is_some() => format!("no {kind} is called {}", quoted(text)),
            (Some(text), Some(kind)) if list.is_empty() => {
                format!("no {kind} is called {}; this build has none", quoted(text))
            }
            (Some(text), Some(kind)) => {
                format!("no {kind} is called {}; the {kind}s are {list}", quoted(text))
            }
            (None, Some(kind)) => format!("found {}, wanted the name of a {kind}", found(node)),
            (Some(text), None) => format!("{} is not one of {list}", quoted(text)),
            (None, None) => format!("found {}, wanted one of {list}", found(node)),
        };
        self.problems.push(Problem::new(node.mark, path, message).suggest(near));
    }

    /// `oneOf` and `anyOf` alike: what schemars writes never has two alternatives that both fit by mistake.
    pub(super) fn choose(&mut self, node: &Node, branches: &[Value], path: &str) {
        let root = self.root;
        let fitting: Vec<&Value> = branches
            .iter()
            .map(|branch| resolve(root, branch))
            .filter(|branch| {
                types(branch).is_empty() || types(branch).iter().any(|name| is_of_type(node, name))
            })
            .collect();
        match fitting.as_slice() {
            [] => self.wrong_type(node, &serde_json::json!({ "anyOf": branches }), path),
            [only] => self.node(node, only, path),
            several if self.by_named_key(node, several, path) => {}
            several => self.by_fewest_problems(node, several, path),
        }
    }

    /// Mappings that carry a key (`name`, `type`) whose value says which alternative is meant.
    /// False when there is no such key; then nothing was checked.
    fn by_named_key(&mut self, node: &Node, branches: &[&Value], path: &str) -> bool {
        if !matches!(node.kind, Kind::Map(_)) {
            return false;
        }
        let root = self.root;
        let choices_of = |branch: &Value, key: &str| -> Option<Vec<Value>> {
            let setting = branch["properties"].get(key)?;
            choices(root, setting).map(|values| values.into_iter().cloned().collect())
        };
        let Some(first) = branches[0]["properties"].as_object() else { return false };
        let Some(key) =
            first.keys().find(|key| branches.iter().all(|branch| choices_of(branch, key).is_some()))
        else {
            return false;
        };
        let Some(entry) = node.entry(key) else {
            self.problem(node.mark, &join(path, key), "is missing; it says what this entry is".to_owned());
            return true;
        };
        let name = entry.value.to_json();
        let meant = branches
            .iter()
            .find(|branch| choices_of(branch, key).is_some_and(|values| values.contains(&name)));
        if let Some(branch) = meant {
            self.node(node, branch, path);
        } else {
            let all: Vec<Value> =
                branches.iter().filter_map(|branch| choices_of(branch, key)).flatten().collect();
            let below = join(path, key);
            self.choice(
                &entry.value,
                &all.iter().collect::<Vec<_>>(),
                &branches[0]["properties"][key],
                &below,
            );
        }
        true
    }

    /// No key tells them apart, so the alternative with the least to complain about was probably meant.
    fn by_fewest_problems(&mut self, node: &Node, branches: &[&Value], path: &str) {
        let tries = branches.iter().map(|branch| validate(self.root, branch, node, path));
        if let Some(fewest) = tries.min_by_key(Vec::len) {
            self.problems.extend(fewest);
        }
    }
}
