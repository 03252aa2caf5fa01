//! What an agent tells of single things that happened, and addresses that make clear whose they are.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Agent, Pair};

/// How soon an event is told.
const SOON: Duration = Duration::from_secs(1);

/// Gives both sides of a pair addresses that no other namespace of this machine has, as they stand in front of a port:
/// `(a, b)` of IPv4, and of IPv6 where the pair has it.
///
/// The pair's own addresses are those of every pair, and an address of two namespaces belongs to nobody: while another
/// test runs, no event would name its peer.
pub fn own_sides(pair: &Pair) -> Vec<(String, String)> {
    // No two namespaces have one number at a time, so twenty bits of it are a network of four addresses each.
    let number = pair.a.inode() & 0xf_ffff;
    let v4 = |host| format!("100.{}.{}.{}", 64 + (number >> 14), number >> 6 & 255, (number & 63) * 4 + host);
    let v6 = |host| format!("fd09:0:0:{:x}:{:x}::{host}", number >> 16, number & 0xffff);
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
    data.map(|json| serde_json::from_str(json).unwrap_or_else(|e| panic!("no JSON ({e}): {json}"))).collect()
}

/// The same, as soon as there are `count`: an event that comes later than a second is missed.
pub fn until_events(agent: &Agent, query: &str, count: usize) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let found = events(agent, query);
        if found.len() >= count {
            return found;
        }
        assert!(
            start.elapsed() < SOON,
            "{} of {count} events within {SOON:?} for {query}: {found:#?}",
            found.len()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The text in a field of an event.
pub fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_else(|| panic!("no text in {field}: {event:#}"))
}

/// The number in a field of an event.
pub fn number(event: &Value, field: &str) -> u64 {
    event[field].as_u64().unwrap_or_else(|| panic!("no number in {field}: {event:#}"))
}
