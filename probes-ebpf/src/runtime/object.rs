//! A probe's programs: loaded, attached, and detached when dropped.

use aya::maps::{MapData, PerCpuArray};
use aya::programs::BtfTracePoint;
use aya::{Btf, Ebpf, EbpfLoader};
use netsonde_framework::{CollectError, HookState, HookStatus, StartError};

use super::kernel::Kernel;
use super::maps::Counters;

/// A place in the kernel and the program for it.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// The tracepoint.
    pub tracepoint: &'static str,
    /// The C function.
    pub program: &'static str,
}

/// A `const volatile` of the C side, set before the verifier looks: branches that it rules out are never loaded.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The C variable.
    pub name: &'static str,
    /// Its value.
    pub value: u32,
}

/// The loaded programs of a probe.
#[derive(Debug)]
pub struct Object {
    ebpf: Ebpf,
    hooks: Vec<HookStatus>,
}

impl Object {
    /// Loads `bytes` and attaches each hook. A hook that this kernel lacks costs only itself; it is an error only when
    /// none is left.
    pub fn load(
        kernel: &Kernel,
        bytes: &[u8],
        settings: &[Setting],
        hooks: &[Hook],
    ) -> Result<Self, StartError> {
        // Asked first: it says in plain words when there is no BTF.
        kernel.drop_reasons()?;
        let btf = Btf::from_sys_fs()
            .map_err(|e| StartError::Unsupported(format!("cannot read the kernel's BTF: {e}")))?;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf));
        for setting in settings {
            loader.override_global(setting.name, &setting.value, true);
        }
        let mut ebpf = loader.load(bytes).map_err(|error| refused("load its maps", &error))?;
        let mut fared = Vec::new();
        for hook in hooks {
            let state = if kernel.tracepoint_arguments(hook.tracepoint)?.is_none() {
                HookState::Unsupported("this kernel has no such tracepoint".into())
            } else {
                match attach(&mut ebpf, hook, &btf) {
                    Ok(()) => HookState::Attached("tp_btf"),
                    Err(why) => HookState::Failed(why),
                }
            };
            fared.push(HookStatus { name: hook.tracepoint, state });
        }
        drop(btf);
        give_back();
        if fared.iter().any(|h| matches!(h.state, HookState::Attached(_))) {
            return Ok(Self { ebpf, hooks: fared });
        }
        let why: Vec<String> = fared
            .iter()
            .map(|h| match &h.state {
                HookState::Unsupported(why) | HookState::Failed(why) => format!("{}: {why}", h.name),
                HookState::Attached(_) => String::new(),
            })
            .collect();
        Err(StartError::Unsupported(why.join("; ")))
    }

    /// How each hook fared.
    pub fn hooks(&self) -> &[HookStatus] {
        &self.hooks
    }

    /// What found no room in the counters since the start.
    pub fn uncounted(&self) -> Result<u64, CollectError> {
        let read = |error: aya::maps::MapError| CollectError::Read {
            what: "eBPF map UNCOUNTED".into(),
            source: std::io::Error::other(error),
        };
        let Some(map) = self.ebpf.map("UNCOUNTED") else { return Ok(0) };
        let array: PerCpuArray<&MapData, u64> = map.try_into().map_err(read)?;
        Ok(array.get(&0, 0).map_err(read)?.iter().sum())
    }

    /// The counters in the map of this name.
    pub fn counters<const K: usize>(&mut self, name: &str) -> Result<Counters<K>, StartError> {
        let map = self
            .ebpf
            .take_map(name)
            .ok_or_else(|| StartError::Failed(format!("the object has no map {name}")))?;
        Counters::new(name, map)
    }
}

fn attach(ebpf: &mut Ebpf, hook: &Hook, btf: &Btf) -> Result<(), String> {
    let program = ebpf.program_mut(hook.program).ok_or("the object has no such program")?;
    let program: &mut BtfTracePoint = program.try_into().map_err(|e| format!("not a tp_btf program: {e}"))?;
    program.load(hook.tracepoint, btf).map_err(|e| told("load", &e))?;
    program.attach().map_err(|e| told("attach", &e))?;
    Ok(())
}

/// The whole chain of causes in one line, and the missing right where that is the cause.
fn told(what: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("cannot {what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Some errors write their cause themselves.
        if !text.contains(&inner.to_string()) {
            text = format!("{text}: {inner}");
        }
        cause = inner.source();
    }
    let text = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ");
    let forbidden = ["os error 1)", "os error 13)"].iter().any(|e| text.contains(e));
    if forbidden {
        format!("CAP_BPF and CAP_PERFMON are missing, or the kernel is locked down ({text})")
    } else {
        text
    }
}

fn refused(what: &str, error: &dyn std::error::Error) -> StartError {
    let why = told(what, error);
    if why.starts_with("CAP_BPF") { StartError::Unsupported(why) } else { StartError::Failed(why) }
}

/// The kernel's type information takes tens of megabytes while programs are loaded; the allocator would keep them.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only gives free memory back to the kernel; it takes no pointers.
    unsafe {
        libc::malloc_trim(0);
    }
}
