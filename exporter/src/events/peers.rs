//! Which pod has an address: for the other end of an event.
//!
//! What has an address here is asked first. Where nothing has, the pods of other nodes are looked at, if they are known. An
//! address that two have belongs to neither: nothing is told rather than something wrong.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netsonde_framework::{Flow, NetnsKey, Topology};
use netsonde_probes::os::Host;

use crate::discovery::cluster::{Cluster, Remote};

/// Addresses change without anyone telling, so the table is read again after this time.
const FRESH: Duration = Duration::from_secs(5);
/// An address that is not in the table may be new, so the table is then read again earlier.
const MISSED: Duration = Duration::from_secs(1);

/// Who is at one end of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A namespace of this node.
    Here(NetnsKey),
    /// A pod of another node.
    Elsewhere(Arc<Remote>),
}

/// The ends of a flow that are not the event's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ends {
    /// The other end; of a packet on its way through, who sent it, else who was to get it.
    pub peer: Option<End>,
    /// Who sent it, of a packet on its way through.
    pub src: Option<End>,
    /// Who was to get it, of a packet on its way through.
    pub dst: Option<End>,
}

/// All that is known of an address.
#[derive(Debug, Clone, Copy)]
struct Owners<'a> {
    here: &'a [NetnsKey],
    /// Only asked for where nothing here has it.
    elsewhere: Option<&'a Arc<Remote>>,
}

impl Owners<'_> {
    fn has(&self, own: Option<NetnsKey>) -> bool {
        own.is_some_and(|own| self.here.contains(&own))
    }

    fn only(&self) -> Option<End> {
        match (self.here, self.elsewhere) {
            ([one], _) => Some(End::Here(*one)),
            ([], Some(remote)) => Some(End::Elsewhere(Arc::clone(remote))),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    topology: Arc<Topology>,
    read: Option<Instant>,
    missed: bool,
    owners: HashMap<IpAddr, Vec<NetnsKey>>,
}

impl Table {
    fn is_fresh(&self, topology: &Arc<Topology>, now: Instant) -> bool {
        let limit = if self.missed { MISSED } else { FRESH };
        Arc::ptr_eq(&self.topology, topology)
            && self.read.is_some_and(|at| now.saturating_duration_since(at) < limit)
    }

    fn fill(
        &mut self,
        topology: &Arc<Topology>,
        now: Instant,
        asked: impl Iterator<Item = (NetnsKey, Option<Vec<IpAddr>>)>,
    ) {
        self.topology = Arc::clone(topology);
        self.read = Some(now);
        self.missed = false;
        self.owners.clear();
        for (key, addresses) in asked {
            // One that has ended has none; one that cannot be asked now is asked again soon.
            self.missed |= addresses.is_none();
            for address in addresses.into_iter().flatten().collect::<HashSet<IpAddr>>() {
                self.owners.entry(address).or_default().push(key);
            }
        }
    }
}

/// The addresses of every namespace, read when events need them.
#[derive(Debug)]
pub struct Peers {
    host: Host,
    cluster: Cluster,
    table: Mutex<Table>,
}

impl Peers {
    pub fn new(host: Host, cluster: Cluster) -> Self {
        Self { host, cluster, table: Mutex::default() }
    }

    /// Reads the addresses again if they may be out of date. 15 us for each namespace.
    pub fn refresh(&self, topology: &Arc<Topology>) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if table.is_fresh(topology, now) {
            return;
        }
        let asked =
            topology.iter().filter_map(|(_, ns)| Some((ns.key, self.host.netns(ns.key)?.addresses().ok())));
        table.fill(topology, now, asked);
    }

    /// Whose the ends of a flow are that are not in `own`.
    pub fn ends(&self, own: Option<NetnsKey>, flow: &Flow) -> Ends {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let here = |address| table.owners.get(address).map(Vec::as_slice).unwrap_or_default();
        let (src, dst) = (here(&flow.src), here(&flow.dst));
        let elsewhere = |here: &[NetnsKey], address| {
            if here.is_empty() { self.cluster.owner(address) } else { None }
        };
        let remotes = (elsewhere(src, flow.src), elsewhere(dst, flow.dst));
        let missed = src.is_empty() || dst.is_empty();
        let src = Owners { here: src, elsewhere: remotes.0.as_ref() };
        let dst = Owners { here: dst, elsewhere: remotes.1.as_ref() };
        let (passing_src, passing_dst) = passing(own, src, dst);
        let ends = Ends { peer: other_end(own, src, dst), src: passing_src, dst: passing_dst };
        table.missed |= missed;
        ends
    }
}

/// Both ends of a packet on its way through a namespace, as far as they are known; none where one of them is there.
fn passing(own: Option<NetnsKey>, src: Owners<'_>, dst: Owners<'_>) -> (Option<End>, Option<End>) {
    if own.is_some() && !src.has(own) && !dst.has(own) { (src.only(), dst.only()) } else { (None, None) }
}

