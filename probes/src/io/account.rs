//! Sums of the I/O of processes, for each namespace, that neither run backwards nor count anything twice.
//!
//! A process is remembered with its last counters and only what they grew is added, to the namespace where the
//! process is now. A process that is seen for the first time adds its whole counters.
//!
//! The trap: when a parent waits for a child, the kernel adds **everything the child ever did** to the parent's
//! counters (`wait_task_zombie` in kernel/exit.c). What was already counted of the child is therefore taken off the
//! parent's growth. Nothing tells whether a parent waited (it may ignore SIGCHLD, or the child may have got another
//! parent), so it is taken off only where all seven counters of the parent grew by at least as much.
//!
//! Nothing here reads the kernel; the caller tells who a process is when asked.

use std::collections::HashMap;

use netsonde_framework::NetnsKey;

use super::parse::{Counters, FIELDS};

/// What tells a process from an earlier one with the same number, and who will wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// The number of its parent.
    pub parent: u32,
}

#[derive(Debug)]
struct Known {
    birth: Birth,
    /// Inode number of its `io` file. The same number means the same process; another one may be the same process
    /// whose file fell out of the kernel's caches.
    inode: u64,
    netns: NetnsKey,
    last: Counters,
    growth: Counters,
    round: u64,
}

impl Known {
    fn take(&mut self, netns: NetnsKey, now: &Counters, round: u64) {
        self.netns = netns;
        self.round = round;
        for ((growth, last), now) in self.growth.iter_mut().zip(&mut self.last).zip(now) {
            *growth = now.saturating_sub(*last);
            *last = (*last).max(*now);
        }
    }
}

/// What was counted of a process that is gone, to be taken off the one that waited for it.
#[derive(Debug)]
struct Owed {
    counted: Counters,
    parent: u32,
    tries: u32,
}

/// A parent may have been read a moment before its child ended; then the child shows up in the next round.
const TRIES: u32 = 2;
/// How far up the line of parents that ended too.
const GENERATIONS: usize = 32;

/// The sums, and the processes that they are made of.
#[derive(Debug, Default)]
pub struct Account {
    processes: HashMap<u32, Known>,
    totals: HashMap<NetnsKey, Counters>,
    owed: Vec<Owed>,
    gone: HashMap<u32, u32>,
    round: u64,
}

impl Account {
    /// Starts a round: every process is now added again, by [`Account::add`] or [`Account::meet`].
    pub fn begin(&mut self) {
        self.round += 1;
        self.gone.clear();
    }

    /// Takes the counters of a process; `false` where it is not surely the one that is known by this number, and
    /// [`Account::meet`] is wanted.
    pub fn add(&mut self, netns: NetnsKey, pid: u32, inode: u64, now: &Counters) -> bool {
        match self.processes.get_mut(&pid) {
            Some(known) if known.inode == inode => {
                known.take(netns, now, self.round);
                true
            }
            _ => false,
        }
    }

    /// Takes the counters of a process together with who it is.
    pub fn meet(&mut self, netns: NetnsKey, pid: u32, inode: u64, birth: Birth, now: &Counters) {
        if let Some(known) = self.processes.get_mut(&pid)
            && known.birth.started == birth.started
        {
            known.birth = birth;
            known.inode = inode;
            known.take(netns, now, self.round);
            return;
        }
        let mut known = Known { birth, inode, netns, last: [0; FIELDS], growth: [0; FIELDS], round: 0 };
        known.take(netns, now, self.round);
        if let Some(before) = self.processes.insert(pid, known) {
            self.owed.push(Owed { counted: before.last, parent: before.birth.parent, tries: 0 });
        }
    }

