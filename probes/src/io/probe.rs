//! `io`: system calls and bytes that the processes of each namespace read and wrote.

mod account;
mod metrics;
mod parse;

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use account::{Account, Birth};
use netsonde_framework::probe::Failures;
use netsonde_framework::setting::{NoSettings, schema};
use netsonde_framework::{
    CollectError, Counter, Namespace, NetnsKey, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started,
    View,
};
use parse::{Counters, FIELDS};
use procfs::FromRead as _;
use procfs::process::Stat;
use rustix::fs::{Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

use crate::os::Host;

/// The description of this probe.
pub static SPEC: ProbeSpec<Host> = ProbeSpec {
    info: ProbeInfo {
        name: "io",
        aliases: &[],
        about: "Bytes and system calls that processes read and wrote",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &["CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, to read /proc/PID/io of other users' processes"],
        default_on: true,
        settings: schema::<NoSettings>,
    },
    start,
};

/// In the order of [`parse::NAMES`].
static COUNTERS: [&Counter<()>; FIELDS] = [
    &metrics::READ_SYSCALLS,
    &metrics::WRITE_SYSCALLS,
    &metrics::STORAGE_READ,
    &metrics::STORAGE_WRITE,
    &metrics::STORAGE_CANCELLED,
    &metrics::SYSCALL_READ,
    &metrics::SYSCALL_WRITE,
];

/// Seven names and numbers of at most twenty digits are 240 bytes.
const LARGEST: usize = 1024;

struct Io {
    proc: OwnedFd,
    path: String,
    account: Account,
    /// Processes that may not be read, in the order of the topology.
    unreadable: Vec<u32>,
}

fn start(args: &serde_json::Value, host: &Host) -> Started {
    let NoSettings {} = StartError::settings(args)?;
    let proc =
        rustix::fs::open(host.proc(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| StartError::Failed(format!("cannot open {}: {e}", host.proc().display())))?;
    Ok(Box::new(Io { proc, path: String::new(), account: Account::default(), unreadable: Vec::new() }))
}

/// Why a process has no counters.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// It ended, or this kernel does not keep account of I/O.
    Gone,
    /// Its I/O may not be read.
    Denied,
    Read(Errno),
    Parse(String),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::SRCH => Self::Gone,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            other => Self::Read(other),
        }
    }
}

impl Failure {
    fn error(self, pid: u32) -> Option<CollectError> {
        let what = format!("/proc/{pid}/io");
        match self {
            Self::Gone | Self::Denied => None,
            Self::Read(errno) => Some(CollectError::Read { what, source: errno.into() }),
            Self::Parse(why) => Some(CollectError::Parse { what, why }),
        }
    }
}

/// The counters of a process and the inode number of the file that they were read from.
fn read(proc: impl AsFd, path: &mut String, pid: u32) -> Result<(Counters, u64), Failure> {
    path.clear();
    let _ = write!(path, "{pid}/io");
    let file = openat(proc, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buf = [0; LARGEST];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut buf[..]))?;
    let counters = parse::counters(&buf[..length]).map_err(Failure::Parse)?;
    Ok((counters, fstat(&file)?.st_ino))
}

