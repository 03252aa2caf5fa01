//! A pod's sandbox, as the container runtime tells of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use netsonde_cri::v1::{NamespaceMode, PodSandbox, PodSandboxState, PodSandboxStatusResponse};
use netsonde_framework::{Identity, Pod};
use serde::Deserialize;

/// Kubernetes has no longer values of labels; others are left out.
const LONGEST_LABEL: usize = 63;
/// Labels of a pod that are kept.
const MOST_LABELS: usize = 64;

/// A sandbox that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// 64 hexadecimal digits, never used twice.
    pub id: String,
    /// Namespace and name of its pod.
    pub identity: Identity,
    /// The rest of what is known of the pod.
    pub pod: Arc<Pod>,
    /// How its network is found; `None` where the runtime would not say.
    pub network: Option<Network>,
}

/// A sandbox's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// The node's.
    Host,
    /// Its own.
    Own {
        /// The name below `/run/netns`, which runtimes never use twice, where it has one.
        name: Option<String>,
        /// The first process in it, where the runtime tells.
        process: Option<u32>,
    },
}

impl Sandbox {
    /// From a list's entry and the status of it; `None` where it is not ready or nobody's.
    pub fn new(listed: &PodSandbox, status: Option<&PodSandboxStatusResponse>) -> Option<Self> {
        let metadata = listed.metadata.as_ref()?;
        if !is_ready(listed) || metadata.name.is_empty() || metadata.namespace.is_empty() {
            return None;
        }
        let labels = labels(&listed.labels);
        let network = status.and_then(network);
        let pod = Pod {
            uid: metadata.uid.clone(),
            addresses: if network == Some(Network::Host) {
                Vec::new()
            } else {
                status.map(addresses).unwrap_or_default()
            },
            workload: workload(&metadata.name, &labels),
            labels,
        };
        let identity = Identity { namespace: metadata.namespace.clone(), pod: metadata.name.clone() };
        Some(Self { id: listed.id.clone(), identity, pod: Arc::new(pod), network })
    }
}

/// Whether a sandbox of a list is ready.
pub fn is_ready(listed: &PodSandbox) -> bool {
    listed.state == i32::from(PodSandboxState::Ready)
}

/// What kubelet adds for itself (`io.kubernetes.pod.name` ...) is known already.
fn labels(all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let of_pod = all.iter().filter(|(key, value)| {
        !key.starts_with("io.kubernetes.pod.") && !key.starts_with("io.cri-") && value.len() <= LONGEST_LABEL
    });
    of_pod.take(MOST_LABELS).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn addresses(status: &PodSandboxStatusResponse) -> Vec<IpAddr> {
    let network = status.status.as_ref().and_then(|status| status.network.as_ref());
    let texts = network.into_iter().flat_map(|network| {
        std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|more| &more.ip))
    });
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// The part of a runtime's verbose JSON that is read; containerd and CRI-O agree on it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Info {
    pid: u32,
    runtime_spec: Option<Spec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<NamespacePath>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamespacePath {
    r#type: String,
    path: String,
}

