//! Whether a `LogQL` query asks for what events have: labels of the sink, types, and fields of those types.
//!
//! It is stricter than Loki, which answers a wrong name with nothing.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::Matcher;
use promql_parser::parser::token::{T_EQL, T_EQL_REGEX, T_NEQ, T_NEQ_REGEX};
use serde_json::Value;

use super::Node;
use crate::agent::netsonde;
use crate::shell;

/// The labels that the sink `loki` can give to a stream.
pub const STREAM: [&str; 6] = ["job", "node", "probe", "type", "severity", "namespace"];

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A text, or true or false: it is compared as a text.
    Text,
    /// A whole number.
    Number,
    /// A list, which `json` leaves out.
    List,
}

/// The fields of each type of event.
#[derive(Debug)]
pub struct Schema {
    types: BTreeMap<String, BTreeMap<String, Holds>>,
}

impl Schema {
    /// What `netsonde schema --events` says.
    pub fn read() -> Self {
        let schema = shell::run(&mut netsonde(&["schema", "--events"]));
        let schema: Value = serde_json::from_str(&schema).expect("the schema is JSON");
        let types = schema["oneOf"].as_array().expect("a choice of types").iter().map(|of| {
            let fields = of["properties"].as_object().expect("a type has fields").iter();
            let fields = fields.map(|(name, property)| (name.clone(), holds(property)));
            (of["title"].as_str().expect("a type has a title").to_owned(), fields.collect())
        });
        Self { types: types.collect() }
    }

    /// The fields of the types that a selector lets through, or what is wrong with the selector.
    fn select(&self, selector: &Node) -> Result<BTreeMap<&str, Holds>, String> {
        let matchers = selector.all("Matcher");
        if !matchers
            .iter()
            .any(|matcher| matcher.word("Identifier") == "job" && matcher.child("Eq").is_some())
        {
            return Err(format!("{} does not say which job", selector.text));
        }
        let mut types: BTreeSet<&str> = self.types.keys().map(String::as_str).collect();
        for matcher in matchers {
            let label = matcher.word("Identifier");
            if !STREAM.contains(&label) {
                return Err(format!("{label} is no label of the sink loki: filter it after `| json`"));
            }
            if label == "type" {
                let matcher = text_matcher(matcher)?;
                let before = types.clone();
                types.retain(|name| matcher.is_match(name));
                for one in matcher.value.split('|').filter(|_| matcher.value != ".*") {
                    let one = Matcher::new_matcher(T_EQL_REGEX, "type".into(), one.into())?;
                    if !before.iter().any(|name| one.is_match(name)) {
                        return Err(format!("there is no type {}", one.value));
                    }
                }
            }
        }
        let fields = types.iter().flat_map(|name| &self.types[*name]);
        Ok(fields.map(|(name, holds)| (name.as_str(), *holds)).collect())
    }

    /// What is wrong with a query, if anything is.
    pub fn check(&self, query: &Node) -> Result<(), String> {
        let selectors = query.all("LogRangeExpr").into_iter().chain(query.all("LogExpr"));
        let mut seen = false;
        for of in selectors {
            seen = true;
            let selector = of.all("Selector")[0];
            let fields = self.select(selector)?;
            let mut names: BTreeMap<&str, Holds> = STREAM.iter().map(|label| (*label, Holds::Text)).collect();
            for stage in stages(of) {
                if !stage.all("Json").is_empty() {
                    names.extend(&fields);
                } else if stage.children.iter().any(|node| node.name.ends_with("Parser")) {
                    return Err(format!("events are JSON: {}", stage.text));
                } else {
                    check_stage(stage, &mut names)?;
                }
            }
            for grouping in groupings(query, of)? {
                if let Some(label) = grouping.all("Identifier").iter().find(|l| !names.contains_key(&*l.text))
                {
                    return Err(format!("{}: no such field", label.text));
                }
            }
        }
        if seen { Ok(()) } else { Err(format!("no stream is selected: {}", query.text)) }
    }
}

fn holds(property: &Value) -> Holds {
    match property["type"].as_str() {
        Some("integer" | "number") => Holds::Number,
        Some("array") => Holds::List,
        _ => Holds::Text,
    }
}

