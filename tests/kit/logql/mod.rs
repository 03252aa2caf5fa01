//! `LogQL` of dashboards and guides: parsed by Grafana's own grammar, held against the schema of events, and run over
//! events that an agent sent.
//!
//! The grammar is JavaScript: `tests/setup/logql/install.sh` fetches it, node runs it, and everything else happens here,
//! on its syntax trees.

pub mod check;
pub mod run;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::shell;

/// A node of a syntax tree.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is, in the grammar's words: `Selector`, `Matcher`, `LabelFilter`.
    pub name: String,
    /// The part of the query that it stands for.
    pub text: String,
    /// What it consists of, in the order of the query; words that stand for nothing else are left out.
    pub children: Vec<Node>,
}

impl Node {
    fn read(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().expect("a node has a name and a text").to_owned();
        let children = value["children"].as_array().expect("a node has a list of children");
        Self { name: text("name"), text: text("text"), children: children.iter().map(Self::read).collect() }
    }

    /// This node and all below it, in the order of the query.
    pub fn walk(&self) -> Vec<&Self> {
        let below = self.children.iter().flat_map(Self::walk);
        std::iter::once(self).chain(below).collect()
    }

    /// All of this name at or below this node.
    pub fn all(&self, name: &str) -> Vec<&Self> {
        self.walk().into_iter().filter(|node| node.name == name).collect()
    }

    /// The first child of this name.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|node| node.name == name)
    }

    /// The text of the first child of this name, which the grammar says is there.
    pub fn word(&self, name: &str) -> &str {
        self.child(name).map_or_else(|| panic!("no {name} in {}", self.text), |node| &node.text)
    }

    /// What a quoted child says.
    pub fn string(&self) -> String {
        let text = self.word("String");
        match text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
            Some(raw) => raw.to_owned(),
            None => serde_json::from_str(text).unwrap_or_else(|why| panic!("{text} is no text: {why}")),
        }
    }
}

/// The syntax tree of each query, or what is wrong with it.
pub fn parse(queries: &[String]) -> Vec<Result<Node, String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("setup/logql");
    let target = target();
    shell::run(Command::new(folder.join("install.sh")).arg(&target));
    let mut node = Command::new("node");
    node.arg(folder.join("parse.cjs")).env("NODE_PATH", target.join("logql/node_modules"));
    let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node runs");
    let list = serde_json::to_vec(queries).expect("texts are JSON");
    node.stdin.take().expect("its input is a pipe").write_all(&list).expect("node reads the queries");
    let output = node.wait_with_output().expect("node ends");
    assert!(output.status.success(), "parse.cjs: {}", output.status);
    let trees: Value = serde_json::from_slice(&output.stdout).expect("parse.cjs gives trees");
    let trees = trees.as_array().expect("a list of trees");
    assert_eq!(trees.len(), queries.len(), "a tree for each query");
    trees.iter().map(|tree| whole(Node::read(tree))).collect()
}

/// Where cargo puts what it builds: `target/debug/deps/suite-0123` is this program.
fn target() -> PathBuf {
    let own = std::env::current_exe().expect("a process knows its program");
    let profile = own.ancestors().find(|path| path.ends_with("debug") || path.ends_with("release"));
    let target =
        profile.and_then(Path::parent).unwrap_or_else(|| panic!("{} is in no target", own.display()));
    target.to_owned()
}

fn whole(tree: Node) -> Result<Node, String> {
    let wrong = tree.walk().into_iter().find(|node| node.name == "⚠").map(|node| node.text.clone());
    match wrong {
        Some(text) => Err(format!("no LogQL near {text:?}: {}", tree.text)),
        None => Ok(tree),
    }
}
