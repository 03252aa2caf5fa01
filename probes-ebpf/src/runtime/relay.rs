//! Programs at one tracepoint: one is attached, and each hands over to the next.
//!
//! The kernel's way from a tracepoint to a program costs as much as most programs of this crate do, and more where a
//! tracepoint has two. So where several programs are written for a tracepoint, one small program is attached to it
//! (relay.bpf.c): it goes on to the first of theirs by a tail call, and each to the next. A program comes and goes by one
//! change of one entry, which the kernel makes at once: the others miss nothing, and see nothing twice.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aya::maps::{Map, MapData, ProgramArray};
use aya::programs::{BtfTracePoint, Program, ProgramFd};
use aya::{Btf, Ebpf, EbpfLoader};
use rustix::thread::{MembarrierCommand, membarrier};

use super::missed::missed;
use crate::object;

/// What `NETSONDE_WITHOUT` calls it: without, each program is attached by itself.
pub const RELAY: &str = "relay";

/// No program runs that long.
const LONGEST_RUN: Duration = Duration::from_millis(100);

/// The map in which a program finds the one that it hands over to.
type Next = ProgramArray<MapData>;

/// What runs at each tracepoint. Clones are handles to the same.
#[derive(Clone, Default)]
pub struct Relays(Arc<Mutex<State>>);

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relays")
    }
}

#[derive(Default)]
struct State {
    relays: BTreeMap<&'static str, Relay>,
    joined: u64,
}

struct Relay {
    _attached: Ebpf,
    program: ProgramFd,
    first: Next,
    /// In the order in which they run.
    members: Vec<Member>,
}

struct Member {
    number: u64,
    program: ProgramFd,
    next: Next,
}

/// A program runs at a tracepoint until this is dropped.
#[derive(Debug)]
pub struct Membership {
    relays: Relays,
    tracepoint: &'static str,
    number: u64,
    /// What was missed here before.
    before: u64,
}

impl Membership {
    /// How often the kernel passed over the tracepoint since this program is there.
    pub fn missed(&self) -> u64 {
        let state = self.relays.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = state.relays.get(self.tracepoint).map_or(0, |relay| missed(&relay.program));
        all.saturating_sub(self.before)
    }
}

impl Relays {
    /// Lets a loaded program run at a tracepoint; `next` is its map for the one behind it. `None` where the kernel refuses:
    /// then it can be attached by itself.
    pub fn join(
        &self,
        tracepoint: &'static str,
        program: &ProgramFd,
        next: Map,
        btf: &Btf,
    ) -> Option<Membership> {
        let program = program.try_clone().ok()?;
        let mut next = Next::try_from(next).ok()?;
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.joined += 1;
        let number = state.joined;
        let before = state.relays.get(tracepoint).map_or(0, |relay| missed(&relay.program));
        if let Some(relay) = state.relays.get_mut(tracepoint) {
            if let Some(first) = relay.members.first() {
                next.set(0, &first.program, 0).ok()?;
            }
            relay.first.set(0, &program, 0).ok()?;
            relay.members.insert(0, Member { number, program, next });
        } else {
            let relay = Relay::attach(tracepoint, Member { number, program, next }, btf)?;
            state.relays.insert(tracepoint, relay);
        }
        Some(Membership { relays: self.clone(), tracepoint, number, before })
    }

    fn leave(&self, tracepoint: &'static str, number: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(relay) = state.relays.get_mut(tracepoint) else { return };
        let is_last = relay.members.last().is_some_and(|member| member.number == number);
        let gone = relay.remove(number);
        if relay.members.is_empty() {
            state.relays.remove(tracepoint);
        }
        drop(state);
        // A CPU may be in the program still, and has to find the next one when it comes to its end. The kernel's global
        // barrier waits until every program that had begun has ended.
        if gone.is_some() && !is_last && membarrier(MembarrierCommand::Global).is_err() {
            std::thread::sleep(LONGEST_RUN);
        }
    }
}

impl Relay {
    fn attach(tracepoint: &str, member: Member, btf: &Btf) -> Option<Self> {
        let mut loaded = EbpfLoader::new().btf(Some(btf)).load(object!("relay")).ok()?;
        let mut first = Next::try_from(loaded.take_map("next_relay")?).ok()?;
        let Program::BtfTracePoint(program) = loaded.program_mut("relay")? else { return None };
        let program: &mut BtfTracePoint = program;
        program.load(tracepoint, btf).ok()?;
        first.set(0, &member.program, 0).ok()?;
        let attached = program.fd().ok()?.try_clone().ok()?;
        program.attach().ok()?;
        Some(Self { _attached: loaded, program: attached, first, members: vec![member] })
    }

    /// Lets the one before hand over to the one behind.
    fn remove(&mut self, number: u64) -> Option<Member> {
        let at = self.members.iter().position(|member| member.number == number)?;
        let (before, from) = self.members.split_at_mut(at);
        let behind = from.get(1).map(|member| &member.program);
        let entry = before.last_mut().map_or(&mut self.first, |member| &mut member.next);
        let changed = match behind {
            Some(program) => entry.set(0, program, 0),
            None => entry.clear_index(&0),
        };
        // The entry is there, and the program was taken before: no reason is left why the kernel should refuse.
        debug_assert!(changed.is_ok(), "{changed:?}");
        Some(self.members.remove(at))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.relays.leave(self.tracepoint, self.number);
    }
}
