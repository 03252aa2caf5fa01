//! `packetloss`: packets that the kernel drops, with its reason, for each namespace.

mod events;
mod kernel;
mod metrics;
mod refusal;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Emitter, HookState, HookStatus, Interval, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec,
    Samples, StartError, Started, View,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object;
use crate::runtime::{
    Clock, EventLimit, Hook, Kernel, Ledger, Ring, Role, Rung, Setting, SharedSymbols, Walk, offsets,
};
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
    /// Whether events tell the table and chain of nf_tables that dropped the packet. It takes a kprobe, which every
    /// packet pays for at every chain that looks at it, and the stacks. Default false.
    chains: bool,
    /// How often listening sockets are asked what they refused. Where the kernel's function tcp_conn_request can be
    /// hooked, it is known at once all the same. Default 5s, at least 100ms.
    #[schemars(extend("formatMinimum" = "100ms"))]
    listeners: Interval,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            events: EventLimit { per_second: 1, burst: 10 },
            stacks: true,
            chains: false,
            listeners: Interval(Duration::from_secs(5)),
        }
    }
}

const FIND: &str = "iterator task_file";
const LOOK: &str = "iterator bpf_sk_storage_map";

const HOOKS: &[Hook] = &[
    Hook {
        name: "skb:kfree_skb",
        role: Role::Source,
        rungs: &[Rung::TpBtf("kfree_skb", "packetloss_kfree_skb")],
    },
    // What listening sockets refuse. The first before the second, so that none comes in between.
    Hook {
        name: "sock:inet_sock_set_state",
        role: Role::Detail,
        rungs: &[Rung::TpBtf("inet_sock_set_state", "packetloss_listens")],
    },
    Hook { name: FIND, role: Role::Detail, rungs: &[Rung::Iter("task_file", "packetloss_find")] },
    Hook { name: LOOK, role: Role::Detail, rungs: &[Rung::Iter("bpf_sk_storage_map", "packetloss_look")] },
    Hook {
        name: "tcp_conn_request",
        role: Role::Detail,
        rungs: &[Rung::Fexit("tcp_conn_request", "packetloss_conn_request")],
    },
];

/// With the setting `chains`.
const CHAIN: Hook = Hook {
    name: "nft_do_chain",
    role: Role::Detail,
    rungs: &[Rung::Kprobe("nft_do_chain", "packetloss_nft_chain")],
};

const SHORTEST: Duration = Duration::from_millis(100);
/// Entries of the kernel side's map HOUSEKEEPING.
const KNOWN_REASONS: usize = 512;
/// Records that are taken at once, so that a scrape does not wait long.
const AT_ONCE: usize = 4096;

