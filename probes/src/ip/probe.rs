//! `ip`: packets received, forwarded, sent, dropped and fragmented, for each namespace and IP version.

mod metrics;

use netsonde_framework::label::Family;
use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Fields, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::os::Host;
use crate::os::mib::{Selection, Table};
use metrics::Field;

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "ip",
        aliases: &[],
        about: "IP packets received, forwarded, sent, dropped and fragmented, by IP version",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[],
        default_on: true,
        settings: schema::<Settings>,
    },
    start,
};

/// The settings of `ip`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Which fields have series: `default` (those that tell of traffic, loss and faults), `all`, or a list of names
    /// as the kernel spells them in /proc/net/snmp (Ip) and /proc/net/netstat (IpExt), for example
    /// `[InReceives, OutNoRoutes]`; IPv6 follows by the same names. Each field is one series for each namespace and
    /// IP version. Default: `default`.
    fields: Fields,
}

/// Those that tell of traffic, loss and faults, by the names of both IP versions.
const DEFAULT: &[&str] = &[
    "Forwarding",
    "InReceives",
    "InHdrErrors",
    "InAddrErrors",
    "ForwDatagrams",
    "OutForwDatagrams",
    "InDiscards",
    "InDelivers",
    "OutRequests",
    "OutDiscards",
    "OutNoRoutes",
    "ReasmFails",
    "FragFails",
    "InNoRoutes",
    "InTruncatedPkts",
    "InTooBigErrors",
    "InOctets",
    "OutOctets",
];

/// One group of one table.
struct Part {
    table: Table,
    family: Family,
    fields: Vec<Field>,
    places: Selection,
}

impl Part {
    fn new(table: Table, group: &'static str, family: Family, all: &[Field], wanted: &Fields) -> Self {
        let take = |(_, field): &&Field| wanted.take(field, DEFAULT.contains(field));
        let fields: Vec<Field> = all.iter().filter(take).copied().collect();
        let places = Selection::new(fields.iter().map(|(_, field)| (group, *field)));
        Self { table, family, fields, places }
    }
}

struct Ip {
    host: Host,
    parts: [Part; 3],
    forwarding: Option<Selection>,
    buf: Vec<u8>,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let Settings { fields } = StartError::settings(args)?;
    Ok(Box::new(Ip {
        host: host.clone(),
        parts: [
            Part::new(Table::Snmp, "Ip", Family::Ipv4, metrics::IP, &fields),
            Part::new(Table::Netstat, "IpExt", Family::Ipv4, metrics::IP_EXT, &fields),
            Part::new(Table::Snmp6, "Ip6", Family::Ipv6, metrics::IP6, &fields),
        ],
        forwarding: fields
            .take("Forwarding", DEFAULT.contains(&"Forwarding"))
            .then(|| Selection::new([("Ip", "Forwarding")])),
        buf: Vec::new(),
    }))
}

