//! `fd`: open descriptors and sockets of the processes of each namespace.

mod descriptors;
mod metrics;

use descriptors::{Failure, Reader, Sockets};
use netsonde_framework::probe::Failures;
use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, NsId, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::os::Host;

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "fd",
        aliases: &[],
        about: "Open file descriptors and sockets of processes, and how near they are to their limit",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &["CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, to list /proc/PID/fd of other users' processes"],
        default_on: true,
        settings: schema::<Settings>,
    },
    start,
};

const MOST_DESCRIPTORS: u64 = 1_000_000;

/// Settings of `fd`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether sockets are counted, which takes a system call for each descriptor. Default true.
    sockets: bool,
    /// Sockets are counted in processes with at most this many descriptors; a namespace with a larger process has no
    /// `fd_open_sockets`. Default 20000, from 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    max_descriptors_per_process: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { sockets: true, max_descriptors_per_process: 20_000 }
    }
}

impl Settings {
    fn which(&self) -> Result<Sockets, StartError> {
        if !(1..=MOST_DESCRIPTORS).contains(&self.max_descriptors_per_process) {
            return Err(StartError::Settings(format!(
                "max_descriptors_per_process: must be from 1 to {MOST_DESCRIPTORS}"
            )));
        }
        Ok(if self.sockets { Sockets::UpTo(self.max_descriptors_per_process) } else { Sockets::No })
    }
}

struct Fd {
    reader: Reader,
    sockets: Sockets,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let sockets = StartError::settings::<Settings>(args)?.which()?;
    let reader = Reader::new(host.proc(), host.is_live())
        .map_err(|e| StartError::Failed(format!("cannot open {}: {e}", host.proc().display())))?;
    Ok(Box::new(Fd { reader, sockets }))
}

/// The processes of one namespace together.
#[derive(Debug, Default)]
struct Sum {
    read: u64,
    descriptors: u64,
    sockets: u64,
    skipped: u64,
    unreadable: u64,
    used: Option<f64>,
}

