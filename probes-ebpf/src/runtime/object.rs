//! A probe's programs: loaded, attached by the first rung of each hook's ladder that works, and detached when dropped.

use std::os::fd::AsFd as _;

use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::{BtfTracePoint, FEntry, FExit, Iter, KProbe, Program, RawTracePoint};
use aya::{Btf, Ebpf, EbpfLoader};
use netsonde_framework::{CollectError, HookState, HookStatus, StartError};

use super::health::{Sibling, Watched};
use super::iterator::Walk;
use super::kernel::Kernel;
use super::maps::Counters;
use super::ring::Ring;

/// A place in the kernel and the ways to get there, best first.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// What `/status` calls it: the tracepoint or the function.
    pub name: &'static str,
    /// What its loss means.
    pub role: Role,
    /// Tried in turn; the first that attaches is used.
    pub rungs: &'static [Rung],
}

/// What the loss of a hook means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The probe lives on such hooks: without any of them it is unsupported.
    Source,
    /// It adds to what the sources tell.
    Detail,
}

/// One way to attach: the kernel's name of the place and the C function for it.
#[derive(Debug, Clone, Copy)]
pub enum Rung {
    /// A tracepoint whose arguments are typed pointers.
    TpBtf(&'static str, &'static str),
    /// The same tracepoint with plain numbers for arguments.
    RawTp(&'static str, &'static str),
    /// Entry of a function, by trampoline.
    Fentry(&'static str, &'static str),
    /// Return of a function, by trampoline.
    Fexit(&'static str, &'static str),
    /// Entry of a function, by breakpoint.
    Kprobe(&'static str, &'static str),
    /// Return of a function, by breakpoint.
    Kretprobe(&'static str, &'static str),
    /// An iterator, which is only loaded: [`Object::iterator`] attaches it.
    Iter(&'static str, &'static str),
}

impl Rung {
    /// The word for it in `/status` and in `NETSONDE_WITHOUT`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::TpBtf(..) => "tp_btf",
            Self::RawTp(..) => "raw_tp",
            Self::Fentry(..) => "fentry",
            Self::Fexit(..) => "fexit",
            Self::Kprobe(..) => "kprobe",
            Self::Kretprobe(..) => "kretprobe",
            Self::Iter(..) => "iter",
        }
    }

    /// What `/status` lists it as: `fentry udp_send_skb`.
    fn name(self) -> String {
        format!("{} {}", self.text(), self.place())
    }

    const fn place(self) -> &'static str {
        match self {
            Self::TpBtf(place, _)
            | Self::RawTp(place, _)
            | Self::Fentry(place, _)
            | Self::Fexit(place, _)
            | Self::Kprobe(place, _)
            | Self::Kretprobe(place, _)
            | Self::Iter(place, _) => place,
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::TpBtf(_, program)
            | Self::RawTp(_, program)
            | Self::Fentry(_, program)
            | Self::Fexit(_, program)
            | Self::Kprobe(_, program)
            | Self::Kretprobe(_, program)
            | Self::Iter(_, program) => program,
        }
    }
}

/// A `const volatile` of the C side, set before the verifier looks: branches that it rules out are never loaded.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The C variable.
    pub name: &'static str,
    /// Its value.
    pub value: Constant,
}

/// The value of a [`Setting`], of the C variable's size.
#[derive(Debug, Clone, Copy)]
pub enum Constant {
    /// `__u32`.
    U32(u32),
    /// `__u64`.
    U64(u64),
}

impl Setting {
    /// A `__u32`.
    pub const fn u32(name: &'static str, value: u32) -> Self {
        Self { name, value: Constant::U32(value) }
    }

    /// A `__u64`.
    pub const fn u64(name: &'static str, value: u64) -> Self {
        Self { name, value: Constant::U64(value) }
    }
}

/// The loaded programs of a probe.
#[derive(Debug)]
pub struct Object {
    ebpf: Ebpf,
    hooks: Vec<HookStatus>,
    watched: Vec<Watched>,
}

