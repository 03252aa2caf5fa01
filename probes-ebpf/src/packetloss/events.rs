//! The event of `packetloss`: one dropped packet, with both ends, the reason and the place in the kernel.

use std::sync::Arc;

use netsonde_framework::{Event, EventDef, FieldDef, Form, NetnsKey, Severity};

use super::kernel::{self, Loss};
use super::metrics::Direction;
use crate::runtime::{Clock, Symbols};

/// A dropped packet.
pub static PACKET_LOSS: EventDef = EventDef {
    name: "PacketLoss",
    help: "The kernel dropped a packet.",
    severity: Severity::Warning,
    fields: &[
        FieldDef::new(
            "reason",
            Form::Text,
            "The kernel's reason (enum skb_drop_reason); of what a listening socket refused, TCP_LISTEN_OVERFLOW (its \
             accept queue is full), TCP_REQUEST_QUEUE_FULL, or TCP_LISTEN_DROP where neither is full any more.",
        ),
        FieldDef::new("place", Form::Text, "The kernel function that dropped it."),
        FieldDef::new(
            "direction",
            Form::Text,
            "receive, transmit or forward; absent where the kernel does not tell.",
        ),
        FieldDef::new(
            "device",
            Form::Text,
            "The network device that it was at, by its name in that namespace.",
        ),
        FieldDef::new(
            "length",
            Form::Number,
            "Bytes of the packet from the network header on, or from where it was cut.",
        ),
        FieldDef::new(
            "hook",
            Form::Text,
            "The netfilter hook, for NETFILTER_DROP: prerouting, input, forward, output or postrouting.",
        ),
        FieldDef::new("filter", Form::Text, "Whose rule it was, for NETFILTER_DROP: nf_tables or x_tables."),
        FieldDef::new("table", Form::Text, "The table of nf_tables, with the setting chains."),
        FieldDef::new(
            "chain",
            Form::Text,
            "Its base chain, at the hook; a chain that this one jumps to is not told.",
        ),
        FieldDef::new(
            "nat_src",
            Form::Text,
            "The source address that the packet has from address translation; src is the sender's own.",
        ),
        FieldDef::new("nat_sport", Form::Number, "The source port that the packet has from it."),
        FieldDef::new(
            "listener",
            Form::Text,
            "The listening socket that refused it, by its address and port.",
        ),
        FieldDef::new(
            "listener_pid",
            Form::Number,
            "The process that made it listen, or the first that had it open when the agent started.",
        ),
        FieldDef::new("listener_comm", Form::Text, "The name of that process then."),
        FieldDef::new("accept_queue", Form::Number, "Its connections that wait for accept()."),
        FieldDef::new("accept_queue_limit", Form::Number, "The number above which it takes no more of them."),
        FieldDef::new("request_queue", Form::Number, "Its connections whose handshake is not over."),
        FieldDef::new("stack", Form::Texts, "The kernel's stack at that place, innermost first."),
    ],
};

/// One event of it.
pub fn event(loss: Loss, reason: Arc<str>, symbols: &Symbols, clock: Clock) -> Event {
    let mut fields = Vec::with_capacity(10);
    let netfilter = reason.as_ref() == "NETFILTER_DROP";
    fields.push(("reason", reason.into()));
    if let Some(place) = symbols.place(loss.place) {
        fields.push(("place", Arc::clone(&place.function).into()));
    }
    if loss.direction != Direction::Unknown {
        fields.push(("direction", loss.direction.text().into()));
    }
    let stack: Vec<u64> = loss.stack().collect();
    if !loss.device.is_empty() {
        fields.push(("device", loss.device.into()));
    }
    if loss.length != 0 {
        fields.push(("length", loss.length.into()));
    }
    if netfilter {
        let functions = stack.iter().filter_map(|a| symbols.place(*a)).map(|p| p.function.as_ref());
        let (hook, filter) = netfilter_of(functions);
        fields.extend(hook.map(|hook| ("hook", hook.into())));
        fields.extend(filter.map(|filter| ("filter", filter.into())));
        // The chain that looked at it last is the one that dropped it only if the drop is within nf_tables.
        if filter == Some("nf_tables") && !loss.chain.is_empty() {
            fields.push(("table", loss.table.into()));
            fields.push(("chain", loss.chain.into()));
        }
    }
    let mut flow = loss.flow;
    if let (Some(flow), Some((address, port))) = (&mut flow, loss.sender) {
        fields.push(("nat_src", std::mem::replace(&mut flow.src, address).to_string().into()));
        if let Some((source, _)) = &mut flow.ports {
            fields.push(("nat_sport", u32::from(std::mem::replace(source, port)).into()));
        }
    }
    if let Some(refusal) = loss.refusal {
        fields.extend(refusal.fields());
    }
    if !stack.is_empty() {
        fields.push(("stack", symbols.stack(stack.into_iter()).into()));
    }
    Event {
        def: &PACKET_LOSS,
        time_ns: clock.time_of_day(loss.time),
        netns: (loss.netns != 0).then_some(NetnsKey(loss.netns)),
        flow,
        fields,
        suppressed: loss.suppressed,
    }
}

/// The netfilter hook and the owner of the rule, from the functions on the stack, innermost first.
fn netfilter_of<'a>(
    functions: impl Iterator<Item = &'a str>,
) -> (Option<&'static str>, Option<&'static str>) {
    let mut hook = None;
    let mut filter = None;
    let mut in_netfilter = false;
    for function in functions {
        match function {
            "nft_do_chain" => filter = Some("nf_tables"),
            "ipt_do_table" | "ip6t_do_table" => filter = Some("x_tables"),
            "nf_hook_slow" => in_netfilter = true,
            caller if in_netfilter => {
                hook = kernel::hook_of_caller(caller);
                break;
            }
            _ => {}
        }
    }
    (hook, filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_tells_hook_and_owner_of_a_rule() {
        let nft =
            ["sk_skb_reason_drop", "nft_do_chain", "nft_do_chain_ipv4", "nf_hook_slow", "ip_local_deliver"];
        assert_eq!(netfilter_of(nft.into_iter()), (Some("input"), Some("nf_tables")));
        let other = ["sk_skb_reason_drop", "nf_hook_slow", "ip6_forward", "nf_hook_slow", "ip6_output"];
        assert_eq!(netfilter_of(other.into_iter()), (Some("forward"), None), "the innermost call counts");
        assert_eq!(netfilter_of(["kfree_skb"].into_iter()), (None, None));
    }
}
