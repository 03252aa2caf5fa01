//! Hooks and the ways to attach to them: the first rung of a ladder that holds.

use aya::programs::{BtfTracePoint, FEntry, FExit, Iter, KProbe, Program, RawTracePoint};
use aya::{Btf, Ebpf};
use netsonde_framework::{HookState, StartError};

use super::kernel::Kernel;
use super::relay::{Membership, RELAY};

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
    pub(super) fn name(self) -> String {
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

    pub(super) const fn program(self) -> &'static str {
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

/// What became of a hook.
pub(super) struct Climbed {
    pub state: HookState,
    /// The rung that holds.
    pub rung: Option<Rung>,
    /// The program's place, where it shares a tracepoint.
    pub membership: Option<Membership>,
}

/// Tries the rungs of a hook in turn.
pub(super) fn climb(ebpf: &mut Ebpf, kernel: &Kernel, hook: &Hook, btf: &Btf) -> Climbed {
    let on_none = |state| Climbed { state, rung: None, membership: None };
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
        match attach(ebpf, kernel, *rung, btf) {
            Ok(membership) => {
                return Climbed { state: HookState::Attached(rung.text()), rung: Some(*rung), membership };
            }
            Err(why) => failed.push(in_brief(*rung, &why)),
        }
    }
    lacking.dedup();
    failed.dedup();
    if failed.is_empty() {
        return on_none(HookState::Unsupported(lacking.join("; ")));
    }
    lacking.extend(failed);
    // A function that cannot be hooked is a matter of the kernel; a tracepoint that is there should have worked.
    let function = hook.rungs.iter().all(|r| !matches!(r, Rung::TpBtf(..) | Rung::RawTp(..)));
    let why = lacking.join("; ");
    on_none(if function { HookState::Unsupported(why) } else { HookState::Failed(why) })
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

fn attach(ebpf: &mut Ebpf, kernel: &Kernel, rung: Rung, btf: &Btf) -> Result<Option<Membership>, String> {
    // Held until the program is loaded, which refers to it by its descriptor.
    let next = ebpf.take_map(&format!("next_{}", rung.program()));
    let program = ebpf.program_mut(rung.program()).ok_or("the object has no such program")?;
    let place = rung.place();
    match (rung, program) {
        (Rung::TpBtf(..), Program::BtfTracePoint(program)) => {
            let program: &mut BtfTracePoint = program;
            program.load(place, btf).map_err(|e| told("load", &e))?;
            let fd = program.fd().map_err(|e| told("load", &e))?;
            if let Some(next) = next.filter(|_| !kernel.is_without(RELAY))
                && let Some(membership) = kernel.relays().join(place, fd, next, btf)
            {
                return Ok(Some(membership));
            }
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
    Ok(None)
}

const MISSING_RIGHTS: &str = "CAP_BPF and CAP_PERFMON are missing, or the kernel is locked down";

/// The whole chain of causes in one line, and the missing right where that is the cause.
pub(super) fn told(what: &str, error: &dyn std::error::Error) -> String {
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

pub(super) fn refused(what: &str, error: &dyn std::error::Error) -> StartError {
    let why = told(what, error);
    if why.starts_with("CAP_BPF") { StartError::Unsupported(why) } else { StartError::Failed(why) }
}
