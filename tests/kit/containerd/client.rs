//! kubelet's side of CRI: sandboxes and containers come and go at a test's call.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netsonde_cri::v1::{NamespaceMode, NamespaceOption, PodSandboxMetadata};
use netsonde_cri::{Channel, Error};
use prost::Message;
use tokio::runtime::Runtime;

use super::messages as m;
use super::pod::{Container, Pod};
use crate::wait::allowed;

const PATIENCE: Duration = Duration::from_mins(1);

/// A connection to a runtime, for one thread.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    channel: Channel,
    /// Where sandboxes' cgroups go.
    cgroup: String,
    logs: PathBuf,
}

/// A sandbox that runs.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Its id.
    pub id: String,
    /// Its pod.
    pub pod: Pod,
    /// The number of its first process.
    pub pid: u32,
    /// Its addresses; none with the host's network.
    pub addresses: Vec<IpAddr>,
    /// The name of its network namespace; `None` with the host's network.
    pub netns: Option<PathBuf>,
    config: m::PodSandboxConfig,
}

impl Sandbox {
    /// Its address of the old family.
    pub fn ipv4(&self) -> IpAddr {
        *self.addresses.iter().find(|a| a.is_ipv4()).unwrap_or_else(|| panic!("{:?} has no IPv4", self.pod))
    }

    /// Its network namespace.
    pub fn inside(&self) -> std::mem::ManuallyDrop<crate::Netns> {
        let name = self.netns.as_ref().and_then(|path| path.file_name()?.to_str());
        crate::Netns::of_others(name.unwrap_or_else(|| panic!("{:?} has no network of its own", self.pod)))
    }

    /// The cgroup that its containers' are in, such as `/nst123-0/kubepods/pod6f3a...`.
    pub fn cgroup(&self) -> &str {
        &self.config.linux.as_ref().expect("every sandbox of the kit has one").cgroup_parent
    }
}

