//! The devices of the namespaces: which have series of their own, and which are idle and leave.
//!
//! The kernel does not tell this probe that a device is gone, and a node makes and removes one for each pod. So a device
//! that sent nothing for a quarter of an hour leaves the page and the table in the kernel, and begins anew with its next
//! packet. The sums of its namespace keep what it had added.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use netsonde_framework::{Exp2, Folded, MonotonicSum, NetnsKey};

use super::kernel::{Kind, NUMBERS, OVER_100MS, SIZE, Stage};
use crate::runtime::TALLY;

/// The name of the sum of those without series of their own. A device of this name is one of them.
const OTHER: &str = "other";
/// Devices of a namespace with series of their own: the bound of the label.
const MOST: usize = 64;
/// How long a device may be idle.
const IDLE: Duration = Duration::from_mins(15);

/// The buckets of a distribution and their sum.
const TIMES: usize = netsonde_framework::histogram::BUCKETS + 1;
const DRIVER: usize = TIMES;
const UNMATCHED: usize = 2 * TIMES;
const BUSY: usize = UNMATCHED + 1;
/// The numbers of a device: both distributions and both counts.
const ALL: usize = BUSY + 1;

/// What is known of one device, or of all that are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device([u64; ALL]);

impl Device {
    fn add(&mut self, kind: Kind, numbers: &[u64; NUMBERS]) {
        let place = match kind {
            Kind::Qdisc => 0,
            Kind::Driver => DRIVER,
            Kind::Unmatched => UNMATCHED,
            Kind::Busy => BUSY,
        };
        match kind {
            Kind::Qdisc | Kind::Driver => {
                self.0[place..place + TIMES].copy_from_slice(&numbers[TALLY..TALLY + TIMES]);
            }
            Kind::Unmatched | Kind::Busy => self.0[place] = numbers[0],
        }
    }

    fn times(&self, place: usize) -> Option<Exp2> {
        Exp2::from_numbers(&self.0[place..place + TIMES]).filter(|times| times.count() > 0)
    }

    /// The waits in its queue, if there were any.
    pub fn qdisc(&self) -> Option<Exp2> {
        self.times(0)
    }

    /// The times in its driver, if there were any.
    pub fn driver(&self) -> Option<Exp2> {
        self.times(DRIVER)
    }

    /// Packets whose time in the queue is unknown.
    pub fn unmatched(&self) -> u64 {
        self.0[UNMATCHED]
    }

    /// Packets that the driver refused.
    pub fn busy(&self) -> u64 {
        self.0[BUSY]
    }
}

/// What is kept of one namespace.
#[derive(Debug, Default)]
struct Kept {
    /// In this scrape, by name.
    devices: BTreeMap<String, [u64; ALL]>,
    folded: Folded<String, ALL>,
    over_100ms: MonotonicSum<[u8; SIZE], 2>,
}

/// When a key was first seen with this count.
#[derive(Debug, Clone, Copy)]
struct Still {
    count: u64,
    since: Instant,
}

/// One namespace on the page.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// With `other` at the end, where there is one.
    pub devices: Vec<(String, Device)>,
    /// Packets over 100 ms, of all devices that there ever were: in the queue, and in the driver.
    pub over_100ms: [u64; 2],
}

/// All of it.
#[derive(Debug, Default)]
pub struct Devices {
    kept: HashMap<NetnsKey, Kept>,
    still: HashMap<[u8; SIZE], Still>,
    idle: Vec<[u8; SIZE]>,
}

impl Devices {
    /// Takes a key with its numbers, each once in a scrape.
    pub fn add(&mut self, netns: NetnsKey, key: &[u8; SIZE], numbers: &[u64; NUMBERS], now: Instant) {
        let Stage { device, kind } = Stage::read(key);
        let kept = self.kept.entry(netns).or_default();
        let mut sum = Device(*kept.devices.entry(device.clone()).or_insert([0; ALL]));
        sum.add(kind, numbers);
        kept.devices.insert(device, sum.0);
        match kind {
            Kind::Qdisc => kept.over_100ms.add(*key, [numbers[OVER_100MS], 0]),
            Kind::Driver => kept.over_100ms.add(*key, [0, numbers[OVER_100MS]]),
            Kind::Unmatched | Kind::Busy => {}
        }
        let still = self.still.entry(*key).or_insert(Still { count: numbers[0], since: now });
        if still.count != numbers[0] {
            *still = Still { count: numbers[0], since: now };
        } else if now.duration_since(still.since) > IDLE {
            self.idle.push(*key);
        }
    }

