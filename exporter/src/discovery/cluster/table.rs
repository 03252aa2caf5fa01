//! Which pod has which address. An address of two pods is nobody's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::object::Pod;

/// How many pods are kept.
const ROOM: usize = 100_000;
/// How many addresses of one pod: Kubernetes gives it one of each family.
const ADDRESSES: usize = 8;

/// A pod somewhere in the cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct Remote {
    pub namespace: Arc<str>,
    pub pod: Arc<str>,
    addresses: Box<[IpAddr]>,
}

impl Remote {
    pub fn new(namespace: &str, pod: &str, addresses: &[IpAddr]) -> Self {
        Self { namespace: namespace.into(), pod: pod.into(), addresses: addresses.into() }
    }
}

/// The pods that have addresses of their own, by uid and by address.
#[derive(Debug)]
pub struct Table {
    pods: HashMap<Box<str>, Arc<Remote>>,
    owners: HashMap<IpAddr, Vec<Arc<Remote>>>,
    room: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { pods: HashMap::new(), owners: HashMap::new(), room: ROOM }
    }
}

impl Table {
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// The only pod that has this address.
    pub fn only(&self, address: IpAddr) -> Option<Arc<Remote>> {
        match self.owners.get(&address)?.as_slice() {
            [one] => Some(Arc::clone(one)),
            _ => None,
        }
    }

    /// What a pod is now. False where there is no room for it.
    #[must_use]
    pub(super) fn set(&mut self, pod: &Pod) -> bool {
        let addresses = pod.addresses(ADDRESSES);
        if addresses.is_empty() {
            self.remove(&pod.metadata.uid);
            return true;
        }
        let known = self.pods.get(&*pod.metadata.uid);
        // Most changes of a pod are of something else.
        if known.is_some_and(|known| *known.addresses == *addresses) {
            return true;
        }
        if known.is_none() && self.pods.len() >= self.room {
            return false;
        }
        self.remove(&pod.metadata.uid);
        let remote = Arc::new(Remote::new(&pod.metadata.namespace, &pod.metadata.name, &addresses));
        for address in &remote.addresses {
            self.owners.entry(*address).or_default().push(Arc::clone(&remote));
        }
        self.pods.insert((&*pod.metadata.uid).into(), remote);
        true
    }

    /// A pod is gone and its addresses are free.
    pub fn remove(&mut self, uid: &str) {
        let Some(gone) = self.pods.remove(uid) else { return };
        for address in &gone.addresses {
            if let Some(owners) = self.owners.get_mut(address) {
                owners.retain(|owner| !Arc::ptr_eq(owner, &gone));
                if owners.is_empty() {
                    self.owners.remove(address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, name: &str, ips: &[&str]) -> Pod {
        let ips: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let pod = json!({
            "metadata": {"namespace": "shop", "name": name, "uid": uid},
            "status": {"phase": "Running", "podIPs": ips},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    fn name(table: &Table, address: &str) -> Option<String> {
        table.only(address.parse().expect("an address")).map(|pod| format!("{}/{}", pod.namespace, pod.pod))
    }

    #[test]
    fn an_address_is_its_only_pods_and_free_when_that_is_gone() {
        let mut table = Table::default();
        assert!(table.set(&pod("1", "cart", &["10.0.0.1", "fd00::1"])));
        assert_eq!(name(&table, "10.0.0.1").as_deref(), Some("shop/cart"));
        assert_eq!(name(&table, "fd00::1").as_deref(), Some("shop/cart"));
        assert_eq!(name(&table, "10.0.0.2"), None);
        table.remove("1");
        assert_eq!((name(&table, "10.0.0.1"), name(&table, "fd00::1")), (None, None));
        assert_eq!((table.len(), table.owners.len()), (0, 0), "nothing is left behind");
        table.remove("1");
    }

    #[test]
    fn an_address_of_two_pods_is_nobodys_until_one_leaves() {
        let mut table = Table::default();
        assert!(table.set(&pod("1", "old", &["10.0.0.1"])) && table.set(&pod("2", "new", &["10.0.0.1"])));
        assert_eq!(name(&table, "10.0.0.1"), None);
        table.remove("1");
        assert_eq!(name(&table, "10.0.0.1").as_deref(), Some("shop/new"));
    }

    #[test]
    fn a_pod_may_get_other_addresses_and_lose_them() {
        let mut table = Table::default();
        assert!(table.set(&pod("1", "cart", &["10.0.0.1"])) && table.set(&pod("1", "cart", &["10.0.0.2"])));
        assert_eq!(name(&table, "10.0.0.1"), None);
        assert_eq!(name(&table, "10.0.0.2").as_deref(), Some("shop/cart"));
        assert!(table.set(&pod("1", "cart", &[])));
        assert_eq!((name(&table, "10.0.0.2"), table.len()), (None, 0));
    }

    #[test]
    fn what_finds_no_room_is_refused_and_those_that_are_known_may_still_change() {
        let mut table = Table { room: 1, ..Table::default() };
        assert!(table.set(&pod("1", "cart", &["10.0.0.1"])));
        assert!(!table.set(&pod("2", "more", &["10.0.0.2"])));
        assert!(table.set(&pod("3", "none", &[])), "it needs none");
        assert!(table.set(&pod("1", "cart", &["10.0.0.3"])));
        assert_eq!(name(&table, "10.0.0.2"), None);
        assert_eq!(name(&table, "10.0.0.3").as_deref(), Some("shop/cart"));
    }
}
