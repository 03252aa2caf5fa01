//! Names of kernel functions for addresses in events.
//!
//! /proc/kallsyms has hundreds of thousands of lines; keeping them would take megabytes. Events name few places, so the
//! file is read through when new addresses come up, and only what was asked is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netsonde_framework::{HookState, HookStatus};

const KALLSYMS: &str = "/proc/kallsyms";
/// Places that are remembered; beyond, all are forgotten and asked again.
const REMEMBERED: usize = 4096;
/// Reading takes tens of milliseconds, so it is done at most this often in a row.
const READS: f64 = 5.0;
const READ_EVERY: Duration = Duration::from_secs(2);

/// The function at an address, and how far into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The function's name, with its module in brackets where it has one.
    pub function: Arc<str>,
    /// `function+0x12`.
    pub exact: Arc<str>,
}

/// A function of the kernel itself: it stays where it is, unlike those of modules and programs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Function {
    end: u64,
    name: Arc<str>,
}

/// What all probes have learned.
#[derive(Debug, Clone)]
pub struct SharedSymbols(Arc<Mutex<Symbols>>);

impl SharedSymbols {
    pub(super) fn open() -> Self {
        Self(Arc::new(Mutex::new(Symbols::open())))
    }

    /// For one probe at a time: whoever has to read the file holds it for tens of milliseconds.
    pub fn lock(&self) -> MutexGuard<'_, Symbols> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds names of functions.
#[derive(Debug)]
pub struct Symbols {
    path: &'static str,
    known: HashMap<u64, Place>,
    /// By start: the functions of places that were read, for other places in them. Who was interrupted by a timer is
    /// somewhere else each time, and mostly in one of few functions.
    functions: BTreeMap<u64, Function>,
    /// Why there are no names at all.
    hidden: Option<String>,
    reads: f64,
    since: Instant,
}

impl Symbols {
    /// Looks whether the kernel tells this process its addresses.
    pub fn open() -> Self {
        Self::at(KALLSYMS)
    }

    fn at(path: &'static str) -> Self {
        let hidden = visible(path).err();
        Self {
            path,
            known: HashMap::new(),
            functions: BTreeMap::new(),
            hidden,
            reads: READS,
            since: Instant::now(),
        }
    }

    /// Forgets what may have moved since: the functions of modules and programs. Looks again whether there are names.
    pub(super) fn renew(&mut self) {
        let functions = &self.functions;
        self.known.retain(|address, _| function_of(functions, *address).is_some());
        if self.hidden.is_some() {
            self.hidden = visible(self.path).err();
        }
    }

    /// What `/status` says of it.
    pub fn status(&self) -> HookStatus {
        let state = match &self.hidden {
            None => HookState::Attached("kallsyms"),
            Some(why) => HookState::Unsupported(why.clone()),
        };
        HookStatus::new("names of kernel functions", state)
    }

    /// Makes sure that these addresses are known, as far as they can be.
    pub fn learn(&mut self, addresses: impl Iterator<Item = u64>) {
        if self.hidden.is_some() {
            return;
        }
        let mut unknown: BTreeSet<u64> =
            addresses.filter(|a| *a != 0 && !self.known.contains_key(a)).collect();
        unknown.retain(|address| match self.in_known_function(*address) {
            Some(place) => {
                self.known.insert(*address, place);
                false
            }
            None => true,
        });
        if unknown.is_empty() || !self.may_read() {
            return;
        }
        if self.known.len() + unknown.len() > REMEMBERED {
            self.known.clear();
            self.functions.clear();
        }
        let Ok(found) = search(self.path, &unknown) else { return };
        for (address, symbol) in found {
            let name: Arc<str> = symbol.name.into();
            self.known.insert(address, place(&name, address - symbol.start));
            if let Some(end) = symbol.end {
                self.functions.insert(symbol.start, Function { end, name });
            }
        }
    }

    fn in_known_function(&self, address: u64) -> Option<Place> {
        let (start, function) = function_of(&self.functions, address)?;
        Some(place(&function.name, address - start))
    }

