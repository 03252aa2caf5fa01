//! CRI v1, `runtime.v1`: the calls that netsonde makes and the part of the messages that it reads.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Channel, Error, Stream};

/// A call of the runtime service.
macro_rules! method {
    ($name:literal) => {
        concat!("/runtime.v1.RuntimeService/", $name)
    };
}

/// Asks for nothing in particular.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionRequest {
    /// The version that kubelet would use.
    #[prost(string, tag = "1")]
    pub version: String,
}

/// Which runtime this is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct VersionResponse {
    /// `containerd`, `cri-o`, `docker`.
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    /// Its version.
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// `v1`.
    #[prost(string, tag = "4")]
    pub runtime_api_version: String,
}

/// Asks for every sandbox: no filter is given.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxRequest {}

/// Every sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListPodSandboxResponse {
    /// In no order.
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<PodSandbox>,
}

/// A sandbox in a list.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandbox {
    /// 64 hexadecimal digits, never used twice.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Whose it is.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodSandboxMetadata>,
    /// 0 while it is ready.
    #[prost(enumeration = "PodSandboxState", tag = "3")]
    pub state: i32,
    /// In nanoseconds of the wall clock.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    /// The pod's labels, and those of kubelet (`io.kubernetes.pod.name` ...).
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
}

/// Whose a sandbox is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxMetadata {
    /// The pod's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The pod's uid.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// The pod's namespace.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// How many sandboxes this pod had before.
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// Whether a sandbox works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum PodSandboxState {
    /// It does.
    Ready = 0,
    /// It was stopped or its first process ended.
    NotReady = 1,
}

/// Asks for one sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxStatusRequest {
    /// Its id.
    #[prost(string, tag = "1")]
    pub pod_sandbox_id: String,
    /// Whether `info` is wanted.
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

/// One sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxStatusResponse {
    /// What every runtime tells.
    #[prost(message, optional, tag = "1")]
    pub status: Option<PodSandboxStatus>,
    /// What this runtime tells besides, as JSON texts by name.
    #[prost(btree_map = "string, string", tag = "2")]
    pub info: BTreeMap<String, String>,
}

/// What every runtime tells of a sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxStatus {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// 0 while it is ready.
    #[prost(enumeration = "PodSandboxState", tag = "3")]
    pub state: i32,
    /// Its addresses; none where it uses the node's network.
    #[prost(message, optional, tag = "5")]
    pub network: Option<PodSandboxNetworkStatus>,
    /// Its namespaces.
    #[prost(message, optional, tag = "6")]
    pub linux: Option<LinuxPodSandboxStatus>,
}

/// Addresses of a sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxNetworkStatus {
    /// The first.
    #[prost(string, tag = "1")]
    pub ip: String,
    /// The others: the second family.
    #[prost(message, repeated, tag = "2")]
    pub additional_ips: Vec<PodIp>,
}

/// An address.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodIp {
    /// As text.
    #[prost(string, tag = "1")]
    pub ip: String,
}

/// What Linux adds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxPodSandboxStatus {
    /// Its namespaces.
    #[prost(message, optional, tag = "1")]
    pub namespaces: Option<Namespace>,
}

/// Namespaces of a sandbox.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Namespace {
    /// Whose they are.
    #[prost(message, optional, tag = "2")]
    pub options: Option<NamespaceOption>,
}

/// Whose namespaces a sandbox uses.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamespaceOption {
    /// The network.
    #[prost(enumeration = "NamespaceMode", tag = "1")]
    pub network: i32,
    /// Process numbers.
    #[prost(enumeration = "NamespaceMode", tag = "2")]
    pub pid: i32,
    /// System V IPC.
    #[prost(enumeration = "NamespaceMode", tag = "3")]
    pub ipc: i32,
}

/// Whose a namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum NamespaceMode {
    /// The pod's.
    Pod = 0,
    /// Each container's.
    Container = 1,
    /// The node's.
    Node = 2,
    /// Another container's.
    Target = 3,
}

/// Asks for the runtime's events.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GetEventsRequest {}

/// Something began or ended. Which, the list that follows tells.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerEventResponse {
    /// Of a container or a sandbox.
    #[prost(string, tag = "1")]
    pub container_id: String,
}

impl Channel {
    /// Which runtime this is.
    pub async fn version(&self, at_most: Duration) -> Result<VersionResponse, Error> {
        self.call(method!("Version"), &VersionRequest { version: "v1".into() }, at_most).await
    }

    /// Every sandbox.
    pub async fn sandboxes(&self, at_most: Duration) -> Result<Vec<PodSandbox>, Error> {
        let list: ListPodSandboxResponse =
            self.call(method!("ListPodSandbox"), &ListPodSandboxRequest {}, at_most).await?;
        Ok(list.items)
    }

    /// One sandbox, with all that the runtime knows of it.
    pub async fn sandbox(&self, id: &str, at_most: Duration) -> Result<PodSandboxStatusResponse, Error> {
        let question = PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: true };
        self.call(method!("PodSandboxStatus"), &question, at_most).await
    }

    /// The runtime's events, from containerd 1.7 and CRI-O 1.26 on; others say `Unimplemented`.
    pub async fn events(&self) -> Result<Stream<ContainerEventResponse>, Error> {
        self.stream(method!("GetContainerEvents"), &GetEventsRequest {}).await
    }
}
