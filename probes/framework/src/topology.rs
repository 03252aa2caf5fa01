//! The network namespaces of the machine and whose they are, as one immutable picture.
//!
//! A namespace is known by its cookie, which the kernel never reuses; an inode number is reused at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A network namespace, for the whole run of the machine.
///
/// `SO_NETNS_COOKIE` where the kernel has it (5.14+); else inode number and a generation of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsKey(pub u64);

/// The place of a namespace in one [`Topology`]; meaningless in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NsId(pub u32);

/// Where a namespace's name comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The namespace that the machine started with.
    Host,
    /// The container runtime, which knows the pod.
    Runtime,
    /// A name under `/run/netns`.
    Name,
    /// A pod's uid in a cgroup path.
    Pod,
    /// A container's id in a cgroup path.
    Container,
    /// The first process in it; nothing better was known.
    Process,
}

impl Origin {
    /// One word, for `/status` and as `target_namespace` where there is no Kubernetes.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Host => "hostNetwork",
            Self::Runtime => "runtime",
            Self::Name => "netns",
            Self::Pod => "pod",
            Self::Container => "container",
            Self::Process => "process",
        }
    }
}

/// The labels of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// `target_namespace`.
    pub namespace: String,
    /// `target_pod`.
    pub pod: String,
}

impl Identity {
    /// The host's own row.
    pub fn host() -> Self {
        Self { namespace: "hostNetwork".into(), pod: "hostNetwork".into() }
    }
}

/// What the container runtime tells of a pod beside its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its uid.
    pub uid: String,
    /// Its addresses, of both families; none where it uses the node's.
    pub addresses: Vec<IpAddr>,
    /// What it is one of, such as `Deployment/cart`, where its labels tell.
    pub workload: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// One network namespace, or a pod that is a guest in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its key.
    pub key: NetnsKey,
    /// The inode number of its nsfs file, as `ls -l /proc/PID/ns/net` shows it.
    pub inode: u64,
    /// Its labels; no two namespaces of a topology have the same.
    pub identity: Identity,
    /// Where the labels come from.
    pub origin: Origin,
    /// The pod, where the container runtime knows it.
    pub pod: Option<Arc<Pod>>,
    /// The processes in it (thread group leaders), in ascending order.
    pub processes: Arc<[u32]>,
}

impl Namespace {
    /// Whether this is the namespace that the machine started with.
    pub fn is_host(&self) -> bool {
        self.origin == Origin::Host
    }
}

/// All namespaces at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    namespaces: Vec<Arc<Namespace>>,
    guests: Vec<Arc<Namespace>>,
}

impl Topology {
    /// Sorted by host first, then by labels, so that a page has the same order each time.
    pub fn new(mut namespaces: Vec<Arc<Namespace>>) -> Self {
        namespaces.sort_by(|a, b| (!a.is_host(), &a.identity).cmp(&(!b.is_host(), &b.identity)));
        Self { namespaces, guests: Vec::new() }
    }

    /// With pods that use the host's network: the host's namespace has theirs, but not their processes, which are in
    /// no other row. Their keys are keys of no namespace.
    #[must_use]
    pub fn with_guests(self, mut guests: Vec<Arc<Namespace>>) -> Self {
        guests.sort_by(|a, b| a.identity.cmp(&b.identity));
        Self { guests, ..self }
    }

    /// Every namespace with its place.
    pub fn iter(&self) -> impl Iterator<Item = (NsId, &Arc<Namespace>)> {
        (0u32..).map(NsId).zip(&self.namespaces)
    }

    /// Everyone who has processes: every namespace, then the pods that are guests in the host's. For what is counted
    /// by process; what is counted by namespace is counted with [`Topology::iter`].
    pub fn owners(&self) -> impl Iterator<Item = (NsId, &Arc<Namespace>)> {
        (0u32..).map(NsId).zip(self.namespaces.iter().chain(&self.guests))
    }

    /// The pods that are guests in the host's namespace.
    pub fn guests(&self) -> &[Arc<Namespace>] {
        &self.guests
    }

    /// The namespace or guest at `id`.
    pub fn get(&self, id: NsId) -> Option<&Arc<Namespace>> {
        let place = id.0 as usize;
        self.namespaces.get(place).or_else(|| self.guests.get(place.checked_sub(self.namespaces.len())?))
    }

    /// The host's own namespace, where it could be read.
    pub fn host(&self) -> Option<(NsId, &Arc<Namespace>)> {
        self.iter().find(|(_, ns)| ns.is_host())
    }

    /// The namespace with this key.
    pub fn find(&self, key: NetnsKey) -> Option<(NsId, &Arc<Namespace>)> {
        self.iter().find(|(_, ns)| ns.key == key)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.namespaces.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// The keys that are in `self` and not in `later`, those of guests too.
    pub fn gone(&self, later: &Self) -> Vec<NetnsKey> {
        let kept: std::collections::HashSet<NetnsKey> = later.owners().map(|(_, n)| n.key).collect();
        self.owners().map(|(_, n)| n.key).filter(|k| !kept.contains(k)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: u64, pod: &str, origin: Origin) -> Arc<Namespace> {
        let identity = Identity { namespace: "n".into(), pod: pod.into() };
        let (inode, processes) = (1, Arc::new([]));
        Arc::new(Namespace { key: NetnsKey(key), inode, identity, origin, pod: None, processes })
    }

    #[test]
    fn guests_come_after_every_namespace_and_are_none() {
        let topology = Topology::new(vec![row(2, "a", Origin::Name), row(1, "z", Origin::Host)])
            .with_guests(vec![row(9, "q", Origin::Runtime), row(8, "p", Origin::Runtime)]);
        assert_eq!((topology.len(), topology.iter().count()), (2, 2));
        let pods: Vec<(u32, &str)> = topology.owners().map(|(id, ns)| (id.0, &*ns.identity.pod)).collect();
        assert_eq!(pods, [(0, "z"), (1, "a"), (2, "p"), (3, "q")]);
        for (id, ns) in topology.owners() {
            assert_eq!(topology.get(id), Some(ns));
        }
        assert_eq!(topology.get(NsId(4)), None);
        assert_eq!(topology.find(NetnsKey(9)), None);
    }

    #[test]
    fn a_guest_that_left_is_gone() {
        let with = |guests| Topology::new(vec![row(1, "z", Origin::Host)]).with_guests(guests);
        let both = with(vec![row(8, "p", Origin::Runtime), row(9, "q", Origin::Runtime)]);
        let one = with(vec![row(9, "q", Origin::Runtime)]);
        assert_eq!(both.gone(&one), [NetnsKey(8)]);
        assert_eq!(one.gone(&both), []);
    }
}