/// Who the process with this number is. Asked when a process is seen for the first time and when its parent ends.
fn birth(proc: impl AsFd, path: &mut String, pid: u32) -> Option<Birth> {
    path.clear();
    let _ = write!(path, "{pid}/stat");
    let file = openat(proc, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stat = Stat::from_read(File::from(file)).ok()?;
    Some(Birth { started: stat.starttime, parent: u32::try_from(stat.ppid).unwrap_or_default() })
}

/// The inode number of the network namespace that it is in; `None` where that may not be asked.
fn netns_of(proc: impl AsFd, path: &mut String, pid: u32) -> Option<u64> {
    path.clear();
    let _ = write!(path, "{pid}/ns/net");
    let target = readlinkat(proc, path.as_str(), Vec::new()).ok()?;
    target.to_str().ok()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

impl Io {
    fn take(&mut self, ns: &Namespace, pid: u32) -> Result<(), Failure> {
        let netns = ns.key;
        let (counters, inode) = read(&self.proc, &mut self.path, pid)?;
        if !self.account.add(netns, pid, inode, &counters) {
            // Since the last search it may have entered another namespace, as what a container runtime starts does. All
            // of its past would be counted here; the next search knows better.
            if netns_of(&self.proc, &mut self.path, pid).is_some_and(|inode| inode != ns.inode) {
                return Err(Failure::Gone);
            }
            let birth = birth(&self.proc, &mut self.path, pid).ok_or(Failure::Gone)?;
            self.account.meet(netns, pid, inode, birth, &counters);
        }
        Ok(())
    }
}

impl Probe for Io {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let mut failures = Failures::default();
        self.account.begin();
        self.unreadable.clear();
        for (_, ns) in view.topology.owners() {
            let mut unreadable = 0;
            let mut first = None;
            for &pid in &*ns.processes {
                match self.take(ns, pid) {
                    Ok(()) => {}
                    Err(Failure::Denied) => unreadable += 1,
                    Err(failure) => first = first.or_else(|| failure.error(pid)),
                }
            }
            self.unreadable.push(unreadable);
            if let Some(error) = first {
                failures.add(&ns.identity.pod, error);
            }
        }
        let Self { proc, path, account, .. } = self;
        account.settle(|pid| birth(&*proc, path, pid));

        for ((id, ns), unreadable) in view.topology.owners().zip(&self.unreadable) {
            if let Some(total) = self.account.total(ns.key) {
                for (metric, value) in COUNTERS.iter().zip(total) {
                    out.push(*metric, id, (), *value);
                }
            }
            if !ns.processes.is_empty() {
                out.push(&metrics::UNREADABLE, id, (), *unreadable);
            }
        }
        failures.finish()
    }

    fn forget(&mut self, gone: &[NetnsKey]) {
        for key in gone {
            self.account.forget(*key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::sync::Arc;

    use netsonde_framework::{Identity, Limits, Namespace, NsId, Origin, Topology, Value};
    use serde_json::json;

    use super::*;
    use crate::os::testing::Machine;

    fn text(n: u64) -> String {
        format!(
            "rchar: {n}\nwchar: {n}\nsyscr: {n}\nsyscw: {n}\nread_bytes: {n}\nwrite_bytes: {n}\ncancelled_write_bytes: {n}\n"
        )
    }

    #[test]
    fn the_processes_of_a_namespace_are_summed_and_every_counter_has_its_field() {
        let mut machine = Machine::frozen();
        machine.process(2, 1001);
        machine.rescan();
        machine.file(
            "1/io",
            "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\ncancelled_write_bytes: 7\n",
        );
        machine.file("2/io", &text(100));
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        let ns = machine.ns(1001);
        for (name, value) in [
            ("io_syscall_read_bytes", 101),
            ("io_syscall_write_bytes", 102),
            ("io_read_syscalls", 103),
            ("io_write_syscalls", 104),
            ("io_storage_read_bytes", 105),
            ("io_storage_write_bytes", 106),
            ("io_storage_cancelled_write_bytes", 107),
            ("io_processes_unreadable", 0),
        ] {
            assert_eq!(samples.value(name, ns, ""), Some(Value::U64(value)), "{name}");
        }
    }

    #[test]
    fn the_reference_names_are_all_there() {
        let names: Vec<_> = metrics::ALL.iter().filter_map(|m| m.reference.map(|r| r.name)).collect();
        assert_eq!(
            names,
            [
                "kubeskoop_io_ioreadsyscall",
                "kubeskoop_io_iowritesyscall",
                "kubeskoop_io_ioreadbytes",
                "kubeskoop_io_iowritebytes"
            ]
        );
    }

    #[test]
    fn a_process_that_ends_takes_nothing_back() {
        let mut machine = Machine::frozen();
        machine.process(2, 1001);
        machine.rescan();
        machine.file("1/io", &text(10));
        machine.file("2/io", &text(100));
        let mut probe = machine.start(&SPEC, json!({}));
        machine.collect(&mut *probe, metrics::ALL).1.expect("readable");
        machine.remove("2");
        // gone, although the topology still has it
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("a process that is gone is no error");
        assert_eq!(samples.value("io_read_syscalls", machine.ns(1001), ""), Some(Value::U64(110)));
    }

    #[test]
    fn a_broken_file_costs_one_process_and_is_named() {
        let mut machine = Machine::frozen();
        machine.process(2, 1001);
        machine.process(3, 1003);
        machine.rescan();
        machine.file("1/io", "rchar: 1\nwch");
        machine.file("2/io", &text(5));
        machine.file("3/io", &text(6));
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        let error = result.expect_err("cut off").to_string();
        assert!(error.contains("/proc/1/io") && error.contains("line 2"), "{error}");
        assert_eq!(samples.value("io_read_syscalls", machine.ns(1001), ""), Some(Value::U64(5)));
        assert_eq!(samples.value("io_read_syscalls", machine.ns(1003), ""), Some(Value::U64(6)));
    }

    #[test]
    fn a_kernel_without_the_file_gives_no_counters_and_no_error() {
        let mut machine = Machine::frozen();
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("absence is no failure");
        assert_eq!(samples.series(), 1, "only the count of unreadable processes");
    }

    #[test]
    fn a_refusal_is_counted_and_is_no_error() {
        assert_eq!(Failure::from(Errno::ACCESS), Failure::Denied);
        assert_eq!(Failure::from(Errno::SRCH), Failure::Gone);
        assert!(Failure::Denied.error(1).is_none());
        let error = Failure::from(Errno::MFILE).error(7).expect("an error of ours").to_string();
        assert!(error.contains("/proc/7/io"), "{error}");
    }

    #[test]
    fn unknown_settings_are_refused() {
        let machine = Machine::frozen();
        let error = (SPEC.start)(&json!({"threads": true}), &machine.host).err().expect("there are none");
        assert!(error.to_string().contains("threads"), "{error}");
    }

    /// A namespace of chosen processes, so that nothing else on the machine disturbs the sums.
    fn namespace_of(processes: &[u32]) -> Topology {
        let own = crate::os::process::netns_inode(std::path::Path::new("/proc"), std::process::id());
        Topology::new(vec![Arc::new(Namespace {
            key: NetnsKey(9),
            inode: own.expect("its own can be asked"),
            identity: Identity { namespace: "test".into(), pod: "test".into() },
            origin: Origin::Process,
            pod: None,
            processes: processes.into(),
        })])
    }

    #[test]
    fn what_a_child_did_is_counted_once_although_the_kernel_adds_it_to_the_parent() {
        const WRITTEN: u64 = 8 << 20;
        // The writer lives on for a while after its work, so that it is seen; then the shell waits for it.
        let script = "(head -c 8388608 /dev/zero >/dev/null; echo worked; sleep 0.5; :) & \
                      echo pid $!; wait; echo waited; sleep 5; :";
        let mut shell = std::process::Command::new("sh")
            .args(["-c", script])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let mut said = std::io::BufReader::new(shell.stdout.take().expect("piped")).lines();
        let mut two: Vec<String> = said.by_ref().take(2).map(|l| l.expect("text")).collect();
        two.sort();
        let child: u32 = two[0].strip_prefix("pid ").expect("the shell says it").parse().expect("a number");
        let topology = namespace_of(&[shell.id(), child]);

        let machine = Machine::live();
        let mut probe = machine.start(&SPEC, json!({}));
        let mut written = |scrape| {
            let mut out = Samples::new(metrics::ALL, Limits::default());
            probe.collect(&View { topology: &topology, scrape }, &mut out).expect("readable");
            match out.value("io_syscall_write_bytes", NsId(0), "") {
                Some(Value::U64(n)) => n,
                other => panic!("{other:?}"),
            }
        };
        let before = written(1);
        assert!((WRITTEN..2 * WRITTEN).contains(&before), "{before}");
        assert_eq!(said.next().expect("it waits").expect("text"), "waited");
        let inherited = read(std::fs::File::open("/proc").expect("there"), &mut String::new(), shell.id());
        assert!(inherited.expect("readable").0[6] >= WRITTEN, "the kernel adds a child to its parent");
        let after = written(2);
        assert!((before..2 * WRITTEN).contains(&after), "{before} and then {after}");
        shell.kill().expect("ours");
        shell.wait().expect("ended");
    }

    #[test]
    fn this_machine_is_read() {
        let mut machine = Machine::live();
        let mut probe = machine.start(&SPEC, json!({}));
        let (samples, result) = machine.collect(&mut *probe, metrics::ALL);
        result.expect("readable");
        assert!(samples.series() >= 8);
    }
}
