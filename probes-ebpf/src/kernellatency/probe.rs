//! `kernellatency`: how long packets are in the kernel, on the way in and on the way out, for each namespace.

mod events;
mod kernel;
mod metrics;

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Emitter, Exp2, HookStatus, Interval, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec, Samples,
    StartError, Started, View,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object;
use crate::runtime::{
    Clock, EventLimit, Hook, Kernel, Ledger, Ring, Role, Rung, Setting, Sibling, Stamping, tai_ahead_seconds,
};
use kernel::{Measured, NUMBERS, SIZE, Slow, Stage, UNMEASURED};
use metrics::{Place, Protocol};

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "kernellatency",
        aliases: &[],
        about: "How long packets are in the kernel, on the way in and on the way out",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[&events::RECEIVE, &events::TRANSMIT],
        needs: &[
            "CAP_BPF and CAP_PERFMON",
            "kernel with BTF (CONFIG_DEBUG_INFO_BTF), 6.1 or later; for received datagrams one with the tracepoint sock:sk_data_ready, or with fentry",
        ],
        default_on: false,
        settings: schema::<Settings>,
    },
    start,
};

/// What is slow, and what events tell.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// A packet that takes longer than this is counted as slow, and told of. 0s: every packet is slow. Default 100ms.
    slow: Interval,
    /// Whether the first place of each way (the backlog, TCP to the device's queue) has a histogram of its own beside
    /// that of the whole way. Events tell of it either way. Default true.
    stages: bool,
    /// Whether the times at places in between are measured, where the kernel's functions can be hooked (fentry): when IP
    /// has the packet, when TCP or UDP has it, when IP sends it. Each place costs about as much as one of the others.
    /// Default false.
    places: bool,
    /// How many events are told of slow packets of one kind: the same namespace and direction, and on the way in the
    /// same protocol. Default 1 a second, 10 at once.
    events: EventLimit,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            slow: Interval(Duration::from_millis(100)),
            stages: true,
            places: false,
            events: EventLimit { per_second: 1, burst: 10 },
        }
    }
}

const fn hook(name: &'static str, rungs: &'static [Rung]) -> Hook {
    Hook { name, role: Role::Source, rungs }
}

const HOOKS: &[Hook] = &[
    hook("net:netif_receive_skb", &[Rung::TpBtf("netif_receive_skb", "kernellatency_backlog")]),
    hook("tcp:tcp_probe", &[Rung::TpBtf("tcp_probe", "kernellatency_tcp")]),
    hook(
        "sock:sk_data_ready or sock_def_readable",
        &[
            Rung::TpBtf("sk_data_ready", "kernellatency_udp"),
            Rung::Fentry("sock_def_readable", "kernellatency_readable"),
        ],
    ),
    hook("net:net_dev_queue", &[Rung::TpBtf("net_dev_queue", "kernellatency_stack")]),
    hook("net:net_dev_start_xmit", &[Rung::TpBtf("net_dev_start_xmit", "kernellatency_transmit")]),
];

const fn place(name: &'static str, rungs: &'static [Rung]) -> Hook {
    Hook { name, role: Role::Detail, rungs }
}

/// With the setting `places`.
const PLACES: &[Hook] = &[
    place("ip_rcv_core", &[Rung::Fentry("ip_rcv_core", "kernellatency_ip_rcv_core")]),
    place("ipv6_rcv", &[Rung::Fentry("ipv6_rcv", "kernellatency_ipv6_rcv")]),
    place("ip_local_deliver", &[Rung::Fentry("ip_local_deliver", "kernellatency_ip_local_deliver")]),
    place("ip6_input", &[Rung::Fentry("ip6_input", "kernellatency_ip6_input")]),
    place("tcp_v4_rcv", &[Rung::Fentry("tcp_v4_rcv", "kernellatency_tcp_v4_rcv")]),
    place("tcp_v6_rcv", &[Rung::Fentry("tcp_v6_rcv", "kernellatency_tcp_v6_rcv")]),
    place("udp_rcv", &[Rung::Fentry("udp_rcv", "kernellatency_udp_rcv")]),
    place("udpv6_rcv", &[Rung::Fentry("udpv6_rcv", "kernellatency_udpv6_rcv")]),
    place("ip_output", &[Rung::Fentry("ip_output", "kernellatency_ip_output")]),
    place("ip6_output", &[Rung::Fentry("ip6_output", "kernellatency_ip6_output")]),
    place("ip_finish_output2", &[Rung::Fentry("ip_finish_output2", "kernellatency_ip_finish_output2")]),
    place("ip6_finish_output2", &[Rung::Fentry("ip6_finish_output2", "kernellatency_ip6_finish_output2")]),
];

