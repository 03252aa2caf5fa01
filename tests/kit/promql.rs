//! Whether a `PromQL` expression asks only for what there is: metrics and labels of the catalogue, a counter only over
//! time, and two sides of an operator only where they can meet.

use std::collections::{BTreeMap, BTreeSet};

use promql_parser::label::Matcher;
use promql_parser::parser::token::T_LOR;
use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector, parse,
};
use serde_json::Value;

use crate::agent::netsonde;
use crate::shell;

/// The labels of the namespace that every metric of a probe has.
pub const TARGET: [&str; 3] = ["target_node", "target_namespace", "target_pod"];
/// What Prometheus adds to every series that it scrapes.
pub const PROMETHEUS: [&str; 2] = ["instance", "job"];

/// Names of labels or metrics.
pub type Names = BTreeSet<String>;

/// The set of these words.
pub fn names<'a>(words: impl IntoIterator<Item = &'a str>) -> Names {
    words.into_iter().map(str::to_owned).collect()
}

/// A metric as Prometheus stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Whether it counts, so that only its change over time says something.
    pub counter: bool,
    /// The labels of its series.
    pub labels: Names,
    /// The probe that it belongs to; `None` for the agent's own.
    pub probe: Option<String>,
    /// Whether it is there without a word about it in the configuration.
    pub default_on: bool,
}

/// Every metric that there is, by its name in Prometheus.
#[derive(Debug)]
pub struct Catalogue {
    metrics: BTreeMap<String, Known>,
}

impl Catalogue {
    /// What `netsonde probes` and `netsonde docs metrics` say.
    pub fn read() -> Self {
        let probes = shell::run(&mut netsonde(&["probes", "--output", "json"]));
        let probes: Value = serde_json::from_str(&probes).expect("netsonde probes gives JSON");
        let mut catalogue = Self { metrics: BTreeMap::new() };
        for probe in probes.as_array().expect("a list of probes") {
            let of = probe["name"].as_str().expect("a probe has a name");
            for metric in probe["metrics"].as_array().expect("a list of metrics") {
                // One without a native name has a reference name only.
                let Some(name) = metric["name"].as_str() else { continue };
                let labels = metric["labels"].as_array().expect("a list of labels");
                let labels = labels.iter().filter_map(Value::as_str).chain(TARGET).chain(PROMETHEUS);
                let known = Known {
                    counter: false,
                    labels: names(labels),
                    probe: Some(of.to_owned()),
                    default_on: probe["default_on"] == true,
                };
                catalogue.add_family(name, metric["type"].as_str().expect("a metric has a type"), &known);
            }
        }
        catalogue.add_own(&shell::run(&mut netsonde(&["docs", "metrics"])));
        catalogue
    }

    fn add_family(&mut self, name: &str, kind: &str, known: &Known) {
        let counter = Known { counter: true, ..known.clone() };
        match kind {
            "counter" => self.add(&format!("{name}_total"), counter),
            "histogram" => {
                for part in ["count", "sum"] {
                    self.add(&format!("{name}_{part}"), counter.clone());
                }
                let mut bucket = counter;
                bucket.labels.insert("le".to_owned());
                self.add(&format!("{name}_bucket"), bucket);
            }
            _ => self.add(name, known.clone()),
        }
    }

