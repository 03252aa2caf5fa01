//! The Grafana dashboards: they import as they are, ask only for what the catalogue has, and every query answers where
//! there is traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use netsonde_tests::agent::{free_address, netsonde};
use netsonde_tests::running::mortal;
use netsonde_tests::{Agent, Page, Pair, Running, http, needs_programs, needs_root, note, shell, until};
use promql_parser::label::Matcher;
use promql_parser::parser::token::T_LOR;
use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorSelector, parse as promql,
};
use serde_json::Value;

const DASHBOARDS: &[&str] = &["netsonde-node", "netsonde-pod"];
const TARGET: [&str; 3] = ["target_node", "target_namespace", "target_pod"];
/// What Prometheus adds to every series that it scrapes.
const PROMETHEUS: [&str; 2] = ["instance", "job"];

type Names = BTreeSet<String>;

fn names<'a>(words: impl IntoIterator<Item = &'a str>) -> Names {
    words.into_iter().map(str::to_owned).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

fn dashboard(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../dashboards/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The panels that show something: not the rows.
fn shown(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels").iter().filter(|panel| panel["type"] != "row")
}

/// One query of a panel, or the selector of a variable.
struct Query {
    place: String,
    expression: String,
    /// The labels that its legend, or the variable, shows.
    legend: Names,
}

fn queries(dashboard: &Value) -> Vec<Query> {
    let mut found = Vec::new();
    for panel in shown(dashboard) {
        for target in list(panel, "targets") {
            let place =
                format!("{}: {}: {}", text(dashboard, "uid"), text(panel, "title"), text(target, "refId"));
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            let legend = legend.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0));
            found.push(Query { place, expression: text(target, "expr").to_owned(), legend: names(legend) });
        }
    }
    for variable in list(&dashboard["templating"], "list").iter().filter(|v| v["type"] == "query") {
        let query = text(&variable["query"], "query");
        assert_eq!(query, text(variable, "definition"));
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) =
            inner.and_then(|i| i.rsplit_once(", ")).unwrap_or_else(|| panic!("no label_values(): {query}"));
        let place = format!("{}: ${}", text(dashboard, "uid"), text(variable, "name"));
        found.push(Query { place, expression: selector.to_owned(), legend: names([label]) });
    }
    found
}

/// The expression as Grafana sends it for `All` and a short time range.
fn filled(expression: &str) -> String {
    let mut filled = expression.replace("$__rate_interval", "10s").replace("$__range", "20s");
    for variable in ["$node", "$namespace", "$pod", "$instance"] {
        filled = filled.replace(&format!("\"{variable}\""), "\".*\"");
    }
    assert!(!filled.contains('$'), "a variable that Grafana does not know: {expression}");
    filled
}

/// A metric as Prometheus stores it.
struct Known {
    counter: bool,
    labels: Names,
    default_on: bool,
}

struct Catalogue {
    metrics: BTreeMap<String, Known>,
}

impl Catalogue {
    fn read() -> Self {
        let probes = shell::run(&mut netsonde(&["probes", "--output", "json"]));
        let probes: Value = serde_json::from_str(&probes).expect("netsonde probes gives JSON");
        let mut catalogue = Self { metrics: BTreeMap::new() };
        for probe in probes.as_array().expect("a list of probes") {
            let default_on = probe["default_on"] == true;
            for metric in list(probe, "metrics").iter().filter(|metric| metric["name"].is_string()) {
                let counter = text(metric, "type") == "counter";
                let name = format!("{}{}", text(metric, "name"), if counter { "_total" } else { "" });
                let own = list(metric, "labels").iter().filter_map(Value::as_str);
                let labels = names(own.chain(TARGET).chain(PROMETHEUS));
                catalogue.metrics.insert(name, Known { counter, labels, default_on });
            }
        }
        catalogue.add_own(&shell::run(&mut netsonde(&["docs", "metrics"])));
        catalogue
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
                default_on: true,
            };
            self.metrics.insert(cells[1].trim_matches('`').to_owned(), known);
        }
        assert!(self.metrics.contains_key("netsonde_build_info"), "the agent's own metrics were read");
    }

    /// The labels that the result of `expr` has, or what is wrong with it.
    fn labels(&self, expr: &Expr) -> Result<Names, String> {
        match expr {
            Expr::VectorSelector(selector) => self.select(selector, false),
            Expr::MatrixSelector(range) => self.select(&range.vs, true),
            Expr::Paren(paren) => self.labels(&paren.expr),
            Expr::Call(call) => self.call(call),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            other => Err(format!("a dashboard has no need of {other}")),
        }
    }

    fn select(&self, selector: &VectorSelector, over_time: bool) -> Result<Names, String> {
        let name = selector.name.as_deref().ok_or_else(|| format!("no metric is named in {selector}"))?;
        let known = self.metrics.get(name).ok_or_else(|| format!("there is no metric {name}"))?;
        if known.counter != over_time {
            return Err(format!("{name}: a counter is read with rate() or increase(), a gauge is not"));
        }
        let unknown = |matcher: &&Matcher| !known.labels.contains(&matcher.name);
        match selector.matchers.matchers.iter().find(unknown) {
            Some(matcher) => Err(format!("{name} has no label {}", matcher.name)),
            None => Ok(known.labels.clone()),
        }
    }

    fn call(&self, call: &Call) -> Result<Names, String> {
        let args = &call.args.args;
        let mut labels = self.labels(args.first().ok_or("a function of nothing")?)?;
        if call.func.name == "label_replace" {
            let Some(Expr::StringLiteral(label)) = args.get(1).map(|arg| &**arg) else {
                return Err("label_replace without a label".into());
            };
            labels.insert(label.val.clone());
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
        let left = self.labels(&binary.lhs)?;
        if matches!(*binary.rhs, Expr::NumberLiteral(_)) {
            return Ok(left);
        }
        let right = self.labels(&binary.rhs)?;
        if binary.op.id() == T_LOR {
            return Ok(left.intersection(&right).cloned().collect());
        }
        match binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref()) {
            Some(LabelModifier::Include(on)) => {
                match on.labels.iter().find(|label| !left.contains(*label) || !right.contains(*label)) {
                    Some(label) => Err(format!("on ({label}) is not a label of both sides: {binary}")),
                    None => Ok(left),
                }
            }
            Some(LabelModifier::Exclude(_)) => Err("`ignoring` matches by whatever labels come later".into()),
            None if left == right => Ok(left),
            None => Err(format!("the two sides have other labels and never match: {binary}")),
        }
    }
}