impl Client {
    /// Connects; `None` where nobody answers.
    pub(super) fn connect(socket: &Path, cgroup: &str, logs: &Path) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("tokio starts");
        let limit = allowed(PATIENCE);
        let channel = runtime.block_on(Channel::connect(socket, limit)).ok()?;
        let client = Self { runtime, channel, cgroup: cgroup.into(), logs: logs.into() };
        client.runtime.block_on(client.channel.version(limit)).ok()?;
        Some(client)
    }

    /// The product's own calls.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Waits for what a call gives.
    pub fn wait<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.block_on(call)
    }

    fn ask<A: Message + Default>(&self, method: &str, question: &impl Message) -> Result<A, Error> {
        let method = format!("/runtime.v1.{method}");
        self.wait(self.channel.call(&method, question, allowed(PATIENCE)))
    }

    fn must<A: Message + Default>(&self, method: &str, question: &impl Message) -> A {
        self.ask(method, question).unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    /// Runs a sandbox for this pod.
    pub fn run(&self, pod: &Pod) -> Sandbox {
        let config = self.sandbox_config(pod);
        let question = m::RunPodSandboxRequest { config: Some(config.clone()) };
        let m::Id { id } = self.must("RuntimeService/RunPodSandbox", &question);
        let status = self.wait(self.channel.sandbox(&id, allowed(PATIENCE)));
        let status = status.unwrap_or_else(|e| panic!("PodSandboxStatus: {e}"));
        let info: serde_json::Value = serde_json::from_str(&status.info["info"]).expect("info is JSON");
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        let netns = namespaces.iter().find(|ns| ns["type"] == "network").and_then(|ns| ns["path"].as_str());
        let network = status.status.and_then(|s| s.network).unwrap_or_default();
        let texts = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|a| a.ip));
        Sandbox {
            id,
            pod: pod.clone(),
            pid: info["pid"].as_u64().and_then(|p| p.try_into().ok()).expect("a sandbox has a process"),
            addresses: texts.filter_map(|text| text.parse().ok()).collect(),
            netns: netns.map(PathBuf::from),
            config,
        }
    }

    fn sandbox_config(&self, pod: &Pod) -> m::PodSandboxConfig {
        let mode = |host: bool| if host { NamespaceMode::Node } else { NamespaceMode::Pod };
        let options = NamespaceOption {
            network: mode(pod.host_network).into(),
            pid: if pod.host_pid { NamespaceMode::Node } else { NamespaceMode::Container }.into(),
            ipc: NamespaceMode::Pod.into(),
        };
        let mut labels: BTreeMap<String, String> = [
            ("io.kubernetes.pod.name", &pod.name),
            ("io.kubernetes.pod.namespace", &pod.namespace),
            ("io.kubernetes.pod.uid", &pod.uid),
        ]
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .into();
        labels.extend(pod.labels.clone());
        let security_context = m::LinuxSandboxSecurityContext { namespace_options: Some(options) };
        m::PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                namespace: pod.namespace.clone(),
                attempt: pod.attempt,
            }),
            // With the node's network goes the node's name.
            hostname: if pod.host_network { String::new() } else { pod.name.clone() },
            log_directory: self.logs.to_string_lossy().into_owned(),
            labels,
            annotations: BTreeMap::new(),
            linux: Some(m::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/kubepods/pod{}", self.cgroup, pod.uid),
                security_context: Some(security_context),
            }),
        }
    }

    /// Starts a container in it and gives its id.
    pub fn start(&self, sandbox: &Sandbox, container: &Container) -> String {
        let question = m::CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(container.config(&sandbox.pod)),
            sandbox_config: Some(sandbox.config.clone()),
        };
        let id: m::Id = self.must("RuntimeService/CreateContainer", &question);
        let m::Nothing {} = self.must("RuntimeService/StartContainer", &id);
        id.id
    }

    /// The number of a container's first process.
    pub fn container_pid(&self, id: &str) -> u32 {
        let question = m::ContainerStatusRequest { container_id: id.into(), verbose: true };
        let status: m::ContainerStatusResponse = self.must("RuntimeService/ContainerStatus", &question);
        let info: serde_json::Value = serde_json::from_str(&status.info["info"]).expect("info is JSON");
        info["pid"].as_u64().and_then(|p| p.try_into().ok()).expect("a container has a process")
    }

    /// Whether a container still runs; else its exit code and reason.
    pub fn container_ended(&self, id: &str) -> Option<(i32, String)> {
        let question = m::ContainerStatusRequest { container_id: id.into(), verbose: false };
        let status: m::ContainerStatusResponse = self.must("RuntimeService/ContainerStatus", &question);
        let status = status.status.expect("a container has a status");
        (status.state == 2).then(|| (status.exit_code, format!("{} {}", status.reason, status.message)))
    }

    /// What a container wrote to its standard output and error, as the runtime wrote it down.
    pub fn container_log(&self, sandbox: &Sandbox, container: &Container) -> String {
        let path = Path::new(&sandbox.config.log_directory).join(container.log_name(&sandbox.pod));
        std::fs::read_to_string(&path).unwrap_or_default()
    }

    /// Stops a container: SIGTERM, and SIGKILL after `grace` seconds.
    pub fn stop_container(&self, id: &str, grace: i64) {
        let question = m::StopContainerRequest { container_id: id.into(), timeout: grace };
        let m::Nothing {} = self.must("RuntimeService/StopContainer", &question);
    }

    /// Removes a container.
    pub fn remove_container(&self, id: &str) {
        let m::Nothing {} = self.must("RuntimeService/RemoveContainer", &m::Id { id: id.into() });
    }

    /// Stops a sandbox: its processes end and its network is taken down, and it stays in the list as not ready.
    pub fn stop(&self, id: &str) {
        let m::Nothing {} = self.must("RuntimeService/StopPodSandbox", &m::Id { id: id.into() });
    }

    /// Stops and removes a sandbox.
    pub fn remove(&self, id: &str) {
        self.try_remove(id).unwrap_or_else(|e| panic!("sandbox {id} cannot be removed: {e}"));
    }

    pub(super) fn try_remove(&self, id: &str) -> Result<(), Error> {
        let id = m::Id { id: id.into() };
        let m::Nothing {} = self.ask("RuntimeService/StopPodSandbox", &id)?;
        let m::Nothing {} = self.ask("RuntimeService/RemovePodSandbox", &id)?;
        Ok(())
    }

    /// Whether the runtime has an image of this name.
    pub(super) fn has_image(&self, name: &str) -> bool {
        let question = m::ImageStatusRequest { image: Some(m::ImageSpec { image: name.into() }) };
        self.ask("ImageService/ImageStatus", &question)
            .is_ok_and(|status: m::ImageStatusResponse| status.image.is_some())
    }
}
