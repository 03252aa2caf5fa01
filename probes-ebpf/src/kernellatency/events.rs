//! The events of `kernellatency`: one slow packet, with both ends and the time at each place.

use netsonde_framework::{Event, EventDef, FieldDef, Form, NetnsKey, Severity};

use super::kernel::Slow;
use crate::runtime::Clock;

/// A packet that was slow on its way in.
pub static RECEIVE: EventDef = EventDef {
    name: "RXKERNEL_SLOW",
    help: "A packet took longer than the setting slow from its arrival to its socket.",
    severity: Severity::Warning,
    fields: &[
        FieldDef::new("latency_ns", Form::Number, "Nanoseconds from its arrival to its socket."),
        FieldDef::new(
            "backlog_ns",
            Form::Number,
            "Of these, until a CPU took it up; absent where that was less than an eighth of slow, or is unknown.",
        ),
        FieldDef::new(
            "stack_ns",
            Form::Number,
            "Of these, in the protocols and at the socket; absent where backlog_ns is.",
        ),
        FieldDef::new(
            "device_index",
            Form::Number,
            "The network device that it came by, by its number in that namespace.",
        ),
        FieldDef::new(
            "length",
            Form::Number,
            "Bytes of the packet, without the headers that had been taken off.",
        ),
    ],
};

/// A packet that was slow on its way out.
pub static TRANSMIT: EventDef = EventDef {
    name: "TXKERNEL_SLOW",
    help: "A packet took longer than the setting slow from TCP to a device's driver.",
    severity: Severity::Warning,
    fields: &[
        FieldDef::new("latency_ns", Form::Number, "Nanoseconds from TCP to the driver."),
        FieldDef::new(
            "stack_ns",
            Form::Number,
            "Of these, until it was handed to the device's queue; absent where that was less than an eighth of slow, \
             or is unknown.",
        ),
        FieldDef::new("queue_ns", Form::Number, "Of these, in the device's queue; absent where stack_ns is."),
        FieldDef::new(
            "forwarded",
            Form::Flag,
            "Whether the device is of another network namespace than the socket that sent it.",
        ),
        FieldDef::new("device", Form::Text, "The network device, by its name in that namespace."),
        FieldDef::new("device_index", Form::Number, "The network device, by its number in that namespace."),
        FieldDef::new(
            "length",
            Form::Number,
            "Bytes of the packet; several segments may be one packet still.",
        ),
    ],
};

/// One event.
pub fn event(slow: Slow, clock: Clock) -> Event {
    let mut fields = Vec::with_capacity(7);
    fields.push(("latency_ns", slow.latency_ns.into()));
    let (first, second) = if slow.received { ("backlog_ns", "stack_ns") } else { ("stack_ns", "queue_ns") };
    if let Some(first_ns) = slow.first_ns {
        fields.push((first, first_ns.into()));
        fields.push((second, slow.latency_ns.saturating_sub(first_ns).into()));
    }
    if !slow.received {
        fields.push(("forwarded", slow.forwarded.into()));
    }
    if !slow.device.is_empty() {
        fields.push(("device", slow.device.into()));
    }
    if slow.device_index != 0 {
        fields.push(("device_index", slow.device_index.into()));
    }
    if slow.length != 0 {
        fields.push(("length", slow.length.into()));
    }
    Event {
        def: if slow.received { &RECEIVE } else { &TRANSMIT },
        time_ns: clock.time_of_day(slow.time),
        netns: (slow.netns != 0).then_some(NetnsKey(slow.netns)),
        flow: slow.flow,
        fields,
        suppressed: slow.suppressed,
    }
}

#[cfg(test)]
mod tests {
    use netsonde_framework::Field;

    use super::*;

    fn slow() -> Slow {
        Slow {
            netns: 7,
            time: 1,
            suppressed: 0,
            latency_ns: 500,
            first_ns: Some(300),
            flow: None,
            length: 60,
            device_index: 2,
            device: String::new(),
            received: true,
            forwarded: false,
        }
    }

    #[test]
    fn the_places_add_up_to_the_latency() {
        let clock = Clock::now();
        let of = |slow| event(slow, clock).fields.into_iter().take(3).collect::<Vec<_>>();
        let number = Field::Number;
        assert_eq!(
            of(slow()),
            [("latency_ns", number(500)), ("backlog_ns", number(300)), ("stack_ns", number(200))]
        );
        assert_eq!(
            of(Slow { received: false, ..slow() }),
            [("latency_ns", number(500)), ("stack_ns", number(300)), ("queue_ns", number(200))]
        );
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let unknown = Slow { first_ns: None, length: 0, device_index: 0, netns: 0, ..slow() };
        let event = event(unknown, Clock::now());
        assert_eq!(event.fields, [("latency_ns", Field::Number(500))]);
        assert_eq!((event.netns, event.def.name), (None, "RXKERNEL_SLOW"));
    }

    #[test]
    fn every_field_is_in_the_description_and_in_its_order() {
        for received in [true, false] {
            let event = event(Slow { received, device: "eth0".into(), ..slow() }, Clock::now());
            let described: Vec<_> = event.def.fields.iter().map(|field| field.name).collect();
            let mut places = event.fields.iter().filter(|(name, _)| *name != "device" || !received);
            let at = |name: &str| described.iter().position(|d| *d == name);
            assert!(places.clone().all(|(name, _)| at(name).is_some()), "{described:?}");
            assert!(places.by_ref().is_sorted_by_key(|(name, _)| at(name)), "{described:?}");
        }
    }
}