impl Object {
    /// Loads `bytes` and attaches each hook. A hook that this kernel lacks costs only itself; it is an error only when
    /// no source is left.
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
            match &setting.value {
                Constant::U32(value) => loader.override_global(setting.name, value, true),
                Constant::U64(value) => loader.override_global(setting.name, value, true),
            };
        }
        let mut ebpf = loader.load(bytes).map_err(|error| refused("load its maps", &error))?;
        let mut fared: Vec<HookStatus> = hooks
            .iter()
            .map(|hook| {
                let (state, rung) = climb(&mut ebpf, kernel, hook, &btf);
                let rungs = hook.rungs.iter().copied().map(Rung::name).collect();
                HookStatus { name: hook.name, state, rungs, rung: rung.map(Rung::name) }
            })
            .collect();
        drop(btf);
        give_back();
        let sources = || hooks.iter().zip(&fared).filter(|(hook, _)| hook.role == Role::Source);
        if sources().any(|(_, status)| matches!(status.state, HookState::Attached(_))) {
            fared.extend(kernel.passes_over());
            return Ok(Self { ebpf, hooks: fared, watched: Vec::new() });
        }
        let why: Vec<String> = sources()
            .map(|(hook, status)| match &status.state {
                HookState::Unsupported(why) | HookState::Failed(why) => format!("{}: {why}", hook.name),
                HookState::Attached(_) | HookState::Silent(_) => String::new(),
            })
            .collect();
        Err(StartError::Unsupported(why.join("; ")))
    }

    /// How each hook fared.
    pub fn hooks(&self) -> &[HookStatus] {
        &self.hooks
    }

    /// Whether this hook is attached.
    pub fn has(&self, name: &str) -> bool {
        self.hooks.iter().any(|h| h.name == name && matches!(h.state, HookState::Attached(_)))
    }

    /// Looks from now on, at each [`Object::check`], whether these hooks see what they must, as far as they are attached.
    pub fn watch(&mut self, siblings: &[Sibling]) {
        let attached = siblings.iter().filter(|rule| self.has(rule.hook) && self.has(rule.other));
        self.watched = attached.copied().map(Watched::new).collect();
    }

    /// Gives the hooks that are watched their verdicts. A few system calls; none where nothing is watched.
    pub fn check(&mut self) -> Result<(), CollectError> {
        let mut watched = std::mem::take(&mut self.watched);
        let judged = watched.iter_mut().try_for_each(|watched| {
            let rule = watched.rule();
            let (hits, of_other) = (self.sum("HITS", rule.at)?, self.sum("HITS", rule.other_at)?);
            watched.judge(&mut self.hooks, hits, of_other);
            Ok(())
        });
        self.watched = watched;
        judged
    }

    /// Notes how something fared that is no program, or what else came of a hook.
    pub fn note(&mut self, status: HookStatus) {
        match self.hooks.iter_mut().find(|hook| hook.name == status.name) {
            Some(hook) => *hook = status,
            None => self.hooks.push(status),
        }
    }

    /// What found no room in the counters since the start.
    pub fn uncounted(&self) -> Result<u64, CollectError> {
        self.sum("UNCOUNTED", 0)
    }

    /// One number of a per-CPU array, summed over CPUs; 0 where the object has no such map.
    pub fn sum(&self, name: &str, index: u32) -> Result<u64, CollectError> {
        Ok(self.numbers::<1>(name, index)?[0])
    }

    /// The numbers of an entry of a per-CPU array, each summed over CPUs; zeros where the object has no such map.
    pub fn numbers<const V: usize>(&self, name: &str, index: u32) -> Result<[u64; V], CollectError> {
        let read = |error: aya::maps::MapError| CollectError::Read {
            what: format!("eBPF map {name}"),
            source: std::io::Error::other(error),
        };
        let mut sums = [0u64; V];
        let Some(map) = self.ebpf.map(name) else { return Ok(sums) };
        let array: PerCpuArray<&MapData, [u64; V]> = map.try_into().map_err(read)?;
        for of_cpu in array.get(&index, 0).map_err(read)?.iter() {
            for (sum, value) in sums.iter_mut().zip(of_cpu) {
                *sum = sum.wrapping_add(*value);
            }
        }
        Ok(sums)
    }

    /// Fills an array of the object from its start.
    pub fn fill(&mut self, name: &str, values: &[u32]) -> Result<(), StartError> {
        let failed = |why: &dyn std::fmt::Display| StartError::Failed(format!("eBPF map {name}: {why}"));
        let map = self.ebpf.map_mut(name).ok_or_else(|| failed(&"the object has none"))?;
        let mut array: Array<&mut MapData, u32> = map.try_into().map_err(|e| failed(&e))?;
        for (index, value) in (0..array.len()).zip(values) {
            array.set(index, value, 0).map_err(|e| failed(&e))?;
        }
        Ok(())
    }

    /// The counters in the map of this name.
    pub fn counters<const K: usize, const V: usize>(
        &mut self,
        name: &str,
    ) -> Result<Counters<K, V>, StartError> {
        Counters::new(name, self.take(name)?)
    }

    /// The ring buffer in the map of this name.
    pub fn ring(&mut self, name: &str) -> Result<Ring, StartError> {
        Ring::new(name, self.take(name)?)
    }

    /// Attaches the program of a hook by [`Rung::Iter`], to the map of this name where it walks over one. `None` where
    /// that cannot be; the hook's verdict says why.
    pub fn iterator(&mut self, hook: &'static str, program: &str, map: Option<&str>) -> Option<Walk> {
        if !self.has(hook) {
            return None;
        }
        self.walk(program, map).map_err(|why| self.note(HookStatus::new(hook, HookState::Failed(why)))).ok()
    }

    fn walk(&self, program: &str, map: Option<&str>) -> Result<Walk, String> {
        let failed = |why: &dyn std::fmt::Display| format!("iterator {program}: {why}");
        let Some(Program::Iter(loaded)) = self.ebpf.program(program) else {
            return Err(failed(&"the object has no such program"));
        };
        let map = match map.map(|name| (name, self.ebpf.map(name))) {
            None => None,
            Some((_, Some(Map::SkStorage(map)))) => Some(map.fd().as_fd()),
            Some((name, _)) => return Err(failed(&format_args!("the object has no socket storage {name}"))),
        };
        let program = loaded.fd().map_err(|e| failed(&e))?;
        Walk::attach(program.as_fd(), map).map_err(|e| failed(&e))
    }

    fn take(&mut self, name: &str) -> Result<Map, StartError> {
        self.ebpf.take_map(name).ok_or_else(|| StartError::Failed(format!("the object has no map {name}")))
    }
}

