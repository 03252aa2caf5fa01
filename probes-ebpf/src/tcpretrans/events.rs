//! The event of `tcpretrans`: one retransmission, with both ends, what made TCP send again, and where and why the packet
//! was dropped before.

use std::borrow::Cow;
use std::sync::Arc;

use netsonde_framework::{Event, EventDef, Field, FieldDef, Form, NetnsKey, Severity};

use super::kernel::Resent;
use crate::runtime::{Clock, Symbols, tcp_state};

/// A retransmission.
pub static TCP_RETRANS: EventDef = EventDef {
    name: "TCPRetrans",
    help: "TCP sent something again. src is this pod, dst its peer.",
    severity: Severity::Warning,
    fields: &[
        FieldDef::new(
            "kind",
            Form::Text,
            "What made TCP send again: syn, syn_ack, timeout, fast, loss_probe, slow_start or other.",
        ),
        FieldDef::new("state", Form::Text, "The state of the socket."),
        FieldDef::new(
            "sequence",
            Form::Number,
            "Its first sequence number, as in the packet (tcpdump shows it with -S).",
        ),
        FieldDef::new("length", Form::Number, "Bytes of data; a SYN and a FIN count as one each."),
        FieldDef::new(
            "timeouts",
            Form::Number,
            "How often the retransmission timer has run out in a row on this connection; absent for none.",
        ),
        FieldDef::new(
            "rtt_us",
            Form::Number,
            "Smoothed round trip time in microseconds; absent where nothing was measured yet.",
        ),
        FieldDef::new("cwnd", Form::Number, "Congestion window, in segments; absent for syn_ack."),
        FieldDef::new(
            "error",
            Form::Text,
            "Why it could not be sent (Linux 6.17); absent where it was. EBUSY: the first one is still in a queue \
             of this node.",
        ),
        FieldDef::new(
            "cause_reason",
            Form::Text,
            "Why the packet was dropped on this node the last time (enum skb_drop_reason); absent where it was not \
             seen to be.",
        ),
        FieldDef::new("cause_place", Form::Text, "The kernel function that dropped it."),
        FieldDef::new(
            "cause_namespace",
            Form::Text,
            "Kubernetes namespace of the pod in whose network namespace it was dropped; hostNetwork for the host.",
        ),
        FieldDef::new(
            "cause_pod",
            Form::Text,
            "The pod in whose network namespace it was dropped; hostNetwork for the host.",
        ),
        FieldDef::new("stack", Form::Texts, "The kernel's stack at that place, innermost first."),
    ],
};

/// One event of it. `reason` names a drop reason.
pub fn event(resent: Resent, reason: impl Fn(u32) -> Arc<str>, symbols: &Symbols, clock: Clock) -> Event {
    let mut fields = Vec::with_capacity(13);
    fields.push(("kind", resent.kind.text().into()));
    fields.extend(tcp_state(resent.state).map(|state| ("state", state.into())));
    fields.push(("sequence", resent.sequence.into()));
    fields.push(("length", resent.length.into()));
    let numbers =
        [("timeouts", u32::from(resent.timeouts)), ("rtt_us", resent.rtt_us), ("cwnd", resent.window)];
    fields.extend(numbers.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name, n.into())));
    if resent.error != 0 {
        fields.push(("error", Field::Text(error_name(resent.error))));
    }
    if let Some(cause) = resent.cause {
        fields.push(("cause_reason", reason(cause.reason).into()));
        if let Some(place) = symbols.place(cause.place) {
            fields.push(("cause_place", Arc::clone(&place.function).into()));
        }
        // Told as cause_namespace and cause_pod.
        fields.extend(cause.netns.map(|netns| ("cause", netns.into())));
    }
    let stack = symbols.stack(resent.stack());
    if !stack.is_empty() {
        fields.push(("stack", stack.into()));
    }
    Event {
        def: &TCP_RETRANS,
        time_ns: clock.time_of_day(resent.time),
        netns: (resent.netns != 0).then_some(NetnsKey(resent.netns)),
        flow: resent.flow,
        fields,
        suppressed: resent.suppressed,
    }
}

/// The names of those that TCP gives.
fn error_name(error: i32) -> Cow<'static, str> {
    match error {
        -11 => "EAGAIN".into(),
        -12 => "ENOMEM".into(),
        -16 => "EBUSY".into(),
        -22 => "EINVAL".into(),
        -105 => "ENOBUFS".into(),
        -113 => "EHOSTUNREACH".into(),
        1 => "NET_XMIT_DROP".into(),
        2 => "NET_XMIT_CN".into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Record;

    fn resent(set: &[(usize, u8)]) -> Resent {
        let mut bytes = [0; 192];
        for (at, value) in set {
            bytes[*at] = *value;
        }
        Resent::read(Record(&bytes)).expect("a retransmission")
    }

    fn fields(resent: Resent) -> Vec<(&'static str, Field)> {
        event(resent, |n| format!("REASON_{n}").into(), &Symbols::open(), Clock::now()).fields
    }

    #[test]
    fn what_is_unknown_is_left_out() {
        let told = fields(resent(&[(80, 5), (84, 1), (105, 2)]));
        let wanted = [
            ("kind", Field::from("syn")),
            ("state", Field::from("SYN_SENT")),
            ("sequence", Field::from(5u32)),
            ("length", Field::from(1u32)),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn the_cause_is_told_with_its_namespace() {
        let told = fields(resent(&[(24, 9), (96, 12), (107, 1)]));
        assert!(told.contains(&("cause_reason", Field::Shared("REASON_12".into()))), "{told:?}");
        assert!(told.contains(&("cause", Field::Netns(NetnsKey(9)))), "{told:?}");
    }

    #[test]
    fn fields_are_told_in_the_order_of_their_definition() {
        let set = [(80, 5), (88, 80), (92, 10), (96, 12), (100, 1), (106, 2), (107, 1), (108, 1), (112, 1)];
        let told = fields(resent(&set));
        let declared: Vec<&str> = TCP_RETRANS.fields.iter().map(|field| field.name).collect();
        let places: Vec<_> = told.iter().map(|(name, _)| declared.iter().position(|d| d == name)).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{told:?}");
    }

    #[test]
    fn errors_have_their_names() {
        assert_eq!(error_name(-16), "EBUSY");
        assert_eq!(error_name(-5), "-5");
    }
}
