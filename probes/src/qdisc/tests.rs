use netsonde_framework::{Limits, Value};
use serde_json::json;

use super::*;
use crate::os::link::{Name, tests::links};
use crate::os::testing::Machine;

const NS: NsId = NsId(0);
const KEY: NetnsKey = NetnsKey(1);

fn qdisc(device: u32, kind: &str, handle: u32, parent: u32, n: u32) -> Qdisc {
    Qdisc {
        device,
        handle,
        parent: Parent(parent),
        kind: Name::new(kind.as_bytes()).expect("short"),
        bytes: u64::from(n) * 100,
        packets: n.into(),
        packets_are_wide: false,
        narrow: [n; 3],
        qlen: n,
        backlog: n * 10,
    }
}

fn probe(max_qdiscs: usize) -> QdiscProbe {
    let host = Machine::frozen().host;
    QdiscProbe { host, max_qdiscs, kept: HashMap::new(), buf: Vec::new(), parent: String::new() }
}

fn emit(probe: &mut QdiscProbe, mut qdiscs: Vec<Qdisc>) -> Samples {
    let links = links(&[
        (1, "lo", None, 8, 0),
        (2, "eth0", None, 0, 0),
        (3, "eth1", None, 0, 0),
        (4, "other", None, 0, 0),
    ]);
    let mut out = Samples::new(metrics::ALL, Limits::default());
    probe.emit(NS, KEY, &mut qdiscs, Some(&links), &mut out);
    out
}

fn value(samples: &Samples, name: &str, labels: &str) -> Option<u64> {
    match samples.value(name, NS, labels) {
        Some(Value::U64(v)) => Some(v),
        Some(other) => panic!("{other:?}"),
        None => None,
    }
}

const ROOT: u32 = u32::MAX;
const INGRESS: u32 = 0xffff_fff1;

#[test]
fn every_metric_of_the_reference_is_there() {
    let samples = emit(&mut probe(64), vec![qdisc(2, "tbf", 0x8001_0000, ROOT, 7)]);
    for (reference, expected) in
        [("bytes", 700), ("packets", 7), ("drops", 7), ("qlen", 7), ("backlog", 70), ("overlimits", 7)]
    {
        let name = format!("kubeskoop_qdisc_{reference}");
        let def =
            metrics::ALL.iter().find(|d| d.reference.is_some_and(|r| r.name == name)).expect("declared");
        assert_eq!(value(&samples, def.name, ""), Some(expected), "{name}");
    }
    let labels = "device=\"eth0\",kind=\"tbf\",parent=\"root\"";
    assert_eq!(value(&samples, "qdisc_device_requeues", labels), Some(7));
    assert_eq!(samples.series(), 14);
}

#[test]
fn only_roots_are_summed_so_nothing_is_counted_twice() {
    let samples = emit(
        &mut probe(64),
        vec![
            qdisc(2, "mq", 0, ROOT, 5),
            qdisc(2, "fq_codel", 0, 1, 2),
            qdisc(2, "fq_codel", 0, 2, 3),
            qdisc(2, "clsact", 0xffff_0000, INGRESS, 100),
            qdisc(3, "fq", 0x8001_0000, ROOT, 1),
        ],
    );
    assert_eq!(value(&samples, "qdisc_packets", ""), Some(6));
    assert_eq!(value(&samples, "qdisc_qlen", ""), Some(6));
    let labels = "device=\"eth0\",kind=\"fq_codel\",parent=\":2\"";
    assert_eq!(value(&samples, "qdisc_device_packets", labels), Some(3));
    let labels = "device=\"eth0\",kind=\"clsact\",parent=\"ingress\"";
    assert_eq!(value(&samples, "qdisc_device_drops", labels), Some(100));
}

#[test]
fn a_namespace_that_never_had_a_root_qdisc_that_counts_has_no_sum() {
    let samples = emit(&mut probe(64), vec![qdisc(2, "ingress", 0xffff_0000, INGRESS, 5)]);
    assert_eq!(value(&samples, "qdisc_packets", ""), None);
    assert_eq!(samples.series(), 7);
}

#[test]
fn the_sum_goes_on_when_a_qdisc_is_replaced_or_its_device_leaves() {
    let mut probe = probe(64);
    let mut sum = |qdiscs| value(&emit(&mut probe, qdiscs), "qdisc_drops", "");
    assert_eq!(sum(vec![qdisc(2, "tbf", 1, ROOT, 10), qdisc(3, "tbf", 1, ROOT, 5)]), Some(15));
    assert_eq!(sum(vec![qdisc(2, "fq", 2, ROOT, 20)]), Some(35));
    assert_eq!(sum(vec![qdisc(2, "fq", 2, ROOT, 21)]), Some(36));
    assert_eq!(sum(vec![]), Some(36));
}

