//! The Grafana dashboards: they import as they are, ask only for what there is, and show the faults that are provoked.

mod ancestor;
mod answers;
mod server;

use std::collections::BTreeSet;

use netsonde_tests::dashboards::{
    DASHBOARDS, dashboard, filled, folder, list, number, queries, shown, text, variables,
};
use netsonde_tests::promql::{Catalogue, Names, metrics, names};
use serde_json::Value;

/// The types of data sources, and the variable of a dashboard that chooses one.
const SOURCES: [(&str, &str); 2] = [("prometheus", "datasource"), ("loki", "loki")];

fn variable<'a>(dashboard: &'a Value, name: &str) -> Option<&'a Value> {
    variables(dashboard).iter().find(|variable| variable["name"] == name)
}

#[test]
fn there_are_these_dashboards_and_no_others() {
    let files = std::fs::read_dir(folder()).expect("a folder of dashboards").flatten();
    let files = files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".json")?.to_owned()));
    assert_eq!(files.collect::<Names>(), names(DASHBOARDS.iter().copied()));
    let readme = std::fs::read_to_string(folder().join("README.md")).expect("the folder says what is in it");
    for name in DASHBOARDS {
        assert!(readme.contains(&format!("`{name}.json`")), "the README does not name {name}");
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
        assert_eq!(list(&dashboard, "tags"), ["netsonde"], "{name} is found by the links of the others");
        let asking = variables(&dashboard).iter().filter(|v| v["type"] == "query").chain(shown(&dashboard));
        for one in asking.chain(shown(&dashboard).flat_map(|panel| list(panel, "targets"))) {
            let kind = text(&one["datasource"], "type");
            let (_, chosen) = SOURCES.iter().find(|(of, _)| *of == kind).expect("a type of data source");
            assert_eq!(text(&one["datasource"], "uid"), format!("${{{chosen}}}"), "{one:#}");
            let chooses = variable(&dashboard, chosen).expect("a variable that chooses the data source");
            assert_eq!((text(chooses, "type"), text(chooses, "query")), ("datasource", kind));
        }
        for one in variables(&dashboard).iter().filter(|v| v["multi"] == true) {
            assert!(one["includeAll"] == true && !text(one, "description").is_empty(), "{one:#}");
            assert_eq!(one["allValue"].as_str().unwrap_or(".*"), ".*");
        }
    }
}

/// Where a link leads: the dashboard, and the variables that it sets.
fn target(url: &str) -> (&str, Names) {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let set = query.split('&').filter_map(|part| part.strip_prefix("var-")?.split_once('='));
    (
        path.strip_prefix("/d/").unwrap_or_else(|| panic!("no dashboard: {url}")),
        names(set.map(|(name, _)| name)),
    )
}

#[test]
fn links_lead_to_dashboards_and_set_variables_that_are_there() {
    let mut seen = 0;
    for name in DASHBOARDS {
        let from = dashboard(name);
        let links = list(&from, "links");
        let by_tag = |link: &Value| link["tags"][0] == "netsonde" && link["includeVars"] == true;
        assert!(links.iter().any(by_tag), "{name} leads to the others");
        let overrides = shown(&from).flat_map(|panel| list(&panel["fieldConfig"], "overrides"));
        let properties = overrides.flat_map(|one| list(one, "properties")).filter(|one| one["id"] == "links");
        for link in properties.flat_map(|one| list(one, "value")) {
            let (to, set) = target(text(link, "url"));
            assert!(DASHBOARDS.contains(&to), "{name}: {link}");
            let missing: Vec<_> = set.iter().filter(|set| variable(&dashboard(to), set).is_none()).collect();
            assert!(missing.is_empty(), "{name}: {to} has no variable {missing:?}");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen} links in tables");
}

#[test]
fn every_panel_says_what_to_look_for() {
    for name in DASHBOARDS {
        for panel in shown(&dashboard(name)) {
            let (title, kind) = (text(panel, "title"), text(panel, "type"));
            let description = text(panel, "description");
            let one_sentence = description.ends_with('.') && !description.contains(". ");
            assert!(one_sentence && description.len() > 25, "{name}: {title}: {description}");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
            assert_eq!(unit.is_empty(), kind == "logs", "{name}: {title}: the unit is {unit:?}");
            assert!(!title.is_empty() && !list(panel, "targets").is_empty(), "{name}: {title}");
            for target in list(panel, "targets") {
                let legend = target["legendFormat"].as_str().unwrap_or_default();
                assert_eq!(
                    legend.is_empty(),
                    matches!(kind, "table" | "logs"),
                    "{name}: {title}: {legend:?}"
                );
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
    for query in DASHBOARDS.iter().flat_map(|name| queries(&dashboard(name), "prometheus")) {
        let ranges = query.expression.split('[').skip(1).map(|rest| rest.split(']').next().unwrap_or(rest));
        for range in ranges.filter(|range| !["$__rate_interval", "$__range"].contains(range)) {
            wrong.push(format!("{}: [{range}] does not follow the page", query.place));
        }
        match catalogue.check(&filled(&query.expression)) {
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
fn every_variable_asks_for_labels_of_the_catalogue() {
    let catalogue = Catalogue::read();
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        let asking = variables(&dashboard).iter().filter(|v| v["type"] == "query");
        for variable in asking.filter(|v| v["datasource"]["type"] == "prometheus") {
            let query = text(&variable["query"], "query");
            assert_eq!(query, text(variable, "definition"));
            let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (selector, label) =
                inner.and_then(|i| i.rsplit_once(", ")).expect("label_values(selector, label)");
            let labels =
                catalogue.check(&filled(selector)).unwrap_or_else(|why| panic!("{name}: {query}: {why}"));
            assert!(labels.contains(label), "{name}: {query}");
        }
    }
}

/// The probes that a panel's metrics belong to and that somebody has to turn on.
fn off_by_default(panel: &Value, catalogue: &Catalogue) -> Names {
    let targets = list(panel, "targets").iter().filter(|target| target["datasource"]["type"] == "prometheus");
    let used = targets.flat_map(|target| metrics(&filled(text(target, "expr"))));
    let off = used.filter_map(|metric| catalogue.metric(&metric)).filter(|known| !known.default_on);
    off.filter_map(|known| known.probe.clone()).collect()
}

#[test]
fn a_panel_that_needs_a_probe_turned_on_says_so() {
    let catalogue = Catalogue::read();
    for name in DASHBOARDS {
        for panel in shown(&dashboard(name)) {
            let said = text(panel, "description");
            for probe in off_by_default(panel, &catalogue) {
                assert_eq!(*name, "netsonde-latency", "{probe} is off by default");
                let sentence = format!("; needs the probe {probe}, which is off by default.");
                assert!(said.ends_with(&sentence), "{name}: {}: {probe}: {said}", text(panel, "title"));
            }
        }
    }
}

#[test]
fn every_view_of_loss_has_the_same_places() {
    let places = |expression: &str| {
        names(expression.split(", \"place\", \"").skip(1).filter_map(|rest| rest.split('"').next()))
    };
    let of = ["netsonde-node", "netsonde-pod"];
    let mut views: Vec<_> = of.iter().flat_map(|name| queries(&dashboard(name), "prometheus")).collect();
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
