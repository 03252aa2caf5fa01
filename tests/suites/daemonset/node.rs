//! A node of a cluster, as far as the agent sees it: a container runtime, the agent in a pod of its DaemonSet, other pods.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use netsonde_tests::agent::binary;
use netsonde_tests::containerd::{Container, Pod, Sandbox};
use netsonde_tests::manifests::{Manifests, repository, script, strings};
use netsonde_tests::{Containerd, Page, http, shell, until};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

const STARTS: Duration = Duration::from_secs(30);

/// The image's archive with the binary under test, made once.
pub fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join("netsonde-image.tar");
        let mut build = script("deploy/image/build.sh");
        shell::run(build.arg("--program").arg(binary()).arg("--output").arg(&archive));
        archive
    })
}

/// A containerd that has the agent's image.
pub fn runtime(manifests: &Manifests) -> Containerd {
    let containerd = Containerd::start_with_shared_mounts();
    containerd.import_archive(image(), text(&manifests.container()["image"]));
    containerd
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// A ConfigMap that is mounted as a folder, as kubelet lays it: `file -> ..data/file`, `..data -> ` a folder with the
/// version, which is replaced by a rename.
#[derive(Debug)]
pub struct ConfigMap {
    folder: tempfile::TempDir,
    version: u32,
}

impl ConfigMap {
    pub fn new(config: &str) -> Self {
        let mut map =
            Self { folder: tempfile::tempdir().expect("a temporary folder can be made"), version: 0 };
        map.edit(config);
        std::os::unix::fs::symlink("..data/netsonde.yaml", map.at("netsonde.yaml")).expect("linked");
        map
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the configuration.
    pub fn edit(&mut self, config: &str) {
        let (old, new) = (format!("..v{}", self.version), format!("..v{}", self.version + 1));
        fs::create_dir(self.at(&new)).expect("made");
        fs::write(self.at(&new).join("netsonde.yaml"), config).expect("written");
        std::os::unix::fs::symlink(&new, self.at("..data_tmp")).expect("linked");
        fs::rename(self.at("..data_tmp"), self.at("..data")).expect("swapped");
        if self.version > 0 {
            fs::remove_dir_all(self.at(&old)).expect("removed");
        }
        self.version += 1;
    }
}

/// What a test changes of the DaemonSet.
#[derive(Debug, Default)]
pub struct Change<'a> {
    /// Capabilities that are left out.
    pub without: &'a [&'a str],
    /// The configuration, in place of the ConfigMap's.
    pub config: Option<&'a str>,
}

/// The agent in its pod.
#[derive(Debug)]
pub struct Agent<'a> {
    runtime: &'a Containerd,
    pub config: ConfigMap,
    sandbox: Sandbox,
    container: Container,
    id: String,
    address: SocketAddr,
}

impl<'a> Agent<'a> {
    /// Starts it as the manifests say, and waits until its readiness probe is answered.
    pub fn start(runtime: &'a Containerd, manifests: &Manifests, change: &Change<'_>) -> Self {
        let config = ConfigMap::new(change.config.unwrap_or_else(|| manifests.config()));
        let spec = &manifests.pod()["spec"];
        let mut pod = Pod::new("netsonde", "netsonde-0");
        if spec["hostPID"] == true {
            pod = pod.host_pid();
        }
        assert_eq!(spec["hostNetwork"], false, "a pod with the node's network would listen on this machine");
        let sandbox = runtime.run(&pod);
        let container = container(manifests, change, config.folder.path());
        let id = runtime.client().start(&sandbox, &container);
        let ready = &manifests.container()["readinessProbe"]["httpGet"];
        let port = &manifests.container()["ports"][0];
        assert_eq!(ready["port"], port["name"]);
        let port = port["containerPort"].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
        let address = SocketAddr::new(sandbox.ipv4(), port);
        let agent = Self { runtime, config, sandbox, container, id, address };
        until("the agent is ready", STARTS, || {
            let ended = runtime.client().container_ended(&agent.id);
            assert_eq!(ended, None, "the agent ended at once: {}", agent.log());
            agent.try_get(text(&ready["path"])).filter(|answer| answer.status == 200).map(|_| ())
        });
        agent
    }

    fn try_get(&self, path: &str) -> Option<http::Response> {
        let headers = [("Accept", "application/openmetrics-text; version=1.0.0")];
        self.runtime.netns().enter(|| http::get(self.address, path, &headers)).ok()
    }

    pub fn get(&self, path: &str) -> http::Response {
        self.try_get(path).unwrap_or_else(|| panic!("GET {path} is not answered: {}", self.log()))
    }

    pub fn scrape(&self) -> Page {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Page::parse(answer.text()).unwrap_or_else(|why| panic!("/metrics is no OpenMetrics: {why}"))
    }

    pub fn status(&self) -> Value {
        self.get("/status").json()
    }

    /// The last events that fulfil a query.
    pub fn events(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/events?follow=false&{query}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let data = answer.text().lines().filter_map(|line| line.strip_prefix("data:"));
        data.map(|json| serde_json::from_str(json).unwrap_or_else(|e| panic!("no JSON ({e}): {json}")))
            .collect()
    }

    /// What `kubectl logs` shows.
    pub fn log(&self) -> String {
        self.runtime.client().container_log(&self.sandbox, &self.container)
    }

    /// The number of its process on this machine.
    pub fn pid(&self) -> u32 {
        self.runtime.client().container_pid(&self.id)
    }

