//! Distributions by disk: the first disks have series of their own, those beyond are summed, so that no series begins a
//! second time with a part of another one.

use std::collections::{BTreeMap, HashSet};

use netsonde_framework::Exp2;

use super::kernel::{Disk, Stage};
use super::metrics::{DISKS, Operation};

const OTHER: &str = "other";

/// Which disks have series of their own. A disk that has them keeps them, as its counters stay in the kernel.
#[derive(Debug, Default)]
pub struct Disks {
    own: HashSet<Disk>,
}

/// The distributions of one scrape.
pub type Distributions = BTreeMap<(String, Operation), Exp2>;

impl Disks {
    /// Adds what was counted for a stage to the series that it belongs to.
    pub fn add(&mut self, stage: &Stage, times: &Exp2, all: &mut Distributions) {
        let name = stage.disk.name();
        let named = !name.is_empty() && name != OTHER;
        let own = named && (self.own.contains(&stage.disk) || self.take(stage.disk));
        let name = if own { name } else { OTHER.to_owned() };
        all.entry((name, stage.operation)).or_default().add(times);
    }

    fn take(&mut self, disk: Disk) -> bool {
        self.own.len() < DISKS && self.own.insert(disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::biolatency::kernel::STAGE;

    fn stage(name: &str) -> Stage {
        let mut key = [0; STAGE];
        key[..name.len()].copy_from_slice(name.as_bytes());
        Stage::read(&key)
    }

    #[test]
    fn disks_beyond_the_bound_are_summed_and_stay_so() {
        let mut disks = Disks::default();
        let mut once = Exp2::default();
        once.observe(1);
        let names: Vec<String> = (0..DISKS + 2).map(|i| format!("dm-{i}")).collect();
        for round in [false, true] {
            let mut all = Distributions::new();
            // In another order at the next scrape: the kernel's table has none.
            let mut order: Vec<&str> = names.iter().map(String::as_str).collect();
            if round {
                order.reverse();
            }
            for name in order.into_iter().chain([""]) {
                disks.add(&stage(name), &once, &mut all);
            }
            assert_eq!(all.len(), DISKS + 1);
            let count = |name: &str| all.get(&(name.to_owned(), Operation::Read)).map(Exp2::count);
            assert_eq!((count("dm-0"), count("dm-64"), count(OTHER)), (Some(1), None, Some(3)));
        }
    }
}
