//! Names of kernel functions for addresses in events.
//!
//! /proc/kallsyms takes tens of milliseconds to read and megabytes to hold, and events name few places: the file is read
//! when an address comes up that is not known, all of it is held while more of them may come, and then only what was asked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netsonde_framework::{HookState, HookStatus};

use super::kallsyms::Table;
use super::object::give_back;

const KALLSYMS: &str = "/proc/kallsyms";
/// Places that are remembered; beyond, all are forgotten and asked again.
const REMEMBERED: usize = 4096;
/// How long the whole table is held, for functions of the kernel itself: they stay where they are.
const HELD: Duration = Duration::from_mins(1);
/// How long it says where functions of modules and programs are.
const FRESH: Duration = Duration::from_secs(1);
/// Reading takes tens of milliseconds, so it is done at most this often in a row.
const READS: f64 = 5.0;
const READ_EVERY: Duration = Duration::from_secs(10);

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

    /// Gives back what is held for no use any more, unless it is used now.
    pub fn tidy(&self) {
        if let Ok(mut symbols) = self.0.try_lock() {
            symbols.tidy();
        }
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
    /// What the table that was read last had no name for.
    nameless: HashSet<u64>,
    table: Option<Table>,
    /// When the table was read, or tried to.
    read: Option<Instant>,
    /// How often it may be read now, and since when that is so.
    reads: f64,
    since: Instant,
    /// Why there are no names at all.
    hidden: Option<String>,
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
            nameless: HashSet::new(),
            table: None,
            read: None,
            reads: READS,
            since: Instant::now(),
            hidden,
        }
    }

    /// Forgets what may have moved since: the functions of modules and programs. Looks again whether there are names.
    pub(super) fn renew(&mut self) {
        let functions = &self.functions;
        self.known.retain(|address, _| function_of(functions, *address).is_some());
        self.nameless.clear();
        self.table = None;
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
        // Not in between: what this asks for is needed all at once.
        if self.known.len() + self.nameless.len() >= REMEMBERED {
            self.known.clear();
            self.functions.clear();
            self.nameless.clear();
        }
        for address in addresses.filter(|address| *address != 0) {
            if !self.known.contains_key(&address) && !self.nameless.contains(&address) {
                self.look_up(address);
            }
        }
        self.tidy();
    }

    /// Gives the whole table back when it was held long enough.
    fn tidy(&mut self) {
        if self.read.is_some_and(|read| read.elapsed() >= HELD) && self.table.take().is_some() {
            give_back();
        }
    }

    fn look_up(&mut self, address: u64) {
        if let Some(place) = self.in_known_function(address) {
            self.known.insert(address, place);
            return;
        }
        if !self.is_told(address) && self.may_read() {
            self.read = Some(Instant::now());
            self.table = Table::read(self.path).ok();
            self.nameless.clear();
        }
        let Some(table) = self.table.as_ref().filter(|_| self.is_told(address)) else { return };
        let Some(found) = table.find(address) else {
            self.nameless.insert(address);
            return;
        };
        let name: Arc<str> = found.name.into();
        self.known.insert(address, place(&name, address - found.start));
        if let Some(end) = found.end {
            self.functions.insert(found.start, Function { end, name });
        }
    }

    /// Whether the table that is held can be trusted with this address: something may have been loaded there since.
    fn is_told(&self, address: u64) -> bool {
        let Some(table) = &self.table else { return false };
        self.read.is_some_and(|read| read.elapsed() < FRESH)
            || table.find(address).is_some_and(|found| found.end.is_some())
    }

    fn may_read(&mut self) -> bool {
        let now = Instant::now();
        let earned = now.duration_since(self.since).as_secs_f64() / READ_EVERY.as_secs_f64();
        self.since = now;
        self.reads = (self.reads + earned).min(READS);
        let may = self.reads >= 1.0;
        self.reads -= if may { 1.0 } else { 0.0 };
        may
    }

    fn in_known_function(&self, address: u64) -> Option<Place> {
        let (start, function) = function_of(&self.functions, address)?;
        Some(place(&function.name, address - start))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The table and the first of these functions that it has, by name.
    fn one_of(names: &[&str]) -> (u64, String) {
        let text = std::fs::read_to_string(KALLSYMS).expect("it was readable a moment ago");
        let of_kernel = text.lines().filter(|line| !line.contains('['));
        let mut words = of_kernel.map(|line| line.split(' ').collect::<Vec<_>>());
        let line =
            words.find(|words| names.contains(&words[2])).expect("every kernel with a network has them");
        (u64::from_str_radix(line[0], 16).expect("an address"), line[2].to_owned())
    }

    #[test]
    fn the_kernel_tells_where_its_own_functions_are_or_why_not() {
        let mut symbols = Symbols::open();
        if symbols.hidden.is_some() {
            assert!(matches!(symbols.status().state, HookState::Unsupported(_)));
            return;
        }
        let (address, name) = one_of(&["kfree_skbmem", "ip_rcv"]);
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
        let (address, _) = one_of(&["ip_rcv"]);
        symbols.learn([address + 1].into_iter());
        assert_eq!(symbols.exact(address + 1).as_ref(), "ip_rcv+0x1");
        symbols.table = None;
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
    fn the_table_is_read_once_in_a_while_and_given_back() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        let path: &'static str = file.path().to_str().expect("UTF-8").to_owned().leak();
        let write = |text: &str| std::fs::write(path, text).expect("written");
        write("ffffffff81000000 T first\n");
        let mut symbols = Symbols::at(path);
        let exact = |symbols: &mut Symbols, address| {
            symbols.learn([address].into_iter());
            symbols.exact(address).to_string()
        };
        assert_eq!(exact(&mut symbols, 0xffff_ffff_8100_0004), "first+0x4");
        assert_eq!(exact(&mut symbols, 0xffff_ffff_8200_0000), "0xffffffff82000000");
        write("ffffffff81000000 T first\nffffffff82000000 t second\t[late]\nffffffff83000000 T third\n");
        symbols.tidy();
        assert!(symbols.table.is_some(), "more may come");
        assert_eq!(exact(&mut symbols, 0xffff_ffff_8300_0000), "0xffffffff83000000");

        let long_ago = Instant::now().checked_sub(HELD).expect("the machine has run for a minute");
        symbols.read = Some(long_ago);
        symbols.tidy();
        assert!(symbols.table.is_none());
        // It is known to have had no name, so nothing is read for it; for a new one it is, and then all have theirs.
        assert_eq!(exact(&mut symbols, 0xffff_ffff_8200_0000), "0xffffffff82000000");
        assert_eq!(exact(&mut symbols, 0xffff_ffff_8300_0001), "third+0x1");
        assert_eq!(exact(&mut symbols, 0xffff_ffff_8200_0000), "second+0x0");
    }

    #[test]
    fn an_old_table_is_not_asked_for_what_may_have_been_loaded_since() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        let path: &'static str = file.path().to_str().expect("UTF-8").to_owned().leak();
        let write = |text: &str| std::fs::write(path, text).expect("written");
        let kernel = "ffffffff81000000 T first\nffffffff81000100 T second\n";
        write(&format!("{kernel}ffffffffc0000000 t old\t[module]\n"));
        let mut symbols = Symbols::at(path);
        let exact = |symbols: &mut Symbols, address| {
            symbols.learn([address].into_iter());
            symbols.exact(address).to_string()
        };
        assert_eq!(exact(&mut symbols, 0xffff_ffff_c000_0004), "old+0x4");
        symbols.read = Instant::now().checked_sub(FRESH);
        write(&format!("{kernel}ffffffffc0001000 t new\t[other]\n"));
        symbols.reads = 0.0;
        assert_eq!(
            exact(&mut symbols, 0xffff_ffff_8100_0004),
            "first+0x4",
            "the kernel itself does not move"
        );
        assert_eq!(exact(&mut symbols, 0xffff_ffff_c000_1004), "0xffffffffc0001004", "not old+0x1004");
        symbols.reads = 1.0;
        assert_eq!(exact(&mut symbols, 0xffff_ffff_c000_1004), "new+0x4");
    }

    #[test]
    fn reading_is_rationed() {
        let mut symbols = Symbols::open();
        assert_eq!((0..100).filter(|_| symbols.may_read()).count(), 5);
    }
}