/// The stages of a pipeline, in order; the last may be an `unwrap`.
pub fn stages(of: &Node) -> Vec<&Node> {
    let mut found = Vec::new();
    for node in of.walk() {
        let first_unwrap = node.name == "UnwrapExpr" && node.child("Unwrap").is_some();
        if node.name == "PipelineStage" || first_unwrap {
            found.push(node);
        }
    }
    found
}

/// How a comparison of a text is written, as a matcher that can be asked.
pub fn text_matcher(node: &Node) -> Result<Matcher, String> {
    let op = [("Eq", T_EQL), ("Neq", T_NEQ), ("Re", T_EQL_REGEX), ("Nre", T_NEQ_REGEX)];
    let (_, op) =
        op.into_iter().find(|(name, _)| node.child(name).is_some()).ok_or_else(|| node.text.clone())?;
    Matcher::new_matcher(op, node.word("Identifier").to_owned(), node.string())
}

fn check_stage<'a>(stage: &'a Node, names: &mut BTreeMap<&'a str, Holds>) -> Result<(), String> {
    let field = |name: &str| {
        let held = names.get(name).copied().filter(|holds| *holds != Holds::List);
        held.ok_or_else(|| {
            format!("{name} is no field of these events, or `| json` is missing: {}", stage.text)
        })
    };
    for filter in stage.walk() {
        match filter.name.as_str() {
            "Matcher" => {
                text_matcher(filter)?;
                field(filter.word("Identifier"))?;
            }
            "IpLabelFilter" if !matches!(filter.word("Identifier"), "src" | "dst") => {
                return Err(format!("ip() is for src and dst: {}", filter.text));
            }
            "NumberFilter" | "UnwrapExpr" if field(filter.word("Identifier"))? != Holds::Number => {
                return Err(format!("this is no number: {}", filter.text));
            }
            "UnitFilter" => return Err(format!("numbers of events have no unit: {}", filter.text)),
            "LineFormatExpr" | "LabelFormatMatcher" if filter.child("String").is_some() => {
                for name in shown(&filter.string()) {
                    field(&name)?;
                }
            }
            _ => {}
        }
    }
    let made =
        stage.all("LabelFormatMatcher").into_iter().map(|of| &*of.child("Identifier").expect("a name").text);
    names.extend(made.map(|name| (name, Holds::Text)));
    Ok(())
}

/// The fields that a template shows.
fn shown(template: &str) -> Vec<String> {
    let inner = template.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0));
    let words = inner.flat_map(str::split_whitespace).filter_map(|word| word.strip_prefix('.'));
    words.map(str::to_owned).collect()
}

/// The ranges that Loki counts by the labels of a sum around them, so that it need not know each event's own.
const COUNTED: [&str; 5] = ["CountOverTime", "Rate", "BytesOverTime", "BytesRate", "SumOverTime"];

/// The groupings around a range of a query; each event is a series of its own in Loki unless one is right there.
fn groupings<'a>(query: &'a Node, of: &Node) -> Result<Vec<&'a Node>, String> {
    if of.name != "LogRangeExpr" {
        return Ok(Vec::new());
    }
    let around: Vec<_> = query.walk().into_iter().filter(|node| contains(node, of)).collect();
    let nearest = |name: &str| around.iter().rev().find(|node| node.name == name).copied();
    let range = nearest("RangeAggregationExpr").expect("a range is of something");
    let aggregation = nearest("VectorAggregationExpr");
    let sums = aggregation.and_then(|of| of.child("VectorOp")).is_some_and(|op| !op.all("Sum").is_empty());
    let counted =
        range.child("RangeOp").is_some_and(|op| COUNTED.iter().any(|name| !op.all(name).is_empty()));
    if range.child("Grouping").is_none() && !(sums && counted) {
        return Err(format!(
            "every event is a series of its own: use sum by (...) or a `by` behind {}",
            range.text
        ));
    }
    Ok([Some(range), aggregation].into_iter().flatten().filter_map(|node| node.child("Grouping")).collect())
}

fn contains(node: &Node, other: &Node) -> bool {
    node.walk().into_iter().any(|one| std::ptr::eq(one, other))
}