/// The names of all metrics in an expression.
fn metrics(expr: &Expr, into: &mut Names) {
    match expr {
        Expr::VectorSelector(selector) => into.extend(selector.name.clone()),
        Expr::MatrixSelector(range) => into.extend(range.vs.name.clone()),
        Expr::Paren(paren) => metrics(&paren.expr, into),
        Expr::Aggregate(aggregate) => metrics(&aggregate.expr, into),
        Expr::Call(call) => call.args.args.iter().for_each(|arg| metrics(arg, into)),
        Expr::Binary(binary) => [&binary.lhs, &binary.rhs].into_iter().for_each(|side| metrics(side, into)),
        _ => {}
    }
}

#[test]
fn dashboards_import_without_an_edit() {
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        assert!(
            dashboard["id"].is_null() && dashboard["__inputs"].is_null(),
            "{name} asks nothing on import"
        );
        assert_eq!(text(&dashboard, "uid"), *name, "links lead here");
        assert!((38..=41).contains(&number(&dashboard, "schemaVersion")), "{name} is for Grafana 10 and 11");
        let variables = list(&dashboard["templating"], "list");
        let variable = |name: &str| {
            variables
                .iter()
                .find(|v| v["name"] == name)
                .unwrap_or_else(|| panic!("there is no variable {name}"))
        };
        let datasource = variable("datasource");
        assert_eq!((text(datasource, "type"), text(datasource, "query")), ("datasource", "prometheus"));
        for one in ["node", "namespace", "pod"].map(variable) {
            assert!(one["multi"] == true && one["includeAll"] == true, "{one:#}");
            assert_eq!(text(one, "allValue"), ".*");
        }
        let sources = variables.iter().filter(|v| v["type"] == "query").chain(shown(&dashboard));
        for source in sources.chain(shown(&dashboard).flat_map(|panel| list(panel, "targets"))) {
            assert_eq!(source["datasource"]["uid"], "${datasource}", "{source:#}");
        }
    }
}

#[test]
fn every_panel_says_what_to_look_for() {
    for name in DASHBOARDS {
        for panel in shown(&dashboard(name)) {
            let title = text(panel, "title");
            let description = text(panel, "description");
            let one_sentence = description.ends_with('.') && !description.contains(". ");
            assert!(one_sentence && description.len() > 40, "{name}: {title}: {description}");
            assert!(
                !text(&panel["fieldConfig"]["defaults"], "unit").is_empty(),
                "{name}: {title} has a unit"
            );
            assert!(!title.is_empty() && !list(panel, "targets").is_empty(), "{name}: {title}");
            for target in list(panel, "targets") {
                let legend = target["legendFormat"].as_str().unwrap_or_default();
                assert_eq!(legend.is_empty(), panel["type"] == "table", "{name}: {title}: {legend:?}");
            }
        }
    }
}

