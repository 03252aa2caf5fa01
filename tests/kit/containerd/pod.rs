//! What a test wants to run: a pod's sandbox and the containers in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use netsonde_cri::v1::{NamespaceMode, NamespaceOption};

use super::messages as m;

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// How many sandboxes it had before.
    pub attempt: u32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it uses the network of the node. That is the namespace of the process 1, not containerd's own.
    pub host_network: bool,
    /// Whether its containers see the node's processes.
    pub host_pid: bool,
}

impl Pod {
    /// One with a uid of its own.
    pub fn new(namespace: &str, name: &str) -> Self {
        let uid = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("the kernel makes UUIDs");
        Self { namespace: namespace.into(), name: name.into(), uid: uid.trim().into(), ..Self::default() }
    }

    /// With this label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// With the network of the node.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// With the node's processes.
    #[must_use]
    pub fn host_pid(mut self) -> Self {
        self.host_pid = true;
        self
    }

    /// The same pod, for a sandbox after this one.
    #[must_use]
    pub fn again(mut self) -> Self {
        self.attempt += 1;
        self
    }
}

/// A container.
#[derive(Debug, Clone, Default)]
pub struct Container {
    name: String,
    config: m::ContainerConfig,
    security: m::LinuxContainerSecurityContext,
    resources: m::LinuxContainerResources,
}

impl Container {
    /// One of this image, which runs the image's entrypoint.
    pub fn new(name: &str, image: &str) -> Self {
        let image = Some(m::ImageSpec { image: image.into() });
        let config = m::ContainerConfig { image, ..m::ContainerConfig::default() };
        Self { name: name.into(), config, ..Self::default() }
    }

    /// What it runs in place of the image's entrypoint.
    #[must_use]
    pub fn command(mut self, words: &[&str]) -> Self {
        self.config.command = words.iter().map(|&word| word.into()).collect();
        self
    }

    /// What comes after the command.
    #[must_use]
    pub fn args(mut self, words: &[&str]) -> Self {
        self.config.args = words.iter().map(|&word| word.into()).collect();
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.config.envs.push(m::KeyValue { key: key.into(), value: value.into() });
        self
    }

    /// Shows it a file or folder of this machine.
    #[must_use]
    pub fn mount(mut self, host: &Path, inside: &str, readonly: bool) -> Self {
        self.config.mounts.push(m::Mount {
            container_path: inside.into(),
            host_path: host.to_string_lossy().into_owned(),
            readonly,
            propagation: 0,
        });
        self
    }

    /// Like [`Container::mount`], and mounts that the host makes below it later are seen too (`HostToContainer`).
    #[must_use]
    pub fn mount_and_follow(mut self, host: &Path, inside: &str, readonly: bool) -> Self {
        self = self.mount(host, inside, readonly);
        if let Some(mount) = self.config.mounts.last_mut() {
            mount.propagation = 1;
        }
        self
    }

    /// Exactly these capabilities, such as `SYS_PTRACE`, and no others.
    #[must_use]
    pub fn only_capabilities(mut self, names: &[&str]) -> Self {
        self.security.capabilities = Some(m::Capability {
            add_capabilities: names.iter().map(|&name| name.into()).collect(),
            drop_capabilities: vec!["ALL".into()],
        });
        self
    }

    /// Who runs it, by number.
    #[must_use]
    pub fn user(mut self, uid: i64) -> Self {
        self.security.run_as_user = Some(m::Int64Value { value: uid });
        self
    }

    /// Its root cannot be written to.
    #[must_use]
    pub fn readonly(mut self) -> Self {
        self.security.readonly_rootfs = true;
        self
    }

    /// It cannot gain rights (`allowPrivilegeEscalation: false`).
    #[must_use]
    pub fn no_new_privileges(mut self) -> Self {
        self.security.no_new_privs = true;
        self
    }

    /// It may do everything.
    #[must_use]
    pub fn privileged(mut self) -> Self {
        self.security.privileged = true;
        self
    }

    /// What the kernel lets it ask for: the runtime's default, or the profile in a file (`seccompProfile`).
    #[must_use]
    pub fn seccomp(mut self, file: Option<&Path>) -> Self {
        let localhost_ref = file.map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        let profile_type = if file.is_some() { 2 } else { 0 };
        self.security.seccomp = Some(m::SecurityProfile { profile_type, localhost_ref });
        self
    }

    /// It sees of /proc and /sys what kubelet lets a container see that asks for nothing else.
    #[must_use]
    pub fn masked(mut self) -> Self {
        let list = |paths: &str| paths.split_whitespace().map(str::to_owned).collect();
        self.security.masked_paths = list(
            "/proc/asound /proc/acpi /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats \
             /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap",
        );
        self.security.readonly_paths = list("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger");
        self
    }

    /// How much memory it may use, in bytes.
    #[must_use]
    pub fn memory(mut self, bytes: i64) -> Self {
        self.resources.memory_limit_in_bytes = bytes;
        self
    }

    pub(super) fn log_name(&self, pod: &Pod) -> String {
        format!("{}_{}_{}.log", pod.namespace, pod.name, self.name)
    }

    pub(super) fn config(&self, pod: &Pod) -> m::ContainerConfig {
        let mode = |host: bool, own| if host { NamespaceMode::Node } else { own }.into();
        let options = NamespaceOption {
            network: mode(pod.host_network, NamespaceMode::Pod),
            pid: mode(pod.host_pid, NamespaceMode::Container),
            ipc: NamespaceMode::Pod.into(),
        };
        m::ContainerConfig {
            metadata: Some(m::ContainerMetadata { name: self.name.clone() }),
            log_path: self.log_name(pod),
            linux: Some(m::LinuxContainerConfig {
                resources: Some(self.resources.clone()),
                security_context: Some(m::LinuxContainerSecurityContext {
                    namespace_options: Some(options),
                    ..self.security.clone()
                }),
            }),
            ..self.config.clone()
        }
    }
}