    /// The agent's own metrics, from the last table of the reference.
    fn add_own(&mut self, reference: &str) {
        let (_, table) = reference.split_once("## The agent itself").expect("the agent's own metrics");
        for row in table.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let own = cells[3].split(", ").filter(|label| !label.is_empty());
            let known = Known {
                counter: cells[2] == "counter",
                labels: names(own.chain(PROMETHEUS)),
                probe: None,
                default_on: true,
            };
            self.add(cells[1].trim_matches('`'), known);
        }
        assert!(self.metrics.contains_key("netsonde_build_info"), "the agent's own metrics were read");
    }

    /// Adds what others know: a series of Prometheus's own such as `up`, or what a recording rule makes.
    pub fn add(&mut self, name: &str, known: Known) {
        self.metrics.insert(name.to_owned(), known);
    }

    /// The metric of this name.
    pub fn metric(&self, name: &str) -> Option<&Known> {
        self.metrics.get(name)
    }

    /// The labels that the result of an expression has, or what is wrong with it.
    pub fn check(&self, expression: &str) -> Result<Names, String> {
        self.labels(&parse(expression)?)
    }

    /// The labels that the result of `expr` has, or what is wrong with it.
    pub fn labels(&self, expr: &Expr) -> Result<Names, String> {
        match expr {
            Expr::VectorSelector(selector) => self.select(selector, false),
            Expr::MatrixSelector(range) => self.select(&range.vs, true),
            Expr::Paren(paren) => self.labels(&paren.expr),
            Expr::Call(call) => self.call(call),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            other => Err(format!("nothing here has a need of {other}")),
        }
    }

    fn select(&self, selector: &VectorSelector, over_time: bool) -> Result<Names, String> {
        let name = selector.name.as_deref().ok_or_else(|| format!("no metric is named in {selector}"))?;
        let known = self.metrics.get(name).ok_or_else(|| format!("there is no metric {name}"))?;
        if known.counter && !over_time {
            return Err(format!("{name}: a counter is read with rate() or increase()"));
        }
        let unknown = |matcher: &&Matcher| !known.labels.contains(&matcher.name);
        match selector.matchers.matchers.iter().find(unknown) {
            Some(matcher) => Err(format!("{name} has no label {}", matcher.name)),
            None => Ok(known.labels.clone()),
        }
    }

    fn call(&self, call: &Call) -> Result<Names, String> {
        let (name, args) = (call.func.name, &call.args.args);
        if matches!(name, "time" | "vector") {
            return Ok(Names::new());
        }
        let of_values = args.iter().find(|arg| !is_scalar(arg));
        let of_values = of_values.ok_or_else(|| format!("{name} of nothing"))?;
        let mut labels = self.labels(of_values)?;
        if let (Expr::MatrixSelector(range), "rate" | "irate" | "increase" | "delta" | "deriv") =
            (&**of_values, name)
        {
            let metric = range.vs.name.as_deref().unwrap_or_default();
            let counter = self.metrics.get(metric).is_some_and(|known| known.counter);
            if counter != matches!(name, "rate" | "irate" | "increase") {
                return Err(format!(
                    "{metric}: {name}() is not for {}",
                    if counter { "a counter" } else { "a gauge" }
                ));
            }
        }
        match name {
            "absent" | "absent_over_time" => return Ok(Names::new()),
            "histogram_quantile" if !labels.remove("le") => return Err(format!("no label le: {of_values}")),
            "label_replace" => {
                let Some(Expr::StringLiteral(label)) = args.get(1).map(|arg| &**arg) else {
                    return Err("label_replace without a label".into());
                };
                labels.insert(label.val.clone());
            }
            _ => {}
        }
        Ok(labels)
    }

    fn aggregate(&self, aggregate: &AggregateExpr) -> Result<Names, String> {
        let inner = self.labels(&aggregate.expr)?;
        match &aggregate.modifier {
            Some(LabelModifier::Include(by)) => {
                let by = names(by.labels.iter().map(String::as_str));
                match by.difference(&inner).next() {
                    Some(label) => Err(format!("by ({label}) is no label of {}", aggregate.expr)),
                    None => Ok(by),
                }
            }
            Some(LabelModifier::Exclude(_)) => Err("`without` keeps whatever labels come later".into()),
            None if aggregate.op.is_aggregator_with_param() => Ok(inner),
            None => Ok(Names::new()),
        }
    }

    fn binary(&self, binary: &BinaryExpr) -> Result<Names, String> {
        let (left, right) = match (is_scalar(&binary.lhs), is_scalar(&binary.rhs)) {
            (_, true) => return self.labels(&binary.lhs),
            (true, _) => return self.labels(&binary.rhs),
            _ => (self.labels(&binary.lhs)?, self.labels(&binary.rhs)?),
        };
        if binary.op.id() == T_LOR {
            return Ok(left.intersection(&right).cloned().collect());
        }
        let modifier = binary.modifier.as_ref();
        match modifier.and_then(|modifier| modifier.matching.as_ref()) {
            Some(LabelModifier::Include(on)) => {
                match on.labels.iter().find(|label| !left.contains(*label) || !right.contains(*label)) {
                    Some(label) => Err(format!("on ({label}) is not a label of both sides: {binary}")),
                    None => Ok(taken_over(left, &right, modifier.map(|modifier| &modifier.card))),
                }
            }
            Some(LabelModifier::Exclude(_)) => Err("`ignoring` matches by whatever labels come later".into()),
            None if left == right => Ok(left),
            None => Err(format!("the two sides have other labels and never match: {binary}")),
        }
    }
}