    fn may_read(&mut self) -> bool {
        let now = Instant::now();
        let earned = now.duration_since(self.since).as_secs_f64() / READ_EVERY.as_secs_f64();
        self.since = now;
        self.reads = (self.reads + earned).min(READS) - 1.0;
        if self.reads < 0.0 {
            self.reads += 1.0;
            return false;
        }
        true
    }

    /// The place of an address that was learned.
    pub fn place(&self, address: u64) -> Option<&Place> {
        self.known.get(&address)
    }

    /// The places of a stack, innermost first, without the frames of the program that looked at it.
    pub fn stack(&self, addresses: impl Iterator<Item = u64>) -> Vec<Arc<str>> {
        let own = |address: &u64| {
            self.place(*address).is_some_and(|p| {
                p.function.starts_with("bpf_prog_") || p.function.starts_with("bpf_trace_run")
            })
        };
        addresses.skip_while(own).map(|address| self.exact(address)).collect()
    }

    /// The place of an address, or the address itself where the kernel does not tell names.
    pub fn exact(&self, address: u64) -> Arc<str> {
        self.place(address).map_or_else(|| format!("{address:#x}").into(), |place| Arc::clone(&place.exact))
    }
}

fn function_of(functions: &BTreeMap<u64, Function>, address: u64) -> Option<(u64, &Function)> {
    let (start, function) = functions.range(..=address).next_back()?;
    (address < function.end).then_some((*start, function))
}

/// Without CAP_SYSLOG, or with kernel.kptr_restrict=2, every address reads as 0.
fn visible(path: &str) -> Result<(), String> {
    let file = File::open(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    // The first symbols of some kernels are at 0 (per-CPU offsets), so more than one line is looked at.
    let shown = BufReader::new(file).lines().take(20_000).map_while(Result::ok).any(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().unwrap_or_default();
        words.next().is_some_and(|kind| kind.eq_ignore_ascii_case("t")) && address.bytes().any(|b| b != b'0')
    });
    if shown {
        Ok(())
    } else {
        Err("the kernel hides its addresses: CAP_SYSLOG is missing or kernel.kptr_restrict is 2; places in events \
             are numbers"
            .into())
    }
}

fn place(function: &Arc<str>, offset: u64) -> Place {
    Place { function: Arc::clone(function), exact: format!("{function}+{offset:#x}").into() }
}

/// The function that an address is in.
#[derive(Debug, PartialEq, Eq)]
struct Symbol {
    start: u64,
    name: String,
    /// Where the next one begins; only for one of the kernel itself.
    end: Option<u64>,
}

/// The last function at or below each address. The file is not sorted: modules follow, each in an order of its own.
fn search(path: &str, wanted: &BTreeSet<u64>) -> std::io::Result<HashMap<u64, Symbol>> {
    let wanted: Vec<u64> = wanted.iter().copied().collect();
    let mut best: Vec<Option<Symbol>> = wanted.iter().map(|_| None).collect();
    let mut next = vec![u64::MAX; wanted.len()];
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        if let Some(address) = function_address(&line) {
            let after = wanted.partition_point(|want| *want < address);
            // Every wanted address from this symbol on might be in it; nearer symbols win.
            let within = wanted[after..].iter().take_while(|want| **want - address <= LARGEST).count();
            for symbol in &mut best[after..after + within] {
                if symbol.as_ref().is_none_or(|s| s.start < address)
                    && let Some(name) = name(&line)
                {
                    // Its end is set below; none stays for one of a module.
                    let end = (!line.contains(&b'[')).then_some(u64::MAX);
                    *symbol = Some(Symbol { start: address, name: name.to_owned(), end });
                }
            }
            let before = wanted[..after].iter().rev().take_while(|want| address - **want <= LARGEST).count();
            for next in &mut next[after - before..after] {
                *next = address.min(*next);
            }
        }
        line.clear();
    }
    let found = wanted.iter().zip(best).zip(next).filter_map(|((want, symbol), next)| {
        let symbol = symbol?;
        let end = symbol.end.filter(|_| next != u64::MAX).map(|_| next);
        Some((*want, Symbol { end, ..symbol }))
    });
    Ok(found.collect())
}

/// No function is larger: an address further from every symbol is in none (a BPF program, a module that is gone).
const LARGEST: u64 = 1 << 16;