    /// What a namespace's row shows in this scrape.
    pub fn row(&mut self, netns: NetnsKey) -> Row {
        let Some(kept) = self.kept.get_mut(&netns) else { return Row::default() };
        let mut devices = Vec::new();
        for (name, numbers) in std::mem::take(&mut kept.devices) {
            let limit = if name == OTHER { 0 } else { MOST };
            if kept.folded.take(&name, numbers, limit) {
                devices.push((name, Device(numbers)));
            }
        }
        devices.extend(kept.folded.finish().map(|rest| (OTHER.to_owned(), Device(rest))));
        Row { devices, over_100ms: kept.over_100ms.finish() }
    }

    /// The keys that did not count for so long that they are to be removed.
    pub fn take_idle(&mut self) -> Vec<[u8; SIZE]> {
        let idle = std::mem::take(&mut self.idle);
        for key in &idle {
            self.still.remove(key);
        }
        idle
    }

    /// The namespaces are gone.
    pub fn forget(&mut self, gone: &[NetnsKey]) {
        for netns in gone {
            self.kept.remove(netns);
        }
        let is_gone = |key: &[u8; SIZE]| {
            let cookie = key.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
            gone.contains(&NetnsKey(cookie))
        };
        self.still.retain(|key, _| !is_gone(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: NetnsKey = NetnsKey(7);

    fn key(device: &str, kind: u32) -> [u8; SIZE] {
        let mut key = [0; SIZE];
        key[..8].copy_from_slice(&POD.0.to_ne_bytes());
        key[8..8 + device.len()].copy_from_slice(device.as_bytes());
        key[24..28].copy_from_slice(&kind.to_ne_bytes());
        key
    }

    /// `count` packets that took a second each.
    fn seconds(count: u64) -> [u64; NUMBERS] {
        let mut numbers = [0; NUMBERS];
        numbers[0] = count;
        numbers[TALLY + 18] = count;
        numbers[TALLY + 23] = count * 1_000_000_000;
        numbers[OVER_100MS] = count;
        numbers
    }

    #[test]
    fn both_distributions_and_both_counts_of_a_device_come_together() {
        let mut devices = Devices::default();
        let now = Instant::now();
        for (kind, count) in [(0, 5), (1, 6), (2, 7), (3, 8)] {
            devices.add(POD, &key("eth0", kind), &seconds(count), now);
        }
        let row = devices.row(POD);
        let [(name, device)] = row.devices.as_slice() else { panic!("one device: {row:?}") };
        assert_eq!(name, "eth0");
        assert_eq!(device.qdisc().map(|t| (t.count(), t.sum_ns)), Some((5, 5_000_000_000)));
        assert_eq!(device.driver().map(|t| t.count()), Some(6));
        assert_eq!((device.unmatched(), device.busy(), row.over_100ms), (7, 8, [5, 6]));
        assert_eq!(devices.row(NetnsKey(8)), Row::default());
    }

    #[test]
    fn devices_beyond_the_bound_are_summed_and_no_sum_runs_backwards() {
        let mut devices = Devices::default();
        let now = Instant::now();
        let add = |devices: &mut Devices, count: usize| {
            for i in 0..count {
                devices.add(POD, &key(&format!("veth{i:03}"), 1), &seconds(1), now);
            }
            devices.add(POD, &key("other", 1), &seconds(1), now);
            devices.row(POD)
        };
        let row = add(&mut devices, MOST + 2);
        assert_eq!(row.devices.len(), MOST + 1);
        let count = |row: &Row| row.devices.last().and_then(|(_, device)| Some(device.driver()?.count()));
        assert_eq!((count(&row), row.over_100ms), (Some(3), [0, 67]));
        let row = add(&mut devices, MOST + 1);
        assert_eq!((count(&row), row.over_100ms), (Some(3), [0, 67]), "one is gone");
    }

    #[test]
    fn a_device_that_is_idle_for_long_leaves_and_its_sum_stays() {
        let mut devices = Devices::default();
        let start = Instant::now();
        let (idle, busy) = (key("veth0", 1), key("eth0", 1));
        for (minutes, count) in [(0, 1), (10, 2), (16, 3)] {
            let now = start + Duration::from_mins(minutes);
            devices.add(POD, &idle, &seconds(4), now);
            devices.add(POD, &busy, &seconds(count), now);
            assert_eq!(devices.row(POD).devices.len(), 2);
        }
        assert_eq!(devices.take_idle(), [idle]);
        assert!(devices.take_idle().is_empty());
        let now = start + Duration::from_mins(17);
        devices.add(POD, &busy, &seconds(3), now);
        let row = devices.row(POD);
        assert_eq!((row.devices.len(), row.over_100ms), (1, [0, 7]));
        devices.forget(&[POD]);
        assert_eq!((devices.row(POD), devices.still.len()), (Row::default(), 0));
    }
}
