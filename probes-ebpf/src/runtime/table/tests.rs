use std::collections::BTreeMap;
use std::thread;

use aya::maps::PerCpuArray;
use aya::programs::RawTracePoint;
use aya::{Ebpf, RawTracePointRunOptions, TestRun as _};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::*;
use crate::runtime::{assert_layout, can_run, types};

const KEY: usize = 16;
const NUMBERS: usize = 32;
/// The numbers of `struct histogram`: its count, the bucket of 4.1 to 8.2 us, the sum of times, those over 1 ms and
/// those that were slow.
const COUNT: usize = 0;
const BUCKET: usize = 6;
const SUM: usize = 28;
const OVER_1MS: usize = 29;
const SLOW: usize = 31;

/// The program and what it counts.
struct Lab {
    ebpf: Ebpf,
    table: Table<KEY, NUMBERS>,
}

fn program(ebpf: &Ebpf) -> &RawTracePoint {
    ebpf.program("table_observe").expect("the object has it").try_into().expect("its kind")
}

/// Counts a time for each of `keys` keys, from the one of this number on, on a CPU and not before a moment of the
/// monotonic clock. How many found room.
fn observe(program: &RawTracePoint, cpu: u32, first: u64, keys: u64, nanoseconds: u64, begin: u64) -> u64 {
    let mut options = RawTracePointRunOptions::new();
    options.args[..4].copy_from_slice(&[first, keys, nanoseconds, begin]);
    options.cpu = Some(cpu);
    program.test_run(options).expect("a run").return_value.into()
}

/// The key of a number, as the program writes it.
fn key_of(number: u64) -> [u8; KEY] {
    let mut key = [0; KEY];
    key[..8].copy_from_slice(&(number >> 3).to_ne_bytes());
    key[8..12].copy_from_slice(&u32::try_from(number & 7).expect("a small number").to_ne_bytes());
    key[12] = u8::try_from(number % 5).expect("a small number");
    key
}

impl Lab {
    fn new(rows: u32) -> Self {
        let room = Room::new(rows).expect("room");
        let mut loader = EbpfLoader::new();
        room.make(&mut loader);
        loader.override_global(ROWS, &rows, true);
        let bytes = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/table.o"));
        let mut ebpf = loader.load(bytes).expect("the object can be loaded");
        let program: &mut RawTracePoint =
            ebpf.program_mut("table_observe").expect("the object has it").try_into().expect("its kind");
        program.load().expect("the verifier takes it");
        let mut map = |name| ebpf.take_map(name).expect("the object has it");
        let table = Table::new(map(KEYS), map(HISTOGRAMS)).expect("the maps are a table");
        Self { ebpf, table }
    }

    /// Counts a time for the key of this number on a CPU. Whether there was room.
    fn observe(&self, cpu: u32, key: u64, nanoseconds: u64) -> bool {
        observe(program(&self.ebpf), cpu, key, 1, nanoseconds, 0) == 1
    }

    /// Counts 5 us for so many keys on every CPU at the same moment; from which one on is told by the CPU's place among
    /// them.
    fn observe_at_once(&self, cpus: &[u32], first: impl Fn(u64) -> u64, keys: u64) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).expect("a time");
        let program = program(&self.ebpf);
        thread::scope(|threads| {
            for (place, cpu) in (0..).zip(cpus) {
                let first = first(place);
                threads.spawn(move || {
                    // Else one may run in an interrupt of the other.
                    let mut here = CpuSet::new();
                    here.set(*cpu as usize);
                    sched_setaffinity(None, &here).expect("a CPU");
                    assert_eq!(observe(program, *cpu, first, keys, 5000, now + 300_000), keys);
                });
            }
        });
    }

    /// What there is now, with each key only once.
    fn read_at(&mut self, now: Instant) -> BTreeMap<[u8; KEY], [u64; NUMBERS]> {
        let mut all = BTreeMap::new();
        let each = |key: &_, numbers: &_| assert!(all.insert(*key, *numbers).is_none(), "{key:?} twice");
        self.table.read_at(now, each).expect("memory can be mapped");
        all
    }

    fn read(&mut self) -> BTreeMap<[u8; KEY], [u64; NUMBERS]> {
        self.read_at(Instant::now())
    }

    fn uncounted(&self) -> u64 {
        let map = self.ebpf.map("UNCOUNTED").expect("the object has it");
        let array: PerCpuArray<_, u64> = map.try_into().expect("its kind");
        array.get(&0, 0).expect("one value").iter().sum()
    }

    /// States of all rows.
    fn states(&self) -> Vec<u64> {
        let rows = self.table.keys.words().chunks_exact(Table::<KEY, NUMBERS>::ROW);
        rows.map(|row| row[0].load(Ordering::Relaxed)).collect()
    }
}

