//! The queries about events in dashboards and guides: they are LogQL, ask for what events have, and find the events that
//! faults make.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netsonde_tests::dashboards::{DASHBOARDS, dashboard, filled, queries};
use netsonde_tests::faults::{Faults, OTHERS, SENSITIVE};
use netsonde_tests::logql::check::Schema;
use netsonde_tests::logql::{self, run::through};
use netsonde_tests::{Agent, Loki, needs_programs, needs_root, until};

/// Queries by where they stand.
type Queries = BTreeMap<String, String>;

fn of_dashboards() -> Queries {
    let all = DASHBOARDS.iter().flat_map(|name| queries(&dashboard(name), "loki"));
    all.map(|query| (query.place, filled(&query.expression))).collect()
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// The Markdown files in a folder and below it.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).flatten();
    let (folders, files): (Vec<_>, Vec<_>) =
        entries.map(|entry| entry.path()).partition(|path| path.is_dir());
    let below = folders.iter().flat_map(|folder| pages(folder));
    below.chain(files.into_iter().filter(|file| file.extension().is_some_and(|end| end == "md"))).collect()
}

/// The examples in fences of `logql` of a page, by the heading that they stand under.
fn examples(page: &Path) -> Queries {
    let text = std::fs::read_to_string(page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
    let (mut heading, mut open, mut found) = (String::new(), None::<String>, Queries::new());
    for line in text.lines() {
        match &mut open {
            Some(query) if line == "```" => {
                let place = format!("{}: {heading} ({})", page.display(), found.len());
                found.insert(place, std::mem::take(query));
                open = None;
            }
            Some(query) => query.extend([line, "\n"]),
            None if line == "```logql" => open = Some(String::new()),
            None => {
                if let Some(text) = line.strip_prefix('#') {
                    text.trim_start_matches('#').trim().clone_into(&mut heading);
                }
            }
        }
    }
    assert_eq!(open, None, "{}: a fence has no end", page.display());
    found
}

fn of_guides() -> Queries {
    pages(&docs()).iter().flat_map(|page| examples(page)).collect()
}

/// The selectors by which the sample configuration of Loki keeps streams longer or shorter.
fn of_retention() -> Queries {
    let text =
        std::fs::read_to_string(docs().join("../deploy/loki/loki.yaml")).expect("a sample configuration");
    let selectors =
        text.lines().filter_map(|line| line.trim().strip_prefix("- selector: '")?.strip_suffix('\''));
    selectors.map(|selector| (format!("loki.yaml: {selector}"), selector.to_owned())).collect()
}

#[test]
fn every_query_is_logql_and_asks_for_what_events_have() {
    needs_programs!("node", "npm");
    assert!(!of_retention().is_empty(), "the sample tells types apart");
    let all: Queries = of_dashboards().into_iter().chain(of_guides()).chain(of_retention()).collect();
    let schema = Schema::read();
    let texts: Vec<_> = all.values().cloned().collect();
    let judged = logql::parse(&texts).into_iter().map(|tree| tree.and_then(|tree| schema.check(&tree)));
    let wrong: Vec<_> = all
        .keys()
        .zip(judged)
        .filter_map(|(place, judged)| Some(format!("{place}: {}", judged.err()?)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_guide_answers_a_dozen_questions() {
    let guide = examples(&docs().join("guides/events.md"));
    let questions = guide.keys().filter(|place| place.contains("? (")).count();
    assert!(questions >= 12, "{questions}: {:#?}", guide.keys());
}

#[test]
fn a_query_that_can_find_nothing_is_refused() {
    needs_programs!("node", "npm");
    let wrong = [
        ("{job=\"netsonde\"} | json | | pod=\"a\"", "no LogQL"),
        ("{type=\"PacketLoss\"}", "which job"),
        ("{job=\"netsonde\", pod=\"a\"}", "no label of the sink"),
        ("{job=\"netsonde\", type=~\"PacketLoss|TcpRetrans\"}", "no type TcpRetrans"),
        ("{job=\"netsonde\"} | pod=\"a\"", "`| json` is missing"),
        ("{job=\"netsonde\"} | logfmt", "events are JSON"),
        ("{job=\"netsonde\", type=\"PacketLoss\"} | json | kind=\"syn\"", "kind is no field"),
        ("{job=\"netsonde\", type=\"PacketLoss\"} | json | stack=\"a\"", "stack is no field"),
        ("{job=\"netsonde\", type=\"PacketLoss\"} | json | reason > 3", "no number"),
        ("{job=\"netsonde\"} | json | latency_ns > 10ms", "no unit"),
        ("{job=\"netsonde\"} | json | line_format \"{{.what}}\"", "what is no field"),
        ("sum by (what) (count_over_time({job=\"netsonde\"} | json [1m]))", "no such field"),
        ("count_over_time({job=\"netsonde\"} | json [1m])", "a series of its own"),
        (
            "max by (type) (max_over_time({job=\"netsonde\"} | json | unwrap latency_ns [1m]))",
            "a series of its own",
        ),
    ];
    let schema = Schema::read();
    let texts: Vec<_> = wrong.iter().map(|(query, _)| (*query).to_owned()).collect();
    for ((query, why), tree) in wrong.iter().zip(logql::parse(&texts)) {
        let said = tree.and_then(|tree| schema.check(&tree)).expect_err(query);
        assert!(said.contains(why), "{query}: {said}");
    }
}

/// Types of events that have to be there before the queries are asked.
const TYPES: [&str; 9] = [
    "PacketLoss",
    "TCPRESET_NOSOCK",
    "TCPRESET_ACTIVE",
    "TCPRESET_RECEIVE",
    "TCPRetrans",
    "RXKERNEL_SLOW",
    "TXLAT_QDISC_100MS",
    "SOCKETLAT_READSLOW",
    "BIOLAT_10MS",
];

#[test]
fn every_query_finds_the_events_that_faults_make() {
    needs_root!();
    needs_programs!("node", "npm", "nft", "tc");
    let loki = Loki::start();
    let mut faults = Faults::new("logql");
    let sink = format!("sinks: [{{name: loki, args: {{url: \"{}\", batch: {{age: 100ms}}}}}}]", loki.url());
    let agent = Agent::start(&format!("node_name: worker-1\n{sink}\nprobes: [{OTHERS}, {SENSITIVE}]\n"));
    let pod = faults.pair.a.name().to_owned();
    agent.find(&pod);
    agent.find(faults.pair.b.name());
    let mut rounds = 0;
    until("events of every type have arrived", Duration::from_mins(1), || {
        faults.provoke();
        rounds += 1;
        let entries = loki.entries();
        let has =
            |kind: &&str| entries.iter().any(|entry| entry.labels.contains(&format!("type=\"{kind}\"")));
        // Retransmissions take their time, and the limits let a few of each kind through.
        (rounds >= 40 && TYPES.iter().all(has)).then_some(())
    });
    let entries = loki.entries();

    // The names that the guide uses are those of the pods here.
    let here = [("cart-0", &*pod), ("shop", "netns"), ("10.0.3.7", "10.9.0.2")];
    let all: Queries =
        of_dashboards().into_iter().chain(examples(&docs().join("guides/events.md"))).collect();
    let texts: Vec<_> = all
        .values()
        .map(|text| here.iter().fold(text.clone(), |t, (from, to)| t.replace(from, to)))
        .collect();
    let mut wrong = Vec::new();
    for ((place, text), tree) in all.keys().zip(&texts).zip(logql::parse(&texts)) {
        let tree = tree.unwrap_or_else(|why| panic!("{place}: {why}"));
        let found = through(&tree, &entries);
        if found.contains(&0) {
            wrong.push(format!("{place}: of {} entries {found:?}: {text}", entries.len()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    agent.stop();
}
