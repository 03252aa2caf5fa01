//! The events of `net_softirq`: a softirq of the network that waited or ran for long, with what the CPU did meanwhile.

use netsonde_framework::{Event, EventDef, Field, FieldDef, Form, NetnsKey, Severity};

use super::kernel::{Slow, softirq_name};
use super::metrics::Stage;
use crate::runtime::Clock;

/// Nanoseconds beyond which an event is of the `_100MS` types.
const VERY_SLOW: u64 = 100_000_000;

const CPU: FieldDef = FieldDef::new("cpu", Form::Number, "The CPU, by its number in the kernel.");
const VECTOR: FieldDef = FieldDef::new("vector", Form::Text, "net_rx or net_tx.");
const KSOFTIRQD: FieldDef =
    FieldDef::new("ksoftirqd", Form::Flag, "Whether it was left to the kernel thread ksoftirqd.");

const SCHEDULING: &[FieldDef] = &[
    CPU,
    VECTOR,
    FieldDef::new("latency_ns", Form::Number, "Nanoseconds from the raise until the softirq was entered."),
    FieldDef::new(
        "meanwhile",
        Form::Text,
        "What the CPU did for at least half of that time: process, kernel_thread, idle, softirq or interrupt; absent \
         where it was nothing of these alone.",
    ),
    FieldDef::new(
        "pid",
        Form::Number,
        "The process, or the kernel thread, that ran longest meanwhile, as the host numbers it.",
    ),
    FieldDef::new("comm", Form::Text, "The name of that thread."),
    FieldDef::new("task_ns", Form::Number, "How long it ran meanwhile, with the interrupts that it met."),
    FieldDef::new("softirq", Form::Text, "The softirq that ran longest meanwhile, as in /proc/softirqs."),
    FieldDef::new("softirq_ns", Form::Number, "How long it ran meanwhile."),
    FieldDef::new(
        "interrupt",
        Form::Text,
        "The handler of the interrupt that ran longest meanwhile, as in /proc/interrupts.",
    ),
    FieldDef::new("irq", Form::Number, "The number of that interrupt."),
    FieldDef::new("interrupt_ns", Form::Number, "How long it ran meanwhile."),
    KSOFTIRQD,
    FieldDef::new(
        "ksoftirqd_wait_ns",
        Form::Number,
        "How long after the raise ksoftirqd got the CPU; absent where it had it already.",
    ),
];

const EXECUTION: &[FieldDef] = &[
    CPU,
    VECTOR,
    FieldDef::new("latency_ns", Form::Number, "Nanoseconds from the softirq's entry until its exit."),
    FieldDef::new(
        "pid",
        Form::Number,
        "The process, or the kernel thread, that had to wait for it, as the host numbers it.",
    ),
    FieldDef::new("comm", Form::Text, "The name of that thread."),
    KSOFTIRQD,
    FieldDef::new(
        "device",
        Form::Text,
        "The device that was polled last, by its name in its namespace; absent for the backlog of the CPU.",
    ),
    FieldDef::new("work", Form::Number, "How many packets that poll took; as many as `budget` means load."),
    FieldDef::new("budget", Form::Number, "How many packets that poll could have taken."),
    FieldDef::new("polls", Form::Number, "How many polls there were in this run."),
    FieldDef::new("packets", Form::Number, "How many packets all polls of this run took."),
];

/// A wait over the setting `slow` and not over 100 ms.
pub static SCHED_SLOW: EventDef = EventDef {
    name: "NETSOFTIRQ_SCHED_SLOW",
    help: "A softirq of the network waited for its CPU longer than the setting slow, but not longer than 100 ms.",
    severity: Severity::Warning,
    fields: SCHEDULING,
};

/// A wait over 100 ms.
pub static SCHED_100MS: EventDef = EventDef {
    name: "NETSOFTIRQ_SCHED_100MS",
    help: "A softirq of the network waited for its CPU longer than 100 ms.",
    severity: Severity::Warning,
    fields: SCHEDULING,
};

