//! From a scan and the runtime's sandboxes to the picture that everybody reads.
//!
//! A namespace that a runtime seems to be making is left out until the runtime has told whose it is, at most a second:
//! its series would begin under a name that nobody knows, and its events would be told without a pod.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netsonde_framework::{Identity, Namespace, NetnsKey, Origin, Pod, Topology};
use netsonde_probes::os::Found;

use super::cri::{Network, Sandbox};
use super::identity;
use super::join::{Joined, Seen};

/// How long a new namespace may wait for its pod's name.
const HOLD: Duration = Duration::from_secs(1);
/// How long the runtime is asked again and again for a namespace that it may just be making.
const CURIOUS: Duration = Duration::from_secs(5);
/// Keys of guests: no namespace's cookie is as large, and generations of our own have the bit above.
const GUESTS: u64 = 1 << 62;

/// What the runtime says, as far as the picture needs it.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Whether a runtime answers now.
    pub connected: bool,
    pub sandboxes: Arc<[Arc<Sandbox>]>,
}

/// What a picture shows beside its namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notes {
    /// Namespaces that are left out for now.
    pub held: usize,
    /// Namespaces that may be those of pods which the runtime will know in a moment.
    pub curious: usize,
    /// Sandboxes whose namespace is not found.
    pub missing: usize,
}

/// What is remembered from picture to picture.
#[derive(Debug, Default)]
pub struct Painter {
    joined: Joined,
    since: HashMap<NetnsKey, Instant>,
    guests: HashMap<String, NetnsKey>,
    made: u64,
    painted: bool,
    /// What the last picture was made of.
    of: (Arc<[Found]>, Told),
}

impl Painter {
    /// Forgets whose namespaces are whose.
    pub fn forget_pods(&mut self) {
        self.joined.clear();
    }

    /// Whether a picture of these would be the last one again. Asked while nothing waits for its time.
    pub fn is_same(&self, found: &Arc<[Found]>, told: &Told) -> bool {
        let (before, told_before) = &self.of;
        let same = |(a, b): (&Found, &Found)| a.is_same(b);
        self.painted
            && told.connected == told_before.connected
            && Arc::ptr_eq(&told.sandboxes, &told_before.sandboxes)
            && (Arc::ptr_eq(found, before)
                || found.len() == before.len() && found.iter().zip(before.iter()).all(same))
    }

    /// Labels what was found. Two rows never get the same labels: the younger one's pod gets its inode number.
    pub fn paint(&mut self, found: &Arc<[Found]>, told: &Told, now: Instant) -> (Topology, Notes) {
        self.of = (Arc::clone(found), told.clone());
        let mut found = found.to_vec();
        found.sort_by_key(|f| f.netns.key);
        let seen: Vec<Seen<'_>> = found
            .iter()
            .filter(|f| !f.host)
            .map(|f| Seen { key: f.netns.key, names: &f.names, processes: &f.processes, cgroups: &f.cgroups })
            .collect();
        self.joined.update(&seen, &told.sandboxes);
        let keys: HashSet<NetnsKey> = found.iter().map(|f| f.netns.key).collect();
        self.since.retain(|key, _| keys.contains(key));

        let ready: HashSet<&str> = told.sandboxes.iter().map(|sandbox| sandbox.id.as_str()).collect();
        let mut notes = Notes { missing: self.joined.missing(&told.sandboxes), ..Notes::default() };
        let mut taken = HashSet::new();
        let mut namespaces = Vec::new();
        let mut guests = Vec::new();
        // Those of sandboxes that work come first: their pods' names are theirs.
        let works = |key| self.joined.get(key).is_some_and(|sandbox| ready.contains(sandbox.id.as_str()));
        let (first, rest): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|f| works(f.netns.key));
        for mut f in first.into_iter().chain(rest) {
            let (key, inode) = (f.netns.key, f.netns.inode);
            let Some((origin, identity, pod)) = self.who(&f, told, now, &mut notes) else { continue };
            if f.host {
                guests = self.guests(&mut f, told);
            }
            let identity = unique(&mut taken, identity, inode);
            namespaces.push(Arc::new(Namespace {
                key,
                inode,
                identity,
                origin,
                pod,
                processes: f.processes,
            }));
        }
        if !self.painted {
            // The next picture must not take what this one shows for new.
            for ns in &namespaces {
                self.since.insert(ns.key, now.checked_sub(CURIOUS).unwrap_or(now));
            }
            self.painted = true;
        }
        let guests = guests.into_iter().map(|mut guest: Namespace| {
            guest.identity = unique(&mut taken, guest.identity, guest.key.0 - GUESTS);
            Arc::new(guest)
        });
        let guests = guests.collect();
        (Topology::new(namespaces).with_guests(guests), notes)
    }

    /// Whose a namespace is; `None` while it is held back.
    fn who(
        &mut self,
        found: &Found,
        told: &Told,
        now: Instant,
        notes: &mut Notes,
    ) -> Option<(Origin, Identity, Option<Arc<Pod>>)> {
        let key = found.netns.key;
        if let Some(sandbox) = self.joined.get(key) {
            return Some((Origin::Runtime, sandbox.identity.clone(), Some(Arc::clone(&sandbox.pod))));
        }
        let (origin, identity) = identity::of(found);
        // What was there when the agent started is not being made.
        let since = *self.since.entry(key).or_insert(now);
        let age = if self.painted { now.duration_since(since) } else { CURIOUS };
        if told.connected && identity::is_runtimes(origin, &found.names) && age < CURIOUS {
            notes.curious += 1;
            if age < HOLD {
                notes.held += 1;
                return None;
            }
        }
        Some((origin, identity, None))
    }

    /// The pods that use the host's network, each with its processes, which are taken from the host's.
    fn guests(&mut self, host: &mut Found, told: &Told) -> Vec<Namespace> {
        let with_hosts = told.sandboxes.iter().filter(|sandbox| sandbox.network == Some(Network::Host));
        let pods: HashMap<&str, &Arc<Sandbox>> =
            with_hosts.map(|sandbox| (sandbox.pod.uid.as_str(), sandbox)).collect();
        self.guests.retain(|uid, _| pods.contains_key(uid.as_str()));
        let mut processes: HashMap<String, Vec<u32>> = HashMap::new();
        let mut theirs = HashSet::new();
        for (pid, cgroups) in &host.in_pods {
            if let Some(uid) = identity::pod(cgroups).filter(|uid| pods.contains_key(uid.as_str())) {
                processes.entry(uid).or_default().push(*pid);
                theirs.insert(*pid);
            }
        }
        if !theirs.is_empty() {
            host.processes = host.processes.iter().copied().filter(|pid| !theirs.contains(pid)).collect();
        }
        let guests = processes.into_iter().map(|(uid, pids)| {
            let sandbox = pods[uid.as_str()];
            let key = *self.guests.entry(uid).or_insert_with(|| {
                self.made += 1;
                NetnsKey(GUESTS + self.made)
            });
            Namespace {
                key,
                inode: host.netns.inode,
                identity: sandbox.identity.clone(),
                origin: Origin::Runtime,
                pod: Some(Arc::clone(&sandbox.pod)),
                processes: pids.into(),
            }
        });
        let mut guests: Vec<Namespace> = guests.collect();
        guests.sort_by_key(|guest| guest.key);
        guests
    }
}

fn unique(taken: &mut HashSet<Identity>, mut identity: Identity, number: u64) -> Identity {
    if !taken.insert(identity.clone()) {
        identity.pod = format!("{}~{number}", identity.pod);
        taken.insert(identity.clone());
    }
    identity
}