struct PacketLoss {
    ledger: Ledger<SIZE>,
    ring: Ring,
    symbols: SharedSymbols,
    reasons: BTreeMap<u32, Arc<str>>,
    /// Asks listening sockets what they refused.
    look: Option<Walk>,
    interval: Duration,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let settings: Settings = StartError::settings(args)?;
    let listeners = settings.listeners.0;
    if listeners < SHORTEST {
        return Err(StartError::Settings("listeners: must be at least 100ms".into()));
    }
    let arguments = kernel.tracepoint_arguments("kfree_skb")?.unwrap_or_default();
    let [interval, burst] = settings.events.settings();
    let chains = if settings.chains && settings.stacks {
        let members =
            [("nft_pktinfo", "skb"), ("nft_chain", "table"), ("nft_chain", "name"), ("nft_table", "name")];
        offsets("nf_tables", members)
    } else {
        None
    };
    let [skb, table, chain_name, table_name] = chains.unwrap_or_default();
    let constants = [
        Setting::u32("CHAINS", chains.is_some().into()),
        Setting::u32("PKTINFO_SKB", skb),
        Setting::u32("CHAIN_TABLE", table),
        Setting::u32("CHAIN_NAME", chain_name),
        Setting::u32("TABLE_NAME", table_name),
        Setting::u32("KFREE_SKB_ARGUMENTS", arguments),
        Setting::u32("STACKS", settings.stacks.into()),
        interval,
        burst,
    ];
    let hooks = if chains.is_some() { [HOOKS, &[CHAIN]].concat() } else { HOOKS.to_vec() };
    let mut ledger = Ledger::open(kernel, object!("packetloss"), &constants, &hooks, "DROPS")?;
    if settings.chains && chains.is_none() {
        let why = if settings.stacks {
            "the types of nf_tables are not known: it is not loaded, or the kernel has no BTF of modules"
        } else {
            "it needs the setting stacks"
        };
        let state = HookState::Unsupported(why.into());
        ledger.object().note(HookStatus::new(CHAIN.name, state));
    }
    let ring = ledger.ring()?;
    let names = kernel.drop_reasons()?;
    let mut housekeeping = vec![0; KNOWN_REASONS];
    for (reason, name) in names {
        if let Some(bits) = usize::try_from(*reason).ok().and_then(|i| housekeeping.get_mut(i)) {
            *bits = kernel::housekeeping_bits(name);
        }
    }
    ledger.object().fill("HOUSEKEEPING", &housekeeping)?;
    let object = ledger.object();
    if let Some(find) = object.iterator(FIND, "packetloss_find", None)
        && let Err(error) = find.run()
    {
        let why = format!("sockets that listened before are not known: {error}");
        object.note(HookStatus::new(FIND, HookState::Failed(why)));
    }
    let look = object.iterator(LOOK, "packetloss_look", Some("LISTENERS"));
    let symbols = kernel.symbols();
    ledger.object().note(symbols.lock().status());
    let reasons = names.iter().map(|(reason, name)| (*reason, name.as_str().into())).collect();
    Ok(Box::new(PacketLoss { ledger, ring, symbols, reasons, look, interval: listeners }))
}

/// The sums of one namespace.
#[derive(Default)]
struct Lost {
    packets: u64,
    netfilter: u64,
    refused: u64,
    by_reason: BTreeMap<(u32, Protocol, Direction), u64>,
    housekeeping: BTreeMap<u32, u64>,
}

impl PacketLoss {
    fn look(&self) -> Result<(), CollectError> {
        let failed = |source| CollectError::Read { what: "what listening sockets refused".into(), source };
        self.look.as_ref().map_or(Ok(()), |look| look.run().map_err(failed))
    }
}

impl Probe for PacketLoss {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        self.symbols.tidy();
        let looked = self.look();
        let mut lost: HashMap<NsId, Lost> = HashMap::new();
        let reasons = &self.reasons;
        let rest = self.ledger.read(view, |id, key, numbers| {
            let (drop, count) = (Drop::read(key), numbers[0]);
            let name = reasons.get(&drop.reason).map_or("", |name| name.as_ref());
            let lost = lost.entry(id).or_default();
            if drop.is_refusal() {
                lost.refused += count;
                return;
            }
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
            if self.look.is_some() {
                out.push(&metrics::REFUSED, id, (), lost.refused);
            }
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
        looked
    }

    fn interval(&self) -> Option<Duration> {
        self.look.is_some().then_some(self.interval)
    }

    fn refresh(&mut self, _view: &View<'_>) -> Result<(), CollectError> {
        self.look()
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.fd())
    }

    fn drain(&mut self, out: &mut Emitter) -> Result<(), CollectError> {
        let mut losses = Vec::new();
        self.ring.drain(AT_ONCE, |record| losses.push(Loss::read(record)));
        let mut symbols = self.symbols.lock();
        symbols.learn(losses.iter().flat_map(|loss| loss.stack().chain([loss.place])));
        let clock = Clock::now();
        for loss in losses {
            let reason = match &loss.refusal {
                Some(refusal) => refusal.reason().into(),
                None => name(&self.reasons, loss.reason),
            };
            out.emit(events::event(loss, reason, &symbols, clock));
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
