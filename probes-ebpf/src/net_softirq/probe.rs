//! `net_softirq`: how long the network's softirqs wait for their CPU and how long they run, and what held them up.

mod events;
mod kernel;
mod metrics;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Counter, Emitter, Exp2, HookStatus, Interval, Probe, ProbeInfo, ProbeSpec, Samples,
    StartError, Started, View,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object;
use crate::runtime::{Clock, EventLimit, Hook, Kernel, Object, Ring, Role, Rung, Setting, TALLY};
use kernel::Slow;
use metrics::{Stage, Vector};

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "net_softirq",
        aliases: &["softirq"],
        about: "How long the network's softirqs wait and run, and what held them up",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[&events::SCHED_SLOW, &events::SCHED_100MS, &events::EXCUTE_SLOW, &events::EXCUTE_100MS],
        needs: &["CAP_BPF and CAP_PERFMON", "kernel with BTF (CONFIG_DEBUG_INFO_BTF), 5.18 or later"],
        default_on: false,
        settings: schema::<Settings>,
    },
    start,
};

/// What is slow, and what events tell.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// A softirq that waits or runs longer than this is counted as slow and told of. Default 10ms.
    slow: Interval,
    /// How many events are told of slow softirqs of one kind: the same CPU, vector and stage. Default 1 a second, 10 at
    /// once.
    events: EventLimit,
    /// Whether it is watched what the CPU does while a softirq waits, so that events can tell what held it up. It takes
    /// some nanoseconds at every interrupt, every softirq and every switch of tasks. Default true.
    details: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            slow: Interval(Duration::from_millis(10)),
            events: EventLimit { per_second: 1, burst: 10 },
            details: true,
        }
    }
}

/// The raise is last: one that is seen before anybody sees its entry would seem to wait.
const MEASURE: [Hook; 3] = [
    source("irq:softirq_exit", &[Rung::TpBtf("softirq_exit", "net_softirq_exit")]),
    source("irq:softirq_entry", &[Rung::TpBtf("softirq_entry", "net_softirq_entry")]),
    source("irq:softirq_raise", &[Rung::TpBtf("softirq_raise", "net_softirq_raise")]),
];

const POLL: Hook = detail("napi:napi_poll", &[Rung::TpBtf("napi_poll", "net_softirq_poll")]);

const WATCH: [Hook; 3] = [
    detail("sched:sched_switch", &[Rung::TpBtf("sched_switch", "net_softirq_switch")]),
    detail("irq:irq_handler_entry", &[Rung::TpBtf("irq_handler_entry", "net_softirq_irq_entry")]),
    detail("irq:irq_handler_exit", &[Rung::TpBtf("irq_handler_exit", "net_softirq_irq_exit")]),
];

const fn source(name: &'static str, rungs: &'static [Rung]) -> Hook {
    Hook { name, role: Role::Source, rungs }
}

const fn detail(name: &'static str, rungs: &'static [Rung]) -> Hook {
    Hook { name, role: Role::Detail, rungs }
}

/// The numbers of `struct histogram`, and where they are in it.
const NUMBERS: usize = 32;
const SUPPRESSED: usize = 2;
const LOST: usize = 4;
const OVER_100MS: usize = 30;
const OVER_SLOW: usize = 31;
/// Records that are taken at once, so that a scrape does not wait long.
const AT_ONCE: usize = 4096;

struct NetSoftirq {
    object: Object,
    ring: Ring,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let settings: Settings = StartError::settings(args)?;
    let slow = u64::try_from(settings.slow.0.as_nanos()).unwrap_or(u64::MAX);
    let [interval, burst] = settings.events.settings();
    let constants =
        [Setting::u64("SLOW_NS", slow), Setting::u32("DETAILS", settings.details.into()), interval, burst];
    let mut hooks = MEASURE.to_vec();
    hooks.push(POLL);
    if settings.details {
        hooks.extend(WATCH);
    }
    let mut object = Object::load(kernel, object!("net_softirq"), &constants, &hooks)?;
    let ring = object.ring("EVENTS")?;
    Ok(Box::new(NetSoftirq { object, ring }))
}

impl Probe for NetSoftirq {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let Some((host, _)) = view.topology.host() else { return Ok(()) };
        self.object.check()?;
        let (mut suppressed, mut lost) = (0, 0);
        for vector in Vector::ALL {
            for stage in Stage::ALL {
                let numbers: [u64; NUMBERS] =
                    self.object.numbers("LATENCIES", kernel::place(*vector, *stage))?;
                if let Some(times) = Exp2::from_numbers(&numbers[TALLY..]) {
                    out.push_histogram(&metrics::LATENCY, host, (*vector, *stage), &times);
                }
                let (slow, over_100ms) = counters(*stage);
                out.push(slow, host, *vector, numbers[OVER_SLOW]);
                out.push(over_100ms, host, *vector, numbers[OVER_100MS]);
                suppressed += numbers[SUPPRESSED];
                lost += numbers[LOST];
            }
            let unmatched = self.object.sum("UNMATCHED", kernel::index(*vector))?;
            out.push(&metrics::UNMATCHED, host, *vector, unmatched);
        }
        out.push(&metrics::SUPPRESSED, host, (), suppressed);
        out.push(&metrics::LOST, host, (), lost);
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

    fn hooks(&self) -> &[HookStatus] {
        self.object.hooks()
    }
}

/// Where slow runs of a stage are counted: over the setting, and over 100 ms.
fn counters(stage: Stage) -> (&'static Counter<(Vector,)>, &'static Counter<(Vector,)>) {
    match stage {
        Stage::Scheduling => (&metrics::SCHEDULING_SLOW, &metrics::SCHEDULING_OVER_100MS),
        Stage::Execution => (&metrics::EXECUTION_SLOW, &metrics::EXECUTION_OVER_100MS),
    }
}
