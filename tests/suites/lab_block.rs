//! Disks that are slow by a known amount, on loop devices that stand on each other: the right process and pod, the right
//! bucket, and the kernel's own count that agrees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netsonde_tests::events::{events, number, text};
use netsonde_tests::{Agent, Netns, Page, Running, needs, needs_programs, needs_root, shell, until};
use serde_json::Value;

const HOST: &str = "hostNetwork";
const MIB: usize = 1 << 20;

/// A loop device, detached on drop.
struct Loop {
    path: String,
}

impl Loop {
    /// Over a file or a device, without a cache of its own where that can be.
    fn over(below: &Path, direct: bool) -> Self {
        let mut command = Command::new("losetup");
        command.args(["--find", "--show"]);
        if direct {
            command.arg("--direct-io=on");
        }
        Self { path: shell::run(command.arg(below)).trim().to_owned() }
    }

    fn name(&self) -> &str {
        self.path.trim_start_matches("/dev/")
    }

    /// `7:0`.
    fn number(&self) -> String {
        let path = format!("/sys/block/{}/dev", self.name());
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = shell::output(Command::new("losetup").args(["--detach", &self.path]));
    }
}

/// A file for a loop device, in a folder that goes with it.
fn image() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let file = folder.path().join("image");
    fs::write(&file, vec![7; 4 * MIB]).expect("there is room for four megabytes");
    (folder, file)
}

/// What /proc/diskstats says of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stats {
    reads: u64,
    reading_ms: u64,
    writes: u64,
    flushes: u64,
}

fn stats(disk: &Loop) -> Stats {
    let all = fs::read_to_string("/proc/diskstats").expect("the kernel has disks");
    let words = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let words = words.into_iter().find(|words| words.get(2) == Some(&disk.name()));
    let words = words.unwrap_or_else(|| panic!("no {} in {all}", disk.name()));
    let field = |at: usize| words.get(at + 2).and_then(|w| w.parse().ok()).expect("a number");
    Stats { reads: field(1), reading_ms: field(4), writes: field(5), flushes: field(16) }
}

/// A page and what /proc/diskstats says of a disk at that time: who looks for file systems on a new disk has ended.
fn settled(agent: &Agent, disk: &Loop) -> (Page, Stats) {
    until("the disk is quiet", Duration::from_secs(10), || {
        let before = stats(disk);
        let page = agent.scrape();
        (stats(disk) == before).then_some((page, before))
    })
}

/// How many requests the page has of a disk and operation; a disk that did none has no series.
fn requests(page: &Page, disk: &Loop, operation: &str) -> u64 {
    let labels = [("device", disk.name()), ("operation", operation)];
    page.pod(HOST).total("netsonde_biolatency_request_seconds_count", &labels)
}

/// A control group whose reads of one disk are limited.
struct Slowed {
    folder: PathBuf,
    disk: String,
    v2: bool,
}

impl Slowed {
    /// `None` where the kernel limits nobody.
    fn new(disk: &Loop) -> Option<Self> {
        let v1 = Path::new("/sys/fs/cgroup/blkio");
        let root = Path::new("/sys/fs/cgroup");
        let v2 = !v1.exists();
        if v2 {
            let controllers = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
            controllers.split_whitespace().find(|word| *word == "io")?;
            fs::write(root.join("cgroup.subtree_control"), "+io").ok()?;
        }
        let folder = if v2 { root } else { v1 }.join(format!("nst{}-{}", std::process::id(), disk.name()));
        fs::create_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let slowed = Self { folder, disk: disk.number(), v2 };
        slowed.folder.join(slowed.file()).exists().then_some(slowed)
    }

