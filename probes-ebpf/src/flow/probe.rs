//! `flow`: bytes and packets of each connection and datagram socket, for each namespace.

mod book;
mod kernel;
mod metrics;
mod pod;

use std::time::Instant;

use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, HookState, HookStatus, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec, Samples, StartError,
    Started, View,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object;
use crate::runtime::{Counters, Hook, Kernel, Object, Role, Rung, Setting, Walk};
use book::Book;
use kernel::{Key, NUMBERS, SIZE, Traffic};
use metrics::{Direction, Ends, Protocol};
use pod::{Own, Pod};

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "flow",
        aliases: &[],
        about: "Bytes and packets of each connection and datagram socket, by both ends",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[
            "CAP_BPF and CAP_PERFMON",
            "kernel with BTF (CONFIG_DEBUG_INFO_BTF)",
            "UDP: fentry, or the tracepoints sock:sock_send_length and sock:sock_recv_length (Linux 6.3)",
        ],
        default_on: true,
        settings: schema::<Settings>,
    },
    start,
};

/// Which flows have series of their own.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// How many flows of a namespace have series of their own: those that are heaviest. The others are summed as
    /// `other`. With 0 there are only the sums of each namespace. 0 to 1000, default 32.
    #[schemars(range(max = 1000))]
    max_flows_per_pod: u32,
    /// Whether the port of the side that connected is left out, so that all connections of one client to one service
    /// are one flow. Default true.
    fold_client_ports: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_flows_per_pod: 32, fold_client_ports: true }
    }
}

const STATES: &str = "sock:inet_sock_set_state";
const SENT: &str = "udp_send_skb or sock:sock_send_length";
const RECEIVED: &str = "skb_consume_udp or sock:sock_recv_length";
const SETTLE: &str = "iterator bpf_sk_storage_map";
const FIND: &str = "iterator task_file";

const HOOKS: &[Hook] = &[
    Hook { name: STATES, role: Role::Source, rungs: &[Rung::TpBtf("inet_sock_set_state", "flow_set_state")] },
    Hook { name: SETTLE, role: Role::Detail, rungs: &[Rung::Iter("bpf_sk_storage_map", "flow_settle")] },
    Hook { name: FIND, role: Role::Detail, rungs: &[Rung::Iter("task_file", "flow_find")] },
    Hook {
        name: SENT,
        role: Role::Source,
        rungs: &[
            Rung::Fentry("udp_send_skb", "flow_udp_send_skb"),
            Rung::TpBtf("sock_send_length", "flow_sent"),
        ],
    },
    // Where datagrams are counted by the tracepoint above, this one is not needed and counts nothing.
    Hook {
        name: "udp_v6_send_skb",
        role: Role::Detail,
        rungs: &[Rung::Fentry("udp_v6_send_skb", "flow_udp_v6_send_skb")],
    },
    Hook {
        name: RECEIVED,
        role: Role::Source,
        rungs: &[
            Rung::Fentry("skb_consume_udp", "flow_skb_consume_udp"),
            Rung::TpBtf("sock_recv_length", "flow_received"),
        ],
    },
];

struct Flow {
    object: Object,
    flows: Counters<SIZE, NUMBERS>,
    overflow: Counters<SIZE, NUMBERS>,
    /// Brings the table of flows up to date with the connections that live.
    settle: Option<Walk>,
    book: Book,
    tuples: bool,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let settings: Settings = StartError::settings(args)?;
    let constants = [Setting::u32("FOLD_CLIENT_PORTS", settings.fold_client_ports.into())];
    let mut object = Object::load(kernel, object!("flow"), &constants, HOOKS)?;
    let fentry = HookState::Attached("fentry");
    let by_function = object.hooks().iter().any(|hook| hook.name == SENT && hook.state == fentry);
    object.fill("SENT_BY_FUNCTION", &[by_function.into()])?;
    if let Some(find) = object.iterator(FIND, "flow_find", None)
        && let Err(error) = find.run()
    {
        let why = format!("connections from before are not counted: {error}");
        object.note(HookStatus::new(FIND, HookState::Failed(why)));
    }
    let settle = object.iterator(SETTLE, "flow_settle", Some("ACCOUNTS"));
    let flows = object.counters("FLOWS")?;
    let overflow = object.counters("OVERFLOW")?;
    let limit = usize::try_from(settings.max_flows_per_pod).unwrap_or(usize::MAX);
    Ok(Box::new(Flow { object, flows, overflow, settle, book: Book::new(limit), tuples: limit > 0 }))
}

