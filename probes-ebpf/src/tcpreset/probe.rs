//! `tcpreset`: who resets connections, and why, for each namespace.

mod kernel;
mod metrics;

use std::collections::{BTreeMap, HashMap};

use netsonde_framework::setting::{NoSettings, schema};
use netsonde_framework::{
    CollectError, HookStatus, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec, Samples, StartError, Started, View,
};

use crate::object;
use crate::runtime::{Hook, Kernel, Ledger, Role, Rung, Setting};
use kernel::{Reset, SIZE};
use metrics::Kind;

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "tcpreset",
        aliases: &[],
        about: "TCP resets sent and received, with the kernel's reason",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[],
        needs: &[
            "CAP_BPF and CAP_PERFMON",
            "kernel with BTF (CONFIG_DEBUG_INFO_BTF), 6.10 or later for reasons",
        ],
        default_on: true,
        settings: schema::<NoSettings>,
    },
    start,
};

const HOOKS: &[Hook] = &[
    Hook {
        name: "tcp:tcp_send_reset",
        role: Role::Source,
        rungs: &[Rung::TpBtf("tcp_send_reset", "tcpreset_send")],
    },
    Hook {
        name: "tcp:tcp_receive_reset",
        role: Role::Source,
        rungs: &[Rung::TpBtf("tcp_receive_reset", "tcpreset_receive")],
    },
];

struct TcpReset {
    ledger: Ledger<SIZE>,
    reasons: BTreeMap<u32, String>,
    /// Whether the tracepoint fires for every reset that is sent: since Linux 6.10, when it got a reason.
    tells_all: bool,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let NoSettings {} = StartError::settings(args)?;
    let arguments = kernel.tracepoint_arguments("tcp_send_reset")?.unwrap_or_default();
    let settings = [Setting::u32("SEND_RESET_ARGUMENTS", arguments)];
    let ledger = Ledger::open(kernel, object!("tcpreset"), &settings, HOOKS, "RESETS")?;
    Ok(Box::new(TcpReset { ledger, reasons: kernel.reset_reasons()?.clone(), tells_all: arguments >= 3 }))
}

#[derive(Default)]
struct Sums {
    sent: u64,
    received: u64,
    by_kind: BTreeMap<(Kind, u32), u64>,
}

impl Probe for TcpReset {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let mut sums: HashMap<NsId, Sums> = HashMap::new();
        let rest = self.ledger.read(view, |id, key, numbers| {
            let count = numbers[0];
            let Some(reset) = Reset::read(key) else { return };
            let sums = sums.entry(id).or_default();
            *(if reset.kind == Kind::Receive { &mut sums.received } else { &mut sums.sent }) += count;
            *sums.by_kind.entry((reset.kind, reset.reason)).or_default() += count;
        })?;
        for (id, ns) in view.topology.iter() {
            let sums = sums.remove(&id).unwrap_or_default();
            // A sum that lacks the most common kind would be wrong, not small.
            if self.tells_all {
                out.push(&metrics::SENT, id, (), sums.sent);
            }
            out.push(&metrics::RECEIVED, id, (), sums.received);
            for ((kind, reason), count) in sums.by_kind {
                out.push(&metrics::RESETS, id, (kind, self.name(kind, reason).as_ref()), count);
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

impl TcpReset {
    fn name(&self, kind: Kind, reason: u32) -> std::borrow::Cow<'_, str> {
        if kind == Kind::Receive || self.reasons.is_empty() {
            return "unknown".into();
        }
        self.reasons
            .get(&reason)
            .map_or_else(|| format!("REASON_{reason}").into(), |name| name.as_str().into())
    }
}