impl Probe for Ip {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        self.host.each(view, |id, _, netns| {
            let mut failed = None;
            for part in &mut self.parts {
                let mib = match netns.mib(part.table, view.scrape, &mut self.buf) {
                    Ok(Some(mib)) => mib,
                    Ok(None) => continue,
                    Err(error) => {
                        failed = failed.or(Some(error));
                        continue;
                    }
                };
                if part.table == Table::Snmp
                    && let Some(forwarding) = &mut self.forwarding
                    && let Some(Some(value)) = forwarding.values(&mib).next()
                {
                    // The field is the enumeration of RFC 1213: 1 forwards, 2 does not.
                    out.push(&metrics::FORWARDING, id, part.family, u64::from(value == 1));
                }
                for ((metric, _), value) in part.fields.iter().zip(part.places.values(&mib)) {
                    if let Some(value) = value {
                        out.push(*metric, id, part.family, value);
                    }
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

    const SNMP: &str = "Ip: Forwarding DefaultTTL InReceives InHdrErrors ForwDatagrams OutTransmits\nIp: 1 64 6021 2 3 4254\n";
    const NETSTAT: &str = "TcpExt: TW InNoRoutes\nTcpExt: 5 999\nIpExt: InNoRoutes InTruncatedPkts InOctets\nIpExt: 7 8 123456\n";
    const SNMP6: &str =
        "Ip6InReceives 1\nIp6InTooBigErrors 2\nIp6InNoRoutes 3\nIp6OutForwDatagrams 4\nIp6InOctets 128\n";
    const V4: &str = "family=\"ipv4\"";
    const V6: &str = "family=\"ipv6\"";

    #[test]
    fn the_three_groups_are_put_together_by_ip_version() {
        let mut machine = Machine::frozen();
        machine.file("1/net/snmp", SNMP);
        machine.file("1/net/netstat", NETSTAT);
        machine.file("1/net/snmp6", SNMP6);
        let mut probe = machine.start(&SPEC, json!({"fields": "all"}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let ns = machine.ns(1001);
        for (name, family, value) in [
            ("ip_in_receives", V4, 6021),
            ("ip_in_receives", V6, 1),
            ("ip_forw_datagrams", V4, 3),
            ("ip_forw_datagrams", V6, 4),
            ("ip_in_no_routes", V4, 7),
            ("ip_in_no_routes", V6, 3),
            ("ip_in_bytes", V4, 123_456),
            ("ip_in_bytes", V6, 128),
            ("ip_in_too_big_errors", V6, 2),
            ("ip_forwarding", V4, 1),
        ] {
            assert_eq!(samples.value(name, ns, family), Some(Value::U64(value)), "{name} {family}");
        }
        assert_eq!(samples.series(), 13, "DefaultTTL is a setting and has no series");
    }

    #[test]
    fn forwarding_is_0_where_the_kernel_says_2() {
        let mut machine = Machine::frozen();
        machine.file("1/net/snmp", "Ip: Forwarding\nIp: 2\n");
        let mut probe = machine.start(&SPEC, json!({"fields": "all"}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        assert_eq!(samples.value("ip_forwarding", machine.ns(1001), V4), Some(Value::U64(0)));
        assert_eq!(samples.series(), 1);
    }

    #[test]
    fn a_broken_table_costs_neither_the_other_tables_nor_the_other_namespaces() {
        let mut machine = Machine::frozen();
        machine.process(2, 1002);
        machine.rescan();
        machine.file("1/net/snmp", SNMP);
        machine.file("1/net/netstat", "IpExt: InNoRoutes InOctets\nIpExt: 7");
        machine.file("2/net/netstat", NETSTAT);
        let mut probe = machine.start(&SPEC, json!({"fields": "all"}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        let error = result.expect_err("truncated").to_string();
        assert!(error.contains("1 namespaces") && error.contains("/proc/net/netstat line 2"), "{error}");
        assert_eq!(samples.value("ip_in_receives", machine.ns(1001), V4), Some(Value::U64(6021)));
        assert_eq!(samples.value("ip_in_no_routes", machine.ns(1002), V4), Some(Value::U64(7)));
        assert_eq!(samples.value("ip_in_no_routes", machine.ns(1001), V4), None);
    }

    #[test]
    fn both_reference_names_stand_for_the_ipv4_series() {
        let names: Vec<_> =
            metrics::ALL.iter().filter_map(|d| d.reference).map(|r| (r.name, r.only)).collect();
        let wanted = ["kubeskoop_ip_innoroutes", "kubeskoop_ip_intruncatedpkts"];
        assert_eq!(names, wanted.map(|name| (name, Some(V4))));
    }

    #[test]
    fn every_metric_is_in_a_table_and_the_tables_keep_the_order_of_the_list() {
        let place = |def| metrics::ALL.iter().position(|d| std::ptr::eq(*d, def)).expect("listed");
        let mut seen = vec![false; metrics::ALL.len()];
        seen[place(&raw const metrics::FORWARDING.def)] = true;
        for fields in [metrics::IP, metrics::IP_EXT, metrics::IP6] {
            let places: Vec<_> = fields.iter().map(|(metric, _)| place(&raw const metric.def)).collect();
            assert!(places.is_sorted(), "{places:?}");
            for place in places {
                seen[place] = true;
            }
        }
        assert!(seen.iter().all(|s| *s), "{seen:?}");
    }

    #[test]
    fn the_default_set_has_the_reference_and_leaves_out_what_is_rarely_asked() {
        let mut machine = Machine::frozen();
        machine.file("1/net/snmp", SNMP);
        machine.file("1/net/netstat", NETSTAT);
        machine.file("1/net/snmp6", SNMP6);
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
        let ns = machine.ns(1001);
        for name in ["ip_in_no_routes", "ip_in_truncated_pkts", "ip_forw_datagrams"] {
            assert!(samples.value(name, ns, V4).is_some(), "{name}");
        }
        assert!(samples.value("ip_forw_datagrams", ns, V6).is_some(), "IPv6 has another word for it");
        assert!(samples.value("ip_forwarding", ns, V4).is_some());
        assert_eq!(samples.value("ip_out_transmits", ns, V4), None);
    }

    #[test]
    fn a_list_gives_what_it_names() {
        let mut machine = Machine::frozen();
        machine.file("1/net/snmp", SNMP);
        machine.file("1/net/snmp6", SNMP6);
        let mut probe = machine.start(&SPEC, json!({"fields": ["OutTransmits", "InReceives"]}));
        let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
        assert_eq!(samples.series(), 3);
    }

    #[test]
    fn this_machine_is_read() {
        let mut machine = Machine::live();
        let mut probe = machine.start(&SPEC, json!({"fields": "all"}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let (host, _) = machine.topology.host().expect("the host is there");
        assert!(samples.value("ip_in_bytes", host, V4).is_some());
    }
}