/// Whether this is one number without any labels.
fn is_scalar(expr: &Expr) -> bool {
    match expr {
        Expr::NumberLiteral(_) => true,
        Expr::Paren(paren) => is_scalar(&paren.expr),
        Expr::Call(call) => matches!(call.func.name, "time" | "scalar"),
        _ => false,
    }
}

/// The labels of many against one: those of the many, and what `group_left` or `group_right` takes from the one.
fn taken_over(left: Names, right: &Names, card: Option<&VectorMatchCardinality>) -> Names {
    match card {
        Some(VectorMatchCardinality::ManyToOne(more)) => {
            left.into_iter().chain(more.labels.clone()).collect()
        }
        Some(VectorMatchCardinality::OneToMany(more)) => {
            right.iter().cloned().chain(more.labels.clone()).collect()
        }
        _ => left,
    }
}

/// The names of all metrics in an expression.
pub fn metrics(expression: &str) -> Names {
    let mut found = Names::new();
    collect(&parse(expression).unwrap_or_else(|why| panic!("{why}: {expression}")), &mut found);
    found
}

fn collect(expr: &Expr, into: &mut Names) {
    match expr {
        Expr::VectorSelector(selector) => into.extend(selector.name.clone()),
        Expr::MatrixSelector(range) => into.extend(range.vs.name.clone()),
        Expr::Paren(paren) => collect(&paren.expr, into),
        Expr::Aggregate(aggregate) => collect(&aggregate.expr, into),
        Expr::Call(call) => call.args.args.iter().for_each(|arg| collect(arg, into)),
        Expr::Binary(binary) => [&binary.lhs, &binary.rhs].into_iter().for_each(|side| collect(side, into)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Catalogue {
        let mut catalogue = Catalogue { metrics: BTreeMap::new() };
        let known = |labels: &[&str]| Known {
            counter: false,
            labels: names(labels.iter().copied()),
            probe: None,
            default_on: true,
        };
        catalogue.add_family("c", "counter", &known(&["pod", "reason"]));
        catalogue.add_family("g", "gauge", &known(&["pod"]));
        catalogue.add_family("h_seconds", "histogram", &known(&["pod"]));
        catalogue
    }

    #[test]
    fn the_labels_of_a_result_are_known() {
        for (expression, labels) in [
            ("sum by (pod) (rate(c_total{reason=\"x\"}[1m])) / sum by (pod) (g)", &["pod"][..]),
            ("histogram_quantile(0.9, sum by (le, pod) (rate(h_seconds_bucket[1m]))) > 0.1", &["pod"]),
            ("rate(h_seconds_sum[1m]) / rate(h_seconds_count[1m])", &["pod"]),
            ("rate(c_total[1m]) * on (pod) group_left () g", &["pod", "reason"]),
            ("label_replace(g, \"place\", \"x\", \"\", \"\")", &["place", "pod"]),
            ("100 * topk(3, g)", &["pod"]),
            ("time() - max by (pod) (g) > 300", &["pod"]),
            ("absent(g)", &[]),
        ] {
            assert_eq!(small().check(expression), Ok(names(labels.iter().copied())), "{expression}");
        }
        assert_eq!(metrics("sum(rate(c_total[1m])) / sum(g)"), names(["c_total", "g"]));
    }

    #[test]
    fn what_can_have_no_answer_is_refused() {
        for (expression, why) in [
            ("rate(c[1m])", "no metric c"),
            ("c_total", "a counter is read with"),
            ("rate(g[1m])", "not for a gauge"),
            ("g{reason=\"x\"}", "no label reason"),
            ("sum by (reason) (g)", "by (reason)"),
            ("sum(g) / g", "never match"),
            ("rate(c_total[1m]) / on (reason) g", "on (reason)"),
            ("histogram_quantile(0.9, sum by (pod) (rate(h_seconds_bucket[1m])))", "no label le"),
            ("sum without (pod) (g)", "without"),
            ("g g", "invalid"),
        ] {
            let error = small().check(expression).expect_err(expression);
            assert!(error.contains(why), "{expression}: {error}");
        }
    }
}
