//! `tcpext`: the Linux extensions of the TCP counters, for each namespace.

mod metrics;
mod settings;

use std::sync::Arc;

use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Counter, Fields, NsId, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};

use crate::os::Host;
use crate::os::mib::{Layout, Mib, Selection, Table};
use settings::Settings;

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "tcpext",
        aliases: &[],
        about: "TCP faults in detail: overflows, drops, timeouts, aborts, memory pressure",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[],
        default_on: true,
        settings: schema::<Settings>,
    },
    start,
};

const GROUP: &str = "TcpExt";
const CHRONO: &str = "TCPMemoryPressuresChrono";
/// The most fields without a metric of their own; Linux 6.18 has none.
const UNNAMED_FIELDS: usize = 256;

struct Tcpext {
    host: Host,
    counters: Vec<&'static Counter<()>>,
    places: Selection,
    chrono: Option<Selection>,
    unnamed: Unnamed,
    buf: Vec<u8>,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let Settings { fields } = StartError::settings(args)?;
    let by_default = |field: &str| metrics::DEFAULT.iter().any(|(_, f)| *f == field) || field == CHRONO;
    let wanted = |field: &str| fields.take(field, by_default(field));
    let named = || metrics::DEFAULT.iter().chain(metrics::MORE).filter(|(_, field)| wanted(field));
    Ok(Box::new(Tcpext {
        host: host.clone(),
        counters: named().map(|(metric, _)| *metric).collect(),
        places: Selection::new(named().map(|(_, field)| (GROUP, *field))),
        chrono: wanted(CHRONO).then(|| Selection::new([(GROUP, CHRONO)])),
        unnamed: Unnamed { fields, found: None, told: false },
        buf: Vec::new(),
    }))
}

impl Probe for Tcpext {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let host = self.host.clone();
        host.each(view, |id, _, netns| {
            if let Some(mib) = netns.mib(Table::Netstat, view.scrape, &mut self.buf)? {
                self.push(&mib, id, out);
            }
            Ok(())
        })
    }
}

impl Tcpext {
    fn push(&mut self, mib: &Mib, id: NsId, out: &mut Samples) {
        for (metric, value) in self.counters.iter().zip(self.places.values(mib)) {
            if let Some(value) = value {
                out.push(*metric, id, (), value);
            }
        }
        if let Some(chrono) = &mut self.chrono
            && let Some(Some(milliseconds)) = chrono.values(mib).next()
        {
            out.push(&metrics::MEMORY_PRESSURES_CHRONO, id, (), milliseconds as f64 / 1000.0);
            out.push(&metrics::MEMORY_PRESSURES_CHRONO_RAW, id, (), milliseconds);
        }
        for &place in self.unnamed.places(&mib.layout) {
            if let Some(value) = mib.values.get(place) {
                out.push(&metrics::FIELD, id, mib.layout.fields[place].1.as_str(), *value);
            }
        }
    }
}

/// The wanted fields that have no metric of their own: those of kernels that are newer than this version.
struct Unnamed {
    fields: Fields,
    found: Option<(Arc<Layout>, Vec<usize>)>,
    told: bool,
}

fn has_metric(field: &str) -> bool {
    metrics::DEFAULT.iter().chain(metrics::MORE).any(|(_, f)| *f == field) || field == CHRONO
}

impl Unnamed {
    /// Where they are in this layout.
    fn places(&mut self, layout: &Arc<Layout>) -> &[usize] {
        if self.fields == Fields::Default {
            return &[];
        }
        if self.found.as_ref().is_none_or(|(of, _)| !Arc::ptr_eq(of, layout)) {
            let places = self.find(layout);
            self.found = Some((Arc::clone(layout), places));
        }
        self.found.as_ref().map_or(&[], |(_, places)| places)
    }