#[test]
fn a_replaced_qdisc_has_a_series_that_starts_anew() {
    let mut probe = probe(64);
    let labels = "device=\"eth0\",kind=\"tbf\",parent=\"root\"";
    emit(&mut probe, vec![qdisc(2, "tbf", 1, ROOT, 10)]);
    let samples = emit(&mut probe, vec![qdisc(2, "tbf", 2, ROOT, 3)]);
    assert_eq!(value(&samples, "qdisc_device_drops", labels), Some(3));
    assert_eq!(value(&samples, "qdisc_drops", ""), Some(13));
}

#[test]
fn qdiscs_beyond_the_limit_are_summed_and_roots_come_first() {
    let mut probe = probe(4);
    let mut qdiscs: Vec<Qdisc> = (1..=6).map(|n| qdisc(2, "fq", 0, n, n)).collect();
    qdiscs.push(qdisc(2, "mq", 0, ROOT, 21));
    qdiscs.push(qdisc(4, "tbf", 0, ROOT, 1000));
    let samples = emit(&mut probe, qdiscs.clone());
    let root = "device=\"eth0\",kind=\"mq\",parent=\"root\"";
    assert_eq!(value(&samples, "qdisc_device_packets", root), Some(21));
    // own: the root and classes :1 and :2; the device called other is always in the rest
    let rest = "device=\"other\",kind=\"other\",parent=\"other\"";
    assert_eq!(value(&samples, "qdisc_device_packets", rest), Some(3 + 4 + 5 + 6 + 1000));
    assert_eq!(value(&samples, "qdisc_device_qlen", rest), Some(3 + 4 + 5 + 6 + 1000));
    // a card that comes later has room
    qdiscs.push(qdisc(3, "mq", 0, ROOT, 2));
    let samples = emit(&mut probe, qdiscs);
    assert_eq!(
        value(&samples, "qdisc_device_packets", "device=\"eth1\",kind=\"mq\",parent=\"root\""),
        Some(2)
    );
}

#[test]
fn the_rest_never_runs_backwards() {
    let mut probe = probe(0);
    let rest = "device=\"other\",kind=\"other\",parent=\"other\"";
    let mut drops = |qdiscs| value(&emit(&mut probe, qdiscs), "qdisc_device_drops", rest);
    assert_eq!(drops(vec![qdisc(2, "tbf", 1, ROOT, 10), qdisc(3, "tbf", 1, ROOT, 5)]), Some(15));
    assert_eq!(drops(vec![qdisc(2, "tbf", 2, ROOT, 12)]), Some(27), "a replaced one adds all that it has");
    assert_eq!(drops(vec![]), Some(27));
}

#[test]
fn what_was_kept_of_a_namespace_is_forgotten_with_it() {
    let mut probe = probe(64);
    emit(&mut probe, vec![qdisc(2, "tbf", 1, ROOT, 10)]);
    probe.forget(&[KEY]);
    assert!(probe.kept.is_empty());
}

#[test]
fn a_frozen_tree_has_no_netlink_no_series_and_no_error() {
    let mut machine = Machine::frozen();
    let mut probe = machine.start(&SPEC, json!({}));
    let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
    assert!(result.is_ok() && samples.series() == 0);
}

#[test]
fn settings_are_checked_and_their_bounds_are_in_the_schema() {
    let machine = Machine::frozen();
    for args in [json!({"max_qdiscs": 4097}), json!({"max_qdisc": 1}), json!({"max_qdiscs": "many"})] {
        assert!(matches!((SPEC.start)(&args, &machine.host), Err(StartError::Settings(_))), "{args}");
    }
    assert_eq!((SPEC.info.settings)()["properties"]["max_qdiscs"]["maximum"], 4096);
}

#[test]
fn this_machine_is_asked() {
    let mut machine = Machine::live();
    let mut probe = machine.start(&SPEC, json!({}));
    let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
    result.expect("RTM_GETQDISC needs no rights");
    // Nothing can be said of the numbers: a machine may have noqueue devices only.
    for column in samples.columns().iter().filter(|c| !c.def.labels.is_empty()) {
        for row in &column.rows {
            assert!(!samples.labels(row).contains("noqueue"));
        }
    }
}