fn network(answer: &PodSandboxStatusResponse) -> Option<Network> {
    let options = answer.status.as_ref()?.linux.as_ref()?.namespaces.as_ref()?.options.as_ref()?;
    if options.network == i32::from(NamespaceMode::Node) {
        return Some(Network::Host);
    }
    // A runtime that tells nothing here (cri-dockerd) is joined by cgroups.
    let info = answer.info.get("info").and_then(|text| serde_json::from_str::<Info>(text).ok());
    let info = info.unwrap_or_default();
    let namespaces = info.runtime_spec.and_then(|spec| spec.linux).unwrap_or_default().namespaces;
    let path = namespaces.into_iter().find(|ns| ns.r#type == "network").map(|ns| ns.path);
    Some(Network::Own {
        name: path.as_deref().and_then(name_of),
        process: (info.pid > 0).then_some(info.pid),
    })
}

/// The name of a path such as `/var/run/netns/cni-...`; that of `/proc/PID/ns/net` is none.
fn name_of(path: &str) -> Option<String> {
    let path = Path::new(path);
    if path.starts_with("/proc") {
        return None;
    }
    path.file_name()?.to_str().map(str::to_owned)
}

/// What the pod is one of, from the labels that Kubernetes' own controllers give: kind and name.
fn workload(name: &str, labels: &BTreeMap<String, String>) -> Option<String> {
    let label = |key: &str| labels.get(key).map(String::as_str);
    if let Some(job) = label("batch.kubernetes.io/job-name").or_else(|| label("job-name")) {
        return Some(format!("Job/{job}"));
    }
    if label("statefulset.kubernetes.io/pod-name") == Some(name) {
        let (set, _) = name.rsplit_once('-')?;
        return Some(format!("StatefulSet/{set}"));
    }
    // `cart-7d4b9c6f5-x2x8k`: the ReplicaSet's hash and five letters of the pod's own.
    let (rest, _) = name.rsplit_once('-')?;
    if let Some(hash) = label("pod-template-hash") {
        let deployment = rest.strip_suffix(hash)?.strip_suffix('-')?;
        return Some(format!("Deployment/{deployment}"));
    }
    label("controller-revision-hash").map(|_| format!("DaemonSet/{rest}"))
}

#[cfg(test)]
mod tests {
    use netsonde_cri::v1 as m;

    use super::*;

    fn listed(name: &str, labels: &[(&str, &str)]) -> PodSandbox {
        let metadata = m::PodSandboxMetadata {
            name: name.into(),
            uid: "u".into(),
            namespace: "shop".into(),
            attempt: 0,
        };
        PodSandbox {
            id: "i".into(),
            metadata: Some(metadata),
            labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..PodSandbox::default()
        }
    }

    fn status(network: NamespaceMode, info: &str) -> PodSandboxStatusResponse {
        let options = m::NamespaceOption { network: network.into(), ..m::NamespaceOption::default() };
        let namespaces = m::Namespace { options: Some(options) };
        let ip = |ip: &str| m::PodIp { ip: ip.into() };
        let addresses = m::PodSandboxNetworkStatus {
            ip: "10.1.2.3".into(),
            additional_ips: vec![ip("fd00::3"), ip("?")],
        };
        PodSandboxStatusResponse {
            status: Some(m::PodSandboxStatus {
                network: Some(addresses),
                linux: Some(m::LinuxPodSandboxStatus { namespaces: Some(namespaces) }),
                ..m::PodSandboxStatus::default()
            }),
            info: [("info".to_owned(), info.to_owned())].into(),
        }
    }

    #[test]
    fn name_and_process_are_read_from_the_verbose_status() {
        let info = r#"{"pid": 12, "runtimeSpec": {"process": {}, "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network", "path": "/var/run/netns/cni-1"}]}}}"#;
        let sandbox =
            Sandbox::new(&listed("a", &[]), Some(&status(NamespaceMode::Pod, info))).expect("ready");
        assert_eq!(sandbox.network, Some(Network::Own { name: Some("cni-1".into()), process: Some(12) }));
        assert_eq!(sandbox.pod.addresses, ["10.1.2.3", "fd00::3"].map(|a| a.parse::<IpAddr>().expect("one")));
        let info = r#"{"pid": 12, "runtimeSpec": {"linux": {"namespaces": [
            {"type": "network", "path": "/proc/12/ns/net"}]}}}"#;
        let sandbox =
            Sandbox::new(&listed("a", &[]), Some(&status(NamespaceMode::Pod, info))).expect("ready");
        assert_eq!(sandbox.network, Some(Network::Own { name: None, process: Some(12) }));
    }

    #[test]
    fn a_runtime_that_tells_less_is_understood_too() {
        for info in ["", "{}", "null", "[]", r#"{"pid": "x"}"#, r#"{"runtimeSpec": null}"#] {
            let sandbox = Sandbox::new(&listed("a", &[]), Some(&status(NamespaceMode::Pod, info)));
            let none = Network::Own { name: None, process: None };
            assert_eq!(sandbox.expect("ready").network, Some(none), "{info}");
        }
        assert_eq!(Sandbox::new(&listed("a", &[]), None).expect("ready").network, None);
    }

    #[test]
    fn a_pod_with_the_nodes_network_has_no_addresses_of_its_own() {
        let status = status(NamespaceMode::Node, "{}");
        let sandbox = Sandbox::new(&listed("a", &[]), Some(&status)).expect("ready");
        assert_eq!((&sandbox.network, sandbox.pod.addresses.len()), (&Some(Network::Host), 0));
    }

    #[test]
    fn one_that_is_not_ready_is_nobodys() {
        let ended = PodSandbox { state: PodSandboxState::NotReady.into(), ..listed("a", &[]) };
        assert_eq!(Sandbox::new(&ended, None), None);
        assert_eq!(Sandbox::new(&PodSandbox { metadata: None, ..listed("a", &[]) }, None), None);
        assert_eq!(Sandbox::new(&listed("", &[]), None), None);
    }

    #[test]
    fn workloads_are_told_by_the_labels_of_their_controllers() {
        for (name, labels, expected) in [
            ("cart-7d4b9c6f5-x2x8k", &[("pod-template-hash", "7d4b9c6f5")][..], Some("Deployment/cart")),
            ("my-cart-7d4b9c6f5-x2x8k", &[("pod-template-hash", "7d4b9c6f5")], Some("Deployment/my-cart")),
            ("cart-x2x8k", &[("pod-template-hash", "other")], None),
            (
                "db-0",
                &[("statefulset.kubernetes.io/pod-name", "db-0"), ("controller-revision-hash", "db-5")],
                Some("StatefulSet/db"),
            ),
            ("proxy-x2x8k", &[("controller-revision-hash", "5d5")], Some("DaemonSet/proxy")),
            ("backup-1-x2x8k", &[("job-name", "backup-1")], Some("Job/backup-1")),
            ("alone", &[("app", "x")], None),
        ] {
            let sandbox = Sandbox::new(&listed(name, labels), None).expect("ready");
            assert_eq!(sandbox.pod.workload.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn labels_of_kubelet_and_endless_ones_are_left_out() {
        let long = "x".repeat(64);
        let labels = [("app", "cart"), ("io.kubernetes.pod.name", "a"), ("long", long.as_str())];
        let sandbox = Sandbox::new(&listed("a", &labels), None).expect("ready");
        assert_eq!(sandbox.pod.labels, BTreeMap::from([("app".to_owned(), "cart".to_owned())]));
    }
}
