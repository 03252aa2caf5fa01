//! `tcpreset`: who resets connections, and why, for each namespace.

mod events;
mod kernel;
mod metrics;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Emitter, HookState, HookStatus, NetnsKey, NsId, Probe, ProbeInfo, ProbeSpec, Samples,
    StartError, Started, View,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object;
use crate::runtime::{Clock, EventLimit, Hook, Kernel, Ledger, Ring, Role, Rung, Setting};
use kernel::{Reset, SIZE, Told};
use metrics::Kind;

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "tcpreset",
        aliases: &[],
        about: "TCP resets sent and received, with the kernel's reason",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[&events::NOSOCK, &events::ACTIVE, &events::PROCESS, &events::RECEIVE],
        needs: &[
            "CAP_BPF and CAP_PERFMON",
            "kernel with BTF (CONFIG_DEBUG_INFO_BTF), 6.10 or later for reasons",
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
    /// How many events are told of resets of one kind: the same namespace, kind and reason. Default 1 a second, 10 at
    /// once.
    events: EventLimit,
}

impl Default for Settings {
    fn default() -> Self {
        Self { events: EventLimit { per_second: 1, burst: 10 } }
    }
}

const SOURCES: [Hook; 2] = [
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

/// For kernels whose tcp_send_reset does not fire for resets of no socket and of sockets in TIME_WAIT. The last rungs
/// see only the first of these.
const UNSEEN: [Hook; 2] = [
    Hook {
        name: "tcp_v4_send_reset",
        role: Role::Detail,
        rungs: &[
            Rung::Fentry("tcp_v4_send_reset", "tcpreset_v4_fentry"),
            Rung::Kprobe("tcp_v4_send_reset", "tcpreset_v4_kprobe"),
            Rung::TpBtf("kfree_skb", "tcpreset_v4_kfree_skb"),
        ],
    },
    Hook {
        name: "tcp_v6_send_reset",
        role: Role::Detail,
        rungs: &[
            Rung::Fentry("tcp_v6_send_reset", "tcpreset_v6_fentry"),
            Rung::Kprobe("tcp_v6_send_reset", "tcpreset_v6_kprobe"),
            Rung::TpBtf("kfree_skb", "tcpreset_v6_kfree_skb"),
        ],
    },
];

/// Records that are taken at once, so that a scrape does not wait long.
const AT_ONCE: usize = 4096;

struct TcpReset {
    ledger: Ledger<SIZE>,
    ring: Ring,
    reasons: BTreeMap<u32, Arc<str>>,
    /// Whether the kernel tells of every reset that is sent.
    tells_all: bool,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let settings: Settings = StartError::settings(args)?;
    let arguments = kernel.tracepoint_arguments("tcp_send_reset")?.unwrap_or_default();
    // With a reason, the tracepoint fires for all of them.
    let complete = arguments >= 3;
    let no_socket = kernel.drop_reasons()?.iter().find(|(_, name)| *name == "NO_SOCKET");
    let [interval, burst] = settings.events.settings();
    let constants = [
        Setting::u32("SEND_RESET_ARGUMENTS", arguments),
        Setting::u32("NO_SOCKET", no_socket.map_or(0, |(number, _)| *number)),
        interval,
        burst,
    ];
    let hooks = if complete { SOURCES.to_vec() } else { [SOURCES, UNSEEN].concat() };
    let mut ledger = Ledger::open(kernel, object!("tcpreset"), &constants, &hooks, "RESETS")?;
    let ring = ledger.ring()?;
    let tells_all = tells_all(complete, ledger.hooks());
    let reasons =
        kernel.reset_reasons()?.iter().map(|(reason, name)| (*reason, name.as_str().into())).collect();
    Ok(Box::new(TcpReset { ledger, ring, reasons, tells_all }))
}

/// Whether every reset that is sent is seen: by the tracepoint alone where it is `complete`, else with the functions for
/// IPv4 and IPv6, whose last rungs do not see all.
fn tells_all(complete: bool, hooks: &[HookStatus]) -> bool {
    let attached = |name, by: fn(&str) -> bool| {
        hooks.iter().any(|h| h.name == name && matches!(h.state, HookState::Attached(rung) if by(rung)))
    };
    attached(SOURCES[0].name, |_| true)
        && (complete || UNSEEN.iter().all(|hook| attached(hook.name, |rung| rung != "tp_btf")))
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
                let reason = self.reason(kind, reason);
                out.push(&metrics::RESETS, id, (kind, reason.as_deref().unwrap_or("unknown")), count);
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
        let mut resets = Vec::new();
        self.ring.drain(AT_ONCE, |record| resets.extend(Told::read(record)));
        let clock = Clock::now();
        for told in resets {
            let reason = self.reason(told.kind, told.reason);
            out.emit(events::event(told, reason, clock));
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
    /// `None` where the kernel does not tell: of those that are received, and before Linux 6.10.
    fn reason(&self, kind: Kind, reason: u32) -> Option<Arc<str>> {
        if kind == Kind::Receive || self.reasons.is_empty() {
            return None;
        }
        Some(self.reasons.get(&reason).map_or_else(|| format!("REASON_{reason}").into(), Arc::clone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_told_only_where_nothing_is_missing() {
        let hook = HookStatus::new;
        let by = HookState::Attached;
        let send = || hook("tcp:tcp_send_reset", by("tp_btf"));
        assert!(tells_all(true, &[send()]));
        assert!(!tells_all(true, &[hook("tcp:tcp_send_reset", HookState::Failed(String::new()))]));
        assert!(!tells_all(false, &[send()]));
        let functions =
            |v4, v6| [send(), hook("tcp_v4_send_reset", by(v4)), hook("tcp_v6_send_reset", by(v6))];
        assert!(tells_all(false, &functions("fentry", "kprobe")));
        assert!(!tells_all(false, &functions("fentry", "tp_btf")), "no TIME_WAIT of IPv6");
    }
}