/// A run over the setting `slow` and not over 100 ms.
pub static EXCUTE_SLOW: EventDef = EventDef {
    name: "NETSOFTIRQ_EXCUTE_SLOW",
    help: "A softirq of the network ran longer than the setting slow, but not longer than 100 ms.",
    severity: Severity::Warning,
    fields: EXECUTION,
};

/// A run over 100 ms.
pub static EXCUTE_100MS: EventDef = EventDef {
    name: "NETSOFTIRQ_EXCUTE_100MS",
    help: "A softirq of the network ran longer than 100 ms.",
    severity: Severity::Warning,
    fields: EXECUTION,
};

/// What a CPU did for at least half of the time that a softirq waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Process,
    KernelThread,
    Idle,
    Softirq,
    Interrupt,
}

impl Meanwhile {
    /// Softirqs and interrupts run in the time of a task, so they are asked first.
    fn of(slow: &Slow) -> Option<Self> {
        let most = |ns: u64| ns > 0 && ns >= slow.latency_ns / 2;
        match slow {
            slow if slow.stage == Stage::Execution => None,
            slow if most(slow.softirq_ns) => Some(Self::Softirq),
            slow if most(slow.irq_ns) => Some(Self::Interrupt),
            slow if !most(slow.task_ns) => None,
            slow if slow.pid == 0 => Some(Self::Idle),
            slow if slow.kernel_thread => Some(Self::KernelThread),
            _ => Some(Self::Process),
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::KernelThread => "kernel_thread",
            Self::Idle => "idle",
            Self::Softirq => "softirq",
            Self::Interrupt => "interrupt",
        }
    }
}

