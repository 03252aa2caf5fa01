use netsonde_framework::{Limits, Value};
use serde_json::json;

use super::parse::tests::message;
use super::*;
use crate::os::testing::Machine;

const NS: NsId = NsId(0);
const KEY: NetnsKey = NetnsKey(1);

fn probe() -> Conntrack {
    let host = Machine::frozen().host;
    Conntrack { host, kept: HashMap::new(), missing_until: None, buf: Vec::new() }
}

/// The counters of one CPU: as a kernel of today has them, each with this value.
fn sums(n: u32) -> Sums {
    let attributes: Vec<(u16, u32)> = [2, 4, 8, 9, 10, 11, 12, 13, 14, 15].map(|kind| (kind, n)).into();
    let mut sums = Sums::default();
    parse::add_cpu(&message(&attributes), &mut sums).expect("well formed");
    sums
}

fn table(entries: u32) -> Table {
    Table { entries: Some(entries), max_entries: Some(65536) }
}

fn emit(probe: &mut Conntrack, host: bool, sums: &Sums, table: Table) -> Samples {
    let mut out = Samples::new(metrics::ALL, Limits::default());
    probe.emit(NS, KEY, host, sums, table, &mut out);
    out
}

fn value(samples: &Samples, name: &str) -> Option<u64> {
    match samples.value(name, NS, "") {
        Some(Value::U64(v)) => Some(v),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

#[test]
fn every_metric_of_the_reference_is_there() {
    let samples = emit(&mut probe(), true, &sums(7), table(3));
    for (reference, expected) in [
        ("found", 7),
        ("invalid", 7),
        ("ignore", 0),
        ("insert", 7),
        ("insertfailed", 7),
        ("drop", 7),
        ("earlydrop", 7),
        ("error", 7),
        ("searchrestart", 7),
        ("entries", 3),
        ("maxentries", 65536),
    ] {
        let name = format!("kubeskoop_conntrack_{reference}");
        let def =
            metrics::ALL.iter().find(|d| d.reference.is_some_and(|r| r.name == name)).expect("declared");
        assert_eq!(value(&samples, def.name), Some(expected), "{name}");
    }
}

#[test]
fn each_attribute_has_its_own_metric() {
    for (kind, name) in [
        (1, "searched"),
        (2, "found"),
        (3, "new"),
        (4, "invalid"),
        (5, "ignore"),
        (6, "delete"),
        (7, "delete_list"),
        (8, "insert"),
        (9, "insert_failed"),
        (10, "drop"),
        (11, "early_drop"),
        (12, "error"),
        (13, "search_restart"),
        (14, "clash_resolve"),
        (15, "chain_toolong"),
    ] {
        let mut sums = Sums::default();
        parse::add_cpu(&message(&[(kind, 5)]), &mut sums).expect("well formed");
        let samples = emit(&mut probe(), false, &sums, Table::default());
        assert_eq!(value(&samples, &format!("conntrack_{name}")), Some(5));
        assert_eq!(
            samples.series(),
            2,
            "what the kernel does not count has no series, but for the reference's ignore"
        );
    }
}

#[test]
fn a_counter_that_wraps_in_the_kernel_goes_on_here() {
    let mut probe = probe();
    emit(&mut probe, true, &sums(u32::MAX), table(0));
    let samples = emit(&mut probe, true, &sums(4), table(0));
    assert_eq!(value(&samples, "conntrack_drop"), Some(u64::from(u32::MAX) + 5));
}

#[test]
fn cpus_that_wrap_one_after_the_other_are_summed_exactly() {
    let mut probe = probe();
    let mut total = |a: u32, b: u32| {
        let mut both = Sums::default();
        for n in [a, b] {
            parse::add_cpu(&message(&[(10, n)]), &mut both).expect("well formed");
        }
        value(&emit(&mut probe, true, &both, table(0)), "conntrack_drop")
    };
    let two_full = 2 * u64::from(u32::MAX);
    assert_eq!(total(u32::MAX, u32::MAX), Some(two_full));
    assert_eq!(total(0, u32::MAX), Some(two_full + 1));
    assert_eq!(total(2, 3), Some(two_full + 7));
}

#[test]
fn a_namespace_has_series_from_its_first_connection_on() {
    let mut probe = probe();
    assert_eq!(emit(&mut probe, false, &sums(0), table(0)).series(), 0);
    let samples = emit(&mut probe, false, &sums(0), table(1));
    assert_eq!(value(&samples, "conntrack_entries"), Some(1));
    let samples = emit(&mut probe, false, &sums(0), table(0));
    assert_eq!(value(&samples, "conntrack_entries"), Some(0), "it stays when the last connection has ended");
    probe.forget(&[KEY]);
    assert_eq!(emit(&mut probe, false, &sums(0), table(0)).series(), 0);
    assert!(emit(&mut probe, false, &sums(1), table(0)).series() > 0, "a counter is a sign of use too");
}

#[test]
fn the_hosts_row_is_always_there() {
    assert_eq!(emit(&mut probe(), true, &sums(0), table(0)).series(), 13);
}

#[test]
fn without_the_right_the_error_says_which_is_missing() {
    let refused = io::Error::from_raw_os_error(libc::EPERM);
    let error = explained(CollectError::Netlink { what: "x", source: refused }).to_string();
    assert!(error.contains("CAP_NET_ADMIN"), "{error}");
}

#[test]
fn a_kernel_without_ctnetlink_is_no_error() {
    for code in [libc::EINVAL, libc::ENOENT, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT] {
        assert!(is_missing(&io::Error::from_raw_os_error(code)));
    }
    assert!(!is_missing(&io::Error::from_raw_os_error(libc::EPERM)));
}

#[test]
fn a_frozen_tree_has_no_netlink_no_series_and_no_error() {
    let mut machine = Machine::frozen();
    machine.file("sys/net/netfilter/nf_conntrack_max", "65536\n");
    let mut probe = machine.start(&SPEC, json!({}));
    let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
    assert!(result.is_ok() && samples.series() == 0);
}

#[test]
fn it_has_no_settings() {
    let machine = Machine::frozen();
    assert!(matches!((SPEC.start)(&json!({"cpu": 1}), &machine.host), Err(StartError::Settings(_))));
}

#[test]
fn this_machine_is_asked_where_it_tracks_connections_and_may_be_asked() {
    let mut machine = Machine::live();
    let mut probe = machine.start(&SPEC, json!({}));
    let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
    let tracks = machine.host.proc().join(SIGNS[0]).exists();
    match result {
        Err(error) => assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}"),
        Ok(()) if !tracks => assert_eq!(samples.series(), 0),
        Ok(()) => {
            let (host, _) = machine.topology.host().expect("root sees it");
            let Some(Value::U64(entries)) = samples.value("conntrack_entries", host, "") else {
                eprintln!("SKIPPED: this kernel tracks connections and has no ctnetlink");
                return;
            };
            let Some(Value::U64(most)) = samples.value("conntrack_max_entries", host, "") else {
                panic!("a table has a limit")
            };
            assert!(entries <= most);
        }
    }
}