    fn file(&self) -> &'static str {
        if self.v2 { "io.max" } else { "blkio.throttle.read_iops_device" }
    }

    fn limit(&self, per_second: u32) {
        let file = self.folder.join(self.file());
        let limit = if self.v2 { format!("riops={per_second}") } else { per_second.to_string() };
        fs::write(&file, format!("{} {limit}", self.disk))
            .unwrap_or_else(|e| panic!("{} for {}: {e}", file.display(), self.disk));
    }

    /// Reads pages from a disk, in a namespace and this group, one after the other and past every cache: the process
    /// and how long it took.
    fn read(&self, ns: &Netns, disk: &Loop, pages: u32) -> (u32, Duration) {
        let line = format!(
            "echo $$ >{}/cgroup.procs && exec dd if={} of=/dev/null bs=4k count={pages} iflag=direct",
            self.folder.display(),
            disk.path
        );
        let mut command = ns.command("sh");
        let start = Instant::now();
        let mut reader = Running::start(command.args(["-c", &line]).stderr(Stdio::null()));
        let ended = reader.wait(Duration::from_secs(30)).expect("a bounded read ends");
        assert!(ended.success(), "{line}: {ended}");
        (reader.pid(), start.elapsed())
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

#[test]
fn every_request_to_a_disk_is_counted_once_under_its_operation() {
    needs_root!();
    needs_programs!("losetup", "dd");
    let (_folder, file) = image();
    let disk = Loop::over(&file, false);
    let agent = Agent::start("node_name: lab\nprobes: [biolatency]\n");
    let (before, first) = settled(&agent, &disk);
    let dd = |words: &str| {
        let line = format!("dd {words} bs=64k").replace("DISK", &disk.path);
        shell::run(&mut shell::words(&line));
    };
    dd("if=DISK of=/dev/null count=20 iflag=direct");
    // Seven writes, then one that has no data and asks for a flush, which is a request of its own.
    dd("if=/dev/zero of=DISK count=7 oflag=direct conv=fsync,notrunc");
    // Five writes that end only when their data is safe: their requests end twice, the flushes between are not theirs.
    dd("if=/dev/zero of=DISK count=5 oflag=direct,dsync conv=notrunc");
    let (after, last) = settled(&agent, &disk);
    let grew = |operation| requests(&after, &disk, operation) - requests(&before, &disk, operation);
    assert_eq!(last.reads - first.reads, 20);
    assert_eq!(grew("read"), 20);
    assert!(last.writes - first.writes >= 12, "{first:?} {last:?}");
    assert_eq!(grew("write"), last.writes - first.writes);
    assert!(last.flushes - first.flushes >= 6, "{first:?} {last:?}");
    assert_eq!(grew("flush"), last.flushes - first.flushes);
    assert_eq!(grew("discard") + grew("other"), 0);
    assert_eq!(after.pod(HOST).count("netsonde_biolatency_uncounted_total", &[]), 0);
    agent.stop();
}

const SECOND: f64 = 1e9;

/// How many requests of a disk each bucket holds, with its upper bound in nanoseconds, not cumulative.
fn buckets(page: &Page, disk: &Loop) -> Vec<(f64, u64)> {
    let labels = [("device", disk.name()), ("operation", "read")];
    let mut below = 0;
    let samples = page.all("netsonde_biolatency_request_seconds_bucket", &labels);
    let each = samples.map(|sample| {
        let count: u64 = format!("{}", sample.value).parse().expect("a count");
        let bound = match sample.labels["le"].as_str() {
            "+Inf" => f64::INFINITY,
            bound => bound.parse::<f64>().expect("a bound") * SECOND,
        };
        (bound, count - std::mem::replace(&mut below, count))
    });
    each.collect()
}

/// Holds the buckets that only slow requests can be in against the events that told of each.
fn assert_buckets(page: &Page, disk: &Loop, told: &[&Value]) {
    let mut lower = 0.0;
    let mut seen = 0;
    for (bound, count) in buckets(page, disk) {
        if lower >= 10e6 {
            #[expect(clippy::cast_precision_loss, reason = "it is far below 2^52")]
            let inside = |event: &&&Value| {
                let latency = number(event, "latency_ns") as f64;
                latency > lower && latency <= bound
            };
            assert_eq!(count, told.iter().filter(inside).count() as u64, "up to {bound} ns: {told:#?}");
            seen += count;
        }
        lower = bound;
    }
    assert!(seen >= 3, "{seen} requests in slow buckets");
}

#[test]
fn slow_reads_are_told_with_their_process_and_pod_and_those_of_kernel_threads_with_no_pod() {
    needs_root!();
    needs_programs!("losetup", "dd", "sh");
    let (_folder, file) = image();
    // What a limit holds back at the bottom is slow for the two above: for the middle one, whose requests the kernel
    // makes, and for the top one, which the process reads.
    let bottom = Loop::over(&file, false);
    let middle = Loop::over(Path::new(&bottom.path), true);
    let top = Loop::over(Path::new(&middle.path), true);
    let slowed = needs!(Slowed::new(&bottom), "the kernel limits no disk for a control group");
    let (pod, bystander) = (Netns::new("disk"), Netns::new("bystander"));
    let agent = Agent::start("node_name: lab\nprobes: [biolatency]\n");
    agent.find(pod.name());
    agent.find(bystander.name());
    let (_, first) = settled(&agent, &top);

    slowed.limit(5);
    let (reader, mut elapsed) = slowed.read(&pod, &top, 4);
    slowed.limit(25);
    let (second, more) = slowed.read(&pod, &top, 6);
    elapsed += more;

    let (page, last) = settled(&agent, &top);
    assert_eq!(last.reads - first.reads, 10);
    let of_pod = page.pod(pod.name());
    let slow = of_pod.count("netsonde_biolatency_slow_requests_total", &[]);
    let query = format!("last=1000&probe=biolatency&pod={}", pod.name());
    let told = until("every slow request of the pod is told", Duration::from_secs(3), || {
        let told = events(&agent, &query);
        (told.len() as u64 == slow).then_some(told)
    });
    // The loader of the reader may have been slow on another disk.
    let on_top: Vec<&Value> = told.iter().filter(|event| text(event, "device") == top.name()).collect();
    assert!(on_top.len() >= 4, "{told:#?}");
    let mut sum = 0;
    for event in &on_top {
        let latency = number(event, "latency_ns");
        sum += latency;
        let kind = if latency > 100_000_000 { "BIOLAT_100MS" } else { "BIOLAT_10MS" };
        assert_eq!(text(event, "type"), kind, "{event:#}");
        assert!(latency > 10_000_000, "{event:#}");
        let device = number(event, "device_ns");
        assert!(device > 0 && device <= latency, "{event:#}");
        assert_eq!((text(event, "operation"), number(event, "bytes")), ("read", 4096));
        assert_eq!((text(event, "comm"), &event["failed"]), ("dd", &Value::Bool(false)));
        assert!([reader, second].map(u64::from).contains(&number(event, "pid")), "{event:#}");
        assert_eq!(text(event, "namespace"), "netns");
    }
    assert!(Duration::from_nanos(sum) <= elapsed, "one after the other, so no longer than {elapsed:?}");
    let very_slow = told.iter().filter(|event| text(event, "type") == "BIOLAT_100MS").count();
    assert!(very_slow >= 2, "{told:#?}");
    assert_eq!(of_pod.count("netsonde_biolatency_over_100ms_requests_total", &[]), very_slow as u64);
    assert_eq!(page.pod(bystander.name()).count("netsonde_biolatency_slow_requests_total", &[]), 0);
    assert_buckets(&page, &top, &on_top);

    let labels = [("device", top.name()), ("operation", "read")];
    let seconds = page.pod(HOST).value("netsonde_biolatency_request_seconds_sum", &labels);
    #[expect(clippy::cast_precision_loss, reason = "it is far below 2^52")]
    let truth = (last.reading_ms - first.reading_ms) as f64 / 1e3;
    assert!((seconds - truth).abs() < 0.02 + truth / 10.0, "{seconds} s, /proc/diskstats says {truth} s");

    // The same reads, one floor below: a kernel thread made them, and who that is for nobody knows.
    let all = events(&agent, "last=1000&probe=biolatency");
    let on_middle: Vec<&Value> = all.iter().filter(|event| text(event, "device") == middle.name()).collect();
    assert!(on_middle.len() >= 4, "{all:#?}");
    for event in &on_middle {
        assert!(text(event, "comm").starts_with("kworker/"), "{event:#}");
        assert!(number(event, "pid") > 0, "{event:#}");
        assert_eq!((event.get("pod"), event.get("namespace")), (None, None), "{event:#}");
    }
    let unattributed = page.pod(HOST).count("netsonde_biolatency_unattributed_total", &[]);
    assert!(unattributed >= on_middle.len() as u64, "{unattributed}");
    agent.stop();
}
