//! What is known of the running kernel, asked once.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, OnceLock};

use netsonde_framework::{HookState, HookStatus, StartError};

use super::btf::Btf;
use super::relay::Relays;
use super::symbols::SharedSymbols;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What a patch that some vendors' kernels carry leaves out: `__bpf_trace_run` looks at `current->tgid` and runs no program
/// of others while process 1 is on the CPU, also not for the packets that an interrupt brings then. No counter of the
/// kernel tells how often; the patch is known by the member that it adds to `struct bpf_prog_aux`.
const FIRST: &str = "what is handled while process 1 has the CPU";
const FIRST_HIDDEN: &str =
    "this kernel runs no tracing program then (bpf_prog_aux.init_owned): it is not counted";

/// The small part of the kernel's type information that the probes need.
#[derive(Debug)]
struct Facts {
    /// By tracepoint.
    arguments: BTreeMap<String, u32>,
    drop_reasons: BTreeMap<u32, String>,
    reset_reasons: BTreeMap<u32, String>,
    passes_over: bool,
}

/// The running kernel. Clones are handles to the same facts; they are read when the first probe asks.
#[derive(Debug, Clone)]
pub struct Kernel {
    facts: Arc<OnceLock<Result<Facts, String>>>,
    symbols: Arc<OnceLock<SharedSymbols>>,
    relays: Relays,
    live: bool,
    without: Arc<[String]>,
}

impl Kernel {
    /// `live` says whether the namespaces that the agent reads are this kernel's. Where they are those of a frozen
    /// /proc, no probe of this crate runs: it would tell of another machine.
    pub fn new(live: bool) -> Self {
        Self {
            facts: Arc::default(),
            symbols: Arc::default(),
            relays: Relays::default(),
            live,
            without: Arc::new([]),
        }
    }

    /// The same, as if it could not do this: words of [`super::Rung::text`] with commas between them, for all such
    /// rungs or, with the place behind it (`tp_btf block_io_start`), for one; and `relay`, so that programs do not share tracepoints. For tests of what is left
    /// when a kernel lacks something.
    #[must_use]
    pub fn without(mut self, rungs: &str) -> Self {
        self.without =
            rungs.split(',').map(|word| word.trim().to_owned()).filter(|w| !w.is_empty()).collect();
        self
    }

    pub(super) fn is_without(&self, rung: &str) -> bool {
        self.without.iter().any(|w| w == rung)
    }

    /// What the probes have at each tracepoint.
    pub(super) fn relays(&self) -> &Relays {
        &self.relays
    }

    fn facts(&self) -> Result<&Facts, StartError> {
        if !self.live {
            return Err(StartError::Unsupported("paths.proc is no procfs of the running kernel".into()));
        }
        self.facts.get_or_init(read).as_ref().map_err(|why| StartError::Unsupported(why.clone()))
    }

    /// How many arguments a tracepoint has; `None` where this kernel does not have it.
    pub fn tracepoint_arguments(&self, name: &str) -> Result<Option<u32>, StartError> {
        Ok(self.facts()?.arguments.get(name).copied())
    }

    /// The names of the reasons why a packet is dropped (`enum skb_drop_reason`), without their prefix.
    pub fn drop_reasons(&self) -> Result<&BTreeMap<u32, String>, StartError> {
        Ok(&self.facts()?.drop_reasons)
    }

    /// The names of the reasons why a reset is sent (`enum sk_rst_reason`, Linux 6.10), without their prefix; empty
    /// on older kernels.
    pub fn reset_reasons(&self) -> Result<&BTreeMap<u32, String>, StartError> {
        Ok(&self.facts()?.reset_reasons)
    }

    /// What this kernel hides from all tracing programs, if anything; [`super::Object`] notes it with each probe's hooks.
    pub(super) fn passes_over(&self) -> Option<HookStatus> {
        let passes_over = self.facts().ok()?.passes_over;
        passes_over.then(|| HookStatus::new(FIRST, HookState::Unsupported(FIRST_HIDDEN.into())))
    }

    /// Names of functions, for a probe that starts. All probes share what was read, and one that is started again finds it.
    pub fn symbols(&self) -> SharedSymbols {
        let shared = self.symbols.get_or_init(SharedSymbols::open);
        shared.lock().renew();
        shared.clone()
    }
}

/// Where members of structs of a module begin, in bytes and in the order asked: `("nft_chain", "table")`. `None` where the
/// module is neither loaded nor built in, or has no such member. It reads the kernel's types anew, which takes tens of
/// milliseconds and megabytes for that long.
pub fn offsets<const N: usize>(module: &str, members: [(&str, &str); N]) -> Option<[u32; N]> {
    let kernel = Btf::parse(fs::read(VMLINUX).ok()?)?;
    let types = match fs::read(format!("/sys/kernel/btf/{module}")) {
        Ok(data) => Btf::parse_module(data, kernel)?,
        Err(_) => kernel,
    };
    let mut offsets = [0; N];
    for (offset, (name, member)) in offsets.iter_mut().zip(members) {
        *offset = types.offset_of(name, member)?;
    }
    Some(offsets)
}

fn read() -> Result<Facts, String> {
    let data = fs::read(VMLINUX).map_err(|error| {
        format!("this kernel does not tell its types (no {VMLINUX}, CONFIG_DEBUG_INFO_BTF): {error}")
    })?;
    let btf = Btf::parse(data).ok_or_else(|| format!("{VMLINUX} is not BTF that this version can read"))?;
    let arguments = btf.tracepoints();
    let short = |name: &str, prefix: &str| {
        btf.enumeration(name)
            .into_iter()
            .map(|(value, text)| (value, text.strip_prefix(prefix).unwrap_or(&text).to_owned()))
            .collect()
    };
    let drop_reasons = short("skb_drop_reason", "SKB_DROP_REASON_");
    let reset_reasons = short("sk_rst_reason", "SK_RST_REASON_");
    let passes_over = btf.offset_of("bpf_prog_aux", "init_owned").is_some();
    Ok(Facts { arguments, drop_reasons, reset_reasons, passes_over })
}