fn cpus() -> Vec<u32> {
    aya::util::online_cpus().expect("sysfs")
}

#[test]
fn the_last_number_of_a_list_of_cpus_is_the_highest() {
    assert_eq!((highest("0-3,8-11\n"), highest("0\n"), highest("0,2\n")), (Some(11), Some(0), Some(2)));
    assert_eq!((highest("\n"), highest("4294967295\n")), (None, None));
}

#[test]
fn a_row_is_laid_out_as_in_the_kernel_side() {
    assert_layout(types!("table"), "histogram_row", &[("state", 0), ("key", 8)], 8 + KEY);
}

#[test]
fn every_key_is_counted_exactly_and_one_too_many_is_told() {
    if !can_run("every_key_is_counted_exactly_and_one_too_many_is_told") {
        return;
    }
    // All rows are tried for each key.
    let rows = 64;
    let mut lab = Lab::new(rows);
    assert!(lab.read().is_empty());
    let cpus = cpus();
    for key in 0..u64::from(rows) {
        for round in 0..=key {
            for cpu in &cpus {
                assert!(lab.observe(*cpu, key, 5000 + round), "key {key} has room");
            }
        }
        assert!(lab.observe(cpus[0], key, 2_000_000));
    }
    let all = lab.read();
    assert_eq!(all.len(), rows as usize);
    for key in 0..u64::from(rows) {
        let numbers = all[&key_of(key)];
        let short = (key + 1) * cpus.len() as u64;
        assert_eq!(numbers[COUNT], short + 1, "key {key}");
        assert_eq!((numbers[BUCKET], numbers[OVER_1MS], numbers[SLOW]), (short, 1, 1), "key {key}");
        assert_eq!(numbers[SUM], short * 5000 + key * (key + 1) / 2 * cpus.len() as u64 + 2_000_000);
    }
    assert_eq!(lab.uncounted(), 0);
    for more in 1..=3 {
        assert!(!lab.observe(cpus[0], 1_000_000, 5000), "there is no room");
        assert_eq!(lab.uncounted(), more);
    }
    assert_eq!(lab.read(), all);
}

#[test]
fn the_row_of_a_removed_key_is_another_keys_after_a_while() {
    if !can_run("the_row_of_a_removed_key_is_another_keys_after_a_while") {
        return;
    }
    let mut lab = Lab::new(4);
    for key in 10..14 {
        assert!(lab.observe(0, key, 5000));
    }
    let (start, all) = (Instant::now(), lab.read());
    assert_eq!(all.len(), 4);
    for _ in 0..2 {
        lab.table.remove_at(start, &key_of(12));
        lab.table.remove_at(start, &key_of(99));
    }
    let mut without = all.clone();
    without.remove(&key_of(12));
    assert_eq!(lab.read_at(start + RETIRED_FOR / 2), without);
    assert!(!lab.observe(0, 20, 5000), "it is not free yet");
    assert_eq!((lab.read_at(start + RETIRED_FOR), lab.states().iter().sum::<u64>()), (without, 3 * USED));

    assert!(lab.observe(0, 20, 2_000_000));
    let all = lab.read();
    let numbers = all[&key_of(20)];
    assert_eq!(all.len(), 4);
    assert_eq!((numbers[COUNT], numbers[BUCKET], numbers[OVER_1MS], numbers[SUM]), (1, 0, 1, 2_000_000));
    assert_eq!(lab.states(), [USED; 4]);
}