/// From those that have the source address and those that have the destination address.
fn other_end(own: Option<NetnsKey>, src: Owners<'_>, dst: Owners<'_>) -> Option<End> {
    match (src.has(own), dst.has(own)) {
        // Both ends in one namespace: there is no other.
        (true, true) => None,
        (true, false) => dst.only(),
        (false, true) => src.only(),
        // On its way through: who sent it, else who was to get it.
        (false, false) => src.only().or_else(|| dst.only()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(keys: &[NetnsKey]) -> Owners<'_> {
        Owners { here: keys, elsewhere: None }
    }

    fn elsewhere(remote: &Arc<Remote>) -> Owners<'_> {
        Owners { here: &[], elsewhere: Some(remote) }
    }

    const A: End = End::Here(NetnsKey(1));
    const B: End = End::Here(NetnsKey(2));

    #[test]
    fn the_peer_is_the_end_that_is_not_ones_own() {
        let (a, b, c) = (NetnsKey(1), NetnsKey(2), NetnsKey(3));
        assert_eq!(other_end(Some(a), here(&[a]), here(&[b])), Some(B));
        assert_eq!(other_end(Some(b), here(&[a]), here(&[b])), Some(A));
        assert_eq!(other_end(Some(a), here(&[a]), here(&[a])), None);
        assert_eq!(other_end(Some(a), here(&[a]), here(&[])), None, "an address outside");
        assert_eq!(other_end(Some(c), here(&[a]), here(&[b])), Some(A), "on its way through");
        assert_eq!(other_end(None, here(&[]), here(&[b])), Some(B));
    }

    #[test]
    fn both_ends_are_told_of_what_is_on_its_way_through_and_of_nothing_else() {
        let (a, b, c) = (NetnsKey(1), NetnsKey(2), NetnsKey(3));
        assert_eq!(passing(Some(c), here(&[a]), here(&[b])), (Some(A), Some(B)));
        assert_eq!(passing(Some(c), here(&[a]), here(&[])), (Some(A), None), "to an address outside");
        assert_eq!(passing(Some(c), here(&[a, b]), here(&[b])), (None, Some(B)), "an address of two");
        assert_eq!(passing(Some(a), here(&[a]), here(&[b])), (None, None));
        assert_eq!(passing(Some(b), here(&[a]), here(&[b])), (None, None));
        assert_eq!(passing(None, here(&[a]), here(&[b])), (None, None), "nobody knows where it was");
    }

    #[test]
    fn a_namespace_that_cannot_be_asked_is_asked_again_within_a_second() {
        let topology = Arc::new(Topology::default());
        let (mut table, start) = (Table::default(), Instant::now());
        let address = IpAddr::from([10, 9, 0, 1]);
        let fresh_after = |table: &Table, time| table.is_fresh(&topology, start + time);
        assert!(!fresh_after(&table, Duration::ZERO), "nothing was read yet");

        let refused = [(NetnsKey(1), Some(vec![address])), (NetnsKey(2), None)];
        table.fill(&topology, start, refused.into_iter());
        assert_eq!(table.owners[&address], [NetnsKey(1)], "the others are known all the same");
        assert!(fresh_after(&table, MISSED / 2) && !fresh_after(&table, MISSED));

        let answered = [(NetnsKey(1), Some(vec![address; 2])), (NetnsKey(2), Some(vec![address]))];
        table.fill(&topology, start, answered.into_iter());
        assert_eq!(table.owners[&address], [NetnsKey(1), NetnsKey(2)], "each once");
        assert!(fresh_after(&table, MISSED) && !fresh_after(&table, FRESH));
        assert!(!table.is_fresh(&Arc::new(Topology::default()), start), "other namespaces");
    }

    #[test]
    fn an_address_of_two_namespaces_is_nobodys() {
        let (a, b, c) = (NetnsKey(1), NetnsKey(2), NetnsKey(3));
        assert_eq!(other_end(Some(a), here(&[a]), here(&[b, c])), None);
    }

    #[test]
    fn a_pod_of_another_node_is_an_end_where_nothing_here_has_its_address() {
        let (a, c) = (NetnsKey(1), NetnsKey(3));
        let remote = Arc::new(Remote::new("shop", "cart-0", &[]));
        let far = End::Elsewhere(Arc::clone(&remote));
        assert_eq!(other_end(Some(a), here(&[a]), elsewhere(&remote)), Some(far.clone()));
        assert_eq!(other_end(Some(a), elsewhere(&remote), here(&[a])), Some(far.clone()));
        assert_eq!(passing(Some(c), elsewhere(&remote), here(&[a])), (Some(far), Some(A)));
        let both = Owners { here: &[a], elsewhere: Some(&remote) };
        assert_eq!(other_end(Some(c), both, here(&[])), Some(A), "what is here wins");
        let many = Owners { here: &[a, c], elsewhere: Some(&remote) };
        assert_eq!(other_end(Some(c), here(&[c]), many), None);
    }
}
