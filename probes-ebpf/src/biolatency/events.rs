//! The events of `biolatency`: one slow request, with its process, its disk and where the time went.

use netsonde_framework::{Event, EventDef, FieldDef, Form, NetnsKey, Severity};

use super::kernel::SlowRequest;
use crate::runtime::Clock;

const FIELDS: &[FieldDef] = &[
    FieldDef::new("device", Form::Text, "The disk, by the kernel's name; absent where the request has none."),
    FieldDef::new("operation", Form::Text, "read, write, flush, discard or other."),
    FieldDef::new("bytes", Form::Number, "How much it had to move."),
    FieldDef::new("latency_ns", Form::Number, "Nanoseconds from its making until its end."),
    FieldDef::new(
        "device_ns",
        Form::Number,
        "Of these, those after it was handed to the driver; absent where unknown.",
    ),
    FieldDef::new("failed", Form::Flag, "Whether it ended with an error."),
    FieldDef::new(
        "comm",
        Form::Text,
        "The name of the thread that made it, which may be the kernel's; absent where unknown.",
    ),
    FieldDef::new(
        "pid",
        Form::Number,
        "That thread's process, as the host numbers it; absent where unknown.",
    ),
];

/// A request over the setting `slow` and not over 100 ms.
pub static SLOW: EventDef = EventDef {
    name: "BIOLAT_10MS",
    help: "A request to a disk took longer than the setting slow (10 ms by default), but not longer than 100 ms.",
    severity: Severity::Warning,
    fields: FIELDS,
};

/// A request over 100 ms.
pub static VERY_SLOW: EventDef = EventDef {
    name: "BIOLAT_100MS",
    help: "A request to a disk took longer than 100 ms.",
    severity: Severity::Warning,
    fields: FIELDS,
};

/// One event of them.
pub fn event(slow: SlowRequest, clock: Clock) -> Event {
    let mut fields = Vec::with_capacity(FIELDS.len());
    if !slow.device.is_empty() {
        fields.push(("device", slow.device.into()));
    }
    fields.push(("operation", slow.operation.text().into()));
    fields.push(("bytes", slow.bytes.into()));
    fields.push(("latency_ns", slow.latency_ns.into()));
    if slow.device_ns > 0 {
        fields.push(("device_ns", slow.device_ns.into()));
    }
    fields.push(("failed", slow.failed.into()));
    // Kernel threads have process numbers too; only who is unknown has none.
    if slow.pid > 0 {
        fields.push(("comm", slow.comm.into()));
        fields.push(("pid", slow.pid.into()));
    }
    Event {
        def: if slow.very_slow { &VERY_SLOW } else { &SLOW },
        time_ns: clock.time_of_day(slow.time),
        netns: (slow.netns != 0).then_some(NetnsKey(slow.netns)),
        flow: None,
        fields,
        suppressed: slow.suppressed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::biolatency::metrics::Operation;

    fn slow() -> SlowRequest {
        SlowRequest {
            netns: 0,
            time: 0,
            suppressed: 0,
            latency_ns: 20_000_000,
            device_ns: 0,
            pid: 0,
            bytes: 4096,
            device: String::new(),
            comm: String::new(),
            operation: Operation::Read,
            very_slow: false,
            failed: false,
        }
    }

    fn names(event: &Event) -> Vec<&str> {
        event.fields.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let event = event(slow(), Clock::now());
        assert_eq!((event.def.name, event.netns), ("BIOLAT_10MS", None));
        assert_eq!(names(&event), ["operation", "bytes", "latency_ns", "failed"]);
    }

    #[test]
    fn a_whole_event_has_every_field_that_is_declared_in_that_order() {
        let whole = SlowRequest {
            netns: 7,
            device_ns: 1,
            pid: 9,
            device: "sda".into(),
            comm: "dd".into(),
            very_slow: true,
            ..slow()
        };
        let event = event(whole, Clock::now());
        assert_eq!((event.def.name, event.netns), ("BIOLAT_100MS", Some(NetnsKey(7))));
        let declared: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
        assert_eq!(names(&event), declared);
    }
}
