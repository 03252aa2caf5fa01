//! `tcp`: connections opened, reset and retransmitted, for each namespace.

mod metrics;

use netsonde_framework::setting::{NoSettings, schema};
use netsonde_framework::{
    CollectError, Counter, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};

use crate::os::Host;
use crate::os::mib::{Selection, Table};

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "tcp",
        aliases: &[],
        about: "TCP connections opened, failed, reset and retransmitted",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[],
        default_on: true,
        settings: schema::<NoSettings>,
    },
    start,
};

static COUNTERS: [(&Counter<()>, &str); 10] = [
    (&metrics::ACTIVE_OPENS, "ActiveOpens"),
    (&metrics::PASSIVE_OPENS, "PassiveOpens"),
    (&metrics::RETRANS_SEGS, "RetransSegs"),
    (&metrics::ATTEMPT_FAILS, "AttemptFails"),
    (&metrics::ESTAB_RESETS, "EstabResets"),
    (&metrics::IN_SEGS, "InSegs"),
    (&metrics::OUT_SEGS, "OutSegs"),
    (&metrics::IN_ERRS, "InErrs"),
    (&metrics::IN_CSUM_ERRORS, "InCsumErrors"),
    (&metrics::OUT_RSTS, "OutRsts"),
];

struct Tcp {
    host: Host,
    counters: Selection,
    established: Selection,
    buf: Vec<u8>,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let NoSettings {} = StartError::settings(args)?;
    Ok(Box::new(Tcp {
        host: host.clone(),
        counters: Selection::new(COUNTERS.iter().map(|(_, field)| ("Tcp", *field))),
        established: Selection::new([("Tcp", "CurrEstab")]),
        buf: Vec::new(),
    }))
}

impl Probe for Tcp {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        self.host.each(view, |id, _, netns| {
            let Some(mib) = netns.mib(Table::Snmp, view.scrape, &mut self.buf)? else { return Ok(()) };
            for ((metric, _), value) in COUNTERS.iter().zip(self.counters.values(&mib)) {
                if let Some(value) = value {
                    out.push(*metric, id, (), value);
                }
            }
            if let Some(Some(value)) = self.established.values(&mib).next() {
                out.push(&metrics::CURR_ESTAB, id, (), value);
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use netsonde_framework::Value;
    use serde_json::json;

    use super::*;
    use crate::os::testing::Machine;

    #[test]
    fn counters_and_gauges_come_from_their_fields() {
        let mut machine = Machine::frozen();
        machine.file("1/net/snmp", "Tcp: ActiveOpens CurrEstab OutRsts\nTcp: 7 3 9\n");
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let ns = machine.ns(1001);
        assert_eq!(samples.value("tcp_active_opens", ns, ""), Some(Value::U64(7)));
        assert_eq!(samples.value("tcp_curr_estab", ns, ""), Some(Value::U64(3)));
        assert_eq!(samples.value("tcp_out_rsts", ns, ""), Some(Value::U64(9)));
        assert_eq!(samples.series(), 3, "fields that the kernel does not have give no series");
    }

    #[test]
    fn a_truncated_file_is_an_error_that_names_it_and_costs_only_its_namespace() {
        let mut machine = Machine::frozen();
        machine.process(2, 1002);
        machine.rescan();
        machine.file("1/net/snmp", "Tcp: ActiveOpens CurrEstab\nTcp: 7");
        machine.file("2/net/snmp", "Tcp: ActiveOpens CurrEstab\nTcp: 1 2\n");
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        let error = result.expect_err("truncated").to_string();
        assert!(error.contains("/proc/net/snmp line 2"), "{error}");
        assert_eq!(samples.value("tcp_active_opens", machine.ns(1002), ""), Some(Value::U64(1)));
    }

    #[test]
    fn a_namespace_without_the_file_has_no_series_and_no_error() {
        let mut machine = Machine::frozen();
        machine.file("1/net/snmp", "Tcp: ActiveOpens\nTcp: 7\n");
        machine.remove("1/net/snmp");
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        assert!(result.is_ok() && samples.series() == 0);
    }

    #[test]
    fn this_machine_is_read() {
        let mut machine = Machine::live();
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let (host, _) = machine.topology.host().expect("the host is there");
        assert!(samples.value("tcp_active_opens", host, "").is_some());
    }
}
