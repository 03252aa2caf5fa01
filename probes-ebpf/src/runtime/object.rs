//! A probe's programs and maps: loaded, attached hook by hook, and detached when dropped.

use std::os::fd::AsFd as _;

use aya::maps::{Array, Map, MapData, PerCpuArray};
use aya::programs::Program;
use aya::{Btf, Ebpf, EbpfLoader};
use netsonde_framework::{CollectError, HookState, HookStatus, StartError};

use super::health::{Sibling, Watched};
use super::iterator::Walk;
use super::kernel::Kernel;
use super::ladder::{Climbed, Hook, Role, Rung, climb, refused};
use super::maps::Counters;
use super::missed::missed;
use super::relay::Membership;
use super::ring::Ring;
use super::table::{self, Table};

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

    /// How many keys the object's histograms have room for.
    pub const fn histograms(keys: u32) -> Self {
        Self::u32(table::ROWS, keys)
    }
}

/// The program of a hook.
#[derive(Debug)]
struct Attached {
    /// Its place among the hooks.
    hook: usize,
    program: &'static str,
    /// Where it shares a tracepoint.
    membership: Option<Membership>,
}

/// The loaded programs of a probe.
#[derive(Debug)]
pub struct Object {
    /// Before the programs, which go with `ebpf`: fields are dropped in this order.
    attached: Vec<Attached>,
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
        let rows = settings.iter().find_map(|setting| match &setting.value {
            Constant::U32(rows) if setting.name == table::ROWS => Some(*rows),
            _ => None,
        });
        let room = rows.map(table::Room::new).transpose()?;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf));
        if let Some(room) = &room {
            room.make(&mut loader);
        }
        for setting in settings {
            match &setting.value {
                Constant::U32(value) => loader.override_global(setting.name, value, true),
                Constant::U64(value) => loader.override_global(setting.name, value, true),
            };
        }
        let mut ebpf = loader.load(bytes).map_err(|error| refused("load its maps", &error))?;
        let mut attached = Vec::new();
        let mut fared: Vec<HookStatus> = hooks
            .iter()
            .enumerate()
            .map(|(at, hook)| {
                let Climbed { state, rung, membership } = climb(&mut ebpf, kernel, hook, &btf);
                attached.extend(rung.map(|rung| Attached { hook: at, program: rung.program(), membership }));
                let rungs = hook.rungs.iter().copied().map(Rung::name).collect();
                HookStatus { name: hook.name, state, rungs, rung: rung.map(Rung::name), missed: 0 }
            })
            .collect();
        drop(btf);
        give_back();
        let sources = || hooks.iter().zip(&fared).filter(|(hook, _)| hook.role == Role::Source);
        if sources().any(|(_, status)| matches!(status.state, HookState::Attached(_))) {
            fared.extend(kernel.passes_over());
            return Ok(Self { attached, ebpf, hooks: fared, watched: Vec::new() });
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

    /// Gives the hooks that are watched their verdicts, and all of them what they missed. A system call for each.
    pub fn check(&mut self) -> Result<(), CollectError> {
        for Attached { hook, program, membership } in &self.attached {
            let alone = || self.ebpf.program(program)?.fd().ok().map(missed);
            let missed = membership.as_ref().map(Membership::missed).or_else(alone);
            self.hooks[*hook].missed = missed.unwrap_or_default();
        }
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

    /// The histograms of an object that has them by key.
    pub fn histograms<const K: usize, const V: usize>(&mut self) -> Result<Table<K, V>, StartError> {
        let keys = self.take(table::KEYS)?;
        Table::new(keys, self.take(table::HISTOGRAMS)?)
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

/// The kernel's types and its symbols take megabytes while they are looked at; the allocator would keep them.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only gives free memory back to the kernel; it takes no pointers.
    unsafe {
        libc::malloc_trim(0);
    }
}
