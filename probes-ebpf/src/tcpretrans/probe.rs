//! `tcpretrans`: what TCP sends again, and what made it, for each namespace.

mod kernel;
mod metrics;

use std::collections::{BTreeMap, HashMap};

use netsonde_framework::setting::{NoSettings, schema};
use netsonde_framework::{
    CollectError, HookStatus, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};

use crate::object;
use crate::runtime::{Hook, Kernel, Ledger, Role, Rung, Setting};
use kernel::{Retransmission, SIZE};
use metrics::Kind;

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "tcpretrans",
        aliases: &[],
        about: "TCP retransmissions, by what made TCP send again",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &["CAP_BPF and CAP_PERFMON", "kernel with BTF (CONFIG_DEBUG_INFO_BTF)"],
        default_on: true,
        settings: schema::<NoSettings>,
    },
    start,
};

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
];

struct TcpRetrans {
    ledger: Ledger<SIZE>,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let NoSettings {} = StartError::settings(args)?;
    let arguments = kernel.tracepoint_arguments("tcp_retransmit_skb")?.unwrap_or_default();
    let settings = [Setting::u32("RETRANSMIT_ARGUMENTS", arguments)];
    let ledger = Ledger::open(kernel, object!("tcpretrans"), &settings, HOOKS, "RETRANSMISSIONS")?;
    Ok(Box::new(TcpRetrans { ledger }))
}

#[derive(Default)]
struct Sums {
    made: BTreeMap<Kind, u64>,
    failed: BTreeMap<Kind, u64>,
}

impl Probe for TcpRetrans {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let mut sums: HashMap<NsId, Sums> = HashMap::new();
        let rest = self.ledger.read(view, |id, key, numbers| {
            let count = numbers[0];
            let Some(read) = Retransmission::read(key) else { return };
            let sums = sums.entry(id).or_default();
            let kinds = if read.failed { &mut sums.failed } else { &mut sums.made };
            *kinds.entry(read.kind).or_default() += count;
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
