//! `softnet`: what each CPU did with received packets. One file of the whole machine, on the host row.

mod metrics;
mod parse;

use netsonde_framework::label::Cpu;
use netsonde_framework::setting::{NoSettings, schema};
use netsonde_framework::{
    CollectError, Counter, Gauge, NsId, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};

use crate::os::{Host, NetFile};
use parse::{COUNTERS, Line, parse};

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "softnet",
        aliases: &[],
        about: "Received packets by CPU: processed, dropped at the backlog, budget used up",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[],
        default_on: true,
        settings: schema::<NoSettings>,
    },
    start,
};

static COUNTER_METRICS: [&Counter<(Cpu,)>; COUNTERS] = [
    &metrics::PROCESSED,
    &metrics::DROPPED,
    &metrics::TIME_SQUEEZE,
    &metrics::RECEIVED_RPS,
    &metrics::FLOW_LIMIT,
];
static QUEUE_METRICS: [&Gauge<(Cpu,)>; 3] =
    [&metrics::BACKLOG_LEN, &metrics::INPUT_QLEN, &metrics::PROCESS_QLEN];

/// A counter of 32 bits, carried on in 64.
#[derive(Debug, Clone, Copy)]
struct Wide {
    last: u32,
    total: u64,
}

impl Wide {
    /// Takes the counter's present value; between two calls it wraps once at most.
    fn follow(known: &mut Option<Self>, now: u32) {
        let before = known.unwrap_or(Self { last: now, total: now.into() });
        let grown = now.wrapping_sub(before.last);
        *known = Some(Self { last: now, total: before.total.wrapping_add(grown.into()) });
    }

    /// Takes the value of another counter that stands in the same place from now on.
    fn change_over(known: &mut Option<Self>, now: u32) {
        let total = known.map_or(u64::from(now), |before| before.total);
        *known = Some(Self { last: now, total });
    }
}

/// A CPU that was seen. One that goes offline leaves the file but keeps its counters in the kernel, so it keeps its
/// counters here as well, and sums over CPUs do not fall.
#[derive(Debug)]
struct Seen {
    cpu: u32,
    counters: [Option<Wide>; COUNTERS],
}

struct Softnet {
    host: Host,
    /// Sorted by number.
    cpus: Vec<Seen>,
    /// The lines of the last scrape, and how many there were.
    lines: Vec<Line>,
    count: usize,
    buf: Vec<u8>,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let NoSettings {} = StartError::settings(args)?;
    Ok(Box::new(Softnet {
        host: host.clone(),
        cpus: Vec::new(),
        lines: Vec::new(),
        count: 0,
        buf: Vec::new(),
    }))
}

impl Probe for Softnet {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let Some((id, ns)) = view.topology.host() else { return Ok(()) };
        let Some(netns) = self.host.netns(ns.key) else { return Ok(()) };
        let Some(text) = netns.read(NetFile::SoftnetStat, &mut self.buf)? else { return Ok(()) };
        parse(text, &mut self.lines)?;
        // Without numbers of CPUs, the lines below one that went offline or came online belong to other CPUs now.
        let moved = self.count != 0 && self.lines.len() != self.count;
        self.count = self.lines.len();
        for line in &self.lines {
            let step = if moved && !line.named { Wide::change_over } else { Wide::follow };
            for (known, now) in seen(&mut self.cpus, line.cpu).counters.iter_mut().zip(line.counters) {
                if let Some(now) = now {
                    step(known, now);
                }
            }
        }
        self.push(id, out);
        Ok(())
    }
}

/// What is known of a CPU.
fn seen(cpus: &mut Vec<Seen>, cpu: u32) -> &mut Seen {
    let place = cpus.binary_search_by_key(&cpu, |seen| seen.cpu).unwrap_or_else(|place| {
        cpus.insert(place, Seen { cpu, counters: [None; COUNTERS] });
        place
    });
    &mut cpus[place]
}