/// The address of a line like `ffffffff81000000 T _text` (with a tab and the module in brackets behind it where it has
/// one) if it is a function's. There are hundreds of thousands of lines, so nothing is copied or checked twice.
fn function_address(line: &[u8]) -> Option<u64> {
    const DIGITS: usize = 16;
    if !matches!(line.get(DIGITS..DIGITS + 3)?, [b' ', b't' | b'T' | b'w' | b'W', b' ']) {
        return None;
    }
    line[..DIGITS].iter().try_fold(0u64, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u64::from(value))
    })
}

/// The function's name in such a line.
fn name(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line).ok()?.split([' ', '\t', '\n']).nth(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(line: &str) -> Option<(u64, &str)> {
        Some((function_address(line.as_bytes())?, name(line.as_bytes())?))
    }

    #[test]
    fn lines_that_are_no_functions_are_passed_over() {
        assert_eq!(function("ffffffff81000010 T start\n"), Some((0xffff_ffff_8100_0010, "start")));
        assert_eq!(
            function("ffffffffc0000000 t nft_do_chain\t[nf_tables]\n"),
            Some((0xffff_ffff_c000_0000, "nft_do_chain"))
        );
        assert_eq!(function("ffffffff81000010 D data\n"), None);
        assert_eq!(function("nonsense\n"), None);
    }

    #[test]
    fn the_kernel_tells_where_its_own_functions_are_or_why_not() {
        let mut symbols = Symbols::open();
        if symbols.hidden.is_some() {
            assert!(matches!(symbols.status().state, HookState::Unsupported(_)));
            return;
        }
        let text = std::fs::read_to_string(KALLSYMS).expect("it was readable a moment ago");
        let (address, name) = text
            .lines()
            .filter_map(function)
            .find(|(_, name)| *name == "kfree_skbmem" || *name == "ip_rcv")
            .expect("every kernel with a network has them");
        symbols.learn([address + 1].into_iter());
        let place = symbols.place(address + 1).expect("just learned");
        assert_eq!(place.function.as_ref(), name);
        assert_eq!(symbols.exact(address + 1).as_ref(), format!("{name}+0x1"));
        assert_eq!(symbols.exact(0x10).as_ref(), "0x10");
    }

    #[test]
    fn a_stack_begins_with_the_kernel_itself() {
        let mut symbols = Symbols::open();
        let names = ["bpf_prog_0_x", "bpf_trace_run4", "kfree_skb", "bpf_prog_of_another"];
        for (address, name) in (1..).zip(names) {
            let place = Place { function: name.into(), exact: format!("{name}+0x1").into() };
            symbols.known.insert(address, place);
        }
        let stack: Vec<String> =
            symbols.stack([1, 2, 3, 4, 5].into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(stack, ["kfree_skb+0x1", "bpf_prog_of_another+0x1", "0x5"]);
    }

    #[test]
    fn another_place_in_a_function_that_was_read_needs_no_reading() {
        let mut symbols = Symbols::open();
        if symbols.hidden.is_some() {
            return;
        }
        let text = std::fs::read_to_string(KALLSYMS).expect("it was readable a moment ago");
        let own = text.lines().filter(|line| !line.contains('[')).filter_map(function);
        let (address, _) = own.into_iter().find(|(_, name)| *name == "ip_rcv").expect("the kernel's own");
        symbols.learn([address + 1].into_iter());
        assert_eq!(symbols.exact(address + 1).as_ref(), "ip_rcv+0x1");
        symbols.reads = 0.0;
        symbols.learn([address + 2].into_iter());
        assert_eq!(symbols.exact(address + 2).as_ref(), "ip_rcv+0x2");
        symbols.known.insert(0x10, Place { function: "of_a_module".into(), exact: "of_a_module+0x0".into() });
        symbols.renew();
        assert_eq!(symbols.exact(address + 2).as_ref(), "ip_rcv+0x2");
        assert!(symbols.place(0x10).is_none(), "a module may have moved");
        let end = symbols.functions[&address].end;
        assert!(symbols.in_known_function(end).is_none(), "that is the next one");
    }

    #[test]
    fn reading_is_rationed() {
        let mut symbols = Symbols::open();
        let allowed = (0..100).filter(|_| symbols.may_read()).count();
        assert_eq!(allowed, 5);
    }
}
