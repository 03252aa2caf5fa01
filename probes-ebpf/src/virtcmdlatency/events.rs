//! The event of `virtcmdlatency`: one slow command, with the process that waited for it.

use netsonde_framework::{Event, EventDef, FieldDef, Form, NetnsKey, Severity};

use super::kernel::SlowCommand;
use crate::runtime::Clock;

/// A slow command. The name is that of the reference, as it is spelt there.
pub static SLOW: EventDef = EventDef {
    name: "VIRTCMDEXCUTE",
    help: "A command to a virtio network device took longer than the setting slow.",
    severity: Severity::Warning,
    fields: &[
        FieldDef::new(
            "class",
            Form::Text,
            "The command's class: rx, mac, vlan, announce, mq, guest_offloads, notf_coal, stats or other.",
        ),
        FieldDef::new(
            "command",
            Form::Text,
            "The command, such as promisc, table_set, add, vq_pairs_set or other.",
        ),
        FieldDef::new("latency_ns", Form::Number, "Nanoseconds until its answer."),
        FieldDef::new("ok", Form::Flag, "Whether the device did it."),
        FieldDef::new("cpu", Form::Number, "The CPU that got the answer."),
        FieldDef::new(
            "comm",
            Form::Text,
            "The name of the thread that waited, which may be one of the kernel's (kworker).",
        ),
        FieldDef::new("pid", Form::Number, "That thread's process, as the host numbers it."),
    ],
};

/// One event of it.
pub fn event(slow: SlowCommand, clock: Clock) -> Event {
    Event {
        def: &SLOW,
        time_ns: clock.time_of_day(slow.time),
        netns: (slow.netns != 0).then_some(NetnsKey(slow.netns)),
        flow: None,
        fields: vec![
            ("class", slow.sent.class().text().into()),
            ("command", slow.sent.command().text().into()),
            ("latency_ns", slow.latency_ns.into()),
            ("ok", (!slow.sent.failed).into()),
            ("cpu", slow.cpu.into()),
            ("comm", slow.comm.into()),
            ("pid", slow.pid.into()),
        ],
        suppressed: slow.suppressed,
    }
}