const fn before(hook: &'static str, at: u32, other: &'static str, other_at: u32) -> Sibling {
    Sibling { hook, at, other, other_at, after: 1000 }
}

/// What comes to TCP or is sent has come by IP. The places are those of the kernel side, from 8 on for IPv6.
const SIBLINGS: &[Sibling] = &[
    before("ip_rcv_core", 0, "ip_local_deliver", 1),
    before("ip_local_deliver", 1, "tcp_v4_rcv", 2),
    before("ipv6_rcv", 8, "ip6_input", 9),
    before("ip6_input", 9, "tcp_v6_rcv", 10),
    before("ip_finish_output2", 4, "ip_output", 3),
    before("ip6_finish_output2", 12, "ip6_output", 11),
];

/// How often the kernel's distance between TAI and the time of day is looked at. It changes about once in the life of a
/// machine, but until it is seen every arrival seems to be seconds ago.
const CLOCK_EVERY: Duration = Duration::from_secs(1);
/// Stages of namespaces: a namespace has at most seven, and five more with the setting `places`.
const KEYS: u32 = 2048;
/// Records that are taken at once, so that a scrape does not wait long.
const AT_ONCE: usize = 4096;

struct KernelLatency {
    ledger: Ledger<SIZE, NUMBERS>,
    ring: Ring,
    tai_ahead: u32,
    _stamping: Stamping,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let settings: Settings = StartError::settings(args)?;
    let [interval, burst] = settings.events.settings();
    let slow = u64::try_from(settings.slow.0.as_nanos()).unwrap_or(u64::MAX);
    let constants = [
        Setting::histograms(KEYS),
        Setting::u64("SLOW_NS", slow),
        Setting::u32("STAGES", settings.stages.into()),
        interval,
        burst,
    ];
    // First, so that few packets come to the programs without a stamp.
    let stamping = Stamping::start()?;
    let hooks = if settings.places { [HOOKS, PLACES].concat() } else { HOOKS.to_vec() };
    let mut ledger = Ledger::open(kernel, object!("kernellatency"), &constants, &hooks, "HISTOGRAMS")?;
    ledger.object().watch(SIBLINGS);
    let ring = ledger.ring()?;
    let tai_ahead = tai_ahead_seconds();
    ledger.object().fill("TAI_AHEAD_SECONDS", &[tai_ahead])?;
    Ok(Box::new(KernelLatency { ledger, ring, tai_ahead, _stamping: stamping }))
}

/// The measurements of one namespace. A stage that nothing went through is not there.
#[derive(Default)]
struct Latencies {
    backlog: Option<Exp2>,
    receive: Vec<(Protocol, Exp2)>,
    stack: Option<Exp2>,
    transmit: Option<Exp2>,
    forward: Option<Exp2>,
    places: Vec<(Place, Exp2)>,
    receive_slow: u64,
    receive_over_100ms: u64,
    transmit_slow: u64,
    transmit_over_100ms: u64,
    forward_slow: u64,
}