    /// Waits until it has found the namespace of each of these pods.
    pub fn find(&self, pods: &[&Sandbox]) {
        for pod in pods {
            let (namespace, name) = labels(pod);
            until(&format!("{namespace}/{name} is found"), Duration::from_secs(5), || {
                let status = self.status();
                let found = status["namespaces"].as_array()?;
                found.iter().find(|ns| ns["namespace"] == *namespace && ns["pod"] == *name).map(|_| ())
            });
        }
    }

    /// A probe's entry in /status.
    pub fn probe(&self, name: &str) -> Value {
        let status = self.status();
        let probes = status["probes"].as_array().expect("probes");
        probes.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("no {name}: {probes:#?}")).clone()
    }

    /// Stops it as kubelet does, with the pod's grace period; it ends well.
    pub fn stop(self, manifests: &Manifests) {
        let client = self.runtime.client();
        let grace = manifests.pod()["spec"]["terminationGracePeriodSeconds"].as_i64().expect("a period");
        client.stop_container(&self.id, grace);
        let (code, reason) = client.container_ended(&self.id).expect("it was stopped");
        assert_eq!(code, 0, "{reason}: {}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
        client.remove(&self.sandbox.id);
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the agent's log\n{}\n---", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// The container as the manifest describes it.
fn container(manifests: &Manifests, change: &Change<'_>, config: &Path) -> Container {
    let spec = manifests.container();
    let security = &spec["securityContext"];
    let capabilities = manifests.capabilities();
    let capabilities: Vec<_> =
        capabilities.iter().map(String::as_str).filter(|name| !change.without.contains(name)).collect();
    let args = strings(&spec["args"]);
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let mut container = Container::new(text(&spec["name"]), text(&spec["image"]))
        .args(&args)
        .only_capabilities(&capabilities)
        .user(security["runAsUser"].as_i64().expect("a user"))
        .memory(bytes(text(&spec["resources"]["limits"]["memory"])))
        .seccomp(profile(&security["seccompProfile"]).as_deref())
        .masked();
    assert_eq!(spec["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
    container = container.env(text(&spec["env"][0]["name"]), "node-1");
    if security["readOnlyRootFilesystem"] == true {
        container = container.readonly();
    }
    if security["allowPrivilegeEscalation"] == false {
        container = container.no_new_privileges();
    }
    for mount in spec["volumeMounts"].as_array().expect("mounts") {
        let volumes = manifests.pod()["spec"]["volumes"].as_array().expect("volumes");
        let volume =
            volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("each has its volume");
        let host = match volume["hostPath"]["path"].as_str() {
            Some(path) => Path::new(path),
            None => config,
        };
        let (inside, readonly) = (text(&mount["mountPath"]), mount["readOnly"] == true);
        container = match mount["mountPropagation"].as_str() {
            Some("HostToContainer") => container.mount_and_follow(host, inside, readonly),
            None => container.mount(host, inside, readonly),
            Some(other) => panic!("no test knows the propagation {other}"),
        };
    }
    container
}

/// The profile's file; `None` for the runtime's own.
pub fn profile(profile: &Value) -> Option<PathBuf> {
    match text(&profile["type"]) {
        "RuntimeDefault" => None,
        "Localhost" => Some(repository().join("deploy/seccomp").join(text(&profile["localhostProfile"]))),
        other => panic!("no test knows the profile {other}"),
    }
}

fn bytes(quantity: &str) -> i64 {
    let mebibytes = quantity.strip_suffix("Mi").unwrap_or_else(|| panic!("{quantity} has another unit"));
    mebibytes.parse::<i64>().expect("a number") << 20
}

/// The labels `target_namespace` and `target_pod` of a pod's series, as the runtime knows it.
pub fn labels(sandbox: &Sandbox) -> (&str, &str) {
    (&sandbox.pod.namespace, &sandbox.pod.name)
}

/// Runs pods of these names in the namespace `shop`, each with an address that no other namespace of this machine has: an
/// address of two namespaces is nobody's, and every kit gives out the same ones.
pub fn pods<const N: usize>(runtime: &Containerd, names: [&str; N]) -> [(Sandbox, IpAddr); N] {
    // No two namespaces have one number at a time, so twenty bits of it are a network of eight addresses each.
    let number = runtime.netns().inode() & 0x7_ffff;
    let mut host = 0;
    names.map(|name| {
        let pod = runtime.run(&Pod::new("shop", name));
        host += 1;
        let [high, low] = [64 + (number >> 13), number >> 5 & 255];
        let address = format!("100.{high}.{low}.{}", (number & 31) * 8 + host);
        let netns = pod.netns.as_ref().expect("the pod has a network of its own");
        let mut add = Command::new("nsenter");
        add.arg(format!("--net={}", netns.display()));
        shell::run(add.args(["--", "ip", "addr", "add", &format!("{address}/29"), "dev", "eth0"]));
        (pod, address.parse().expect("an address"))
    })
}

/// Runs `work` on a thread of its own in the network namespace of a pod.
pub fn inside<T: Send>(pod: &Sandbox, work: impl FnOnce() -> T + Send) -> T {
    let path = pod.netns.as_ref().expect("the pod has a network of its own");
    let netns = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let enter = move || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))
            .unwrap_or_else(|e| panic!("cannot enter a pod's network: {e}"));
        work()
    };
    std::thread::scope(|scope| match scope.spawn(enter).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
