//! Which namespace is which pod's: sandboxes of the runtime joined with namespaces of the scan.
//!
//! They are joined only by what is never used twice: the name that the runtime gave to the namespace, the sandbox's id
//! or the pod's uid in the cgroup path of the namespace's first process. Inode and process numbers are used again at
//! once, so they never join. Once joined, a namespace keeps its pod by its own key until it is gone, also when the
//! runtime is down or the sandbox has ended. Where two namespaces may be a pod's, neither is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use netsonde_framework::NetnsKey;

use super::cri::{Network, Sandbox};
use super::identity;

/// What a scan says of a namespace.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub key: NetnsKey,
    pub names: &'a [String],
    pub processes: &'a [u32],
    /// The cgroup paths of its first process.
    pub cgroups: &'a [String],
}

/// The pods of namespaces.
#[derive(Debug, Default)]
pub struct Joined(HashMap<NetnsKey, Arc<Sandbox>>);

impl Joined {
    /// The pod of a namespace.
    pub fn get(&self, key: NetnsKey) -> Option<&Arc<Sandbox>> {
        self.0.get(&key)
    }

    /// How many of these sandboxes, which have a network of their own, have no namespace that is known.
    pub fn missing(&self, sandboxes: &[Arc<Sandbox>]) -> usize {
        let found: HashSet<&str> = self.0.values().map(|sandbox| sandbox.id.as_str()).collect();
        let own = sandboxes.iter().filter(|sandbox| sandbox.network != Some(Network::Host));
        own.filter(|sandbox| !found.contains(sandbox.id.as_str())).count()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes the namespaces of a scan, without the host's, and the sandboxes that are ready.
    pub fn update(&mut self, seen: &[Seen<'_>], sandboxes: &[Arc<Sandbox>]) {
        let present: HashSet<NetnsKey> = seen.iter().map(|ns| ns.key).collect();
        self.0.retain(|key, _| present.contains(key));
        let names: HashMap<&str, NetnsKey> =
            seen.iter().flat_map(|ns| ns.names.iter().map(|name| (name.as_str(), ns.key))).collect();
        let mut places: HashMap<String, NetnsKey> =
            self.0.iter().map(|(key, sandbox)| (sandbox.id.clone(), *key)).collect();
        let mut left = Vec::new();
        for sandbox in sandboxes {
            let name = match &sandbox.network {
                Some(Network::Host) => continue,
                Some(Network::Own { name, .. }) => name.as_deref(),
                None => None,
            };
            let place = places.get(&sandbox.id).copied();
            match name.and_then(|name| names.get(name)).copied().or(place) {
                Some(key) => {
                    if let Some(other) = place.filter(|other| *other != key) {
                        self.0.remove(&other);
                    }
                    places.insert(sandbox.id.clone(), key);
                    self.0.insert(key, Arc::clone(sandbox));
                }
                None => left.push(sandbox),
            }
        }
        if !left.is_empty() {
            self.by_cgroup(seen, &left);
        }
    }

    fn by_cgroup(&mut self, seen: &[Seen<'_>], sandboxes: &[&Arc<Sandbox>]) {
        let mut sandboxes_seen: HashMap<String, Vec<&Seen<'_>>> = HashMap::new();
        let mut pods_seen: HashMap<String, Vec<&Seen<'_>>> = HashMap::new();
        for ns in seen.iter().filter(|ns| !self.0.contains_key(&ns.key)) {
            for id in identity::containers(ns.cgroups) {
                sandboxes_seen.entry(id.to_owned()).or_default().push(ns);
            }
            if let Some(uid) = identity::pod(ns.cgroups) {
                pods_seen.entry(uid).or_default().push(ns);
            }
        }
        for sandbox in sandboxes {
            let process = match sandbox.network {
                Some(Network::Own { process, .. }) => process,
                _ => None,
            };
            let found = sandboxes_seen.get(&sandbox.id).and_then(|found| only(found, process));
            let found =
                found.or_else(|| pods_seen.get(&sandbox.pod.uid).and_then(|found| only(found, process)));
            if let Some(key) = found
                && !self.0.contains_key(&key)
            {
                self.0.insert(key, Arc::clone(sandbox));
            }
        }
    }
}

/// The only one, or the one that the sandbox's first process is in.
fn only(found: &[&Seen<'_>], process: Option<u32>) -> Option<NetnsKey> {
    match found {
        [one] => Some(one.key),
        many => {
            let process = process?;
            many.iter().find(|ns| ns.processes.contains(&process)).map(|ns| ns.key)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use netsonde_framework::{Identity, Pod};

    use super::*;

    fn id(n: u8) -> String {
        format!("{n:064x}")
    }

    fn uid(n: u8) -> String {
        format!("00000000-0000-0000-0000-{n:012x}")
    }

    fn sandbox(n: u8, pod: u8, name: Option<&str>, process: Option<u32>) -> Arc<Sandbox> {
        Arc::new(Sandbox {
            id: id(n),
            identity: Identity { namespace: "shop".into(), pod: format!("cart-{pod}") },
            pod: Arc::new(Pod {
                uid: uid(pod),
                addresses: Vec::new(),
                workload: None,
                labels: BTreeMap::new(),
            }),
            network: Some(Network::Own { name: name.map(str::to_owned), process }),
        })
    }

    struct Ns(NetnsKey, Vec<String>, Vec<u32>, Vec<String>);

    fn ns(key: u64, names: &[&str], processes: &[u32], cgroups: &[String]) -> Ns {
        Ns(NetnsKey(key), names.iter().map(|&n| n.into()).collect(), processes.to_vec(), cgroups.to_vec())
    }

    fn update(joined: &mut Joined, seen: &[Ns], sandboxes: &[Arc<Sandbox>]) {
        let seen: Vec<Seen<'_>> = seen
            .iter()
            .map(|Ns(key, names, processes, cgroups)| Seen { key: *key, names, processes, cgroups })
            .collect();
        joined.update(&seen, sandboxes);
    }

    fn of(joined: &Joined, key: u64) -> Option<&str> {
        joined.get(NetnsKey(key)).map(|sandbox| sandbox.identity.pod.as_str())
    }

    fn in_pod(pod: u8, container: u8) -> String {
        format!("/kubepods/pod{}/{}", uid(pod), id(container))
    }

    #[test]
    fn a_sandbox_is_found_by_the_name_of_its_namespace() {
        let mut joined = Joined::default();
        let seen = [ns(1, &["cni-a"], &[10], &[]), ns(2, &["cni-b"], &[11], &[])];
        update(&mut joined, &seen, &[sandbox(1, 1, Some("cni-b"), None)]);
        assert_eq!((of(&joined, 1), of(&joined, 2)), (None, Some("cart-1")));
    }

    #[test]
    fn without_a_name_the_cgroup_of_the_first_process_tells() {
        let mut joined = Joined::default();
        let seen = [ns(1, &[], &[10], &[in_pod(1, 1)]), ns(2, &[], &[11], &[format!("/k8s.io/{}", id(2))])];
        let sandboxes = [sandbox(1, 1, None, None), sandbox(2, 2, Some("cni-hidden"), None)];
        update(&mut joined, &seen, &sandboxes);
        assert_eq!((of(&joined, 1), of(&joined, 2)), (Some("cart-1"), Some("cart-2")));
        assert_eq!(joined.missing(&sandboxes), 0);
    }

    #[test]
    fn a_process_number_alone_joins_nothing() {
        let mut joined = Joined::default();
        let sandboxes = [sandbox(1, 1, None, Some(10))];
        update(&mut joined, &[ns(1, &[], &[10], &["/user.slice".into()])], &sandboxes);
        assert_eq!(of(&joined, 1), None);
        assert_eq!(joined.missing(&sandboxes), 1);
    }

    #[test]
    fn a_namespace_keeps_its_pod_when_its_sandbox_has_ended_and_lends_it_to_nobody() {
        let mut joined = Joined::default();
        update(&mut joined, &[ns(1, &["cni-a"], &[10], &[])], &[sandbox(1, 1, Some("cni-a"), None)]);
        update(&mut joined, &[ns(1, &[], &[10], &[])], &[]);
        assert_eq!(of(&joined, 1), Some("cart-1"));
        // Its inode and process numbers may be used again by another: the key is not.
        update(&mut joined, &[ns(2, &[], &[10], &[])], &[]);
        assert_eq!((of(&joined, 1), of(&joined, 2)), (None, None));
    }

    #[test]
    fn a_pod_that_got_a_new_sandbox_has_its_name_in_both_namespaces_until_the_old_one_is_gone() {
        let mut joined = Joined::default();
        update(&mut joined, &[ns(1, &["cni-a"], &[10], &[])], &[sandbox(1, 1, Some("cni-a"), None)]);
        let seen = [ns(1, &["cni-a"], &[], &[]), ns(2, &["cni-b"], &[12], &[])];
        update(&mut joined, &seen, &[sandbox(2, 1, Some("cni-b"), None)]);
        assert_eq!(joined.get(NetnsKey(1)).map(|s| s.id.clone()), Some(id(1)));
        assert_eq!(joined.get(NetnsKey(2)).map(|s| s.id.clone()), Some(id(2)));
    }

    #[test]
    fn a_namespace_that_a_pod_made_inside_is_not_the_pods_own() {
        let mut joined = Joined::default();
        let sandboxes = [sandbox(1, 1, Some("cni-a"), None)];
        let seen = [ns(1, &["cni-a"], &[10], &[in_pod(1, 1)]), ns(2, &[], &[20], &[in_pod(1, 9)])];
        update(&mut joined, &seen, &sandboxes);
        assert_eq!((of(&joined, 1), of(&joined, 2)), (Some("cart-1"), None));
        // Where the runtime tells no names and both may be it, its first process decides, else nobody.
        let mut joined = Joined::default();
        let seen = [ns(1, &[], &[10], &[in_pod(1, 8)]), ns(2, &[], &[20], &[in_pod(1, 9)])];
        update(&mut joined, &seen, &[sandbox(1, 1, None, None)]);
        assert_eq!((of(&joined, 1), of(&joined, 2)), (None, None));
        update(&mut joined, &seen, &[sandbox(1, 1, None, Some(10))]);
        assert_eq!((of(&joined, 1), of(&joined, 2)), (Some("cart-1"), None));
    }

    #[test]
    fn the_name_corrects_what_the_cgroup_told_before() {
        let mut joined = Joined::default();
        let first = [ns(1, &[], &[10], &[in_pod(1, 8)])];
        update(&mut joined, &first, &[sandbox(1, 1, None, None)]);
        assert_eq!(of(&joined, 1), Some("cart-1"));
        let seen = [ns(1, &[], &[10], &[in_pod(1, 8)]), ns(2, &["cni-a"], &[20], &[in_pod(1, 1)])];
        update(&mut joined, &seen, &[sandbox(1, 1, Some("cni-a"), None)]);
        assert_eq!((of(&joined, 1), of(&joined, 2)), (None, Some("cart-1")));
    }
}