/// Tries the rungs of a hook in turn: what became of it, and the rung that holds.
fn climb(ebpf: &mut Ebpf, kernel: &Kernel, hook: &Hook, btf: &Btf) -> (HookState, Option<Rung>) {
    let mut failed = Vec::new();
    let mut lacking = Vec::new();
    for rung in hook.rungs {
        if kernel.is_without(rung.text()) || kernel.is_without(&rung.name()) {
            lacking.push(format!("{}: NETSONDE_WITHOUT names it", rung.text()));
            continue;
        }
        let tracepoint = matches!(rung, Rung::TpBtf(..) | Rung::RawTp(..));
        if tracepoint && kernel.tracepoint_arguments(rung.place()).ok().flatten().is_none() {
            lacking.push("this kernel has no such tracepoint".to_owned());
            continue;
        }
        match attach(ebpf, *rung, btf) {
            Ok(()) => return (HookState::Attached(rung.text()), Some(*rung)),
            Err(why) => failed.push(in_brief(*rung, &why)),
        }
    }
    lacking.dedup();
    failed.dedup();
    if failed.is_empty() {
        return (HookState::Unsupported(lacking.join("; ")), None);
    }
    lacking.extend(failed);
    // A function that cannot be hooked is a matter of the kernel; a tracepoint that is there should have worked.
    let function = hook.rungs.iter().all(|r| !matches!(r, Rung::TpBtf(..) | Rung::RawTp(..)));
    let why = lacking.join("; ");
    (if function { HookState::Unsupported(why) } else { HookState::Failed(why) }, None)
}

/// Why a rung did not hold, where the kernel's own words would puzzle.
fn in_brief(rung: Rung, why: &str) -> String {
    let trampoline = matches!(rung, Rung::Fentry(..) | Rung::Fexit(..));
    let how = rung.text();
    if why.contains("unknown BTF type") {
        format!("{how}: the kernel has no such function, or only in a module")
    } else if why.contains("event_source/devices/kprobe") {
        "this kernel has no kprobes".into()
    } else if trampoline && why.contains(MISSING_RIGHTS) {
        format!("{how}: refused, for want of a right or because this kernel allows none")
    } else {
        format!("{how}: {why}")
    }
}

fn attach(ebpf: &mut Ebpf, rung: Rung, btf: &Btf) -> Result<(), String> {
    let program = ebpf.program_mut(rung.program()).ok_or("the object has no such program")?;
    let place = rung.place();
    match (rung, program) {
        (Rung::TpBtf(..), Program::BtfTracePoint(program)) => {
            let program: &mut BtfTracePoint = program;
            program.load(place, btf).map_err(|e| told("load", &e))?;
            program.attach().map_err(|e| told("attach", &e))?;
        }
        (Rung::RawTp(..), Program::RawTracePoint(program)) => {
            let program: &mut RawTracePoint = program;
            program.load().map_err(|e| told("load", &e))?;
            program.attach(place).map_err(|e| told("attach", &e))?;
        }
        (Rung::Fentry(..), Program::FEntry(program)) => {
            let program: &mut FEntry = program;
            program.load(place, btf).map_err(|e| told("load", &e))?;
            program.attach().map_err(|e| told("attach", &e))?;
        }
        (Rung::Fexit(..), Program::FExit(program)) => {
            let program: &mut FExit = program;
            program.load(place, btf).map_err(|e| told("load", &e))?;
            program.attach().map_err(|e| told("attach", &e))?;
        }
        (Rung::Kprobe(..) | Rung::Kretprobe(..), Program::KProbe(program)) => {
            let program: &mut KProbe = program;
            program.load().map_err(|e| told("load", &e))?;
            program.attach(place, 0).map_err(|e| told("attach", &e))?;
        }
        (Rung::Iter(..), Program::Iter(program)) => {
            let program: &mut Iter = program;
            program.load(place, btf).map_err(|e| told("load", &e))?;
        }
        (rung, _) => return Err(format!("{} is no {} program", rung.program(), rung.text())),
    }
    Ok(())
}

const MISSING_RIGHTS: &str = "CAP_BPF and CAP_PERFMON are missing, or the kernel is locked down";

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
    if forbidden { format!("{MISSING_RIGHTS} ({text})") } else { text }
}

fn refused(what: &str, error: &dyn std::error::Error) -> StartError {
    let why = told(what, error);
    if why.starts_with("CAP_BPF") { StartError::Unsupported(why) } else { StartError::Failed(why) }
}

/// The kernel's types and its symbols take megabytes while they are looked at; the allocator would keep them.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only gives free memory back to the kernel; it takes no pointers.
    unsafe {
        libc::malloc_trim(0);
    }
}
