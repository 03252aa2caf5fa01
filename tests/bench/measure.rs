//! CPU and memory of a process, from /proc.

use std::fs;
use std::time::Duration;

/// The unit of times in /proc/PID/stat: USER_HZ, 100 on every architecture that netsonde is built for.
pub const TICKS_A_SECOND: u64 = 100;

/// CPU time of a process so far, user and system, of all its threads, those that ended too.
pub fn cpu(pid: u32) -> Duration {
    let stat = read(&format!("/proc/{pid}/stat"));
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    // utime and stime are fields 14 and 15; the command was the second.
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_nanos(ticks * 1_000_000_000 / TICKS_A_SECOND)
}

/// CPU time of the whole machine so far, of all CPUs and whoever it was for.
pub fn machine() -> Duration {
    let used: u64 = cpus().iter().map(|cpu| cpu.used).sum();
    Duration::from_nanos(used * 1_000_000_000 / TICKS_A_SECOND)
}

/// What a CPU did so far.
#[derive(Debug, Clone, Copy)]
pub struct Ticks {
    /// For whomever it was.
    pub used: u64,
    pub idle: u64,
}

/// What each CPU did so far, in their order.
pub fn cpus() -> Vec<Ticks> {
    let stat = read("/proc/stat");
    let lines = stat.lines().skip(1).take_while(|line| line.starts_with("cpu"));
    let ticks = |line: &str| {
        // user nice system idle iowait irq softirq steal
        let fields = line.split_whitespace().skip(1).take(8);
        let fields: Vec<u64> = fields.map(|field| field.parse().unwrap_or_default()).collect();
        let idle = fields.iter().skip(3).take(2).sum();
        Ticks { used: fields.iter().sum::<u64>() - idle, idle }
    };
    lines.map(ticks).collect()
}

/// CPU time since it was `then`.
pub fn cpu_since(pid: u32, then: Duration) -> Duration {
    cpu(pid).saturating_sub(then)
}

/// Bytes of memory in RAM: now, and the most it ever was.
pub fn memory(pid: u32) -> (u64, u64) {
    let status = read(&format!("/proc/{pid}/status"));
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kb| kb * 1024)
    };
    (of("VmRSS:").unwrap_or_default(), of("VmHWM:").unwrap_or_default())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Megabytes.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
