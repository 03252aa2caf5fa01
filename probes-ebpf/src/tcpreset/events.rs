//! The events of `tcpreset`: one reset, with both ends, the reason, the socket's state, and who closed the connection.

use std::sync::Arc;

use netsonde_framework::{Event, EventDef, FieldDef, Form, NetnsKey, Severity};

use super::kernel::Told;
use super::metrics::Kind;
use crate::runtime::{Clock, tcp_state};

const REASON: FieldDef = FieldDef::new(
    "reason",
    Form::Text,
    "The kernel's reason (enum sk_rst_reason, Linux 6.10); absent on older kernels.",
);
const STATE: FieldDef = FieldDef::new("state", Form::Text, "The state of the socket in this pod.");

/// Sent for a segment of no socket.
pub static NOSOCK: EventDef = EventDef {
    name: "TCPRESET_NOSOCK",
    help: "TCP answered a segment that belongs to no socket with a reset: mostly a connection to a port that nobody \
           listens on. src is this pod, dst gets the reset.",
    severity: Severity::Warning,
    fields: &[REASON],
};

/// Sent by a socket of its own accord.
pub static ACTIVE: EventDef = EventDef {
    name: "TCPRESET_ACTIVE",
    help: "A socket reset its connection of its own accord: the program closed it with unread data or linger 0, or \
           memory or time ran out. src is this pod, dst gets the reset.",
    severity: Severity::Warning,
    fields: &[
        REASON,
        FieldDef::new(
            "state",
            Form::Text,
            "The state of the socket in this pod; CLOSE where a program closed it, which is set before the reset is \
             sent.",
        ),
        FieldDef::new(
            "comm",
            Form::Text,
            "Name of the thread that closed the connection; absent where no program did.",
        ),
        FieldDef::new("pid", Form::Number, "Process that closed it, by its number on the node."),
    ],
};

/// Sent by a socket in answer to a segment.
pub static PROCESS: EventDef = EventDef {
    name: "TCPRESET_PROCESS",
    help: "A socket answered a segment that does not fit its state with a reset. src is this pod, dst sent the segment \
           and gets the reset.",
    severity: Severity::Warning,
    fields: &[REASON, STATE],
};

/// Received.
pub static RECEIVE: EventDef = EventDef {
    name: "TCPRESET_RECEIVE",
    help: "A connection was reset by the peer or by something on the way. src is this pod, which gets the reset, dst \
           its peer.",
    severity: Severity::Warning,
    fields: &[FieldDef::new(
        "state",
        Form::Text,
        "The state of the socket in this pod when the reset came: SYN_SENT is a connection that was refused.",
    )],
};

/// One event; `reason` where the kernel tells one.
pub fn event(told: Told, reason: Option<Arc<str>>, clock: Clock) -> Event {
    let def = match told.kind {
        Kind::Nosock => &NOSOCK,
        Kind::Active => &ACTIVE,
        Kind::Process => &PROCESS,
        Kind::Receive => &RECEIVE,
    };
    let mut fields = Vec::with_capacity(4);
    fields.extend(reason.map(|reason| ("reason", reason.into())));
    fields.extend(tcp_state(told.state).map(|state| ("state", state.into())));
    if let Some((pid, comm)) = told.closer {
        fields.push(("comm", comm.into()));
        fields.push(("pid", pid.into()));
    }
    Event {
        def,
        time_ns: clock.time_of_day(told.time),
        netns: (told.netns != 0).then_some(NetnsKey(told.netns)),
        flow: told.flow,
        fields,
        suppressed: told.suppressed,
    }
}

#[cfg(test)]
mod tests {
    use netsonde_framework::Field;

    use super::*;

    #[test]
    fn each_kind_has_its_type_and_only_fields_of_it() {
        let cases = [
            (Kind::Nosock, "TCPRESET_NOSOCK", 0),
            (Kind::Active, "TCPRESET_ACTIVE", 7),
            (Kind::Process, "TCPRESET_PROCESS", 10),
            (Kind::Receive, "TCPRESET_RECEIVE", 2),
        ];
        for (kind, name, state) in cases {
            let closer = (kind == Kind::Active).then(|| (42, "cart".to_owned()));
            let told = Told { netns: 3, time: 0, suppressed: 2, flow: None, reason: 0, closer, kind, state };
            let reason = (kind != Kind::Receive).then(|| Arc::from("NO_SOCKET"));
            let event = event(told, reason, Clock::now());
            assert_eq!((event.def.name, event.netns, event.suppressed), (name, Some(NetnsKey(3)), 2));
            let told: Vec<&str> = event.fields.iter().map(|(name, _)| *name).collect();
            let declared: Vec<&str> = event.def.fields.iter().map(|field| field.name).collect();
            assert_eq!(told, declared, "{name}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_left_out() {
        let kind = Kind::Process;
        let told =
            Told { netns: 0, time: 0, suppressed: 0, flow: None, reason: 0, closer: None, kind, state: 6 };
        let event = event(told, None, Clock::now());
        assert_eq!(event.netns, None);
        assert_eq!(event.fields, [("state", Field::from("TIME_WAIT"))]);
    }
}
