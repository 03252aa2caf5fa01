//! The same facts from somebody else: iproute2, nftables, conntrack-tools, and the kernel's files read with `cat`.

use serde_json::Value;

use crate::Netns;

fn number(value: &Value, what: &str) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{what} is no number: {value}"))
}

fn json(text: &str, what: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{what} printed no JSON ({e}): {text}"))
}

/// A counter of `ip -s link`: `rx` or `tx`, then `bytes`, `packets`, `errors`, `dropped`.
pub fn link(ns: &Netns, device: &str, way: &str, counter: &str) -> u64 {
    let links = json(&ns.run(&format!("ip -s -j link show dev {device}")), "ip");
    number(&links[0]["stats64"][way][counter], "ip -s link")
}

/// A value of the root qdisc in `tc -s qdisc`, such as `drops`, `bytes`, `backlog`.
pub fn root_qdisc(ns: &Netns, device: &str, field: &str) -> u64 {
    let qdiscs = json(&ns.run(&format!("tc -s -j qdisc show dev {device}")), "tc");
    let root = qdiscs.as_array().and_then(|all| all.iter().find(|q| q["root"] == true));
    number(&root.unwrap_or_else(|| panic!("no root qdisc in {qdiscs}"))[field], "tc -s qdisc")
}

/// The packets that the named nft counter `counter` of table `ip lab` or `inet lab` saw.
pub fn nft_counter(ns: &Netns, family: &str, counter: &str) -> u64 {
    let listed = json(&ns.run(&format!("nft -j list counter {family} lab {counter}")), "nft");
    let found = listed["nftables"].as_array().and_then(|all| all.iter().find_map(|o| o.get("counter")));
    number(&found.unwrap_or_else(|| panic!("no counter in {listed}"))["packets"], "nft counter")
}

/// How many entries `conntrack -C` counts.
pub fn conntrack_entries(ns: &Netns) -> u64 {
    let text = ns.run("conntrack -C");
    text.trim().parse().unwrap_or_else(|_| panic!("conntrack -C printed {text:?}"))
}

/// A field of `conntrack -S`, summed over the CPUs.
pub fn conntrack_stat(ns: &Netns, field: &str) -> u64 {
    let text = ns.run("conntrack -S");
    let values = text.split_whitespace().filter_map(|word| word.strip_prefix(field)?.strip_prefix('='));
    let values: Vec<u64> = values.map(|v| v.parse().unwrap_or_else(|_| panic!("{field}={v}"))).collect();
    assert!(!values.is_empty(), "conntrack -S has no {field}: {text}");
    values.iter().sum()
}

/// A field of /proc/net/snmp or netstat, as `cat` in the namespace sees it: group `TcpExt`, field `ListenOverflows`.
pub fn mib(ns: &Netns, file: &str, group: &str, field: &str) -> u64 {
    let text = ns.run(&format!("cat /proc/net/{file}"));
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { panic!("no {group} in {file}") };
    let at = names.split_whitespace().position(|name| name == field);
    let at = at.unwrap_or_else(|| panic!("no {field} in {group}"));
    let value = values.split_whitespace().nth(at).and_then(|v| v.parse().ok());
    value.unwrap_or_else(|| panic!("no value of {field} in {values}"))
}

/// A field of /proc/net/snmp6, as `cat` in the namespace sees it.
pub fn mib6(ns: &Netns, field: &str) -> u64 {
    let text = ns.run("cat /proc/net/snmp6");
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {field} in snmp6"))
}

/// A field of /proc/net/sockstat, as `cat` in the namespace sees it: group `TCP`, field `tw`.
pub fn sockstat(ns: &Netns, group: &str, field: &str) -> u64 {
    let text = ns.run("cat /proc/net/sockstat");
    let line = text.lines().find_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let mut words = line.unwrap_or_else(|| panic!("no {group} in {text}")).split_whitespace();
    let value = words.by_ref().find(|word| *word == field).and_then(|_| words.next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {group} {field} in {text}"))
}

/// The listening socket of this port in `ss -ltn`: accept queue length and its limit.
pub fn accept_queue(ns: &Netns, port: u16) -> (u64, u64) {
    let text = ns.run("ss -H -ltn");
    let ending = format!(":{port}");
    let line =
        text.lines().find(|l| l.split_whitespace().nth(3).is_some_and(|local| local.ends_with(&ending)));
    let line = line.unwrap_or_else(|| panic!("nothing listens on {port}: {text}"));
    let mut numbers = line.split_whitespace().skip(1).map(|n| n.parse().expect("a queue length"));
    (numbers.next().expect("Recv-Q"), numbers.next().expect("Send-Q"))
}

/// What `ss` sees in the receive and in the send queues of all TCP sockets that do not listen, in bytes.
pub fn queues(ns: &Netns) -> (u64, u64) {
    let text = ns.run("ss -H -tan state connected");
    let sum = |column| {
        let of_line = |line: &str| line.split_whitespace().nth(column).and_then(|n| n.parse::<u64>().ok());
        text.lines().map(|line| of_line(line).unwrap_or_else(|| panic!("no queue length: {line}"))).sum()
    };
    (sum(1), sum(2))
}

/// How many TCP sockets `ss` sees in this state, by its own word for it: `established`, `time-wait`.
pub fn sockets(ns: &Netns, state: &str) -> usize {
    ns.run(&format!("ss -H -tan state {state}")).lines().count()
}

/// A field of /proc/PID/io.
pub fn process_io(pid: u32, field: &str) -> u64 {
    let path = format!("/proc/{pid}/io");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": ")?.parse().ok());
    value.unwrap_or_else(|| panic!("no {field} in {text}"))
}
