//! The events of `netiftxlatency`: one packet that was slow to leave, with both ends and the device.

use netsonde_framework::{Event, EventDef, Field, FieldDef, Form, NetnsKey, Severity};

use super::kernel::{Kind, Slow};
use crate::runtime::Clock;

const LATENCY: FieldDef = FieldDef::new("latency_ns", Form::Number, "How long it took, in nanoseconds.");
const DEVICE: FieldDef =
    FieldDef::new("device", Form::Text, "The network device, by its name in that namespace.");
const LENGTH: FieldDef = FieldDef::new("length", Form::Number, "Bytes of the packet, with its link header.");

/// A packet that waited in a queue.
pub static QDISC: EventDef = EventDef {
    name: "TXLAT_QDISC_100MS",
    help: "A packet waited in the queue of a device longer than the setting slow (100 ms by default).",
    severity: Severity::Warning,
    fields: &[
        LATENCY,
        DEVICE,
        FieldDef::new(
            "qdisc",
            Form::Text,
            "The kind of the queue (qdisc): tbf, fq_codel, ... Of several in one device, the outermost.",
        ),
        LENGTH,
    ],
};

/// A packet that a driver was slow to accept.
pub static DRIVER: EventDef = EventDef {
    name: "TXLAT_NETDEV_100MS",
    help: "The driver of a device took longer than the setting slow (100 ms by default) to accept a packet.",
    severity: Severity::Warning,
    fields: &[LATENCY, DEVICE, LENGTH],
};

/// One event of them.
pub fn event(slow: Slow, clock: Clock) -> Event {
    let def = if slow.kind == Kind::Qdisc { &QDISC } else { &DRIVER };
    let mut fields: Vec<(&'static str, Field)> = Vec::with_capacity(def.fields.len());
    fields.push(("latency_ns", slow.latency_ns.into()));
    fields.push(("device", slow.device.into()));
    if !slow.qdisc.is_empty() {
        fields.push(("qdisc", slow.qdisc.into()));
    }
    fields.push(("length", slow.length.into()));
    Event {
        def,
        time_ns: clock.time_of_day(slow.time),
        netns: (slow.netns != 0).then_some(NetnsKey(slow.netns)),
        flow: slow.flow,
        fields,
        suppressed: slow.suppressed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_every_field_that_its_type_declares_in_that_order() {
        let slow = |kind, qdisc: &str| Slow {
            netns: 7,
            time: 0,
            latency_ns: 1,
            suppressed: 3,
            flow: None,
            device: "eth0".into(),
            qdisc: qdisc.into(),
            length: 60,
            kind,
        };
        for (slow, def) in [(slow(Kind::Qdisc, "tbf"), &QDISC), (slow(Kind::Driver, ""), &DRIVER)] {
            let event = event(slow, Clock::now());
            assert_eq!((event.def, event.netns, event.suppressed), (def, Some(NetnsKey(7)), 3));
            let declared: Vec<&str> = def.fields.iter().map(|f| f.name).collect();
            assert_eq!(event.fields.iter().map(|(name, _)| *name).collect::<Vec<_>>(), declared);
        }
    }
}
