//! The network namespaces of the machine and whose they are, as one immutable picture.
//!
//! A namespace is known by its cookie, which the kernel never reuses; an inode number is reused at once.

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

/// One network namespace.
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
}

impl Topology {
    /// Sorted by host first, then by labels, so that a page has the same order each time.
    pub fn new(mut namespaces: Vec<Arc<Namespace>>) -> Self {
        namespaces.sort_by(|a, b| (!a.is_host(), &a.identity).cmp(&(!b.is_host(), &b.identity)));
        Self { namespaces }
    }

    /// Every namespace with its place.
    pub fn iter(&self) -> impl Iterator<Item = (NsId, &Arc<Namespace>)> {
        (0u32..).map(NsId).zip(&self.namespaces)
    }

    /// The namespace at `id`.
    pub fn get(&self, id: NsId) -> Option<&Arc<Namespace>> {
        self.namespaces.get(id.0 as usize)
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

    /// The keys that are in `self` and not in `later`.
    pub fn gone(&self, later: &Self) -> Vec<NetnsKey> {
        let kept: std::collections::HashSet<NetnsKey> = later.namespaces.iter().map(|n| n.key).collect();
        self.namespaces.iter().map(|n| n.key).filter(|k| !kept.contains(k)).collect()
    }
}
