//! `biolatency`: how long requests to block devices take, by device and operation, and whose were slow.

mod disks;
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
use crate::runtime::{Clock, EventLimit, Hook, Kernel, Ledger, Ring, Role, Rung, Setting, TALLY, Table};
use disks::{Disks, Distributions};
use kernel::{SLOW, STAGE, SlowRequest, Stage};

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "biolatency",
        aliases: &[],
        about: "How long requests to disks take, and whose were slow",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[&events::SLOW, &events::VERY_SLOW],
        needs: &["CAP_BPF and CAP_PERFMON", "kernel with BTF (CONFIG_DEBUG_INFO_BTF), 5.15 or later"],
        default_on: true,
        settings: schema::<Settings>,
    },
    start,
};

/// The kernel side tells this apart by itself, so `slow` cannot be above it.
const VERY_SLOW: Duration = Duration::from_millis(100);

/// What is slow, and what events tell.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// A request that takes longer than this is counted as slow for its process's namespace, and told of. 0s: every
    /// request is slow. 0s to 100ms. Default 10ms.
    #[schemars(extend("formatMaximum" = "100ms"))]
    slow: Interval,
    /// How many events are told of slow requests of one kind: the same namespace, disk, operation and type of event.
    /// Default 1 a second, 10 at once.
    events: EventLimit,
}

impl Default for Settings {
    fn default() -> Self {
        Self { slow: Interval(Duration::from_millis(10)), events: EventLimit { per_second: 1, burst: 10 } }
    }
}

const HOOKS: &[Hook] = &[
    Hook {
        name: "block:block_rq_complete",
        role: Role::Source,
        rungs: &[Rung::TpBtf("block_rq_complete", "biolatency_complete")],
    },
    Hook {
        name: "block:block_rq_issue",
        role: Role::Detail,
        rungs: &[Rung::TpBtf("block_rq_issue", "biolatency_issue")],
    },
    Hook {
        name: "block:block_io_start or block:block_getrq",
        role: Role::Detail,
        rungs: &[
            Rung::TpBtf("block_io_start", "biolatency_io_start"),
            Rung::TpBtf("block_getrq", "biolatency_getrq"),
        ],
    },
];

/// The numbers of `struct histogram`.
const NUMBERS: usize = 32;
/// Disks, operations, and the two stages of each.
const KEYS: u32 = 512;
/// Records that are taken at once, so that a scrape does not wait long.
const AT_ONCE: usize = 4096;

struct BioLatency {
    slow: Ledger<SLOW>,
    latencies: Table<STAGE, NUMBERS>,
    disks: Disks,
    ring: Ring,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let settings: Settings = StartError::settings(args)?;
    if settings.slow.0 > VERY_SLOW {
        return Err(StartError::Settings("slow: must be at most 100ms".into()));
    }
    let slow = u64::try_from(settings.slow.0.as_nanos()).unwrap_or(u64::MAX);
    let [interval, burst] = settings.events.settings();
    let constants = [Setting::histograms(KEYS), Setting::u64("SLOW_NS", slow), interval, burst];
    let mut slow = Ledger::open(kernel, object!("biolatency"), &constants, HOOKS, "SLOW")?;
    let latencies = slow.object().histograms()?;
    let ring = slow.ring()?;
    Ok(Box::new(BioLatency { slow, latencies, disks: Disks::default(), ring }))
}

/// Slow requests of one namespace.
#[derive(Default)]
struct Slow {
    all: u64,
    over_100ms: u64,
}

impl BioLatency {
    fn push_latencies(&mut self, host: NsId, out: &mut Samples) -> Result<(), CollectError> {
        let mut whole = Distributions::new();
        let mut device = Distributions::new();
        let disks = &mut self.disks;
        self.latencies.read(|key, numbers| {
            let stage = Stage::read(key);
            if let Some(times) = Exp2::from_numbers(&numbers[TALLY..]) {
                disks.add(&stage, &times, if stage.device { &mut device } else { &mut whole });
            }
        })?;
        for ((name, operation), times) in &whole {
            out.push_histogram(&metrics::REQUEST, host, (name, *operation), times);
        }
        for ((name, operation), times) in &device {
            out.push_histogram(&metrics::DEVICE, host, (name, *operation), times);
        }
        Ok(())
    }
}

impl Probe for BioLatency {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let mut slow: HashMap<NsId, Slow> = HashMap::new();
        let rest = self.slow.read(view, |id, key, numbers| {
            let slow = slow.entry(id).or_default();
            slow.all += numbers[0];
            if kernel::is_very_slow(key) {
                slow.over_100ms += numbers[0];
            }
        })?;
        if let Some((host, _)) = view.topology.host() {
            self.push_latencies(host, out)?;
            out.push(&metrics::UNATTRIBUTED, host, (), rest.unattributed);
            out.push(&metrics::UNCOUNTED, host, (), rest.uncounted);
        }
        for (id, _) in view.topology.iter() {
            // A namespace without a slow request says so: a rate over a series that only begins with one would miss it.
            let slow = slow.remove(&id).unwrap_or_default();
            out.push(&metrics::SLOW, id, (), slow.all);
            out.push(&metrics::OVER_100MS, id, (), slow.over_100ms);
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
        self.ring.drain(AT_ONCE, |record| out.emit(events::event(SlowRequest::read(record), clock)));
        Ok(())
    }

    fn forget(&mut self, gone: &[NetnsKey]) {
        self.slow.forget(gone);
    }

    fn hooks(&self) -> &[HookStatus] {
        self.slow.hooks()
    }
}
