//! `socketlatency`: how long data waits in sockets for programs, and written data for the network, for each namespace.

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
use crate::runtime::{Clock, EventLimit, Hook, Kernel, Ledger, Ring, Role, Rung, Setting};
use kernel::{Measured, NUMBERS, SIZE, Slow, Stage};
use metrics::Protocol;

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "socketlatency",
        aliases: &[],
        about: "How long data waits in sockets: to be read, and to be sent",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[&events::READ, &events::WRITE],
        needs: &[
            "CAP_BPF and CAP_PERFMON",
            "kernel with BTF (CONFIG_DEBUG_INFO_BTF), 6.12 or later; on 6.1 fentry for UDP and for what is written",
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
    /// Data that waits longer than this is counted as slow, and told of. 0s: all that waits at all. Default 100ms.
    slow: Interval,
    /// How many events are told of one kind: the same namespace and protocol, reads and writes apart. Default 1 a
    /// second, 10 at once.
    events: EventLimit,
}

impl Default for Settings {
    fn default() -> Self {
        Self { slow: Interval(Duration::from_millis(100)), events: EventLimit { per_second: 1, burst: 10 } }
    }
}

const HOOKS: &[Hook] = &[
    Hook {
        name: "data ready (sock:sk_data_ready, sock_def_readable or tcp:tcp_probe)",
        role: Role::Source,
        rungs: &[
            Rung::TpBtf("sk_data_ready", "socketlatency_ready"),
            Rung::Fentry("sock_def_readable", "socketlatency_readable"),
            // TCP only.
            Rung::TpBtf("tcp_probe", "socketlatency_segment"),
        ],
    },
    Hook {
        name: "tcp:tcp_rcv_space_adjust",
        role: Role::Detail,
        rungs: &[Rung::TpBtf("tcp_rcv_space_adjust", "socketlatency_tcp_read")],
    },
    Hook {
        name: "datagram read (sock:sock_recv_length or skb_consume_udp)",
        role: Role::Detail,
        rungs: &[
            Rung::TpBtf("sock_recv_length", "socketlatency_udp_read"),
            Rung::Fentry("skb_consume_udp", "socketlatency_udp_consume"),
        ],
    },
    Hook {
        name: "written (sock:sock_send_length or tcp_sendmsg)",
        role: Role::Source,
        rungs: &[
            Rung::TpBtf("sock_send_length", "socketlatency_write"),
            Rung::Fexit("tcp_sendmsg", "socketlatency_sendmsg"),
        ],
    },
    Hook {
        name: "net:net_dev_queue",
        role: Role::Detail,
        rungs: &[Rung::TpBtf("net_dev_queue", "socketlatency_sent")],
    },
];

/// Kinds of waits of namespaces: a namespace has three.
const KEYS: u32 = 2048;
/// Records that are taken at once, so that a scrape does not wait long.
const AT_ONCE: usize = 4096;

struct SocketLatency {
    ledger: Ledger<SIZE, NUMBERS>,
    ring: Ring,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let settings: Settings = StartError::settings(args)?;
    let [interval, burst] = settings.events.settings();
    let slow = u64::try_from(settings.slow.0.as_nanos()).unwrap_or(u64::MAX);
    let constants = [Setting::histograms(KEYS), Setting::u64("SLOW_NS", slow), interval, burst];
    let mut ledger = Ledger::open(kernel, object!("socketlatency"), &constants, HOOKS, "HISTOGRAMS")?;
    let ring = ledger.ring()?;
    Ok(Box::new(SocketLatency { ledger, ring }))
}

/// The waits of one namespace that ended in one way.
#[derive(Default)]
struct Waits {
    times: Vec<(Protocol, Exp2)>,
    over_1ms: u64,
    over_100ms: u64,
    slow: u64,
}

impl Waits {
    fn add(&mut self, protocol: Protocol, measured: Measured) {
        self.over_1ms += measured.over_1ms;
        self.over_100ms += measured.over_100ms;
        self.slow += measured.slow;
        self.times.push((protocol, measured.times));
    }
}

#[derive(Default)]
struct Latencies {
    read: Waits,
    write: Waits,
}

impl Latencies {
    fn push(&self, id: NsId, out: &mut Samples) {
        for (protocol, times) in &self.read.times {
            out.push_histogram(&metrics::READ, id, *protocol, times);
        }
        for (protocol, times) in &self.write.times {
            out.push_histogram(&metrics::WRITE, id, *protocol, times);
        }
        // A namespace without a long wait says so: a rate over a series that only begins with one would miss it.
        out.push(&metrics::READS_OVER_1MS, id, (), self.read.over_1ms);
        out.push(&metrics::READS_OVER_100MS, id, (), self.read.over_100ms);
        out.push(&metrics::SLOW_READS, id, (), self.read.slow);
        out.push(&metrics::WRITES_OVER_1MS, id, (), self.write.over_1ms);
        out.push(&metrics::WRITES_OVER_100MS, id, (), self.write.over_100ms);
        out.push(&metrics::SLOW_WRITES, id, (), self.write.slow);
    }
}

impl Probe for SocketLatency {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let mut all: HashMap<NsId, Latencies> = HashMap::new();
        let rest = self.ledger.read(view, |id, key, numbers| {
            let Some((stage, protocol)) = Stage::read(key) else { return };
            let latencies = all.entry(id).or_default();
            let waits = match stage {
                Stage::Read => &mut latencies.read,
                Stage::Write => &mut latencies.write,
            };
            waits.add(protocol, Measured::read(numbers));
        })?;
        let unfollowed = self.ledger.object().sum("UNFOLLOWED", 0)?;
        for (id, ns) in view.topology.iter() {
            all.remove(&id).unwrap_or_default().push(id, out);
            if ns.is_host() {
                out.push(&metrics::UNFOLLOWED, id, (), unfollowed);
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
        self.ring.drain(AT_ONCE, |record| {
            if let Some(slow) = Slow::read(record) {
                out.emit(events::event(slow, clock));
            }
        });
        Ok(())
    }

    fn forget(&mut self, gone: &[NetnsKey]) {
        self.ledger.forget(gone);
    }

    fn hooks(&self) -> &[HookStatus] {
        self.ledger.hooks()
    }
}