impl Sum {
    fn add(&mut self, reader: &mut Reader, pid: u32, which: Sockets) -> Result<(), Failure> {
        let open = match reader.open(pid, which) {
            Ok(open) => open,
            Err(Failure::Denied) => {
                self.unreadable += 1;
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        self.read += 1;
        self.descriptors += open.descriptors;
        match open.sockets {
            Some(sockets) => self.sockets += sockets,
            None => self.skipped += 1,
        }
        if let Some(limit) = reader.limit(pid)? {
            let used = open.descriptors as f64 / limit.max(1) as f64;
            self.used = Some(self.used.map_or(used, |most| most.max(used)));
        }
        Ok(())
    }

    fn push(&self, id: NsId, which: Sockets, out: &mut Samples) {
        if self.read > 0 {
            out.push(&metrics::OPEN, id, (), self.descriptors);
            if matches!(which, Sockets::UpTo(_)) && self.skipped == 0 {
                out.push(&metrics::OPEN_SOCKETS, id, (), self.sockets);
            }
        }
        if let Some(used) = self.used {
            out.push(&metrics::MAX_USED, id, (), used);
        }
        if matches!(which, Sockets::UpTo(_)) {
            out.push(&metrics::SKIPPED, id, (), self.skipped);
        }
        out.push(&metrics::UNREADABLE, id, (), self.unreadable);
    }
}

impl Probe for Fd {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let mut failures = Failures::default();
        for (id, ns) in view.topology.owners() {
            if ns.processes.is_empty() {
                continue;
            }
            let mut sum = Sum::default();
            let mut first = None;
            for &pid in &*ns.processes {
                if let Err(failure) = sum.add(&mut self.reader, pid, self.sockets) {
                    first = first.or_else(|| failure.error(pid));
                }
            }
            sum.push(id, self.sockets, out);
            if let Some(error) = first {
                failures.add(&ns.identity.pod, error);
            }
        }
        failures.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use netsonde_framework::Value;
    use serde_json::json;

    use super::*;
    use crate::os::testing::Machine;

    /// Gives a process of the frozen tree open descriptors and a limit.
    fn process(machine: &mut Machine, pid: u32, inode: u64, targets: &[&str], limit: &str) {
        machine.process(pid, inode);
        machine.file(
            &format!("{pid}/limits"),
            &format!("Max open files            {limit}                 524288               files     \n"),
        );
        let fd = machine.host.proc().join(format!("{pid}/fd"));
        std::fs::create_dir_all(&fd).expect("writable");
        for (target, number) in targets.iter().zip(0..) {
            symlink(target, fd.join(number.to_string())).expect("writable");
        }
        machine.rescan();
    }

    fn collect(machine: &mut Machine, args: serde_json::Value) -> (Samples, Result<(), CollectError>) {
        let mut probe = machine.start(&SPEC, args);
        machine.collect(&mut *probe, metrics::ALL)
    }

    #[test]
    fn the_processes_of_a_namespace_are_summed_and_the_one_nearest_to_its_limit_is_told() {
        let mut machine = Machine::frozen();
        process(&mut machine, 2, 1002, &["/dev/null", "socket:[1]", "socket:[1]"], "100");
        process(&mut machine, 3, 1002, &["socket:[2]"], "4");
        process(&mut machine, 4, 1002, &["socket:[2]"], "unlimited");
        let (samples, result) = collect(&mut machine, json!({}));
        result.expect("readable");
        let ns = machine.ns(1002);
        assert_eq!(samples.value("fd_open", ns, ""), Some(Value::U64(5)));
        assert_eq!(samples.value("fd_open_sockets", ns, ""), Some(Value::U64(4)));
        assert_eq!(samples.value("fd_max_used_ratio", ns, ""), Some(Value::F64(0.25)));
        assert_eq!(samples.value("fd_processes_skipped", ns, ""), Some(Value::U64(0)));
        assert_eq!(samples.value("fd_processes_unreadable", ns, ""), Some(Value::U64(0)));
    }

    #[test]
    fn a_process_beyond_the_bound_leaves_the_sockets_of_its_namespace_out() {
        let mut machine = Machine::frozen();
        process(&mut machine, 2, 1002, &["socket:[1]", "socket:[2]"], "100");
        process(&mut machine, 3, 1003, &["socket:[3]"], "100");
        let (samples, result) = collect(&mut machine, json!({"max_descriptors_per_process": 1}));
        result.expect("readable");
        let (big, small) = (machine.ns(1002), machine.ns(1003));
        assert_eq!(samples.value("fd_open", big, ""), Some(Value::U64(2)));
        assert_eq!(samples.value("fd_open_sockets", big, ""), None);
        assert_eq!(samples.value("fd_processes_skipped", big, ""), Some(Value::U64(1)));
        assert_eq!(samples.value("fd_open_sockets", small, ""), Some(Value::U64(1)));
    }

    #[test]
    fn without_sockets_only_descriptors_are_told() {
        let mut machine = Machine::frozen();
        process(&mut machine, 2, 1002, &["socket:[1]"], "100");
        let (samples, result) = collect(&mut machine, json!({"sockets": false}));
        result.expect("readable");
        let ns = machine.ns(1002);
        assert_eq!(samples.value("fd_open", ns, ""), Some(Value::U64(1)));
        assert_eq!(samples.value("fd_open_sockets", ns, ""), None);
        assert_eq!(samples.value("fd_processes_skipped", ns, ""), None);
    }

    #[test]
    fn a_process_that_is_gone_costs_nothing_and_a_broken_limit_is_named() {
        let mut machine = Machine::frozen();
        process(&mut machine, 2, 1002, &["socket:[1]"], "many");
        process(&mut machine, 3, 1002, &["socket:[1]"], "10");
        process(&mut machine, 4, 1004, &[], "10");
        machine.remove("4");
        let (samples, result) = collect(&mut machine, json!({}));
        let error = result.expect_err("broken").to_string();
        assert!(error.contains("1 namespaces") && error.contains("/proc/2/limits"), "{error}");
        let (ns, gone) = (machine.ns(1002), machine.ns(1004));
        assert_eq!(samples.value("fd_open", ns, ""), Some(Value::U64(2)));
        assert_eq!(samples.value("fd_max_used_ratio", ns, ""), Some(Value::F64(0.1)));
        assert_eq!(samples.value("fd_open", gone, ""), None);
    }

    #[test]
    fn each_metric_has_one_series_in_a_namespace() {
        let mut machine = Machine::live();
        let (samples, result) = collect(&mut machine, json!({}));
        result.expect("readable");
        for column in samples.columns() {
            let mut seen: Vec<NsId> = column.rows.iter().map(|r| r.ns).collect();
            seen.dedup();
            assert_eq!(seen.len(), column.rows.len(), "{}", column.def.name);
        }
        assert!(samples.series() >= 4);
    }

    #[test]
    fn the_reference_names_are_all_there() {
        let names: Vec<_> = metrics::ALL.iter().filter_map(|m| m.reference.map(|r| r.name)).collect();
        assert_eq!(names, ["kubeskoop_fd_openfd", "kubeskoop_fd_opensocket"]);
    }

    #[test]
    fn settings_have_bounds_and_unknown_ones_are_refused() {
        let machine = Machine::frozen();
        for (args, named) in [
            (json!({"max_descriptors_per_process": 0}), "max_descriptors_per_process"),
            (json!({"max_descriptors_per_process": 1_000_001}), "max_descriptors_per_process"),
            (json!({"socket": true}), "socket"),
            (json!({"sockets": "yes"}), "invalid type"),
        ] {
            let error = (SPEC.start)(&args, &machine.host).err().expect("refused").to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
