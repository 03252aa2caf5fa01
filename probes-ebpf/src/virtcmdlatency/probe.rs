//! `virtcmdlatency`: how long commands to virtio network devices take.

mod events;
mod kernel;
mod metrics;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use netsonde_framework::setting::schema;
use netsonde_framework::{
    CollectError, Emitter, Exp2, HookState, HookStatus, Interval, Probe, ProbeInfo, ProbeSpec, Samples,
    StartError, Started, View,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object;
use crate::runtime::{
    Clock, EventLimit, Hook, Kernel, Object, Record, Ring, Role, Rung, Setting, Sibling, Table,
};
use kernel::{SIZE, Sent, SlowCommand};
use metrics::{Class, Command};

/// The description of this probe.
pub static SPEC: ProbeSpec<Kernel> = ProbeSpec {
    info: ProbeInfo {
        name: "virtcmdlatency",
        aliases: &[],
        about: "How long commands to virtio network devices take",
        guide: include_str!("README.md"),
        metrics: metrics::ALL,
        events: &[&events::SLOW],
        needs: &[
            "CAP_BPF and CAP_PERFMON",
            "kernel with BTF (CONFIG_DEBUG_INFO_BTF), 5.17 or later, with fentry or kprobes (CONFIG_KPROBES)",
            "the driver virtio_net",
        ],
        default_on: false,
        settings: schema::<Settings>,
    },
    start,
};

/// What is slow, and what events tell.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// A command that takes longer than this is counted as slow, and told of. 0s: every command is slow. Default 10ms.
    slow: Interval,
    /// How many events are told of slow commands of one kind: the same class, command and outcome. Default 1 a second,
    /// 10 at once.
    events: EventLimit,
}

impl Default for Settings {
    fn default() -> Self {
        Self { slow: Interval(Duration::from_millis(10)), events: EventLimit { per_second: 1, burst: 10 } }
    }
}

/// The function is one or the other, never both: the newer name first. fentry works where the driver is built into the
/// kernel; where it is a module, its functions are found by name only.
const ENTRY: &str = "entry of virtnet_send_command";
const RETURN: &str = "return of virtnet_send_command";

const HOOKS: &[Hook] = &[
    Hook {
        name: ENTRY,
        role: Role::Source,
        rungs: &[
            Rung::Fentry("virtnet_send_command_reply", "virtcmdlatency_fentry"),
            Rung::Fentry("virtnet_send_command", "virtcmdlatency_fentry"),
            Rung::Kprobe("virtnet_send_command_reply", "virtcmdlatency_kprobe_reply"),
            Rung::Kprobe("virtnet_send_command", "virtcmdlatency_kprobe"),
        ],
    },
    Hook {
        name: RETURN,
        role: Role::Source,
        rungs: &[
            Rung::Fexit("virtnet_send_command_reply", "virtcmdlatency_fexit"),
            Rung::Fexit("virtnet_send_command", "virtcmdlatency_fexit"),
            Rung::Kretprobe("virtnet_send_command_reply", "virtcmdlatency_kretprobe_reply"),
            Rung::Kretprobe("virtnet_send_command", "virtcmdlatency_kretprobe"),
        ],
    },
];

/// The numbers of `struct histogram`, and where they stand.
const NUMBERS: usize = 32;
const SUPPRESSED: usize = 2;
const LOST: usize = 4;
/// The function is static: the compiler may have put it into its callers, or only its end elsewhere.
const SIBLINGS: &[Sibling] = &[
    Sibling { hook: ENTRY, at: 0, other: RETURN, other_at: 1, after: 10 },
    Sibling { hook: RETURN, at: 1, other: ENTRY, other_at: 0, after: 10 },
];
const TIMES: usize = 5;
const OVER_100MS: usize = 30;
const SLOW: usize = 31;
/// The standard has some twenty commands.
const KEYS: u32 = 64;
/// Records that are taken at once, so that a scrape does not wait long.
const AT_ONCE: usize = 1024;

struct VirtCmdLatency {
    object: Object,
    latencies: Table<SIZE, NUMBERS>,
    ring: Ring,
}

fn start(args: &serde_json::Value, kernel: &Kernel) -> Started {
    let settings: Settings = StartError::settings(args)?;
    let slow = u64::try_from(settings.slow.0.as_nanos()).unwrap_or(u64::MAX);
    let [interval, burst] = settings.events.settings();
    let constants = [Setting::histograms(KEYS), Setting::u64("SLOW_NS", slow), interval, burst];
    let mut object = Object::load(kernel, object!("virtcmdlatency"), &constants, HOOKS)?;
    both(object.hooks())?;
    object.watch(SIBLINGS);
    let latencies = object.histograms()?;
    let ring = object.ring("EVENTS")?;
    Ok(Box::new(VirtCmdLatency { object, latencies, ring }))
}

/// One end of a command alone tells nothing.
fn both(hooks: &[HookStatus]) -> Result<(), StartError> {
    for hook in hooks {
        if let HookState::Unsupported(why) | HookState::Failed(why) = &hook.state {
            return Err(StartError::Unsupported(format!("{}: {why}", hook.name)));
        }
    }
    Ok(())
}

/// What is summed over all commands.
#[derive(Default)]
struct Sums {
    slow: u64,
    over_100ms: u64,
    failed: u64,
    suppressed: u64,
    lost: u64,
}

impl Probe for VirtCmdLatency {
    fn collect(&mut self, view: &View<'_>, out: &mut Samples) -> Result<(), CollectError> {
        self.object.check()?;
        let Some((host, _)) = view.topology.host() else { return Ok(()) };
        let mut sums = Sums::default();
        let mut commands: BTreeMap<(Class, Command), Exp2> = BTreeMap::new();
        self.latencies.read(|key, numbers| {
            let sent = Sent::read(Record(key));
            sums.slow += numbers[SLOW];
            sums.over_100ms += numbers[OVER_100MS];
            sums.suppressed += numbers[SUPPRESSED];
            sums.lost += numbers[LOST];
            if sent.failed {
                sums.failed += numbers[0];
            }
            if let Some(times) = Exp2::from_numbers(&numbers[TIMES..]) {
                commands.entry((sent.class(), sent.command())).or_default().add(&times);
            }
        })?;
        for (labels, times) in &commands {
            out.push_histogram(&metrics::COMMAND, host, *labels, times);
        }
        out.push(&metrics::SLOW, host, (), sums.slow);
        out.push(&metrics::OVER_100MS, host, (), sums.over_100ms);
        out.push(&metrics::FAILED, host, (), sums.failed);
        out.push(&metrics::UNCOUNTED, host, (), self.object.uncounted()?);
        out.push(&metrics::SUPPRESSED, host, (), sums.suppressed);
        out.push(&metrics::LOST, host, (), sums.lost);
        Ok(())
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring.fd())
    }

    fn drain(&mut self, out: &mut Emitter) -> Result<(), CollectError> {
        let clock = Clock::now();
        self.ring.drain(AT_ONCE, |record| out.emit(events::event(SlowCommand::read(record), clock)));
        Ok(())
    }

    fn hooks(&self) -> &[HookStatus] {
        self.object.hooks()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_end_of_a_command_is_not_enough() {
        let hook = HookStatus::new;
        let hooks = [
            hook("entry", HookState::Attached("kprobe")),
            hook("return", HookState::Unsupported("no kretprobes".into())),
        ];
        assert!(both(&hooks[..1]).is_ok());
        let Err(StartError::Unsupported(why)) = both(&hooks) else { panic!("it was taken") };
        assert_eq!(why, "return: no kretprobes");
    }
}
