//! The settings. The doc comment on a setting is its manual: it becomes the schema's description, the reference
//! page and the comments of the example file. Defaults are the `Default` impls and nowhere else.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::known::{Known, Part, find};

/// A valid configuration: every default filled in, every alias resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Address of the HTTP server; parses as `SocketAddr`.
    pub listen: String,
    /// The web configuration file, as the file names it; `None`: plain HTTP for everybody.
    pub web_config: Option<PathBuf>,
    /// Name of the node in labels and events; `None`: the kernel's host name.
    pub node_name: Option<String>,
    /// Names and labels of the metrics.
    pub metrics: Metrics,
    /// The probes to run, each name once.
    pub probes: Vec<Wanted>,
    /// The sinks that events go to, each name once.
    pub sinks: Vec<Wanted>,
    /// Where the kernel's files are.
    pub paths: Paths,
    /// How namespaces are found.
    pub discovery: Discovery,
    /// Bounds on events.
    pub events: Events,
}

/// A probe or sink that the file asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The canonical name.
    pub name: String,
    /// An object as the file has it; defaults are for the part itself to fill in.
    pub args: Value,
}

impl Config {
    /// What an empty file gives: the probes and sinks that are on by default.
    pub fn default_for(known: &Known) -> Self {
        File::default().into_config(known)
    }
}

/// Configuration of netsonde. Every setting has a default; an unknown key is an error.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "netsonde")]
pub(crate) struct File {
    /// Address and port of the HTTP server (`/metrics`, `/status`): an IPv4 address, or an IPv6 address in brackets,
    /// then a port. `0.0.0.0:9102` listens on every IPv4 address, `[::]:9102` on every address.
    pub(crate) listen: String,
    /// A file with TLS and credentials of the HTTP server, in the shape that Prometheus exporters share
    /// (`tls_server_config`, `basic_auth_users`); docs/guides/prometheus.md tells its keys. It is read again when it or a
    /// file that it names changes. A relative path is taken from the folder of this file. Without it, plain HTTP for
    /// everybody.
    #[schemars(length(min = 1))]
    web_config: Option<PathBuf>,
    /// Name of this node in labels and events. Without it, the kernel's host name.
    #[schemars(length(min = 1, max = 253))]
    node_name: Option<String>,
    /// The probes to run: each a name, or `name` with `args`. Without this key, those that are on by default; `[]` runs
    /// none. Each probe at most once.
    probes: Option<Vec<Entry>>,
    /// Where events go: each a name, or `name` with `args`. Without this key, those that are on by default; `[]` sends
    /// them nowhere. Each sink at most once.
    sinks: Option<Vec<Entry>>,
    /// Names and labels of the metrics.
    metrics: Metrics,
    /// Where the kernel's files are.
    paths: Paths,
    /// How network namespaces are found.
    discovery: Discovery,
    /// Bounds on events, beside those that each probe has for events of one kind.
    events: Events,
}

/// An entry of `probes` or `sinks`. Its real schema depends on the build and comes from `schema`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum Entry {
    Name(String),
    WithArgs {
        name: String,
        #[serde(default)]
        args: serde_json::Map<String, Value>,
    },
}

/// Names and labels of the metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Under which names metrics are exposed.
    pub names: Names,
    /// First word of every native metric name: `netsonde` gives `netsonde_tcp_retransmits_total`. Letters, digits and
    /// underscores, not starting with a digit.
    pub prefix: String,
    /// Names of the three labels that every per-pod metric has. All different.
    pub labels: LabelNames,
    /// Labels with a constant value on every series, such as `cluster: prod`.
    pub extra_labels: BTreeMap<String, String>,
    /// Labels of the pods that their series get too, such as `app.kubernetes.io/name`, where the container runtime tells
    /// them. The label of the series is called `label_app_kubernetes_io_name`: what Prometheus does not allow in a name
    /// becomes an underscore. Each value of such a label is a series more, so choose those that say what a pod is. At
    /// most 16.
    #[schemars(length(max = 16))]
    pub pod_labels: Vec<String>,
    /// Bounds on what one scrape may hold.
    pub limits: Limits,
}

