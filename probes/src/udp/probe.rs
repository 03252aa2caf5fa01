//! `udp`: datagrams sent, read and dropped, for each namespace and IP version.

mod metrics;

use netsonde_framework::label::Family;
use netsonde_framework::setting::{NoSettings, schema};
use netsonde_framework::{
    CollectError, Counter, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};

use crate::os::Host;
use crate::os::mib::{Selection, Table};

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "udp",
        aliases: &[],
        about: "UDP datagrams sent, read and dropped, by IP version",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[],
        default_on: true,
        settings: schema::<NoSettings>,
    },
    start,
};

/// The kernel calls the fields the same for both IP versions.
static COUNTERS: [(&Counter<(Family,)>, &str); 9] = [
    (&metrics::IN_DATAGRAMS, "InDatagrams"),
    (&metrics::NO_PORTS, "NoPorts"),
    (&metrics::IN_ERRORS, "InErrors"),
    (&metrics::OUT_DATAGRAMS, "OutDatagrams"),
    (&metrics::RCVBUF_ERRORS, "RcvbufErrors"),
    (&metrics::SNDBUF_ERRORS, "SndbufErrors"),
    (&metrics::IN_CSUM_ERRORS, "InCsumErrors"),
    (&metrics::IGNORED_MULTI, "IgnoredMulti"),
    (&metrics::MEM_ERRORS, "MemErrors"),
];

struct Udp {
    host: Host,
    parts: [(Table, Family, Selection); 2],
    buf: Vec<u8>,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let NoSettings {} = StartError::settings(args)?;
    let fields = |group| Selection::new(COUNTERS.iter().map(move |(_, field)| (group, *field)));
    Ok(Box::new(Udp {
        host: host.clone(),
        parts: [(Table::Snmp, Family::Ipv4, fields("Udp")), (Table::Snmp6, Family::Ipv6, fields("Udp6"))],
        buf: Vec::new(),
    }))
}

impl Probe for Udp {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        self.host.each(view, |id, _, netns| {
            let mut failed = None;
            for (table, family, fields) in &mut self.parts {
                match netns.mib(*table, view.scrape, &mut self.buf) {
                    Ok(Some(mib)) => {
                        for ((metric, _), value) in COUNTERS.iter().zip(fields.values(&mib)) {
                            if let Some(value) = value {
                                out.push(*metric, id, *family, value);
                            }
                        }
                    }
                    Ok(None) => {}
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(()), Err)
        })
    }
}

#[cfg(test)]
mod tests {
    use netsonde_framework::Value;
    use serde_json::json;

    use super::*;
    use crate::os::testing::Machine;

    const SNMP: &str = "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
Udp: 1 2 3 4 5 6 7 8 9
UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
UdpLite: 90 90 90 90 90 90 90 90 90
";
    const SNMP6: &str = "Udp6InDatagrams                 \t11
Udp6NoPorts                     \t12
Udp6MemErrors                   \t19
UdpLite6InDatagrams             \t91
";

    #[test]
    fn both_ip_versions_are_read_and_udplite_is_not_mixed_in() {
        let mut machine = Machine::frozen();
        machine.file("1/net/snmp", SNMP);
        machine.file("1/net/snmp6", SNMP6);
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let ns = machine.ns(1001);
        for (def, value) in metrics::ALL.iter().zip(1u64..) {
            assert_eq!(
                samples.value(def.name, ns, "family=\"ipv4\""),
                Some(Value::U64(value)),
                "{}",
                def.name
            );
        }
        assert_eq!(samples.value("udp_in_datagrams", ns, "family=\"ipv6\""), Some(Value::U64(11)));
        assert_eq!(samples.value("udp_mem_errors", ns, "family=\"ipv6\""), Some(Value::U64(19)));
        assert_eq!(samples.series(), 12, "fields that the kernel does not have give no series");
    }

    #[test]
    fn where_ipv6_is_off_only_ipv4_has_series() {
        let mut machine = Machine::frozen();
        machine.file("1/net/snmp", SNMP);
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("an absent file is no failure");
        assert_eq!(samples.series(), 9);
    }

    #[test]
    fn a_broken_snmp6_is_named_and_costs_only_its_own_series() {
        let mut machine = Machine::frozen();
        machine.process(2, 1002);
        machine.rescan();
        machine.file("1/net/snmp", SNMP);
        machine.file("1/net/snmp6", "Udp6InDatagrams 1\nUdp6No");
        machine.file("2/net/snmp6", SNMP6);
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        let error = result.expect_err("truncated").to_string();
        assert!(error.contains("1 namespaces") && error.contains("/proc/net/snmp6 line 2"), "{error}");
        assert_eq!(samples.series(), 9 + 3);
        let other = samples.value("udp_no_ports", machine.ns(1002), "family=\"ipv6\"");
        assert_eq!(other, Some(Value::U64(12)));
    }

    #[test]
    fn the_eight_reference_names_stand_for_the_ipv4_series() {
        let names: Vec<_> = metrics::ALL.iter().filter_map(|def| def.reference).collect();
        assert!(names.iter().all(|r| r.only == Some("family=\"ipv4\"")));
        let names: Vec<_> = names.iter().map(|r| r.name.trim_start_matches("kubeskoop_udp_")).collect();
        let wanted =
            "indatagrams noports inerrors outdatagrams rcvbuferrors sndbuferrors incsumerrors ignoredmulti";
        assert_eq!(names.join(" "), wanted);
    }

    #[test]
    fn settings_are_refused() {
        let machine = Machine::frozen();
        let error = (SPEC.start)(&json!({"family": "ipv4"}), &machine.host).err().expect("unknown key");
        assert!(error.to_string().contains("family"), "{error}");
    }

    #[test]
    fn this_machine_is_read() {
        let mut machine = Machine::live();
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let (host, _) = machine.topology.host().expect("the host is there");
        assert!(samples.value("udp_out_datagrams", host, "family=\"ipv4\"").is_some());
    }
}