#[test]
fn a_key_with_two_rows_is_told_of_once_with_both_and_loses_both() {
    if !can_run("a_key_with_two_rows_is_told_of_once_with_both_and_loses_both") {
        return;
    }
    let mut lab = Lab::new(8);
    for key in 0..8 {
        assert!(lab.observe(0, key, 5000));
    }
    // Some key stands behind where its search begins: with the rows before it freed, it gets another one.
    let start = Instant::now();
    assert_eq!(lab.read_at(start).len(), 8);
    let rows: BTreeMap<usize, [u8; KEY]> = lab.table.used.iter().map(|(key, row)| (*row, *key)).collect();
    for row in [0, 2, 4, 6] {
        lab.table.remove_at(start, &rows[&row]);
    }
    let later = start + RETIRED_FOR;
    assert_eq!(lab.read_at(later).len(), 4);
    let kept: Vec<u64> =
        (0..8).filter(|key| [1, 3, 5, 7].iter().any(|row| rows[row] == key_of(*key))).collect();
    for key in &kept {
        assert!(lab.observe(0, *key, 6000));
    }
    assert!(lab.states().iter().sum::<u64>() > 4 * USED, "no key has two rows: {:?}", lab.states());
    let all = lab.read_at(later);
    assert_eq!(all.len(), 4);
    for key in &kept {
        let numbers = all[&key_of(*key)];
        assert_eq!((numbers[COUNT], numbers[SUM]), (2, 11_000));
        lab.table.remove_at(later, &key_of(*key));
    }
    assert!(lab.read_at(later).is_empty());
    assert!(lab.read_at(later + RETIRED_FOR).is_empty());
    assert_eq!(lab.states(), [FREE; 8]);
}

#[test]
fn nothing_is_lost_when_all_cpus_come_with_the_same_new_keys_at_once() {
    if !can_run("nothing_is_lost_when_all_cpus_come_with_the_same_new_keys_at_once") {
        return;
    }
    let (rounds, keys) = (8, 500);
    let mut lab = Lab::new(8192);
    let cpus = cpus();
    for round in 0..rounds {
        lab.observe_at_once(&cpus, |_| round * keys, keys);
    }
    let all = lab.read();
    assert_eq!((all.len() as u64, lab.uncounted()), (rounds * keys, 0));
    let of_each = cpus.len() as u64;
    for (key, numbers) in all {
        let counted = (numbers[COUNT], numbers[BUCKET], numbers[SUM]);
        assert_eq!(counted, (of_each, of_each, of_each * 5000), "{key:?}");
    }
}

#[test]
fn new_keys_that_come_at_once_never_share_a_row() {
    if !can_run("new_keys_that_come_at_once_never_share_a_row") {
        return;
    }
    let cpus = cpus();
    let count = cpus.len() as u64;
    let mut lab = Lab::new(u32::try_from(cpus.len()).expect("a number of CPUs").next_power_of_two());
    let mut now = Instant::now();
    for round in 0..500 {
        let number = |place| round * count + place;
        lab.observe_at_once(&cpus, number, 1);
        let all = lab.read_at(now);
        let keys: BTreeMap<_, _> = (0..count).map(|place| (key_of(number(place)), 1)).collect();
        assert_eq!(all.iter().map(|(key, numbers)| (*key, numbers[COUNT])).collect::<BTreeMap<_, _>>(), keys);
        for key in keys.keys() {
            lab.table.remove_at(now, key);
        }
        now += RETIRED_FOR;
        assert!(lab.read_at(now).is_empty());
    }
}
