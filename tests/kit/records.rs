//! Numbered events, so that a suite sees which arrived, how often and in what order.

use std::ops::Range;
use std::sync::Arc;

use netsonde_framework::Record;

/// The time of event 0, nanoseconds since 1970; each is one nanosecond later than the one before.
pub const START_NS: u64 = 1_700_000_000_000_000_000;

/// Event number `n`: its line is `{"n":…,"fill":"xx…"}`, of about 100 bytes.
pub fn record(n: u64) -> Arc<Record> {
    sized(n, 80)
}

/// The same with so much filling.
pub fn sized(n: u64, fill: usize) -> Arc<Record> {
    Arc::new(Record {
        json: format!("{{\"n\":{n},\"fill\":\"{}\"}}", "x".repeat(fill)),
        time_ns: START_NS + n,
        probe: "packetloss".into(),
        kind: "PacketLoss".into(),
        severity: "warning".into(),
        namespace: "shop".into(),
        pod: format!("cart-{}", n % 10).into(),
    })
}

/// Several of them.
pub fn records(range: Range<u64>) -> Vec<Arc<Record>> {
    range.map(record).collect()
}

/// The number in an event's line; panics where it is no whole line of ours.
pub fn number(line: &str) -> u64 {
    let json: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|e| panic!("no whole event ({e}): {line:?}"));
    json["n"].as_u64().unwrap_or_else(|| panic!("an event without a number: {line}"))
}

/// The numbers in a text of lines.
pub fn numbers(text: &str) -> Vec<u64> {
    text.lines().map(number).collect()
}