impl Latencies {
    fn add(&mut self, stage: Stage, measured: Measured) {
        let Measured { times, over_100ms, slow } = measured;
        match stage {
            Stage::Backlog => self.backlog = Some(times),
            Stage::Receive(protocol) => {
                self.receive_slow += slow;
                self.receive_over_100ms += over_100ms;
                self.receive.push((protocol, times));
            }
            Stage::Stack => self.stack = Some(times),
            Stage::Transmit => {
                self.transmit_slow = slow;
                self.transmit_over_100ms = over_100ms;
                self.transmit = Some(times);
            }
            Stage::Forward => {
                self.forward_slow = slow;
                self.forward = Some(times);
            }
            Stage::Place(place) => self.places.push((place, times)),
        }
    }

    fn push(&self, id: NsId, out: &mut Samples) {
        if let Some(times) = &self.backlog {
            out.push_histogram(&metrics::RECEIVE_BACKLOG, id, (), times);
        }
        for (protocol, times) in &self.receive {
            out.push_histogram(&metrics::RECEIVE, id, *protocol, times);
        }
        if let Some(times) = &self.stack {
            out.push_histogram(&metrics::TRANSMIT_STACK, id, (), times);
        }
        if let Some(times) = &self.transmit {
            out.push_histogram(&metrics::TRANSMIT, id, (), times);
        }
        if let Some(times) = &self.forward {
            out.push_histogram(&metrics::FORWARD, id, (), times);
            out.push(&metrics::FORWARD_SLOW, id, (), self.forward_slow);
        }
        for (place, times) in &self.places {
            out.push_histogram(&metrics::PLACE, id, *place, times);
        }
        // A namespace without a slow packet says so: a rate over a series that only begins with one would miss it.
        out.push(&metrics::RECEIVE_SLOW, id, (), self.receive_slow);
        out.push(&metrics::RECEIVE_OVER_100MS, id, (), self.receive_over_100ms);
        out.push(&metrics::TRANSMIT_SLOW, id, (), self.transmit_slow);
        out.push(&metrics::TRANSMIT_OVER_100MS, id, (), self.transmit_over_100ms);
    }
}

impl KernelLatency {
    fn look_at_clock(&mut self) -> Result<(), CollectError> {
        let now = tai_ahead_seconds();
        if now != self.tai_ahead {
            let filled = self.ledger.object().fill("TAI_AHEAD_SECONDS", &[now]);
            filled.map_err(|error| CollectError::Broken(error.to_string()))?;
            self.tai_ahead = now;
        }
        Ok(())
    }
}

impl Probe for KernelLatency {
    fn interval(&self) -> Option<Duration> {
        Some(CLOCK_EVERY)
    }

    fn refresh(&mut self, _view: &View<'_>) -> Result<(), CollectError> {
        self.look_at_clock()
    }

    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let mut all: HashMap<NsId, Latencies> = HashMap::new();
        let rest = self.ledger.read(view, |id, key, numbers| {
            if let Some(stage) = Stage::read(key) {
                all.entry(id).or_default().add(stage, Measured::read(numbers));
            }
        })?;
        for (id, ns) in view.topology.iter() {
            all.remove(&id).unwrap_or_default().push(id, out);
            if ns.is_host() {
                for (place, reason) in UNMEASURED {
                    let count = self.ledger.object().sum("UNMEASURED", place)?;
                    out.push(&metrics::UNMEASURED, id, reason, count);
                }
                out.push(&metrics::UNATTRIBUTED, id, (), rest.unattributed);
                out.push(&metrics::UNCOUNTED, id, (), rest.uncounted);
            }
            if let Some(held) = rest.held.get(&id) {
                out.push(&metrics::SUPPRESSED, id, (), held.suppressed);
                out.push(&metrics::LOST, id, (), held.lost);
            }
        }
        Ok(())
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.fd())
    }

    fn drain(&mut self, out: &mut Emitter) -> Result<(), CollectError> {
        let clock = Clock::now();
        self.ring.drain(AT_ONCE, |record| out.emit(events::event(Slow::read(record), clock)));
        Ok(())
    }

    fn forget(&mut self, gone: &[NetnsKey]) {
        self.ledger.forget(gone);
    }

    fn hooks(&self) -> &[HookStatus] {
        self.ledger.hooks()
    }
}
