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

    /// The namespace of the end that is not in `own`.
    pub fn other_end(&self, own: Option<NetnsKey>, flow: &Flow) -> Option<NetnsKey> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |address| table.owners.get(address).map(Vec::as_slice).unwrap_or_default();
        let (src, dst) = (of(&flow.src), of(&flow.dst));
        let missed = src.is_empty() || dst.is_empty();
        let other = other_end(own, src, dst);
        table.missed |= missed;
        other
    }
}

/// From the namespaces that have the source address and those that have the destination address.
fn other_end(own: Option<NetnsKey>, src: &[NetnsKey], dst: &[NetnsKey]) -> Option<NetnsKey> {
    let is_own = |of: &[NetnsKey]| own.is_some_and(|own| of.contains(&own));
    let only = |of: &[NetnsKey]| match of {
        [one] => Some(*one),
        _ => None,
    };
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
    fn an_address_of_two_namespaces_is_nobodys() {
        let (a, b, c) = (NetnsKey(1), NetnsKey(2), NetnsKey(3));
        assert_eq!(other_end(Some(a), &[a], &[b, c]), None);
    }
}
