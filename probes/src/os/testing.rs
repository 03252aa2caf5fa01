//! For unit tests of probes: a frozen /proc that a test writes, and the real one of the test process.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

use std::fs;
use std::sync::Arc;

use netsonde_framework::{
    CollectError, Identity, Limits, MetricDef, Namespace, NsId, Origin, Probe, ProbeSpec, Samples, Topology,
    View,
};

use super::{Host, Paths, Scan};

/// A machine for one test.
pub(crate) struct Machine {
    pub(crate) host: Host,
    pub(crate) topology: Topology,
    tree: Option<tempfile::TempDir>,
    scrape: u64,
}

impl Machine {
    /// A frozen /proc with process 1 in namespace 1001; give it files with [`Machine::file`].
    pub(crate) fn frozen() -> Self {
        let tree = tempfile::tempdir().unwrap();
        let (host, _) = Host::new(Paths { proc: tree.path().to_owned(), netns: Vec::new() }).unwrap();
        let mut machine = Self { host, topology: Topology::default(), tree: Some(tree), scrape: 0 };
        machine.process(1, 1001);
        machine.rescan();
        machine
    }

    /// The machine that the test runs on: its own namespace at least, all of them as root.
    pub(crate) fn live() -> Self {
        let (host, _) = Host::new(Paths::default()).unwrap();
        let mut machine = Self { host, topology: Topology::default(), tree: None, scrape: 0 };
        machine.rescan();
        machine
    }

    /// Adds a process to the frozen tree, in the network namespace with this inode number.
    pub(crate) fn process(&mut self, pid: u32, inode: u64) {
        let stat = format!(
            "{pid} (proc{pid}) S 0 1 1 0 -1 4194560 1 1 0 0 1 1 0 0 20 0 1 0 {pid} 1 1 18446744073709551615 1 1 0 0 0 0 0 4096 1 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        self.file(&format!("{pid}/stat"), &stat);
        self.file(&format!("{pid}/cgroup"), "0::/\n");
        let ns = self.tree.as_ref().unwrap().path().join(format!("{pid}/ns"));
        fs::create_dir_all(&ns).unwrap();
        let _ = fs::remove_file(ns.join("net"));
        std::os::unix::fs::symlink(format!("net:[{inode}]"), ns.join("net")).unwrap();
    }

    /// Writes a file below the frozen /proc, for example `1/net/snmp`.
    pub(crate) fn file(&mut self, path: &str, text: &str) {
        let path = self.tree.as_ref().unwrap().path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Removes a file or folder below the frozen /proc.
    pub(crate) fn remove(&mut self, path: &str) {
        let path = self.tree.as_ref().unwrap().path().join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    /// Finds the namespaces anew. The host row is `hostNetwork`, the others are called by their inode number.
    pub(crate) fn rescan(&mut self) {
        let Scan { found, .. } = self.host.scan().unwrap();
        let namespaces = found.iter().map(|f| {
            let (origin, identity) = if f.host {
                (Origin::Host, Identity::host())
            } else {
                let pod = f.netns.inode.to_string();
                (Origin::Process, Identity { namespace: "test".into(), pod })
            };
            Arc::new(Namespace {
                key: f.netns.key,
                inode: f.netns.inode,
                identity,
                origin,
                pod: None,
                processes: f.processes.clone(),
            })
        });
        self.topology = Topology::new(namespaces.collect());
    }

    /// The place of the namespace with this inode number.
    pub(crate) fn ns(&self, inode: u64) -> NsId {
        self.topology.iter().find(|(_, ns)| ns.inode == inode).unwrap().0
    }

    /// Starts a probe with these args.
    pub(crate) fn start(&self, spec: &'static ProbeSpec<Host>, args: serde_json::Value) -> Box<dyn Probe> {
        (spec.start)(&args, &self.host).unwrap()
    }

    /// One refresh (if the probe has an interval) and one collection.
    pub(crate) fn collect(
        &mut self,
        probe: &mut dyn Probe,
        metrics: &'static [&'static MetricDef],
    ) -> (Samples, Result<(), CollectError>) {
        self.scrape += 1;
        let view = View { topology: &self.topology, scrape: self.scrape };
        let mut out = Samples::new(metrics, Limits::default());
        let refreshed = if probe.interval().is_some() { probe.refresh(&view) } else { Ok(()) };
        let collected = probe.collect(&view, &mut out);
        (out, refreshed.and(collected))
    }
}
