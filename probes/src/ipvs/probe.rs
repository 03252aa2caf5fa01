//! `ipvs`: connections, packets and bytes that IPVS has balanced, for each namespace that uses it.

mod metrics;
mod parse;

use std::collections::HashSet;

use netsonde_framework::probe::Failures;
use netsonde_framework::setting::{NoSettings, schema};
use netsonde_framework::{
    CollectError, Counter, NetnsKey, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};

use crate::os::{Host, NetFile, Netns};
use parse::{Totals, parse};

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "ipvs",
        aliases: &[],
        about: "Connections, packets and bytes that IPVS has balanced",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &["the module ip_vs; until it is loaded there are no series"],
        default_on: true,
        settings: schema::<NoSettings>,
    },
    start,
};

/// In the order of [`Totals`].
static COUNTERS: [&Counter<()>; 5] = [
    &metrics::CONNECTIONS,
    &metrics::INCOMING_PACKETS,
    &metrics::OUTGOING_PACKETS,
    &metrics::INCOMING_BYTES,
    &metrics::OUTGOING_BYTES,
];

struct Ipvs {
    host: Host,
    /// Namespaces that have had a value, which keep their series until they are gone.
    used: HashSet<NetnsKey>,
    buf: Vec<u8>,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let NoSettings {} = StartError::settings(args)?;
    Ok(Box::new(Ipvs { host: host.clone(), used: HashSet::new(), buf: Vec::new() }))
}

impl Probe for Ipvs {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let mut failures = Failures::default();
        // The host comes first in a topology.
        for (id, ns) in view.topology.iter() {
            let Some(netns) = self.host.netns(ns.key) else { continue };
            match read(&netns, &mut self.buf) {
                Ok(Some(totals)) => {
                    if totals.iter().any(|total| *total != 0) {
                        self.used.insert(ns.key);
                    }
                    if ns.is_host() || self.used.contains(&ns.key) {
                        for (metric, total) in COUNTERS.iter().zip(totals) {
                            out.push(*metric, id, (), total);
                        }
                    }
                }
                // The module makes the file in every namespace or in none.
                Ok(None) if ns.is_host() => break,
                Ok(None) => {}
                Err(error) => failures.add(&ns.identity.pod, error),
            }
        }
        failures.finish()
    }

    fn forget(&mut self, gone: &[NetnsKey]) {
        for key in gone {
            self.used.remove(key);
        }
    }
}

/// The totals of one namespace; `None` where the module is not loaded.
fn read(netns: &Netns, buf: &mut Vec<u8>) -> Result<Option<Totals>, CollectError> {
    let there = match netns.read(NetFile::IpVsStats, buf).map(|text| text.is_some()) {
        Ok(there) => there,
        // The descriptor that is kept fails once when the module has been unloaded; a new one tells what is so.
        Err(_) => netns.read(NetFile::IpVsStats, buf)?.is_some(),
    };
    if there { parse(buf).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use netsonde_framework::Value;
    use serde_json::json;

    use super::*;
    use crate::os::testing::Machine;

    fn stats(totals: &str) -> String {
        format!(
            "   Total Incoming Outgoing         Incoming         Outgoing\n   Conns  Packets  Packets            Bytes            Bytes\n{totals}\n\n Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n       F        F        F                F                F\n"
        )
    }

    fn two_namespaces() -> Machine {
        let mut machine = Machine::frozen();
        machine.process(2, 1002);
        machine.rescan();
        machine
    }

    #[test]
    fn no_column_is_taken_for_another() {
        let mut machine = Machine::frozen();
        machine.file(
            "1/net/ip_vs_stats",
            &stats("       3       12       34              567              89A"),
        );
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        for (name, value) in [
            ("ipvs_connections", 3),
            ("ipvs_incoming_packets", 0x12),
            ("ipvs_outgoing_packets", 0x34),
            ("ipvs_incoming_bytes", 0x567),
            ("ipvs_outgoing_bytes", 0x89a),
        ] {
            assert_eq!(samples.value(name, machine.ns(1001), ""), Some(Value::U64(value)), "{name}");
        }
    }

    #[test]
    fn a_namespace_has_rows_from_its_first_value_on_and_the_host_always() {
        let mut machine = two_namespaces();
        machine.file("1/net/ip_vs_stats", &stats("0 0 0 0 0"));
        machine.file("2/net/ip_vs_stats", &stats("0 0 0 0 0"));
        let mut probe = machine.start(&SPEC, json!({}));
        let series = |machine: &mut Machine, probe: &mut dyn Probe| {
            let (samples, result) = machine.collect(probe, metrics::ALL);
            result.expect("readable");
            samples.series()
        };
        assert_eq!(series(&mut machine, &mut *probe), 5);
        machine.file("2/net/ip_vs_stats", &stats("1 0 0 0 0"));
        assert_eq!(series(&mut machine, &mut *probe), 10);
        machine.file("2/net/ip_vs_stats", &stats("0 0 0 0 0"));
        assert_eq!(series(&mut machine, &mut *probe), 10, "cleared with ipvsadm --zero, and there still");
        let key = machine.topology.iter().find(|(_, ns)| ns.inode == 1002).expect("there").1.key;
        probe.forget(&[key]);
        assert_eq!(series(&mut machine, &mut *probe), 5);
    }

    #[test]
    fn while_the_module_is_not_loaded_there_are_no_series_and_no_error() {
        let mut machine = two_namespaces();
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        assert!(result.is_ok() && samples.series() == 0);
    }

    #[test]
    fn without_the_file_on_the_host_no_other_namespace_is_asked() {
        let mut machine = two_namespaces();
        machine.file("2/net/ip_vs_stats", &stats("1 1 1 1 1"));
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        assert!(result.is_ok() && samples.series() == 0);
    }

    #[test]
    fn a_broken_file_is_named_and_costs_only_its_namespace() {
        let mut machine = two_namespaces();
        machine.file("1/net/ip_vs_stats", "   Total Incoming\n");
        machine.file("2/net/ip_vs_stats", &stats("1 2 3 4 5"));
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        let error = result.expect_err("cut off").to_string();
        assert!(error.contains("/proc/net/ip_vs_stats line 3"), "{error}");
        assert_eq!(samples.value("ipvs_outgoing_bytes", machine.ns(1002), ""), Some(Value::U64(5)));
    }

    #[test]
    fn the_five_reference_names_are_there() {
        let names: Vec<_> = metrics::ALL.iter().filter_map(|def| def.reference).map(|r| r.name).collect();
        let wanted = ["connections", "incomingpackets", "outgoingpackets", "incomingbytes", "outgoingbytes"];
        assert_eq!(names, wanted.map(|name| format!("kubeskoop_ipvs_{name}")));
    }

    #[test]
    fn this_machine_is_read() {
        let mut machine = Machine::live();
        let loaded = std::path::Path::new("/proc/net/ip_vs_stats").exists();
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        assert_eq!(samples.series() > 0, loaded);
    }
}
