//! `tcpretrans`: what TCP sends again, and what made it, for each namespace.

mod events;
mod kernel;
mod metrics;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Emitter, HookStatus, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec, Samples, StartError,
    Started, View,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object;
use crate::runtime::{Clock, EventLimit, Hook, Kernel, Ledger, Ring, Role, Rung, Setting, SharedSymbols};
use kernel::{Resent, Retransmission, SIZE};
use metrics::Kind;

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "tcpretrans",
        aliases: &[],
        about: "TCP retransmissions, by what made TCP send again",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[&events::TCP_RETRANS],
        needs: &[
            "CAP_BPF and CAP_PERFMON",
            "CAP_SYSLOG for names of places and stacks in events",
            "kernel with BTF (CONFIG_DEBUG_INFO_BTF), 5.17 or later for causes",
        ],
        default_on: true,
        settings: schema::<Settings>,
    },
    start,
};

/// What events tell.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// How many events are told of retransmissions of one kind: the same namespace, kind and cause. Default 1 a second,
    /// 10 at once.
    events: EventLimit,
    /// Whether events have the kernel's stack, which takes 6 microseconds for each event that is told. Default true.
    stacks: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { events: EventLimit { per_second: 1, burst: 10 }, stacks: true }
    }
}

const HOOKS: &[Hook] = &[
    Hook {
        name: "tcp:tcp_retransmit_skb",
        role: Role::Source,
        rungs: &[Rung::TpBtf("tcp_retransmit_skb", "tcpretrans_skb")],
    },
    Hook {
        name: "tcp:tcp_retransmit_synack",
        role: Role::Source,
        rungs: &[Rung::TpBtf("tcp_retransmit_synack", "tcpretrans_synack")],
    },
    // The causes.
    Hook {
        name: "skb:kfree_skb",
        role: Role::Detail,
        rungs: &[Rung::TpBtf("kfree_skb", "tcpretrans_kfree_skb")],
    },
];

/// Entries of the kernel side's map CAUSES.
const KNOWN_REASONS: usize = 512;
/// Records that are taken at once, so that a scrape does not wait long.
const AT_ONCE: usize = 4096;

struct TcpRetrans {
    ledger: Ledger<SIZE>,
    ring: Ring,
    symbols: SharedSymbols,
    reasons: BTreeMap<u32, Arc<str>>,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let settings: Settings = StartError::settings(args)?;
    let arguments = |name| Ok::<_, StartError>(kernel.tracepoint_arguments(name)?.unwrap_or_default());
    let [interval, burst] = settings.events.settings();
    let constants = [
        Setting::u32("RETRANSMIT_ARGUMENTS", arguments("tcp_retransmit_skb")?),
        Setting::u32("KFREE_SKB_ARGUMENTS", arguments("kfree_skb")?),
        Setting::u32("STACKS", settings.stacks.into()),
        interval,
        burst,
    ];
    let mut ledger = Ledger::open(kernel, object!("tcpretrans"), &constants, HOOKS, "RETRANSMISSIONS")?;
    let ring = ledger.ring()?;
    let names = kernel.drop_reasons()?;
    let mut causes = vec![0; KNOWN_REASONS];
    for (reason, name) in names {
        if let Some(entry) = usize::try_from(*reason).ok().and_then(|i| causes.get_mut(i)) {
            *entry = kernel::is_cause(name).into();
        }
    }
    ledger.object().fill("CAUSES", &causes)?;
    let symbols = kernel.symbols();
    ledger.object().note(symbols.lock().status());
    let reasons = names.iter().map(|(reason, name)| (*reason, name.as_str().into())).collect();
    Ok(Box::new(TcpRetrans { ledger, ring, symbols, reasons }))
}

#[derive(Default)]
struct Sums {
    made: BTreeMap<Kind, u64>,
    failed: BTreeMap<Kind, u64>,
    caused: BTreeMap<u32, u64>,
}

impl Probe for TcpRetrans {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        self.symbols.tidy();
        let mut sums: HashMap<NsId, Sums> = HashMap::new();
        let rest = self.ledger.read(view, |id, key, numbers| {
            let count = numbers[0];
            let Some(read) = Retransmission::read(key) else { return };
            let sums = sums.entry(id).or_default();
            let kinds = if read.failed { &mut sums.failed } else { &mut sums.made };
            *kinds.entry(read.kind).or_default() += count;
            if let Some(reason) = read.cause {
                *sums.caused.entry(reason).or_default() += count;
            }
        })?;
        for (id, ns) in view.topology.iter() {
            let sums = sums.remove(&id).unwrap_or_default();
            out.push(&metrics::PACKETS, id, (), sums.made.values().sum::<u64>());
            for (kind, count) in sums.made {
                out.push(&metrics::RETRANSMISSIONS, id, kind, count);
            }
            for (kind, count) in sums.failed {
                out.push(&metrics::FAILED, id, kind, count);
            }
            for (reason, count) in sums.caused {
                out.push(&metrics::CAUSED, id, name(&self.reasons, reason).as_ref(), count);
            }
            if let Some(held) = rest.held.get(&id) {
                out.push(&metrics::SUPPRESSED, id, (), held.suppressed);
                out.push(&metrics::LOST, id, (), held.lost);
            }
            if ns.is_host() {
                out.push(&metrics::UNATTRIBUTED, id, (), rest.unattributed);
                out.push(&metrics::UNCOUNTED, id, (), rest.uncounted);
            }
        }
        Ok(())
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.fd())
    }

    fn drain(&mut self, out: &mut Emitter) -> Result<(), CollectError> {
        let mut all = Vec::new();
        self.ring.drain(AT_ONCE, |record| all.extend(Resent::read(record)));
        let places = |resent: &Resent| resent.cause.map(|cause| cause.place);
        let mut symbols = self.symbols.lock();
        symbols.learn(all.iter().flat_map(|resent| resent.stack().chain(places(resent))));
        let clock = Clock::now();
        for resent in all {
            out.emit(events::event(resent, |reason| name(&self.reasons, reason), &symbols, clock));
        }
        Ok(())
    }

    fn forget(&mut self, gone: &[NetnsKey]) {
        self.ledger.forget(gone);
    }

    fn hooks(&self) -> &[HookStatus] {
        self.ledger.hooks()
    }
}

/// The running kernel's name of a reason. Those of subsystems have numbers only.
fn name(reasons: &BTreeMap<u32, Arc<str>>, reason: u32) -> Arc<str> {
    reasons.get(&reason).map_or_else(|| format!("REASON_{reason}").into(), Arc::clone)
}