    /// Ends a round. `birth` tells who has a number now; it is asked for processes that were not added in this
    /// round and for those whose parent is gone.
    pub fn settle(&mut self, mut birth: impl FnMut(u32) -> Option<Birth>) {
        let round = self.round;
        let ended = self.processes.extract_if(|pid, known| {
            if known.round == round {
                return false;
            }
            known.growth = [0; FIELDS];
            birth(*pid).is_none_or(|b| b.started != known.birth.started)
        });
        for (pid, known) in ended {
            self.gone.insert(pid, known.birth.parent);
            self.owed.push(Owed { counted: known.last, parent: known.birth.parent, tries: 0 });
        }
        self.take_off();
        if !self.gone.is_empty() {
            for (pid, known) in &mut self.processes {
                if self.gone.contains_key(&known.birth.parent)
                    && let Some(now) = birth(*pid)
                {
                    known.birth.parent = now.parent;
                }
            }
        }
        for known in self.processes.values().filter(|k| k.round == round) {
            let total = self.totals.entry(known.netns).or_default();
            for (total, growth) in total.iter_mut().zip(known.growth) {
                *total = total.wrapping_add(growth);
            }
        }
    }

    /// Takes what is owed off the growth of the nearest ancestor that lives, if it can have come from there.
    fn take_off(&mut self) {
        let Self { processes, owed, gone, .. } = self;
        owed.retain_mut(|owed| {
            let mut at = owed.parent;
            for _ in 0..GENERATIONS {
                if let Some(known) = processes.get_mut(&at) {
                    if known.growth.iter().zip(owed.counted).all(|(growth, counted)| *growth >= counted) {
                        for (growth, counted) in known.growth.iter_mut().zip(owed.counted) {
                            *growth -= counted;
                        }
                        return false;
                    }
                    break;
                }
                let Some(parent) = gone.get(&at) else { break };
                at = *parent;
            }
            owed.parent = at;
            owed.tries += 1;
            owed.tries < TRIES
        });
    }

    /// The sums of a namespace; `None` where no process was ever seen in it.
    pub fn total(&self, netns: NetnsKey) -> Option<&Counters> {
        self.totals.get(&netns)
    }

    /// Drops the sums of a namespace that is gone.
    pub fn forget(&mut self, netns: NetnsKey) {
        self.totals.remove(&netns);
    }