/// Under which names metrics are exposed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Names {
    /// netsonde's own names, such as `netsonde_tcp_retransmits_total`.
    #[default]
    Native,
    /// The names of the reference list only, for dashboards made for it.
    Kubeskoop,
    /// Each series under both names, at twice the size.
    Both,
}

/// Names of the labels that say whose namespace a series belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LabelNames {
    /// The label that holds the node's name.
    pub node: String,
    /// The label that holds the pod's Kubernetes namespace, `hostNetwork` for the host.
    pub namespace: String,
    /// The label that holds the pod's name, `hostNetwork` for the host.
    pub pod: String,
    /// The label that holds what the pod is one of, such as `Deployment/cart`, where the labels that Kubernetes gives to
    /// pods tell it. Without it, there is no such label.
    pub workload: Option<String>,
}

/// Bounds on what one scrape may hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most series that one probe may expose. What is beyond is left out and counted. 1 to 10000000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub series_per_probe: usize,
}

/// Where the kernel's files are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// The host's procfs. In a container with its own, where the host's is mounted.
    #[schemars(length(min = 1))]
    pub proc: PathBuf,
    /// Directories that hold named network namespaces. One that does not exist is skipped.
    pub netns: Vec<PathBuf>,
}

/// How network namespaces are found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Discovery {
    /// How often processes are scanned for namespaces: a new pod is seen within this time. 100ms to 10s.
    #[serde(with = "crate::duration")]
    #[schemars(with = "crate::duration::Text", extend("formatMinimum" = "100ms", "formatMaximum" = "10s"))]
    pub interval: Duration,
    /// Where the container runtime is asked for its pods (CRI v1): `auto` tries the usual sockets of containerd, CRI-O, k3s
    /// and cri-dockerd, `off` asks nobody, and a path such as `/run/containerd/containerd.sock` is the socket. Without a
    /// runtime, pods are found by the cgroups of processes and called by their uid.
    pub cri: String,
    /// Whether events name the pods of other nodes, too. The API server is then asked for the pods of the whole cluster; the
    /// token must allow to list and watch pods.
    pub cluster_peers: bool,
    /// The API server that `cluster_peers` asks, such as `https://10.0.0.1:6443`. `null`: in a pod, that of its cluster.
    /// `http://` only with an address of this machine, for `kubectl proxy`.
    pub cluster_server: Option<String>,
    /// The token that the API server is shown. It is read again for each request.
    pub cluster_token_file: PathBuf,
    /// The certificates that the API server is known by.
    pub cluster_ca_file: PathBuf,
}

/// Bounds on events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// How many events of one type are told each second in the long run; the others are counted as suppressed. 1 to
    /// 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub per_second: u32,
    /// How many events of one type may come at once. 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
    /// How many of the last events `/events` and `netsonde events` can give; they take at most 1 MiB. 0 to 100000.
    #[schemars(range(max = 100_000))]
    pub recent: usize,
}

impl Metrics {
    /// The keys of [`Metrics::pod_labels`], each with the label that it becomes.
    pub fn pod_label_names(&self) -> impl Iterator<Item = (&str, String)> {
        self.pod_labels.iter().map(|key| (key.as_str(), pod_label_name(key)))
    }
}

/// `app.kubernetes.io/name` becomes `label_app_kubernetes_io_name`. No metric's own label begins with `label_`.
pub(crate) fn pod_label_name(key: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("label_{}", key.chars().map(plain).collect::<String>())
}

impl Default for Events {
    fn default() -> Self {
        Self { per_second: 1000, burst: 5000, recent: 1000 }
    }
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:9102".to_owned(),
            web_config: None,
            node_name: None,
            probes: None,
            sinks: None,
            metrics: Metrics::default(),
            paths: Paths::default(),
            discovery: Discovery::default(),
            events: Events::default(),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            names: Names::default(),
            prefix: "netsonde".to_owned(),
            labels: LabelNames::default(),
            extra_labels: BTreeMap::new(),
            pod_labels: Vec::new(),
            limits: Limits::default(),
        }
    }
}

