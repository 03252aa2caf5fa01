//! What the kernel side writes: the entries of its histograms, and `struct slow`, its event, field by field.

use super::metrics::{Stage, Vector};
use crate::runtime::Record;

/// The place of a histogram in the map LATENCIES.
pub fn place(vector: Vector, stage: Stage) -> u32 {
    index(vector) * 2 + u32::from(stage == Stage::Execution)
}

/// The place of a vector in the map UNMATCHED.
pub fn index(vector: Vector) -> u32 {
    u32::from(vector == Vector::NetRx)
}

/// The name of a vector in /proc/softirqs, in small letters.
pub fn softirq_name(vector: u32) -> Option<&'static str> {
    const NAMES: [&str; 10] =
        ["hi", "timer", "net_tx", "net_rx", "block", "irq_poll", "tasklet", "sched", "hrtimer", "rcu"];
    NAMES.get(usize::try_from(vector).ok()?).copied()
}

/// One slow softirq. What is unknown is 0 or empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slow {
    /// That of the task.
    pub netns: u64,
    /// The host's.
    pub host: u64,
    /// Monotonic, nanoseconds.
    pub time: u64,
    pub latency_ns: u64,
    pub suppressed: u64,
    /// How long the task ran while the softirq waited.
    pub task_ns: u64,
    /// How long the other softirq ran meanwhile.
    pub softirq_ns: u64,
    /// How long the interrupt's handler ran meanwhile.
    pub irq_ns: u64,
    /// How long ksoftirqd waited for the CPU.
    pub ksoftirqd_ns: u64,
    pub cpu: u32,
    pub pid: u32,
    /// A vector.
    pub softirq: u32,
    pub irq: u32,
    pub work: u32,
    pub budget: u32,
    pub polls: u32,
    pub packets: u32,
    pub comm: String,
    pub irq_name: String,
    pub device: String,
    pub vector: Vector,
    pub stage: Stage,
    pub kernel_thread: bool,
    pub ksoftirqd: bool,
}

impl Slow {
    /// Reads an event.
    pub fn read(record: Record<'_>) -> Self {
        const NET_RX: u8 = 3;
        Self {
            netns: record.u64(0),
            host: record.u64(8),
            time: record.u64(16),
            latency_ns: record.u64(24),
            suppressed: record.u64(32),
            task_ns: record.u64(40),
            softirq_ns: record.u64(48),
            irq_ns: record.u64(56),
            ksoftirqd_ns: record.u64(64),
            cpu: record.u32(72),
            pid: record.u32(76),
            softirq: record.u32(80),
            irq: record.u32(84),
            work: record.u32(88),
            budget: record.u32(92),
            polls: record.u32(96),
            packets: record.u32(100),
            comm: record.text::<16>(104),
            irq_name: record.text::<16>(120),
            device: record.text::<16>(136),
            vector: if record.u8(152) == NET_RX { Vector::NetRx } else { Vector::NetTx },
            stage: if record.u8(153) == 1 { Stage::Execution } else { Stage::Scheduling },
            kernel_thread: record.u8(154) == 1,
            ksoftirqd: record.u8(155) == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{assert_layout, types};

    #[test]
    fn the_event_is_laid_out_as_in_the_kernel_side() {
        let members = &[
            ("netns", 0),
            ("host", 8),
            ("time", 16),
            ("latency", 24),
            ("suppressed", 32),
            ("task_ns", 40),
            ("softirq_ns", 48),
            ("irq_ns", 56),
            ("ksoftirqd_ns", 64),
            ("cpu", 72),
            ("pid", 76),
            ("softirq", 80),
            ("irq", 84),
            ("work", 88),
            ("budget", 92),
            ("polls", 96),
            ("packets", 100),
            ("comm", 104),
            ("irq_name", 120),
            ("device", 136),
            ("vector", 152),
            ("stage", 153),
            ("kernel_thread", 154),
            ("ksoftirqd", 155),
            ("unused", 156),
        ];
        assert_layout(types!("net_softirq"), "slow", members, 160);
    }

    #[test]
    fn every_histogram_has_a_place_of_its_own() {
        let places: Vec<u32> = Vector::ALL
            .iter()
            .flat_map(|vector| Stage::ALL.iter().map(|stage| place(*vector, *stage)))
            .collect();
        assert_eq!(places, [0, 1, 2, 3]);
    }

    #[test]
    fn softirqs_are_called_as_the_kernel_lists_them() {
        let text = std::fs::read_to_string("/proc/softirqs").expect("every kernel lists its softirqs");
        let listed: Vec<String> = text
            .lines()
            .filter_map(|line| Some(line.split_once(':')?.0.trim().to_ascii_lowercase()))
            .collect();
        let named: Vec<&str> = (0..).map_while(softirq_name).collect();
        assert_eq!(named, listed);
    }
}
