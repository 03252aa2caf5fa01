//! Which pod of this node has an address: for the other end of an event.
//!
//! An address that two namespaces have belongs to neither: nothing is told rather than something wrong.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netsonde_framework::{Flow, NetnsKey, Topology};
use netsonde_probes::os::Host;

/// Addresses change without anyone telling, so the table is read again after this time.
const FRESH: Duration = Duration::from_secs(5);
/// An address that is not in the table may be new, so the table is then read again earlier.
const MISSED: Duration = Duration::from_secs(1);

/// The namespaces at the ends of a flow that are not the event's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ends {
    /// The other end; of a packet on its way through, who sent it, else who was to get it.
    pub peer: Option<NetnsKey>,
    /// Who sent it, of a packet on its way through.
    pub src: Option<NetnsKey>,
    /// Who was to get it, of a packet on its way through.
    pub dst: Option<NetnsKey>,
}

#[derive(Debug, Default)]
struct Table {
    topology: Arc<Topology>,
    read: Option<Instant>,
    missed: bool,
    owners: HashMap<IpAddr, Vec<NetnsKey>>,
}

/// The addresses of every namespace, read when events need them.
#[derive(Debug)]
pub struct Peers {
    host: Host,
    table: Mutex<Table>,
}

impl Peers {
    pub fn new(host: Host) -> Self {
        Self { host, table: Mutex::default() }
    }

    /// Reads the addresses again if they may be out of date. 15 us for each namespace.
    pub fn refresh(&self, topology: &Arc<Topology>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let same = Arc::ptr_eq(&table.topology, topology);
        let age = table.read.map(|at| at.elapsed());
        let limit = if table.missed { MISSED } else { FRESH };
        if same && age.is_some_and(|age| age < limit) {
            return;
        }
        table.topology = Arc::clone(topology);
        table.read = Some(Instant::now());
        table.missed = false;
        table.owners.clear();
        for (_, ns) in topology.iter() {
            let Some(netns) = self.host.netns(ns.key) else { continue };
            // A namespace that ended or cannot be asked has no addresses to tell.
            let addresses: HashSet<IpAddr> = netns.addresses().unwrap_or_default().into_iter().collect();
            for address in addresses {
                table.owners.entry(address).or_default().push(ns.key);
            }
        }
    }

    /// Whose the ends of a flow are that are not in `own`.
    pub fn ends(&self, own: Option<NetnsKey>, flow: &Flow) -> Ends {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |address| table.owners.get(address).map(Vec::as_slice).unwrap_or_default();
        let (src, dst) = (of(&flow.src), of(&flow.dst));
        let missed = src.is_empty() || dst.is_empty();
        let (passing_src, passing_dst) = passing(own, src, dst);
        let ends = Ends { peer: other_end(own, src, dst), src: passing_src, dst: passing_dst };
        table.missed |= missed;
        ends
    }
}

/// Both ends of a packet on its way through a namespace, as far as they are known; none where one of them is there.
fn passing(
    own: Option<NetnsKey>,
    src: &[NetnsKey],
    dst: &[NetnsKey],
) -> (Option<NetnsKey>, Option<NetnsKey>) {
    match own {
        Some(own) if !src.contains(&own) && !dst.contains(&own) => (only(src), only(dst)),
        _ => (None, None),
    }
}

fn only(of: &[NetnsKey]) -> Option<NetnsKey> {
    match of {
        [one] => Some(*one),
        _ => None,
    }
}

/// From the namespaces that have the source address and those that have the destination address.
fn other_end(own: Option<NetnsKey>, src: &[NetnsKey], dst: &[NetnsKey]) -> Option<NetnsKey> {
    let is_own = |of: &[NetnsKey]| own.is_some_and(|own| of.contains(&own));
    match (is_own(src), is_own(dst)) {
        // Both ends in one namespace: there is no other.
        (true, true) => None,
        (true, false) => only(dst),
        (false, true) => only(src),
        // On its way through: who sent it, else who was to get it.
        (false, false) => only(src).or_else(|| only(dst)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_the_end_that_is_not_ones_own() {
        let (a, b, c) = (NetnsKey(1), NetnsKey(2), NetnsKey(3));
        assert_eq!(other_end(Some(a), &[a], &[b]), Some(b));
        assert_eq!(other_end(Some(b), &[a], &[b]), Some(a));
        assert_eq!(other_end(Some(a), &[a], &[a]), None);
        assert_eq!(other_end(Some(a), &[a], &[]), None, "an address outside");
        assert_eq!(other_end(Some(c), &[a], &[b]), Some(a), "on its way through");
        assert_eq!(other_end(None, &[], &[b]), Some(b));
    }

    #[test]
    fn both_ends_are_told_of_what_is_on_its_way_through_and_of_nothing_else() {
        let (a, b, c) = (NetnsKey(1), NetnsKey(2), NetnsKey(3));
        assert_eq!(passing(Some(c), &[a], &[b]), (Some(a), Some(b)));
        assert_eq!(passing(Some(c), &[a], &[]), (Some(a), None), "to an address outside");
        assert_eq!(passing(Some(c), &[a, b], &[b]), (None, Some(b)), "an address of two");
        assert_eq!(passing(Some(a), &[a], &[b]), (None, None));
        assert_eq!(passing(Some(b), &[a], &[b]), (None, None));
        assert_eq!(passing(None, &[a], &[b]), (None, None), "nobody knows where it was");
    }

    #[test]
    fn an_address_of_two_namespaces_is_nobodys() {
        let (a, b, c) = (NetnsKey(1), NetnsKey(2), NetnsKey(3));
        assert_eq!(other_end(Some(a), &[a], &[b, c]), None);
    }
}