impl Softnet {
    fn push(&self, id: NsId, out: &mut Samples) {
        for (place, metric) in COUNTER_METRICS.iter().enumerate() {
            for seen in &self.cpus {
                if let Some(wide) = seen.counters[place] {
                    out.push(*metric, id, seen.cpu, wide.total);
                }
            }
        }
        for (place, metric) in QUEUE_METRICS.iter().enumerate() {
            for line in &self.lines {
                if let Some(length) = line.queues[place] {
                    out.push(*metric, id, line.cpu, length);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use netsonde_framework::Value;
    use serde_json::json;

    use super::*;
    use crate::os::testing::Machine;

    /// A line of Linux 6.18 with these processed, dropped and CPU.
    fn line(processed: u32, dropped: u32, cpu: u32) -> String {
        format!(
            "{processed:08x} {dropped:08x} 00000005 00000000 00000000 00000000 00000000 00000000 00000000 00000006 00000007 00000003 {cpu:08x} 00000002 00000001\n"
        )
    }

    fn machine() -> Machine {
        let mut machine = Machine::frozen();
        machine.process(2, 1002);
        machine.rescan();
        machine.file("1/net/softnet_stat", &(line(10, 1, 0) + &line(20, 2, 1)));
        machine.file("2/net/softnet_stat", &(line(10, 1, 0) + &line(20, 2, 1)));
        machine
    }

    #[test]
    fn the_host_row_alone_has_series_for_each_cpu() {
        let mut machine = machine();
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let host = machine.ns(1001);
        for (name, value) in [
            ("softnet_processed", 20),
            ("softnet_dropped", 2),
            ("softnet_time_squeeze", 5),
            ("softnet_received_rps", 6),
            ("softnet_flow_limit", 7),
            ("softnet_backlog_len", 3),
            ("softnet_input_qlen", 2),
            ("softnet_process_qlen", 1),
        ] {
            assert_eq!(samples.value(name, host, "cpu=\"1\""), Some(Value::U64(value)), "{name}");
        }
        assert_eq!(samples.series(), 16);
    }

    #[test]
    fn a_counter_that_wraps_at_32_bits_goes_on() {
        let mut machine = machine();
        machine.file("1/net/softnet_stat", &line(u32::MAX - 1, 0, 0));
        let mut probe = machine.start(&SPEC, json!({}));
        machine.collect(&mut *probe, metrics::ALL).1.expect("readable");
        machine.file("1/net/softnet_stat", &line(3, 0, 0));
        let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
        let now = samples.value("softnet_processed", machine.ns(1001), "cpu=\"0\"");
        assert_eq!(now, Some(Value::U64(u64::from(u32::MAX) + 4)));
    }

    #[test]
    fn a_cpu_that_goes_offline_keeps_its_counters_and_loses_its_lengths() {
        let mut machine = machine();
        let mut probe = machine.start(&SPEC, json!({}));
        machine.collect(&mut *probe, metrics::ALL).1.expect("readable");
        machine.file("1/net/softnet_stat", &line(11, 1, 0));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let host = machine.ns(1001);
        assert_eq!(samples.value("softnet_processed", host, "cpu=\"1\""), Some(Value::U64(20)));
        assert_eq!(samples.value("softnet_backlog_len", host, "cpu=\"1\""), None);
        machine.file("1/net/softnet_stat", &(line(11, 1, 0) + &line(25, 2, 1)));
        let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
        assert_eq!(samples.value("softnet_processed", host, "cpu=\"1\""), Some(Value::U64(25)));
    }

    #[test]
    fn on_kernels_that_do_not_number_the_cpus_a_lost_line_makes_no_jump() {
        let old = |values: &[u32]| -> String {
            values.iter().fold(String::new(), |text, v| text + &format!("{v:08x} 0 0 0 0 0 0 0 0 0 0\n"))
        };
        let mut machine = machine();
        machine.file("1/net/softnet_stat", &old(&[100, 900, 50]));
        let mut probe = machine.start(&SPEC, json!({}));
        machine.collect(&mut *probe, metrics::ALL).1.expect("readable");
        for (values, second) in [(&[101, 51][..], 900), (&[102, 55], 904), (&[103, 900, 60], 904)] {
            machine.file("1/net/softnet_stat", &old(values));
            let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
            result.expect("readable");
            let now = samples.value("softnet_processed", machine.ns(1001), "cpu=\"1\"");
            assert_eq!(now, Some(Value::U64(second)), "{values:?}");
        }
    }

    #[test]
    fn a_broken_line_is_an_error_that_names_it_and_the_counters_go_on_after_it() {
        let mut machine = machine();
        let mut probe = machine.start(&SPEC, json!({}));
        machine.collect(&mut *probe, metrics::ALL).1.expect("readable");
        machine.file("1/net/softnet_stat", &(line(12, 1, 0) + "0000"));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        let error = result.expect_err("cut off").to_string();
        assert!(error.contains("/proc/net/softnet_stat line 2"), "{error}");
        assert_eq!(samples.series(), 0);
        machine.file("1/net/softnet_stat", &(line(14, 1, 0) + &line(20, 2, 1)));
        let (samples, _) = machine.collect(&mut *probe, metrics::ALL);
        let now = samples.value("softnet_processed", machine.ns(1001), "cpu=\"0\"");
        assert_eq!(now, Some(Value::U64(14)));
    }

    #[test]
    fn without_the_file_there_are_no_series_and_no_error() {
        let mut machine = machine();
        machine.remove("1/net/softnet_stat");
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        assert!(result.is_ok() && samples.series() == 0);
    }

    #[test]
    fn both_reference_names_are_sums_over_all_cpus() {
        let names: Vec<_> =
            metrics::ALL.iter().filter_map(|d| d.reference).map(|r| (r.name, r.only)).collect();
        assert_eq!(names, [("kubeskoop_softnet_processed", None), ("kubeskoop_softnet_dropped", None)]);
    }

    #[test]
    fn this_machine_is_read() {
        let mut machine = Machine::live();
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        assert!(samples.series() >= 3 && samples.columns()[0].rows.len() == samples.columns()[1].rows.len());
    }
}