#[test]
fn panels_have_places_and_numbers_of_their_own() {
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        let panels = list(&dashboard, "panels");
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
        for panel in panels {
            let title = text(panel, "title");
            assert!(ids.insert(number(panel, "id")), "{name}: {title}: its id is there twice");
            let at = |key| number(&panel["gridPos"], key);
            assert!(at("x") + at("w") <= 24, "{name}: {title} is wider than the page");
            let all =
                (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)));
            for cell in all {
                assert!(cells.insert(cell), "{name}: {title} lies on another panel at {cell:?}");
            }
            let refs: BTreeSet<_> = list(panel, "targets").iter().map(|t| text(t, "refId")).collect();
            assert_eq!(refs.len(), list(panel, "targets").len(), "{name}: {title}: a refId is there twice");
        }
    }
}

#[test]
fn every_expression_asks_for_metrics_and_labels_of_the_catalogue() {
    let catalogue = Catalogue::read();
    let mut wrong = Vec::new();
    for query in DASHBOARDS.iter().flat_map(|name| queries(&dashboard(name))) {
        let ranges = query.expression.split('[').skip(1).map(|rest| rest.split(']').next().unwrap_or(rest));
        for range in ranges.filter(|range| !["$__rate_interval", "$__range"].contains(range)) {
            wrong.push(format!("{}: [{range}] does not follow the page", query.place));
        }
        match promql(&filled(&query.expression)).and_then(|expr| catalogue.labels(&expr)) {
            Ok(labels) => {
                let missing = query.legend.difference(&labels);
                wrong.extend(missing.map(|label| format!("{}: no label {label} to show", query.place)));
            }
            Err(why) => wrong.push(format!("{}: {why}", query.place)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_panel_lives_on_probes_that_are_off_by_default() {
    let catalogue = Catalogue::read();
    for name in DASHBOARDS {
        for panel in shown(&dashboard(name)) {
            let answered = |target: &Value| {
                let mut used = Names::new();
                metrics(&promql(&filled(text(target, "expr"))).expect("an expression"), &mut used);
                used.iter().all(|metric| catalogue.metrics.get(metric).is_some_and(|known| known.default_on))
            };
            assert!(list(panel, "targets").iter().any(answered), "{name}: {} is empty", text(panel, "title"));
        }
    }
}

#[test]
fn every_view_of_loss_has_the_same_places() {
    let places = |expression: &str| {
        names(expression.split(", \"place\", \"").skip(1).filter_map(|rest| rest.split('"').next()))
    };
    let mut views: Vec<_> = DASHBOARDS.iter().flat_map(|name| queries(&dashboard(name))).collect();
    views.retain(|query| query.legend.contains("place") || query.expression.contains("target_pod, place)"));
    assert_eq!(views.len(), 6, "two of a dashboard without, one with the pods");
    let all = places(&views[0].expression);
    assert!(all.len() > 20, "{all:?}");
    for view in &views {
        let missing: Vec<_> = all.difference(&places(&view.expression)).cloned().collect();
        // No pod of its own has the backlog of a CPU.
        let wanted: &[&str] = if view.legend.is_empty() { &["CPU backlog (node)"] } else { &[] };
        assert_eq!(missing, wanted, "{}", view.place);
    }
}

/// What a machine may lack, by the begin of the metrics' names and a label, and why.
const MAY_LACK: &[(&str, (&str, &str), &str)] = &[
    ("netsonde_netdev_device_", ("kind", "physical"), "a container has no physical device"),
    (
        "netsonde_qdisc_device_",
        ("target_pod", "hostNetwork"),
        "noqueue, as devices of a container have it, counts nothing",
    ),
    ("netsonde_conntrack_", ("target_pod", "hostNetwork"), "this kernel tracks no connections"),
];

/// Why this query may be empty: the agent's page has nothing of the sort that it asks for.
fn excuse(expression: &str, page: &Page) -> Option<&'static str> {
    let excuses = |(name, (key, value), _): &&(&str, (&str, &str), &str)| {
        let asked = expression.contains(name) && expression.contains(&format!("{key}=\"{value}\""));
        let has = |label: Option<&String>| label.is_some_and(|label| label == value);
        asked && !page.samples.iter().any(|s| s.name.starts_with(name) && has(s.labels.get(*key)))
    };
    MAY_LACK.iter().find(excuses).map(|(_, _, why)| *why)
}

/// The results of a query, each with its labels; the error is Prometheus's own.
fn ask(server: SocketAddr, expression: &str) -> Result<Vec<(Value, String)>, String> {
    let escaped = expression.bytes().fold(String::new(), |escaped, byte| format!("{escaped}%{byte:02x}"));
    let path = format!("/api/v1/query?query={escaped}");
    let answer = http::get(server, &path, &[]).map_err(|e| e.to_string())?;
    // While it starts it answers 503, and not in JSON.
    let answer: Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
    if let Some(error) = answer["error"].as_str() {
        return Err(error.to_owned());
    }
    let result = |r: &Value| Some((r["metric"].clone(), r["value"][1].as_str()?.to_owned()));
    Ok(list(&answer["data"], "result").iter().filter_map(result).collect())
}

/// An agent over two pods with traffic, and a Prometheus that has scraped it five times.
struct Lab {
    address: SocketAddr,
    agent: Agent,
    pair: Pair,
    _running: [Running; 2],
    _folder: tempfile::TempDir,
}

impl Lab {
    /// Its traffic is TCP and UDP from `a` to `b`; at a socket of `b` that nobody reads, UDP is lost.
    fn new(hint: &str) -> Self {
        let pair = Pair::new(hint);
        pair.a.run("tc qdisc add dev eth0 root tbf rate 100mbit burst 64kb latency 50ms");
        pair.b.track_connections();
        let process = Running::start(pair.b.mortal("sleep").arg("60"));
        let listener = pair.b.listen("10.9.0.2:7000", 16);
        let (from, to, full) =
            (pair.a.udp("10.9.0.1:0"), pair.b.udp("10.9.0.2:6000"), pair.b.udp("10.9.0.2:6001"));
        rustix::net::sockopt::set_socket_recv_buffer_size(&full, 2048).expect("a buffer can be small");
        let traffic = || {
            let (client, server) =
                (pair.a.connect("10.9.0.2:7000"), listener.accept().expect("a connection").0);
            std::io::Write::write_all(&mut &client, &[7; 1000]).expect("a connection takes bytes");
            std::io::Read::read_exact(&mut &server, &mut [0; 1000]).expect("and gives them");
            from.send_to(&[7; 100], "10.9.0.2:6000").expect("a datagram can be sent");
            to.recv(&mut [0; 100]).expect("it arrives");
            from.send_to(&[7; 1000], "10.9.0.2:6001").expect("a datagram can be sent");
        };
        let agent = Agent::start("node_name: lab\n");
        for ns in [&pair.a, &pair.b] {
            agent.scrape_with(ns.name());
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (prometheus, address) = prometheus(folder.path(), &agent);
        until("prometheus has scraped the agent five times", Duration::from_secs(30), || {
            traffic();
            let answer = ask(address, "count_over_time(up[1m])").ok()?;
            answer.first()?.1.parse::<u32>().ok().filter(|count| *count >= 5)
        });
        Self { address, agent, pair, _running: [process, prometheus], _folder: folder }
    }
}

fn prometheus(folder: &Path, agent: &Agent) -> (Running, SocketAddr) {
    let config = folder.join("prometheus.yml");
    let scrape = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: netsonde\n  static_configs:\n  - targets: [\"{}\"]\n",
        agent.address
    );
    std::fs::write(&config, scrape).expect("written");
    let address = free_address();
    let mut command = mortal("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address={address}"));
    let log = std::fs::File::create(folder.join("log")).expect("made");
    (Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log)), address)
}

#[test]
fn every_query_answers_on_a_machine_with_traffic() {
    needs_root!();
    needs_programs!("prometheus", "nft", "tc");
    let lab = Lab::new("dashboard");
    let page = lab.agent.scrape();
    let mut wrong = Vec::new();
    for query in DASHBOARDS.iter().flat_map(|name| queries(&dashboard(name))) {
        match ask(lab.address, &filled(&query.expression)) {
            Err(error) => wrong.push(format!("{}: {error}", query.place)),
            Ok(results) if results.iter().any(|(_, value)| value != "NaN") => {}
            Ok(_) => match excuse(&query.expression, &page) {
                Some(why) => note(&format!("{} is empty here: {why}", query.place)),
                None => wrong.push(format!("{}: no answer to {}", query.place, query.expression)),
            },
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    lab.agent.stop();
}

#[test]
fn the_first_row_names_the_place_and_the_pod_that_lose() {
    needs_root!();
    needs_programs!("prometheus", "nft", "tc");
    let lab = Lab::new("loser");
    // Other tests lose packets too, in namespaces of their own.
    let pods = format!("target_pod=~\"{}|{}\"", lab.pair.a.name(), lab.pair.b.name());
    let dashboard = dashboard("netsonde-pod");
    for title in ["Lost by place, in the time shown", "Which pod loses them"] {
        let panel = shown(&dashboard).find(|panel| panel["title"] == title).expect("a panel of this title");
        let query = filled(text(&panel["targets"][0], "expr")).replace("target_pod=~\".*\"", &pods);
        let (labels, lost) = ask(lab.address, &query).expect("an answer").remove(0);
        assert_eq!(labels["place"], "UDP receive buffer", "{title}: {lost} in {labels}");
        assert!(lost.parse::<f64>().expect("a number") > 1.0, "{title}: {lost}");
        if let Some(pod) = labels["target_pod"].as_str() {
            assert_eq!(pod, lab.pair.b.name());
        }
    }
    lab.agent.stop();
}
