//! What an agent tells of single things that happened, and addresses that make clear whose they are.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::netsonde;
use crate::wait::allowed;
use crate::{Agent, Pair, shell};

/// How soon an event is told on a machine that does much else. That it is told within a second where there is time for
/// it, `namespaces` shows.
const SOON: Duration = Duration::from_secs(5);

/// Gives both sides of a pair addresses that no other namespace of this machine has, as they stand in front of a port:
/// `(a, b)` of IPv4, and of IPv6 where the pair has it.
///
/// The pair's own addresses are those of every pair, and an address of two namespaces belongs to nobody: while another
/// test runs, no event would name its peer.
pub fn own_sides(pair: &Pair) -> Vec<(String, String)> {
    // No two namespaces have one number at a time, so twenty bits of it are a network of four addresses each.
    let number = pair.a.inode() & 0xf_ffff;
    let v4 = |host| format!("100.{}.{}.{}", 64 + (number >> 14), number >> 6 & 255, (number & 63) * 4 + host);
    // As the agent writes it, too.
    let v6 = |host| Ipv6Addr::from(0xfd09 << 112 | u128::from(number) << 32 | u128::from(host)).to_string();
    let with_v6 = !pair.a.run("ip -6 addr show dev eth0").is_empty();
    for (ns, own, other) in [(&pair.a, 1, 2), (&pair.b, 2, 1)] {
        let neighbour = |address: String| {
            ns.run(&format!(
                "ip neigh replace {address} lladdr 02:09:00:00:00:0{other} dev eth0 nud permanent"
            ));
        };
        ns.run(&format!("ip addr add {}/30 dev eth0", v4(own)));
        neighbour(v4(other));
        if with_v6 {
            ns.run(&format!("ip addr add {}/96 dev eth0 nodad", v6(own)));
            neighbour(v6(other));
        }
    }
    if with_v6 {
        pair.a.wait_for_address(&v6(1));
        pair.b.wait_for_address(&v6(2));
    }
    let mut sides = vec![(v4(1), v4(2))];
    if with_v6 {
        sides.push((format!("[{}]", v6(1)), format!("[{}]", v6(2))));
    }
    sides
}

/// The last events that fulfil a query such as `pod=a&type=PacketLoss`, oldest first.
pub fn events(agent: &Agent, query: &str) -> Vec<Value> {
    let answer = agent.get(&format!("/events?follow=false&{query}"), &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let data = answer.text().lines().filter_map(|line| line.strip_prefix("data:"));
    let events =
        data.map(|json| serde_json::from_str(json).unwrap_or_else(|e| panic!("no JSON ({e}): {json}")));
    events.inspect(assert_as_published).collect()
}

/// What `netsonde schema --events` says of each type, by its name.
fn published() -> &'static BTreeMap<String, Value> {
    static TYPES: OnceLock<BTreeMap<String, Value>> = OnceLock::new();
    TYPES.get_or_init(|| {
        let schema = shell::run(&mut netsonde(&["schema", "--events"]));
        let schema: Value = serde_json::from_str(&schema).unwrap_or_else(|e| panic!("no JSON: {e}"));
        let types = schema["oneOf"].as_array().expect("a choice of types").iter();
        types.map(|of| (of["title"].as_str().expect("a title").to_owned(), of.clone())).collect()
    })
}

/// Holds an event against the published schema: its fields, what they hold, and those that it must have.
fn assert_as_published(event: &Value) {
    let kind = event["type"].as_str().unwrap_or_else(|| panic!("no type: {event:#}"));
    let schema = published().get(kind).unwrap_or_else(|| panic!("{kind} is not in the schema"));
    for (field, value) in event.as_object().expect("an object") {
        let property = &schema["properties"][field];
        let good = match property["type"].as_str() {
            Some("string") => value.is_string(),
            Some("integer") => value.is_u64(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            _ => false,
        };
        assert!(good, "{field} is not as the schema says: {event:#}");
        assert!(property.get("const").is_none_or(|only| only == value), "{field}: {event:#}");
    }
    for field in schema["required"].as_array().expect("a list") {
        assert!(event.get(field.as_str().expect("a name")).is_some(), "{field} is missing: {event:#}");
    }
}

/// The same, as soon as there are `count`: an event that comes late is missed.
pub fn until_events(agent: &Agent, query: &str, count: usize) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let found = events(agent, query);
        if found.len() >= count {
            return found;
        }
        assert!(
            start.elapsed() < allowed(SOON),
            "{} of {count} events within {SOON:?} for {query}: {found:#?}; of all events {:#?}",
            found.len(),
            account(agent)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What has become of all events, for the message of a test that misses some.
fn account(agent: &Agent) -> Vec<String> {
    let page = agent.scrape();
    let of_events = page.samples.iter().filter(|s| s.name.contains("events") && s.value > 0.0);
    of_events.map(|s| format!("{} {:?} {}", s.name, s.labels, s.value)).collect()
}

/// The text in a field of an event.
pub fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_else(|| panic!("no text in {field}: {event:#}"))
}

/// The number in a field of an event.
pub fn number(event: &Value, field: &str) -> u64 {
    event[field].as_u64().unwrap_or_else(|| panic!("no number in {field}: {event:#}"))
}
