use netsonde_framework::Value;
use serde_json::json;

use super::*;
use crate::os::testing::Machine;

const HEADINGS: &str = "Inter-| Receive | Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n";

/// A file in which each counter of a device has the same value.
fn file(devices: &[(&str, u64)]) -> String {
    let mut text = HEADINGS.to_owned();
    for (name, n) in devices {
        text = format!("{text}{name:>6}:{}\n", format!(" {n}").repeat(16));
    }
    text
}

fn value(samples: &Samples, name: &str, ns: NsId, labels: &str) -> Option<u64> {
    match samples.value(name, ns, labels) {
        Some(Value::U64(v)) => Some(v),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_metric_of_the_reference_is_there() {
    let mut machine = Machine::frozen();
    machine.file(
        "1/net/dev",
        &format!(
            "{HEADINGS}lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\neth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
        ),
    );
    let mut probe = machine.start(&SPEC, json!({}));
    let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
    result.expect("readable");
    for (reference, expected) in [
        ("rxbytes", 1),
        ("rxpackets", 2),
        ("rxerrors", 3),
        ("rxdropped", 4),
        ("txbytes", 9),
        ("txpackets", 10),
        ("txerrors", 11),
        ("txdropped", 12),
    ] {
        let name = format!("kubeskoop_netdev_{reference}");
        let def =
            metrics::ALL.iter().find(|d| d.reference.is_some_and(|r| r.name == name)).expect("declared");
        assert_eq!(value(&samples, def.name, machine.ns(1001), ""), Some(expected), "{name}");
    }
}

#[test]
fn a_frozen_tree_has_no_kinds_and_knows_the_loopback_by_its_name() {
    let mut machine = Machine::frozen();
    machine.file("1/net/dev", &file(&[("lo", 5), ("eth0", 7), ("br0", 8)]));
    let mut probe = machine.start(&SPEC, json!({}));
    let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
    result.expect("readable");
    let ns = machine.ns(1001);
    assert_eq!(value(&samples, "netdev_rx_bytes", ns, ""), Some(15));
    assert_eq!(value(&samples, "netdev_device_tx_dropped", ns, "device=\"lo\",kind=\"unknown\""), Some(5));
    assert_eq!(
        samples.series(),
        8 + 3 * 8,
        "no fifo and frame of what is not physical, no state without a kernel"
    );
}

#[test]
fn a_device_that_leaves_never_lowers_the_counters_of_its_namespace() {
    let mut machine = Machine::frozen();
    let mut probe = machine.start(&SPEC, json!({}));
    let mut sum = |devices: &[(&str, u64)]| {
        machine.file("1/net/dev", &file(devices));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        value(&samples, "netdev_tx_packets", machine.ns(1001), "")
    };
    assert_eq!(sum(&[("eth0", 100), ("net1", 50)]), Some(150));
    assert_eq!(sum(&[("eth0", 110)]), Some(160));
    assert_eq!(sum(&[("eth0", 3)]), Some(163), "a new device of the same name counts from 0");
    assert_eq!(sum(&[]), Some(163));
}

#[test]
fn a_file_that_is_cut_off_changes_no_sum_and_costs_only_its_namespace() {
    let mut machine = Machine::frozen();
    machine.process(2, 1002);
    machine.rescan();
    machine.file("1/net/dev", &file(&[("eth0", 10)]));
    machine.file("2/net/dev", &file(&[("eth0", 20)]));
    let mut probe = machine.start(&SPEC, json!({}));
    let (_, result) = machine.collect(&mut *probe, metrics::ALL);
    result.expect("readable");

    machine.file("1/net/dev", file(&[("eth0", 11), ("net1", 5)]).trim_end());
    let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
    let error = result.expect_err("cut off").to_string();
    assert!(error.contains("/proc/net/dev line 4"), "{error}");
    assert_eq!(value(&samples, "netdev_rx_bytes", machine.ns(1001), ""), None);
    assert_eq!(value(&samples, "netdev_rx_bytes", machine.ns(1002), ""), Some(20));

    machine.file("1/net/dev", &file(&[("eth0", 12)]));
    let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
    result.expect("readable");
    assert_eq!(value(&samples, "netdev_rx_bytes", machine.ns(1001), ""), Some(12));
}

#[test]
fn a_namespace_without_the_file_has_no_series_and_no_error() {
    let mut machine = Machine::frozen();
    let mut probe = machine.start(&SPEC, json!({}));
    let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
    assert!(result.is_ok() && samples.series() == 0);
}

#[test]
fn devices_beyond_the_limit_are_summed_exactly() {
    let mut machine = Machine::frozen();
    machine.process(2, 1002);
    machine.rescan();
    let mut probe = machine.start(&SPEC, json!({"max_devices": 2}));
    let mut other = |devices: &[(&str, u64)]| {
        machine.file("2/net/dev", &file(devices));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let other = "device=\"other\",kind=\"other\"";
        (value(&samples, "netdev_device_rx_bytes", machine.ns(1002), other), samples.series())
    };
    assert_eq!(other(&[("a", 1), ("b", 2)]), (None, 3 * 8));
    assert_eq!(other(&[("a", 1), ("b", 2), ("c", 10), ("d", 20)]), (Some(30), 4 * 8));
    assert_eq!(other(&[("a", 1), ("b", 2), ("d", 21)]), (Some(31), 4 * 8), "c is gone, its bytes are not");
}

#[test]
fn a_device_called_other_is_added_to_the_rest_and_makes_no_series_twice() {
    let mut machine = Machine::frozen();
    machine.file("1/net/dev", &file(&[("other", 3), ("eth0", 4)]));
    let mut probe = machine.start(&SPEC, json!({}));
    let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
    let ns = machine.ns(1001);
    assert_eq!(value(&samples, "netdev_device_rx_bytes", ns, "device=\"other\",kind=\"other\""), Some(3));
    assert_eq!(samples.series(), 3 * 8);
}

#[test]
fn a_name_that_is_no_text_is_escaped() {
    let mut machine = Machine::frozen();
    machine.file("1/net/dev", &file(&[("e\"th\\0", 3)]));
    let mut probe = machine.start(&SPEC, json!({}));
    let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
    let labels = r#"device="e\"th\\0",kind="unknown""#;
    assert_eq!(value(&samples, "netdev_device_rx_bytes", machine.ns(1001), labels), Some(3));
    assert_eq!(Name::new(b"a\xffb").expect("short").text(), "a\\xffb");
}

#[test]
fn kinds_that_are_ignored_have_no_series_and_stay_in_the_sum() {
    let mut machine = Machine::frozen();
    machine.file("1/net/dev", &file(&[("eth0", 4)]));
    let mut probe = machine.start(&SPEC, json!({"ignore_kinds": ["unknown"]}));
    let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
    assert_eq!(samples.series(), 8);
    assert_eq!(value(&samples, "netdev_rx_bytes", machine.ns(1001), ""), Some(4));
}

#[test]
fn what_was_kept_of_a_namespace_is_forgotten_with_it() {
    let mut machine = Machine::frozen();
    machine.file("1/net/dev", &file(&[("eth0", 4), ("net1", 5)]));
    let mut probe = machine.start(&SPEC, json!({}));
    machine.collect(&mut *probe, metrics::ALL).1.expect("readable");
    let (_, ns) = machine.topology.iter().next().expect("one");
    probe.forget(&[ns.key]);
    machine.file("1/net/dev", &file(&[("eth0", 4)]));
    let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
    assert_eq!(value(&samples, "netdev_rx_bytes", machine.ns(1001), ""), Some(4));
}

#[test]
fn settings_are_checked_and_their_bounds_are_in_the_schema() {
    let machine = Machine::frozen();
    for (args, word) in [
        (json!({"max_devices": 4097}), "max_devices"),
        (json!({"max_devices": -1}), "-1"),
        (json!({"max_device": 1}), "max_device"),
        (json!({"ignore_kinds": ["veht"]}), "veht"),
    ] {
        match (SPEC.start)(&args, &machine.host) {
            Err(StartError::Settings(why)) => assert!(why.contains(word), "{why}"),
            _ => panic!("{args} was taken"),
        }
    }
    let schema = (SPEC.info.settings)();
    assert_eq!(schema["properties"]["max_devices"]["maximum"], 4096);
    assert_eq!(schema["properties"]["ignore_kinds"]["default"], json!([]));
    let kinds = &schema["properties"]["ignore_kinds"]["items"]["enum"];
    assert!(kinds.as_array().expect("a list").contains(&json!("wireguard")));
}

#[test]
fn on_the_host_only_physical_devices_that_no_other_counts_are_summed() {
    let device = |name: &[u8]| Device {
        name: Name::new(name).expect("short"),
        kind: DeviceKind::Unknown,
        summed: false,
        counters: [1; COUNTERS],
    };
    let mut devices = [b"lo".as_slice(), b"eth0", b"vf0", b"br0", b"veth1"].map(device);
    let links = crate::os::link::tests::links(&[
        (1, "lo", None, 8, 0),
        (2, "eth0", None, 0, 0),
        (3, "vf0", None, 0, 2),
        (4, "br0", Some("bridge"), 0, 0),
        (5, "veth1", Some("veth"), 0, 4),
    ]);
    assert!(tell(&mut devices, &links, true));
    assert_eq!(devices.each_ref().map(|d| d.summed), [false, true, false, false, false]);
    assert!(tell(&mut devices, &links, false));
    assert_eq!(devices.each_ref().map(|d| d.summed), [false, true, true, true, true]);
    devices[4].name = Name::new(b"veth2").expect("short");
    assert!(!tell(&mut devices, &links, true), "a name that is not in the table asks for a new one");
}

#[test]
fn this_machine_is_read() {
    let mut machine = Machine::live();
    let mut probe = machine.start(&SPEC, json!({}));
    let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
    let mut found = 0;
    for (id, _) in machine.topology.iter() {
        let lo = "device=\"lo\",kind=\"loopback\"";
        if value(&samples, "netdev_device_rx_bytes", id, lo).is_some() {
            found += 1;
            assert!(value(&samples, "netdev_rx_bytes", id, "").is_some());
            assert!(matches!(samples.value("netdev_device_up", id, lo), Some(Value::U64(0 | 1))));
            assert!(samples.value("netdev_device_mtu_bytes", id, lo).is_some());
        }
    }
    assert!(found > 0, "at least the namespace of this process has a loopback");
}