    /// Looks them up, and says once what was wanted in vain.
    fn find(&mut self, layout: &Layout) -> Vec<usize> {
        let kernel = || layout.fields.iter().enumerate().filter(|(_, (group, _))| group == GROUP);
        let mut places: Vec<usize> = kernel()
            .filter(|(_, (_, field))| self.fields.take(field, false) && !has_metric(field))
            .map(|(place, _)| place)
            .collect();
        let beyond = places.len().saturating_sub(UNNAMED_FIELDS);
        places.truncate(UNNAMED_FIELDS);
        if !std::mem::replace(&mut self.told, true) {
            if beyond > 0 {
                tracing::warn!(
                    beyond,
                    limit = UNNAMED_FIELDS,
                    "tcpext: this kernel has more unknown TcpExt fields than may have series; the last are left out"
                );
            }
            if let Fields::These(names) = &self.fields {
                for name in names.iter().filter(|name| !kernel().any(|(_, (_, field))| field == *name)) {
                    tracing::info!(
                        field = name.as_str(),
                        "tcpext: this kernel has no such field in TcpExt; it gets no series"
                    );
                }
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use netsonde_framework::{Kind, Value};
    use serde_json::json;

    use super::*;
    use crate::os::testing::Machine;

    /// The group as Linux 6.18 writes it.
    const KERNEL_6_18: &str = include_str!("netstat-6.18.txt");

    fn machine(text: &str) -> Machine {
        let mut machine = Machine::frozen();
        machine.file("1/net/netstat", text);
        machine
    }

    #[test]
    fn the_default_set_has_46_fields_and_nothing_else() {
        let mut machine = machine(KERNEL_6_18);
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        // The chrono is one field with two series: seconds, and the raw value for its reference name.
        assert_eq!(samples.series(), 47);
        let ns = machine.ns(1001);
        assert_eq!(samples.value("tcpext_listen_overflows", ns, ""), Some(Value::U64(122)));
        assert_eq!(samples.value("tcpext_tw", ns, ""), None);
    }

    #[test]
    fn every_reference_metric_is_in_the_default_set() {
        let names = "listendrops listenoverflows tcpsynretrans tcpfastretrans tcpretransfail tcptimeouts tcpabortonclose
            tcpabortonmemory tcpabortontimeout tcpabortonlinger tcpabortondata tcpabortfailed tcpackskippedsynrecv
            tcpackskippedpaws tcpackskippedseq tcpackskippedfinwait2 tcpackskippedtimewait tcpackskippedchallenge
            tcprcvqdrop tcpmemorypressures tcpmemorypressureschrono pawsactive pawsestab embryonicrsts tcpwinprobe
            tcpkeepalive tcpmtupfail tcpmtupsuccess tcpzerowindowdrop tcpbacklogdrop pfmemallocdrop tcpwqueuetoobig";
        let mut machine = machine(KERNEL_6_18);
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
        let exposed: HashSet<&str> = samples
            .columns()
            .iter()
            .filter(|column| !column.rows.is_empty())
            .filter_map(|column| column.def.reference)
            .map(|reference| reference.name)
            .collect();
        for name in names.split_whitespace() {
            assert!(exposed.contains(format!("kubeskoop_tcpext_{name}").as_str()), "{name}");
        }
        assert_eq!(exposed.len(), 32);
    }

    #[test]
    fn all_gives_each_field_of_linux_6_18_a_metric_of_its_own() {
        let mut machine = machine(KERNEL_6_18);
        let mut probe = machine.start(&SPEC, json!({"fields": "all"}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        assert_eq!(samples.series(), 135 + 1);
        assert!(
            samples
                .columns()
                .iter()
                .all(|column| column.rows.len() == usize::from(column.def.name != "tcpext_field"))
        );
    }

    #[test]
    fn names_follow_the_rule_and_name_their_field() {
        for (metric, field) in metrics::DEFAULT.iter().chain(metrics::MORE) {
            let word = field.strip_prefix("TCP").or(field.strip_prefix("Tcp")).unwrap_or(field);
            let letters: String = metric.def.name["tcpext_".len()..].chars().filter(|c| *c != '_').collect();
            assert_eq!(letters, word.to_ascii_lowercase());
            assert_eq!(metric.def.source, format!("/proc/net/netstat TcpExt {field}"));
            assert_eq!(metric.def.kind, Kind::Counter);
            if let Some(reference) = metric.def.reference {
                assert_eq!(reference.name, format!("kubeskoop_tcpext_{}", field.to_ascii_lowercase()));
            }
        }
    }

    #[test]
    fn the_default_set_stands_first_in_the_list() {
        for (place, (metric, _)) in metrics::DEFAULT.iter().enumerate() {
            assert!(std::ptr::eq(metrics::ALL[place], &raw const metric.def), "{}", metric.def.name);
        }
    }

    #[test]
    fn time_under_memory_pressure_is_in_seconds_and_raw_for_the_reference() {
        let mut machine = machine("TcpExt: TCPMemoryPressuresChrono\nTcpExt: 1500\n");
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
        let ns = machine.ns(1001);
        assert_eq!(samples.value("tcpext_memory_pressures_chrono_seconds", ns, ""), Some(Value::F64(1.5)));
        assert_eq!(samples.value("tcpext_memory_pressures_chrono_raw", ns, ""), Some(Value::U64(1500)));
        assert_eq!(samples.series(), 2);
    }

    #[test]
    fn a_list_selects_and_what_the_kernel_does_not_have_is_no_error() {
        let mut machine = machine(KERNEL_6_18);
        let mut probe = machine.start(&SPEC, json!({"fields": ["TW", "ListenDrops", "NoSuchField"]}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        assert_eq!(samples.series(), 2);
        assert!(samples.value("tcpext_tw", machine.ns(1001), "").is_some());
    }

    #[test]
    fn fields_of_a_newer_kernel_are_labelled_when_asked_for() {
        let text = "TcpExt: TW TCPBrandNew TCPNewer\nTcpExt: 1 2 3\nIpExt: InNewer\nIpExt: 9\n";
        let mut machine = machine(text);
        let ns = machine.ns(1001);
        for (args, series) in
            [(json!({}), 0), (json!({"fields": "all"}), 3), (json!({"fields": ["TCPBrandNew"]}), 1)]
        {
            let mut probe = machine.start(&SPEC, args);
            let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
            result.expect("readable");
            assert_eq!(samples.series(), series);
            if series > 0 {
                assert_eq!(samples.value("tcpext_field", ns, "field=\"TCPBrandNew\""), Some(Value::U64(2)));
            }
        }
    }

    #[test]
    fn unknown_fields_beyond_the_bound_are_left_out() {
        let names: Vec<String> = (0..300).map(|i| format!("TCPNew{i}")).collect();
        let text = format!("TcpExt: TW {}\nTcpExt: 5 {}\n", names.join(" "), vec!["1"; 300].join(" "));
        let mut machine = machine(&text);
        let mut probe = machine.start(&SPEC, json!({"fields": "all"}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        assert_eq!(samples.series(), 1 + UNNAMED_FIELDS);
    }

    #[test]
    fn a_truncated_file_is_an_error_that_names_it_and_costs_only_its_namespace() {
        let mut machine = machine("TcpExt: TW ListenDrops\nTcpExt: 7");
        machine.process(2, 1002);
        machine.rescan();
        machine.file("2/net/netstat", KERNEL_6_18);
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        let error = result.expect_err("truncated").to_string();
        assert!(error.contains("/proc/net/netstat line 2"), "{error}");
        assert_eq!(samples.series(), 47);
    }

    #[test]
    fn this_machine_is_read() {
        let mut machine = Machine::live();
        let mut probe = machine.start(&SPEC, json!({"fields": "all"}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let (host, _) = machine.topology.host().expect("the host is there");
        assert!(samples.value("tcpext_listen_drops", host, "").is_some());
    }
}
