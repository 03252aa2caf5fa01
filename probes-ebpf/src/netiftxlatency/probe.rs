//! `netiftxlatency`: how long packets wait in the queues of devices, and how long drivers take to accept them.

mod devices;
mod events;
mod kernel;
mod metrics;

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Emitter, HookStatus, Interval, NetnsKey, Probe, ProbeInfo, ProbeSpec, Samples, StartError,
    Started, View,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object;
use crate::runtime::{Clock, EventLimit, Hook, Kernel, Ledger, Ring, Role, Rung, Setting};
use devices::Devices;
use kernel::{NUMBERS, SIZE, Slow};

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "netiftxlatency",
        aliases: &["netiftxlat"],
        about: "How long packets wait in the queues of devices and in their drivers",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[&events::QDISC, &events::DRIVER],
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
    /// A packet that takes longer than this in a queue or in a driver is told of. Default 100ms.
    slow: Interval,
    /// How many events are told of slow packets of one kind: the same namespace, device, and queue or driver. Default 1
    /// a second, 10 at once.
    events: EventLimit,
}

impl Default for Settings {
    fn default() -> Self {
        Self { slow: Interval(Duration::from_millis(100)), events: EventLimit { per_second: 1, burst: 10 } }
    }
}

/// The end of each way is attached before its beginning: what is seen to begin and not to end would be kept.
const HOOKS: &[Hook] = &[
    Hook {
        name: "skb:kfree_skb",
        role: Role::Detail,
        rungs: &[Rung::TpBtf("kfree_skb", "netiftxlatency_drop")],
    },
    Hook {
        name: "qdisc:qdisc_dequeue",
        role: Role::Source,
        rungs: &[Rung::TpBtf("qdisc_dequeue", "netiftxlatency_dequeue")],
    },
    Hook {
        name: "qdisc:qdisc_enqueue",
        role: Role::Source,
        rungs: &[Rung::TpBtf("qdisc_enqueue", "netiftxlatency_enqueue")],
    },
    Hook {
        name: "net:net_dev_xmit",
        role: Role::Source,
        rungs: &[Rung::TpBtf("net_dev_xmit", "netiftxlatency_xmit")],
    },
    Hook {
        name: "net:net_dev_start_xmit",
        role: Role::Source,
        rungs: &[Rung::TpBtf("net_dev_start_xmit", "netiftxlatency_start")],
    },
];

/// Stages of devices: a device has one to four.
const KEYS: u32 = 2048;
/// Records that are taken at once, so that a scrape does not wait long.
const AT_ONCE: usize = 4096;

struct NetIfTxLatency {
    ledger: Ledger<SIZE, NUMBERS>,
    ring: Ring,
    devices: Devices,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let settings: Settings = StartError::settings(args)?;
    let slow = u64::try_from(settings.slow.0.as_nanos()).unwrap_or(u64::MAX);
    let [interval, burst] = settings.events.settings();
    let constants = [Setting::histograms(KEYS), Setting::u64("SLOW_NS", slow), interval, burst];
    let mut ledger = Ledger::open(kernel, object!("netiftxlatency"), &constants, HOOKS, "HISTOGRAMS")?;
    let ring = ledger.ring()?;
    Ok(Box::new(NetIfTxLatency { ledger, ring, devices: Devices::default() }))
}

impl Probe for NetIfTxLatency {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        let now = Instant::now();
        let devices = &mut self.devices;
        let rest = self.ledger.read(view, |id, key, numbers| {
            if let Some(ns) = view.topology.get(id) {
                devices.add(ns.key, key, numbers, now);
            }
        })?;
        for (id, ns) in view.topology.iter() {
            let row = devices.row(ns.key);
            for (name, device) in &row.devices {
                let (qdisc, driver) = (device.qdisc(), device.driver());
                if let Some(times) = &qdisc {
                    out.push_histogram(&metrics::QDISC, id, name, times);
                }
                if let Some(times) = &driver {
                    out.push_histogram(&metrics::DRIVER, id, name, times);
                }
                if qdisc.is_some() || device.unmatched() > 0 {
                    out.push(&metrics::UNMATCHED, id, name.as_str(), device.unmatched());
                }
                if driver.is_some() || device.busy() > 0 {
                    out.push(&metrics::BUSY, id, name.as_str(), device.busy());
                }
            }
            // A namespace without any says so: a rate over a series that only begins with one would miss it.
            let [qdisc, driver] = row.over_100ms;
            out.push(&metrics::QDISC_OVER_100MS, id, (), qdisc);
            out.push(&metrics::DRIVER_OVER_100MS, id, (), driver);
            if let Some(held) = rest.held.get(&id) {
                out.push(&metrics::SUPPRESSED, id, (), held.suppressed);
                out.push(&metrics::LOST, id, (), held.lost);
            }
            if ns.is_host() {
                out.push(&metrics::UNATTRIBUTED, id, (), rest.unattributed);
                out.push(&metrics::UNCOUNTED, id, (), rest.uncounted);
            }
        }
        let idle = devices.take_idle();
        self.ledger.remove(&idle);
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

    fn forget(&mut self, gone: &[NetnsKey]) {
        self.ledger.forget(gone);
        self.devices.forget(gone);
    }

    fn hooks(&self) -> &[HookStatus] {
        self.ledger.hooks()
    }
}
