//! `packetloss`: packets that the kernel drops, with its reason, for each namespace.

mod kernel;
mod metrics;

use std::collections::{BTreeMap, HashMap};

use netsonde_framework::setting::{NoSettings, schema};
use netsonde_framework::{
    CollectError, HookStatus, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};

use crate::object;
use crate::runtime::{Hook, Kernel, Ledger, Setting};
use kernel::{Drop, SIZE};
use metrics::Protocol;

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "packetloss",
        aliases: &[],
        about: "Packets that the kernel drops, with its reason",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[
            "CAP_BPF and CAP_PERFMON",
            "kernel with BTF (CONFIG_DEBUG_INFO_BTF), 5.17 or later for reasons",
        ],
        default_on: true,
        settings: schema::<NoSettings>,
    },
    start,
};

const HOOKS: &[Hook] = &[Hook { tracepoint: "kfree_skb", program: "packetloss_kfree_skb" }];

struct PacketLoss {
    ledger: Ledger<SIZE>,
    reasons: BTreeMap<u32, String>,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let NoSettings {} = StartError::settings(args)?;
    let arguments = kernel.tracepoint_arguments("kfree_skb")?.unwrap_or_default();
    let settings = [Setting { name: "KFREE_SKB_ARGUMENTS", value: arguments }];
    let ledger = Ledger::open(kernel, object!("packetloss"), &settings, HOOKS, "DROPS")?;
    Ok(Box::new(PacketLoss { ledger, reasons: kernel.drop_reasons()?.clone() }))
}

/// The sums of one namespace.
#[derive(Default)]
struct Lost {
    packets: u64,
    netfilter: u64,
    by_reason: BTreeMap<(u32, Protocol), u64>,
    housekeeping: BTreeMap<u32, u64>,
}

impl Probe for PacketLoss {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let mut lost: HashMap<NsId, Lost> = HashMap::new();
        let reasons = &self.reasons;
        let rest = self.ledger.read(view, |id, key, count| {
            let drop = Drop::read(key);
            let name = reasons.get(&drop.reason).map_or("", String::as_str);
            let lost = lost.entry(id).or_default();
            if drop.is_housekeeping(name) {
                *lost.housekeeping.entry(drop.reason).or_default() += count;
                return;
            }
            lost.packets += count;
            if name == "NETFILTER_DROP" {
                lost.netfilter += count;
            }
            *lost.by_reason.entry((drop.reason, drop.protocol())).or_default() += count;
        })?;
        for (id, ns) in view.topology.iter() {
            // A namespace that lost nothing says so: a rate over a series that only begins with a loss would miss it.
            let lost = lost.remove(&id).unwrap_or_default();
            out.push(&metrics::PACKETS, id, (), lost.packets);
            out.push(&metrics::NETFILTER, id, (), lost.netfilter);
            for ((reason, protocol), count) in lost.by_reason {
                out.push(&metrics::DROPS, id, (self.name(reason).as_ref(), protocol), count);
            }
            for (reason, count) in lost.housekeeping {
                out.push(&metrics::HOUSEKEEPING, id, self.name(reason).as_ref(), count);
            }
            if ns.is_host() {
                out.push(&metrics::UNATTRIBUTED, id, (), rest.unattributed);
                out.push(&metrics::UNCOUNTED, id, (), rest.uncounted);
            }
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

impl PacketLoss {
    fn name(&self, reason: u32) -> std::borrow::Cow<'_, str> {
        self.reasons
            .get(&reason)
            .map_or_else(|| format!("REASON_{reason}").into(), |name| name.as_str().into())
    }
}