impl Flow {
    /// Brings the table of flows up to date with the connections that live.
    fn settle(&self) -> Result<(), CollectError> {
        let failed = |source| CollectError::Read { what: "the counters of TCP sockets".into(), source };
        self.settle.as_ref().map_or(Ok(()), |settle| settle.run().map_err(failed))
    }

    /// Whether this kernel lets us count these.
    fn counts(&self, protocol: Protocol, direction: Direction) -> bool {
        self.object.has(match (protocol, direction) {
            (Protocol::Tcp, _) => STATES,
            (Protocol::Udp, Direction::Transmit) => SENT,
            (Protocol::Udp, Direction::Receive) => RECEIVED,
        })
    }

    fn push(&self, out: &mut Samples, id: NsId, protocol: Protocol, traffic: Traffic) {
        for (direction, bytes, packets) in directions(traffic) {
            // 0 would say that there was none.
            if self.counts(protocol, direction) {
                out.push(&metrics::BYTES, id, (protocol, direction), bytes);
                out.push(&metrics::PACKETS, id, (protocol, direction), packets);
            }
        }
    }

    fn read(&mut self, view: &View<'_>) -> Result<(), CollectError> {
        let now = Instant::now();
        let book = &mut self.book;
        book.begin(view.topology.iter().map(|(_, ns)| ns.key.0).collect());
        let first = self.overflow.read(|key, numbers| book.overflow(Key(*key), Traffic::read(numbers), now));
        let second = self.flows.read(|key, numbers| book.flow(Key(*key), Traffic::read(numbers), now));
        // Also after an error: what was read is told.
        let removals = book.finish(now);
        for (table, entries) in [(&mut self.overflow, removals.overflow), (&mut self.flows, removals.flows)] {
            for (key, told) in entries {
                if let Some(numbers) = table.take(&key.0) {
                    book.late(key, Traffic::read(&numbers).since(told));
                }
            }
        }
        first.and(second)
    }
}

impl Probe for Flow {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        self.object.check()?;
        // Without it, all but the newest of the connections that live is there.
        let settled = self.settle();
        let read = self.read(view);
        let none = Pod::default();
        for (id, ns) in view.topology.iter() {
            let pod = self.book.pod(ns.key.0).unwrap_or(&none);
            // A namespace without traffic says so: a rate over a series that only begins with traffic would miss it.
            for protocol in Protocol::ALL {
                self.push(out, id, *protocol, pod.total(*protocol));
            }
            if self.tuples {
                push_tuples(out, id, pod);
            }
        }
        if let Some((host, _)) = view.topology.host() {
            out.push(&metrics::UNATTRIBUTED, host, (), self.book.unattributed());
            out.push(&metrics::UNCOUNTED, host, (), self.object.uncounted()?);
            out.push(&metrics::OVERFLOWED, host, (), self.book.overflowed());
            out.push(&metrics::UNTRACKED, host, (), self.object.sum("UNTRACKED", 0)?);
        }
        settled.and(read)
    }

    fn forget(&mut self, gone: &[NetnsKey]) {
        self.book.forget(gone.iter().map(|key| key.0));
    }

    fn hooks(&self) -> &[HookStatus] {
        self.object.hooks()
    }
}

/// Bytes and packets of each direction.
fn directions(traffic: Traffic) -> [(Direction, u64, u64); 2] {
    [
        (Direction::Transmit, traffic.sent_bytes, traffic.sent_packets),
        (Direction::Receive, traffic.received_bytes, traffic.received_packets),
    ]
}

fn push_tuples(out: &mut Samples, id: NsId, pod: &Pod) {
    for (key, Own { traffic, ends: [own, peer], .. }) in pod.own() {
        push_tuple(out, id, key.protocol(), (own, peer), *traffic);
    }
    let other = ("other".to_owned(), "other".to_owned());
    for protocol in Protocol::ALL {
        push_tuple(out, id, *protocol, (&other, &other), pod.rest(*protocol));
    }
}

/// Address and port.
type End = (String, String);

fn push_tuple(out: &mut Samples, id: NsId, protocol: Protocol, ends: (&End, &End), traffic: Traffic) {
    for (direction, bytes, packets) in directions(traffic) {
        if packets == 0 && bytes == 0 {
            continue;
        }
        let (own, peer) = ends;
        let (from, to) = if direction == Direction::Transmit { (own, peer) } else { (peer, own) };
        let labels = Ends { protocol, src: &from.0, sport: &from.1, dst: &to.0, dport: &to.1, direction };
        out.push(&metrics::TUPLE_BYTES, id, labels, bytes);
        out.push(&metrics::TUPLE_PACKETS, id, labels, packets);
    }
}
