//! The few fields of the API server's answers that are read; the rest of a pod is skipped where it is parsed.

use std::net::IpAddr;

use serde::Deserialize;

/// A page of a list of pods.
#[derive(Debug, Deserialize)]
pub(super) struct PodList {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    /// Kubernetes may write null for none.
    #[serde(default)]
    pub(super) items: Option<Vec<Pod>>,
}

/// Where a list stands.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    /// Empty on the last page.
    pub(super) r#continue: String,
}

/// A pod.
#[derive(Debug, Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(super) struct Pod {
    pub(super) metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    host_network: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    #[serde(rename = "podIPs")]
    ips: Option<Vec<Ip>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ip {
    ip: String,
}

impl Pod {
    /// The addresses that are this pod's alone: none of one that has ended, since they may be another's already, and none
    /// of one with the network of its node, whose addresses belong to many.
    pub(super) fn addresses(&self, most: usize) -> Vec<IpAddr> {
        if self.spec.host_network || matches!(&*self.status.phase, "Succeeded" | "Failed") {
            return Vec::new();
        }
        let ips = self.status.ips.as_deref().unwrap_or_default();
        let mut addresses: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.ip.parse().ok()).take(most).collect();
        // A pod that names one twice is still only one pod.
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

/// What a line of a watch says.
#[derive(Debug)]
pub(super) enum Event {
    /// A pod is new or has changed.
    Set(Pod),
    /// A pod is gone, or is none of those that were asked for any more.
    Gone(Pod),
    /// Nothing happened until this version.
    Bookmark(Pod),
    /// The watch is over.
    Error(Failure),
}

/// The API server's `Status` of what did not work.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Failure {
    pub(super) code: u16,
    pub(super) message: String,
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
struct Of<T> {
    object: T,
}

impl Event {
    /// From a line.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let wrong = |why: serde_json::Error| format!("a line is no event of a watch: {why}");
        let pod = || serde_json::from_slice::<Of<Pod>>(line).map(|of| of.object).map_err(wrong);
        let Kind { r#type } = serde_json::from_slice(line).map_err(wrong)?;
        match &*r#type {
            "ADDED" | "MODIFIED" => pod().map(Self::Set),
            "DELETED" => pod().map(Self::Gone),
            "BOOKMARK" => pod().map(Self::Bookmark),
            "ERROR" => {
                serde_json::from_slice::<Of<Failure>>(line).map(|of| Self::Error(of.object)).map_err(wrong)
            }
            other => Err(format!("an event of a watch has the unknown type {other:.40}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(json: &str) -> Vec<String> {
        let pod: Pod = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"));
        pod.addresses(8).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pod_has_the_addresses_that_are_its_alone() {
        let of = |spec: &str, phase: &str| {
            addresses(&format!(
                r#"{{"spec": {spec}, "status": {{"phase": "{phase}", "podIP": "10.0.0.1",
                    "podIPs": [{{"ip": "10.0.0.1"}}, {{"ip": "fd00::1"}}, {{"ip": "10.0.0.1"}}, {{"ip": "x"}}]}}}}"#
            ))
        };
        assert_eq!(of("{}", "Running"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(of(r#"{"hostNetwork": false, "nodeName": "b"}"#, "Pending"), ["10.0.0.1", "fd00::1"]);
        assert!(of(r#"{"hostNetwork": true}"#, "Running").is_empty());
        for ended in ["Succeeded", "Failed"] {
            assert!(of("{}", ended).is_empty(), "{ended}");
        }
        assert!(addresses("{}").is_empty() && addresses(r#"{"status": {"podIPs": null}}"#).is_empty());
    }

    #[test]
    fn lines_of_a_watch_are_told_apart() {
        let parse = |line: &str| Event::parse(line.as_bytes());
        let pod = r#""object": {"kind": "Pod", "metadata": {"uid": "u", "resourceVersion": "7"}}"#;
        for kind in ["ADDED", "MODIFIED"] {
            let Ok(Event::Set(pod)) = parse(&format!(r#"{{"type": "{kind}", {pod}}}"#)) else {
                panic!("{kind} sets")
            };
            assert_eq!((&*pod.metadata.uid, &*pod.metadata.resource_version), ("u", "7"));
        }
        assert!(matches!(parse(&format!(r#"{{{pod}, "type": "DELETED"}}"#)), Ok(Event::Gone(_))));
        assert!(matches!(parse(&format!(r#"{{"type": "BOOKMARK", {pod}}}"#)), Ok(Event::Bookmark(_))));
        let error = r#"{"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "message": "too old", "code": 410}}"#;
        assert!(matches!(parse(error), Ok(Event::Error(f)) if f.code == 410 && f.message == "too old"));
        for bad in ["", "{", "[]", r#"{"type": "ADDED"}"#, r#"{"type": "NEW", "object": {}}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
