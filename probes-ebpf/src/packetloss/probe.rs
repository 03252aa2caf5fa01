//! `packetloss`: packets that the kernel drops, with its reason, for each namespace.

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
use crate::runtime::{Clock, EventLimit, Hook, Kernel, Ledger, Ring, Role, Rung, Setting, Symbols};
use kernel::{Drop, Loss, SIZE};
use metrics::{Direction, Protocol};

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "packetloss",
        aliases: &[],
        about: "Packets that the kernel drops, with its reason",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[&events::PACKET_LOSS],
        needs: &[
            "CAP_BPF and CAP_PERFMON",
            "CAP_SYSLOG for names of places and stacks in events",
            "kernel with BTF (CONFIG_DEBUG_INFO_BTF), 5.17 or later for reasons",
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
    /// How many events are told of drops of one kind: the same namespace, reason, protocol and direction. Default 1 a
    /// second, 10 at once.
    events: EventLimit,
    /// Whether events have the kernel's stack, which takes 6 microseconds for each event that is told. Default true.
    stacks: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { events: EventLimit { per_second: 1, burst: 10 }, stacks: true }
    }
}

const HOOKS: &[Hook] = &[Hook {
    name: "skb:kfree_skb",
    role: Role::Source,
    rungs: &[Rung::TpBtf("kfree_skb", "packetloss_kfree_skb")],
}];

/// Entries of the kernel side's map HOUSEKEEPING.
const KNOWN_REASONS: usize = 512;
/// Records that are taken at once, so that a scrape does not wait long.
const AT_ONCE: usize = 4096;

struct PacketLoss {
    ledger: Ledger<SIZE>,
    ring: Ring,
    symbols: Symbols,
    reasons: BTreeMap<u32, Arc<str>>,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let settings: Settings = StartError::settings(args)?;
    let arguments = kernel.tracepoint_arguments("kfree_skb")?.unwrap_or_default();
    let [interval, burst] = settings.events.settings();
    let constants = [
        Setting::u32("KFREE_SKB_ARGUMENTS", arguments),
        Setting::u32("STACKS", settings.stacks.into()),
        interval,
        burst,
    ];
    let mut ledger = Ledger::open(kernel, object!("packetloss"), &constants, HOOKS, "DROPS")?;
    let ring = ledger.ring()?;
    let names = kernel.drop_reasons()?;
    let mut housekeeping = vec![0; KNOWN_REASONS];
    for (reason, name) in names {
        if let Some(bits) = usize::try_from(*reason).ok().and_then(|i| housekeeping.get_mut(i)) {
            *bits = kernel::housekeeping_bits(name);
        }
    }
    ledger.object().fill("HOUSEKEEPING", &housekeeping)?;
    let symbols = Symbols::open();
    ledger.object().note(symbols.status());
    let reasons = names.iter().map(|(reason, name)| (*reason, name.as_str().into())).collect();
    Ok(Box::new(PacketLoss { ledger, ring, symbols, reasons }))
}

/// The sums of one namespace.
#[derive(Default)]
struct Lost {
    packets: u64,
    netfilter: u64,
    by_reason: BTreeMap<(u32, Protocol, Direction), u64>,
    housekeeping: BTreeMap<u32, u64>,
}

impl Probe for PacketLoss {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let mut lost: HashMap<NsId, Lost> = HashMap::new();
        let reasons = &self.reasons;
        let rest = self.ledger.read(view, |id, key, numbers| {
            let (drop, count) = (Drop::read(key), numbers[0]);
            let name = reasons.get(&drop.reason).map_or("", |name| name.as_ref());
            let lost = lost.entry(id).or_default();
            if drop.is_housekeeping(name) {
                *lost.housekeeping.entry(drop.reason).or_default() += count;
                return;
            }
            lost.packets += count;
            if name == "NETFILTER_DROP" {
                lost.netfilter += count;
            }
            *lost.by_reason.entry((drop.reason, drop.protocol(), drop.direction)).or_default() += count;
        })?;
        for (id, ns) in view.topology.iter() {
            // A namespace that lost nothing says so: a rate over a series that only begins with a loss would miss it.
            let lost = lost.remove(&id).unwrap_or_default();
            out.push(&metrics::PACKETS, id, (), lost.packets);
            out.push(&metrics::NETFILTER, id, (), lost.netfilter);
            for ((reason, protocol, direction), count) in lost.by_reason {
                let name = name(reasons, reason);
                out.push(&metrics::DROPS, id, (name.as_ref(), protocol, direction), count);
            }
            for (reason, count) in lost.housekeeping {
                out.push(&metrics::HOUSEKEEPING, id, name(reasons, reason).as_ref(), count);
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
        let mut losses = Vec::new();
        self.ring.drain(AT_ONCE, |record| losses.push(Loss::read(record)));
        self.symbols.learn(losses.iter().flat_map(|loss| loss.stack().chain([loss.place])));
        let clock = Clock::now();
        for loss in losses {
            let reason = name(&self.reasons, loss.reason);
            out.emit(events::event(loss, reason, &self.symbols, clock));
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
