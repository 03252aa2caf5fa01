//! Loading, attaching and reading eBPF programs. The only place of this crate with `unsafe`.

pub mod btf;
mod clock;
mod health;
mod iterator;
mod kallsyms;
mod kernel;
mod ladder;
mod ledger;
mod limit;
mod maps;
mod missed;
mod object;
mod relay;
mod ring;
mod stamping;
mod symbols;
mod table;
mod tcp;
mod tuple;

pub use clock::Clock;
pub use health::Sibling;
pub use iterator::Walk;
pub use kernel::{Kernel, offsets};
pub use ladder::{Hook, Role, Rung};
pub use ledger::{Held, Ledger, Rest, TALLY};
pub use limit::EventLimit;
pub use maps::Counters;
pub use object::{Object, Setting};
pub use ring::{Record, Ring};
pub use stamping::{Stamping, tai_ahead_seconds};
pub use symbols::{Place, SharedSymbols, Symbols};
pub use table::Table;
pub use tcp::tcp_state;
pub use tuple::{TUPLE, flow, protocol_name};

/// Embeds the object of a probe, aligned as its parser wants it.
#[macro_export]
macro_rules! object {
    ($name:literal) => {
        aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/", $name, ".o"))
    };
}

/// Holds the layout that user space assumes against the one in the object: name, members with offsets, size.
#[cfg(test)]
pub(crate) fn assert_layout(types: &[u8], name: &str, members: &[(&str, usize)], size: usize) {
    let btf = btf::Btf::parse(types.to_vec()).expect("the object's own types");
    let (found, found_size) = btf.layout(name).expect("the object has the struct");
    let found: Vec<(&str, usize)> = found.iter().map(|(name, offset)| (name.as_str(), *offset)).collect();
    assert_eq!((found.as_slice(), found_size), (members, size), "struct {name}");
}

/// Whether a test that loads programs can run; if not, that is noted where `make test` looks, or the test fails.
#[cfg(test)]
pub(crate) fn can_run(name: &str) -> bool {
    use std::io::Write as _;

    if rustix::process::geteuid().is_root() {
        return true;
    }
    let note = std::env::var_os("NETSONDE_SKIPS").expect("it needs root, to load a program");
    let mut notes = std::fs::OpenOptions::new().append(true).create(true).open(note).expect("a file");
    writeln!(notes, "{name}: it needs root, to load a program").expect("room for a line");
    false
}

/// The types of a probe's object.
#[cfg(test)]
macro_rules! types {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".btf"))
    };
}
#[cfg(test)]
pub(crate) use types;