    /// How many processes are remembered.
    #[cfg(test)]
    pub fn processes(&self) -> usize {
        self.processes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: NetnsKey = NetnsKey(7);
    const HOST: NetnsKey = NetnsKey(1);

    /// One round: (namespace, pid, parent, value of every counter). Start times are the numbers themselves.
    fn round(account: &mut Account, processes: &[(NetnsKey, u32, u32, u64)]) {
        account.begin();
        for &(netns, pid, parent, value) in processes {
            let now = [value; FIELDS];
            if !account.add(netns, pid, pid.into(), &now) {
                account.meet(netns, pid, pid.into(), Birth { started: pid.into(), parent }, &now);
            }
        }
        account.settle(|pid| {
            let (_, _, parent, _) = processes.iter().find(|p| p.1 == pid)?;
            Some(Birth { started: pid.into(), parent: *parent })
        });
    }

    fn total(account: &Account, netns: NetnsKey) -> u64 {
        account.total(netns).map_or(0, |t| t[0])
    }

    #[test]
    fn a_process_that_ends_keeps_what_it_added() {
        let mut account = Account::default();
        round(&mut account, &[(POD, 10, 1, 100), (POD, 11, 1, 50)]);
        assert_eq!(total(&account, POD), 150);
        round(&mut account, &[(POD, 11, 1, 60)]);
        assert_eq!((total(&account, POD), account.processes()), (160, 1));
    }

    #[test]
    fn what_a_parent_inherits_by_waiting_is_not_counted_again() {
        let mut account = Account::default();
        round(&mut account, &[(POD, 10, 1, 5), (POD, 11, 10, 1000)]);
        // The child did 30 more before it ended; the parent 2 of its own.
        round(&mut account, &[(POD, 10, 1, 5 + 1030 + 2)]);
        assert_eq!(total(&account, POD), 1005 + 30 + 2);
    }

    #[test]
    fn a_parent_that_does_not_wait_loses_nothing_of_its_own() {
        let mut account = Account::default();
        round(&mut account, &[(POD, 10, 1, 5), (POD, 11, 10, 1000)]);
        round(&mut account, &[(POD, 10, 1, 8)]);
        assert_eq!(total(&account, POD), 1008);
        // and the debt does not wait for ever
        round(&mut account, &[(POD, 10, 1, 9)]);
        round(&mut account, &[(POD, 10, 1, 5009)]);
        assert_eq!(total(&account, POD), 1005 + 5004);
    }

    #[test]
    fn a_child_that_ended_after_its_parent_was_read_is_taken_off_in_the_next_round() {
        let mut account = Account::default();
        round(&mut account, &[(POD, 10, 1, 5), (POD, 11, 10, 1000)]);
        round(&mut account, &[(POD, 10, 1, 5)]);
        round(&mut account, &[(POD, 10, 1, 1005)]);
        assert_eq!(total(&account, POD), 1005);
    }

    #[test]
    fn a_pod_that_ends_does_not_appear_again_in_the_hosts_row() {
        let mut account = Account::default();
        // init, a runtime's shim, the pod's first process and its child
        round(&mut account, &[(HOST, 1, 0, 10), (HOST, 2, 1, 3), (POD, 10, 2, 500), (POD, 11, 10, 4000)]);
        assert_eq!((total(&account, HOST), total(&account, POD)), (13, 4500));
        // All of it was waited for in turn and init got the whole.
        round(&mut account, &[(HOST, 1, 0, 10 + 3 + 500 + 4000 + 1)]);
        assert_eq!((total(&account, HOST), total(&account, POD)), (14, 4500));
    }

    #[test]
    fn a_child_with_a_new_parent_is_taken_off_that_one() {
        let mut account = Account::default();
        round(&mut account, &[(POD, 10, 1, 1), (POD, 11, 10, 2), (POD, 12, 11, 1000)]);
        // 11 ends and is waited for; 12 becomes a child of 10
        round(&mut account, &[(POD, 10, 1, 3), (POD, 12, 10, 1000)]);
        assert_eq!(total(&account, POD), 1003);
        round(&mut account, &[(POD, 10, 1, 1003)]);
        assert_eq!(total(&account, POD), 1003);
    }

    #[test]
    fn a_process_that_moves_to_another_namespace_is_counted_once() {
        let mut account = Account::default();
        round(&mut account, &[(HOST, 10, 1, 100)]);
        round(&mut account, &[(POD, 10, 1, 130)]);
        assert_eq!((total(&account, HOST), total(&account, POD)), (100, 30));
    }

    #[test]
    fn a_process_that_is_not_listed_for_a_while_is_not_counted_anew() {
        let mut account = Account::default();
        round(&mut account, &[(POD, 10, 1, 100)]);
        account.begin();
        account.settle(|pid| Some(Birth { started: pid.into(), parent: 1 }));
        assert_eq!(total(&account, POD), 100);
        round(&mut account, &[(POD, 10, 1, 110)]);
        assert_eq!(total(&account, POD), 110);
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process_and_a_new_inode_alone_is_not() {
        let mut account = Account::default();
        round(&mut account, &[(POD, 10, 1, 100)]);
        account.begin();
        assert!(!account.add(POD, 10, 77, &[110; FIELDS]), "the file has another inode");
        account.meet(POD, 10, 77, Birth { started: 10, parent: 1 }, &[110; FIELDS]);
        account.settle(|_| None);
        assert_eq!(total(&account, POD), 110);
        account.begin();
        account.meet(POD, 10, 78, Birth { started: 11, parent: 1 }, &[500; FIELDS]);
        account.settle(|_| None);
        assert_eq!(total(&account, POD), 610);
    }

    #[test]
    fn a_namespace_that_is_gone_is_forgotten() {
        let mut account = Account::default();
        round(&mut account, &[(POD, 10, 1, 100)]);
        account.forget(POD);
        round(&mut account, &[]);
        assert!(account.total(POD).is_none());
        assert_eq!(account.processes(), 0);
    }
}
