//! Runs the log part of a `LogQL` query over entries, as Loki does: which of them come through.
//!
//! It knows what the queries of this repository use, and panics at the rest.

use std::collections::BTreeMap;

use promql_parser::label::Matcher;
use promql_parser::parser::token::T_EQL_REGEX;
use serde_json::Value;

use super::Node;
use super::check::{stages, text_matcher};
use crate::loki::Entry;

/// What an entry is known by at one stage: labels, then also fields.
type Fields = BTreeMap<String, String>;

/// How many of these entries come through each log selection of a query; a query may add up several.
pub fn through(query: &Node, entries: &[Entry]) -> Vec<usize> {
    let selections = query.all("LogRangeExpr").into_iter().chain(query.all("LogExpr"));
    selections.map(|of| entries.iter().filter(|entry| comes_through(of, entry)).count()).collect()
}

fn comes_through(of: &Node, entry: &Entry) -> bool {
    let mut fields = labels(&entry.labels);
    let selector = of.all("Selector")[0];
    if !selector.all("Matcher").into_iter().all(|matcher| is(matcher, &fields)) {
        return false;
    }
    stages(of).into_iter().all(|stage| {
        let kind = stage.children.iter().find(|node| node.name != "Pipe").expect("a stage says what it does");
        match kind.name.as_str() {
            "LineFilters" => kind.all("LineFilter").into_iter().all(|filter| has(filter, &entry.line)),
            "LabelParser" => {
                // Labels of the stream stay what they are.
                for (name, value) in json(&entry.line) {
                    fields.entry(name).or_insert(value);
                }
                true
            }
            "LabelFilter" => passes(kind, &fields),
            "Unwrap" => {
                fields.get(stage.word("Identifier")).is_some_and(|value| value.parse::<f64>().is_ok())
            }
            "LineFormatExpr" => true,
            other => panic!("{other} is not known here: {}", stage.text),
        }
    })
}

/// The labels of a stream: `{job="netsonde", type="PacketLoss"}`.
fn labels(text: &str) -> Fields {
    let inner = text.trim_start_matches('{').trim_end_matches('}');
    let pairs = inner.split(',').filter_map(|pair| pair.trim().split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

fn json(line: &str) -> Fields {
    let event: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("no JSON ({why}): {line}"));
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    };
    let fields = event.as_object().expect("an event is an object").iter();
    fields.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

/// A field that is not there is the empty text.
fn is(matcher: &Node, fields: &Fields) -> bool {
    let matcher = text_matcher(matcher).unwrap_or_else(|why| panic!("{why}"));
    matcher.is_match(fields.get(&matcher.name).map_or("", String::as_str))
}

fn has(filter: &Node, line: &str) -> bool {
    let wanted = filter.string();
    let operator = &filter.child("Filter").expect("a filter has an operator").text;
    let matches = || {
        let pattern = format!("(?s:.*)(?:{wanted})(?s:.*)");
        Matcher::new_matcher(T_EQL_REGEX, String::new(), pattern).is_ok_and(|matcher| matcher.is_match(line))
    };
    match operator.as_str() {
        "|=" => line.contains(&wanted),
        "!=" => !line.contains(&wanted),
        "|~" => matches(),
        "!~" => !matches(),
        other => panic!("{other} is not known here"),
    }
}

/// A filter, or several with `and`, commas, `or` and brackets.
fn passes(filter: &Node, fields: &Fields) -> bool {
    let parts: Vec<_> = filter.children.iter().filter(|node| !matches!(&*node.name, "Or" | "And")).collect();
    let mut passed = parts.into_iter().map(|part| match part.name.as_str() {
        "LabelFilter" => passes(part, fields),
        "Matcher" => is(part, fields),
        "NumberFilter" => compares(part, fields),
        other => panic!("{other} is not known here: {}", part.text),
    });
    if filter.child("Or").is_some() { passed.any(|pass| pass) } else { passed.all(|pass| pass) }
}

/// Where a field is not there, a comparison with a number fails.
fn compares(filter: &Node, fields: &Fields) -> bool {
    let Some(held) = fields.get(filter.word("Identifier")) else { return false };
    let held: f64 = held.parse().unwrap_or_else(|why| panic!("{held} is no number: {why}"));
    let wanted: f64 = filter.word("LiteralExpr").parse().expect("the grammar says that it is a number");
    match filter.children[1].name.as_str() {
        "Gtr" => held > wanted,
        "Gte" => held >= wanted,
        "Lss" => held < wanted,
        "Lte" => held <= wanted,
        other => panic!("{other} is not known here: {}", filter.text),
    }
}
