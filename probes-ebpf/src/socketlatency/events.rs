//! The events of `socketlatency`: one long wait, with both ends of the socket and the program that read or wrote.

use netsonde_framework::{Event, EventDef, FieldDef, Form, NetnsKey, Severity};

use super::kernel::{Slow, Stage};
use crate::runtime::Clock;

/// A program let data wait.
pub static READ: EventDef = EventDef {
    name: "SOCKETLAT_READSLOW",
    help: "A program read data that had waited in its socket longer than the setting slow.",
    severity: Severity::Warning,
    fields: &[
        FieldDef::new(
            "latency_ns",
            Form::Number,
            "Nanoseconds from the arrival of the data at the socket to the read.",
        ),
        FieldDef::new("comm", Form::Text, "The name of the thread that read."),
        FieldDef::new("pid", Form::Number, "Its process, as the host numbers it."),
    ],
};

/// The network, or the other end, let written data wait.
pub static WRITE: EventDef = EventDef {
    name: "SOCKETLAT_SENDSLOW",
    help: "Data that a program had written waited in its socket longer than the setting slow before it was sent.",
    severity: Severity::Warning,
    fields: &[
        FieldDef::new(
            "latency_ns",
            Form::Number,
            "Nanoseconds from the end of the write to the hand-over of the last of its data to a device's queue.",
        ),
        FieldDef::new(
            "comm",
            Form::Text,
            "The name of the thread whose write was the last one that had to wait.",
        ),
        FieldDef::new("pid", Form::Number, "Its process, as the host numbers it."),
    ],
};

/// One event.
pub fn event(slow: Slow, clock: Clock) -> Event {
    Event {
        def: match slow.stage {
            Stage::Read => &READ,
            Stage::Write => &WRITE,
        },
        time_ns: clock.time_of_day(slow.time),
        netns: (slow.netns != 0).then_some(NetnsKey(slow.netns)),
        flow: slow.flow,
        fields: vec![
            ("latency_ns", slow.latency_ns.into()),
            ("comm", slow.comm.into()),
            ("pid", slow.pid.into()),
        ],
        suppressed: slow.suppressed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_in_the_description_and_in_its_order() {
        for (stage, name) in [(Stage::Read, "SOCKETLAT_READSLOW"), (Stage::Write, "SOCKETLAT_SENDSLOW")] {
            let slow = Slow {
                netns: 0,
                time: 1,
                suppressed: 2,
                latency_ns: 3,
                flow: None,
                pid: 4,
                stage,
                comm: "x".into(),
            };
            let event = event(slow, Clock::now());
            assert_eq!((event.def.name, event.netns, event.suppressed), (name, None, 2));
            let described = event.def.fields.iter().map(|field| field.name);
            assert!(described.eq(event.fields.iter().map(|(name, _)| *name)));
        }
    }
}
