//! What a namespace is called where no container runtime tells: its name, else the pod or container in the cgroup
//! path of its first process, else that process.

use netsonde_framework::{Identity, Origin};
use netsonde_probes::os::Found;

/// Origin and labels of a namespace.
pub fn of(found: &Found) -> (Origin, Identity) {
    if found.host {
        return (Origin::Host, Identity::host());
    }
    let (origin, pod) = if let Some(name) = found.names.first() {
        (Origin::Name, name.clone())
    } else {
        let process = || {
            let pod = found.first.as_ref().map_or_else(
                || format!("net-{}", found.netns.inode),
                |process| format!("{}-{}", process.comm, process.pid),
            );
            (Origin::Process, pod)
        };
        match in_cgroups(&found.cgroups) {
            Some(Owner::Pod(uid)) => (Origin::Pod, uid),
            Some(Owner::Container(id)) => (Origin::Container, id),
            None => process(),
        }
    };
    (origin, Identity { namespace: origin.text().into(), pod })
}

/// The uid of the pod that these cgroup paths are in.
pub fn pod(paths: &[String]) -> Option<String> {
    parts(paths).find_map(pod_uid)
}

/// The whole ids of the containers that these cgroup paths are in.
pub fn containers(paths: &[String]) -> impl Iterator<Item = &str> {
    parts(paths).filter_map(container_id)
}

/// Whether a container runtime may have made a namespace of this origin and these names: CNI calls them `cni-` and a
/// UUID, CRI-O by a UUID alone.
pub fn is_runtimes(origin: Origin, names: &[String]) -> bool {
    let is_uuid = |name: &str| name.len() == 36 && name.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    match origin {
        Origin::Pod | Origin::Container => true,
        Origin::Name => names.iter().any(|name| name.starts_with("cni-") || is_uuid(name)),
        Origin::Host | Origin::Runtime | Origin::Process => false,
    }
}

/// `:` separates the parts that containerd writes with the systemd driver when it is not told a slice.
fn parts(paths: &[String]) -> impl DoubleEndedIterator<Item = &str> {
    paths.iter().flat_map(|path| path.split(['/', ':'])).filter(|part| !part.is_empty())
}

/// Who a cgroup path says it belongs to.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    /// A Kubernetes pod, by its uid.
    Pod(String),
    /// A container, by the first twelve digits of its id, as the runtimes' own listings show it.
    Container(String),
}

/// A pod in any of the paths wins over a container: all containers of a pod share the namespace.
fn in_cgroups(paths: &[String]) -> Option<Owner> {
    // The last container wins: it is the innermost.
    let container = || parts(paths).filter_map(container_id).next_back();
    pod(paths).map(Owner::Pod).or_else(|| container().map(|id| Owner::Container(id[..12].to_owned())))
}

/// `pod6f3a...` (cgroupfs) or `kubepods-burstable-pod6f3a_....slice` (systemd). A uid is a UUID, or 32 hexadecimal
/// digits for a static pod.
fn pod_uid(part: &str) -> Option<String> {
    let part = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match part.strip_prefix("pod") {
        Some(uid) => uid,
        None if part.starts_with("kubepods") => part.split_once("-pod")?.1,
        None => return None,
    };
    let uid = uid.replace('_', "-");
    let digits = uid.chars().filter(|c| *c != '-').count();
    let plain = uid.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    (plain && digits == 32).then_some(uid)
}

/// 64 hexadecimal digits, alone (cgroupfs) or as `docker-ID.scope`, `cri-containerd-ID.scope`, `crio-ID.scope`,
/// `libpod-ID.scope`, `nerdctl-ID.scope`. The monitors of podman and CRI-O (`...-conmon-ID`) are not in the
/// container.
fn container_id(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let (runtime, id) = part.rsplit_once('-').unwrap_or(("", part));
    let is_id = id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit());
    (is_id && !runtime.ends_with("conmon")).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "6f3a1c2d-0b1e-4c5d-8e9f-a0b1c2d3e4f5";

    fn owner(paths: &[&str]) -> Option<Owner> {
        let paths: Vec<String> = paths.iter().map(|p| p.replace("ID", ID).replace("UID_", UID)).collect();
        in_cgroups(&paths)
    }

    fn pod() -> Owner {
        Owner::Pod(UID.into())
    }

    fn container() -> Owner {
        Owner::Container("0123456789ab".into())
    }

    #[test]
    fn a_pod_is_found_with_both_drivers_and_every_runtime() {
        let uid = UID;
        let under = UID.replace('-', "_");
        for path in [
            format!("/kubepods/burstable/pod{uid}/{ID}"),
            format!("/kubepods/pod{uid}"),
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope"),
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/docker-{ID}.scope"
            ),
            format!(
                "/system.slice/containerd.service/kubepods-burstable-pod{under}.slice:cri-containerd:{ID}"
            ),
            format!("/../../kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"),
            format!("/kubelet/kubepods/burstable/pod{uid}/{ID}"),
        ] {
            assert_eq!(in_cgroups(std::slice::from_ref(&path)), Some(pod()), "{path}");
        }
        let mirror = "/kubepods/burstable/pod0123456789abcdef0123456789abcdef/x".to_owned();
        assert_eq!(in_cgroups(&[mirror]), Some(Owner::Pod("0123456789abcdef0123456789abcdef".into())));
    }

    #[test]
    fn a_container_is_found_where_there_is_no_pod() {
        for path in [
            "/docker/ID",
            "/system.slice/docker-ID.scope",
            "/machine.slice/libpod-ID.scope",
            "/machine.slice/libpod-ID.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            "/system.slice/nerdctl-ID.scope",
            "/default/ID",
        ] {
            assert_eq!(owner(&[path]), Some(container()), "{path}");
        }
    }

    #[test]
    fn what_is_neither_is_left_to_the_process() {
        for path in [
            "/",
            "/user.slice/user-0.slice/session-1.scope",
            "/system.slice/podman.service",
            "/machine.slice/libpod-conmon-ID.scope",
        ] {
            assert_eq!(owner(&[path]), None, "{path}");
        }
    }

    #[test]
    fn any_hierarchy_of_version_1_may_have_it() {
        assert_eq!(owner(&["/", "/user.slice", "/docker/ID"]), Some(container()));
    }
}