impl Default for LabelNames {
    fn default() -> Self {
        Self {
            node: "target_node".to_owned(),
            namespace: "target_namespace".to_owned(),
            pod: "target_pod".to_owned(),
            workload: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { series_per_probe: 100_000 }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self { proc: "/proc".into(), netns: vec!["/run/netns".into()] }
    }
}

impl Default for Discovery {
    fn default() -> Self {
        let account = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        Self {
            interval: Duration::from_secs(1),
            cri: "auto".to_owned(),
            cluster_peers: false,
            cluster_server: None,
            cluster_token_file: account.join("token"),
            cluster_ca_file: account.join("ca.crt"),
        }
    }
}

impl File {
    /// Fills in what depends on the build. Entries that no part answers to keep their name; `rules` refuses them first.
    pub(crate) fn into_config(self, known: &Known) -> Config {
        let on = |parts: &[Part]| {
            let on = parts.iter().filter(|part| part.default_on);
            on.map(|part| Entry::Name(part.name.to_owned())).collect()
        };
        Config {
            listen: self.listen,
            web_config: self.web_config,
            node_name: self.node_name,
            metrics: self.metrics,
            probes: resolve(self.probes.unwrap_or_else(|| on(&known.probes)), &known.probes),
            sinks: resolve(self.sinks.unwrap_or_else(|| on(&known.sinks)), &known.sinks),
            paths: self.paths,
            discovery: self.discovery,
            events: self.events,
        }
    }
}

fn resolve(entries: Vec<Entry>, parts: &[Part]) -> Vec<Wanted> {
    let wanted = entries.into_iter().map(|entry| {
        let (name, args) = match entry {
            Entry::Name(name) => (name, serde_json::Map::new()),
            Entry::WithArgs { name, args } => (name, args),
        };
        let name = find(parts, &name).map_or(name, |part| part.name.to_owned());
        Wanted { name, args: Value::Object(args) }
    });
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn an_empty_file_is_the_default() {
        let known = fixture::known();
        for text in ["", "\n", "# only a comment\n", "---\n", "{}\n", "null\n"] {
            assert_eq!(crate::parse("a.yaml", text, &known), Ok(Config::default_for(&known)), "{text:?}");
        }
    }

    #[test]
    fn default_probes_are_those_that_say_so() {
        let config = Config::default_for(&fixture::known());
        let names: Vec<_> = config.probes.iter().map(|probe| probe.name.as_str()).collect();
        assert_eq!(names, ["conntrack", "tcpext", "net_softirq"]);
        let names: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
        assert_eq!(names, ["stdout"]);
    }

    #[test]
    fn an_empty_list_of_probes_runs_none() {
        let config = crate::parse("a.yaml", "probes: []\n", &fixture::known()).expect("the file is valid");
        assert!(config.probes.is_empty());
    }

    #[test]
    fn every_setting_reaches_the_model() {
        let config = crate::parse("a.yaml", fixture::FULL, &fixture::known()).expect("the file is valid");
        let names: Vec<_> = config.probes.iter().map(|probe| probe.name.as_str()).collect();
        assert_eq!(names, ["tcpext", "net_softirq", "flow"]);
        assert_eq!(
            config.probes[0].args,
            serde_json::json!({"fields": ["ListenDrops"], "interval": "1m30s"})
        );
        assert_eq!(config.probes[1].args, serde_json::json!({}));
        assert_eq!(config.sinks[0].name, "loki");
        assert_eq!(config.listen, "[::]:9000");
        assert_eq!(config.web_config.as_deref(), Some(std::path::Path::new("web.yml")));
        assert_eq!(config.node_name.as_deref(), Some("node-1"));
        assert_eq!(config.metrics.names, Names::Both);
        assert_eq!(config.metrics.labels.pod, "pod");
        assert_eq!(config.metrics.labels.node, "target_node");
        assert_eq!(config.metrics.extra_labels["cluster"], "prod");
        assert_eq!(config.metrics.limits.series_per_probe, 10);
        assert_eq!(config.paths.netns, [PathBuf::from("/x")]);
        assert_eq!(config.discovery.interval, Duration::from_millis(500));
        assert_eq!(config.discovery.cri, "auto");
        assert!(!config.discovery.cluster_peers, "nothing is asked of the API server by default");
    }
}