/// One event of them. It is the process's where a process held the softirq up, else the host's.
pub fn event(slow: Slow, clock: Clock) -> Event {
    let meanwhile = Meanwhile::of(&slow);
    let netns = if meanwhile == Some(Meanwhile::Process) { slow.netns } else { slow.host };
    let very_slow = slow.latency_ns > VERY_SLOW;
    let def = match (slow.stage, very_slow) {
        (Stage::Scheduling, false) => &SCHED_SLOW,
        (Stage::Scheduling, true) => &SCHED_100MS,
        (Stage::Execution, false) => &EXCUTE_SLOW,
        (Stage::Execution, true) => &EXCUTE_100MS,
    };
    let mut fields: Vec<(&'static str, Field)> = Vec::with_capacity(def.fields.len());
    fields.push(("cpu", slow.cpu.into()));
    fields.push(("vector", slow.vector.text().into()));
    fields.push(("latency_ns", slow.latency_ns.into()));
    fields.extend(meanwhile.map(|meanwhile| ("meanwhile", meanwhile.text().into())));
    // The idle task is nobody.
    if slow.pid > 0 {
        fields.push(("pid", slow.pid.into()));
        fields.push(("comm", slow.comm.into()));
    }
    if slow.task_ns > 0 {
        fields.push(("task_ns", slow.task_ns.into()));
    }
    if slow.softirq_ns > 0 {
        fields.extend(softirq_name(slow.softirq).map(|name| ("softirq", name.into())));
        fields.push(("softirq_ns", slow.softirq_ns.into()));
    }
    if slow.irq_ns > 0 {
        fields.push(("interrupt", slow.irq_name.into()));
        fields.push(("irq", slow.irq.into()));
        fields.push(("interrupt_ns", slow.irq_ns.into()));
    }
    fields.push(("ksoftirqd", slow.ksoftirqd.into()));
    if slow.ksoftirqd_ns > 0 {
        fields.push(("ksoftirqd_wait_ns", slow.ksoftirqd_ns.into()));
    }
    if !slow.device.is_empty() {
        fields.push(("device", slow.device.into()));
    }
    if slow.polls > 0 {
        fields.push(("work", slow.work.into()));
        fields.push(("budget", slow.budget.into()));
        fields.push(("polls", slow.polls.into()));
        fields.push(("packets", slow.packets.into()));
    }
    Event {
        def,
        time_ns: clock.time_of_day(slow.time),
        netns: (netns != 0).then_some(NetnsKey(netns)),
        flow: None,
        fields,
        suppressed: slow.suppressed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Record;

    /// Nothing is known of it.
    fn bare() -> Slow {
        Slow::read(Record(&[]))
    }

    /// A wait of 20 ms for which a process of namespace 7 is to blame.
    fn wait() -> Slow {
        Slow {
            netns: 7,
            host: 1,
            latency_ns: 20_000_000,
            task_ns: 19_000_000,
            pid: 9,
            comm: "busy".into(),
            ..bare()
        }
    }

    fn names(event: &Event) -> Vec<&str> {
        event.fields.iter().map(|(name, _)| *name).collect()
    }

    fn told(slow: Slow) -> (Option<u64>, Option<Field>) {
        let event = event(slow, Clock::now());
        let meanwhile = event.fields.iter().find(|(name, _)| *name == "meanwhile");
        (event.netns.map(|key| key.0), meanwhile.map(|(_, value)| value.clone()))
    }

    #[test]
    fn only_a_process_that_held_it_up_makes_the_event_its_pods() {
        assert_eq!(told(wait()), (Some(7), Some("process".into())));
        assert_eq!(told(Slow { kernel_thread: true, ..wait() }), (Some(1), Some("kernel_thread".into())));
        assert_eq!(told(Slow { pid: 0, ..wait() }), (Some(1), Some("idle".into())));
        assert_eq!(told(Slow { softirq_ns: 10_000_000, ..wait() }), (Some(1), Some("softirq".into())));
        assert_eq!(told(Slow { irq_ns: 10_000_000, ..wait() }), (Some(1), Some("interrupt".into())));
        assert_eq!(told(Slow { task_ns: 9_000_000, ..wait() }), (Some(1), None), "it ran too short a time");
        assert_eq!(
            told(Slow { stage: Stage::Execution, ..wait() }),
            (Some(1), None),
            "it was held up itself"
        );
        assert_eq!(told(Slow { netns: 0, ..wait() }), (None, Some("process".into())), "it is ending");
    }

    #[test]
    fn the_type_is_that_of_the_stage_and_the_length() {
        let name = |stage, latency_ns| event(Slow { latency_ns, stage, ..wait() }, Clock::now()).def.name;
        assert_eq!(name(Stage::Scheduling, VERY_SLOW), "NETSOFTIRQ_SCHED_SLOW");
        assert_eq!(name(Stage::Scheduling, VERY_SLOW + 1), "NETSOFTIRQ_SCHED_100MS");
        assert_eq!(name(Stage::Execution, VERY_SLOW), "NETSOFTIRQ_EXCUTE_SLOW");
        assert_eq!(name(Stage::Execution, VERY_SLOW + 1), "NETSOFTIRQ_EXCUTE_100MS");
    }

    #[test]
    fn a_whole_event_has_every_field_that_is_declared_in_that_order() {
        let declared = |fields: &'static [FieldDef]| fields.iter().map(|f| f.name).collect::<Vec<_>>();
        let whole = Slow { softirq_ns: 1, softirq: 1, irq_ns: 1, ksoftirqd: true, ksoftirqd_ns: 1, ..wait() };
        assert_eq!(names(&event(whole, Clock::now())), declared(SCHEDULING));
        let whole =
            Slow { stage: Stage::Execution, task_ns: 0, device: "eth0".into(), work: 3, polls: 1, ..wait() };
        assert_eq!(names(&event(whole, Clock::now())), declared(EXECUTION));
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let slow = Slow { latency_ns: 1, ..bare() };
        assert_eq!(names(&event(slow, Clock::now())), ["cpu", "vector", "latency_ns", "ksoftirqd"]);
    }
}
