//! Which rungs this kernel has, by what it lists of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// What the kernel lists of itself, and not what the agent made of it.
struct Offer {
    /// Functions of the kernel; `true` for those that no module brought.
    functions: BTreeMap<String, bool>,
    tracepoints: BTreeSet<String>,
    kprobes: bool,
    trampolines: bool,
}

fn offer() -> &'static Offer {
    static OFFER: OnceLock<Offer> = OnceLock::new();
    OFFER.get_or_init(|| {
        let symbols = fs::read_to_string("/proc/kallsyms").expect("every kernel lists its symbols");
        let mut functions = BTreeMap::new();
        let mut tracepoints = BTreeSet::new();
        for line in symbols.lines() {
            let mut words = line.split_whitespace().skip(1);
            let (Some(kind), Some(name)) = (words.next(), words.next()) else { continue };
            if let Some(tracepoint) = name.strip_prefix("__traceiter_") {
                tracepoints.insert(tracepoint.to_owned());
            } else if matches!(kind, "t" | "T") {
                functions.insert(name.to_owned(), words.next().is_none());
            }
        }
        assert!(tracepoints.contains("kfree_skb"), "/proc/kallsyms has no tracepoint");
        Offer {
            functions,
            tracepoints,
            kprobes: Path::new("/sys/bus/event_source/devices/kprobe").exists(),
            // A trampoline begins where ftrace has left room for it.
            trampolines: Path::new("/sys/kernel/tracing/available_filter_functions").exists(),
        }
    })
}

/// Whether this kernel has a rung, such as `fentry udp_send_skb`.
pub fn offered(rung: &str) -> bool {
    let (how, place) = rung.split_once(' ').unwrap_or_else(|| panic!("no mechanism and place: {rung}"));
    let offer = offer();
    match how {
        "tp_btf" | "raw_tp" => offer.tracepoints.contains(place),
        // Types of modules are not known to aya.
        "fentry" | "fexit" => offer.trampolines && offer.functions.get(place) == Some(&true),
        "kprobe" | "kretprobe" => offer.kprobes && offer.functions.contains_key(place),
        "iter" => true,
        _ => panic!("what is {how}?"),
    }
}
