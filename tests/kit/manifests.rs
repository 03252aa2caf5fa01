//! The deployment's manifests as helm and kubectl render them, read as JSON.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::agent::binary;
use crate::shell;

/// The repository.
pub fn repository() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        root.canonicalize().unwrap_or_else(|e| panic!("{}: {e}", root.display()))
    })
}

/// A script of the repository, which runs in its root and uses the binary under test.
pub fn script(path: &str) -> Command {
    let mut command = Command::new(repository().join(path));
    command.current_dir(repository()).env("NETSONDE_BIN", binary());
    command
}

/// One of the programs that `tests/setup/tools.sh` installs, which it does where it has not. Its failure names what
/// cannot be had.
pub fn tool(name: &str) -> Command {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        shell::run(&mut script("tests/setup/tools.sh"));
    });
    let mut command = Command::new(repository().join("target/tools/bin").join(name));
    // Neither reads what the person who runs the tests has configured.
    command.current_dir(repository()).env("HELM_NO_PLUGINS", "1").env("KUBECONFIG", "/dev/null");
    command
}

/// Some manifests, and the text that they were read from.
#[derive(Debug, Clone)]
pub struct Manifests {
    /// YAML.
    pub text: String,
    /// Each document.
    pub all: Vec<Value>,
}

impl Manifests {
    /// What `helm template` makes of the chart with these arguments.
    pub fn helm(args: &[&str]) -> Self {
        let mut helm = tool("helm");
        helm.args(["template", "netsonde", "deploy/helm/netsonde", "--namespace", "netsonde"]).args(args);
        Self::read(&shell::run(&mut helm))
    }

    /// What `kubectl kustomize` makes of a folder of deploy/kustomize.
    pub fn kustomize(folder: &str) -> Self {
        let mut kubectl = tool("kubectl");
        Self::read(&shell::run(kubectl.arg("kustomize").arg(format!("deploy/kustomize/{folder}"))))
    }

    /// Reads YAML.
    pub fn read(text: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        std::fs::write(file.path(), text).expect("written");
        let convert = "import json, sys, yaml\n\
                       json.dump([d for d in yaml.safe_load_all(open(sys.argv[1])) if d], sys.stdout)";
        // The tools' own Python has the parser.
        tool("helm");
        let mut python = Command::new(repository().join("target/tools/python/bin/python"));
        let json = shell::run(python.args(["-c", convert]).arg(file.path()));
        let all = serde_json::from_str(&json).unwrap_or_else(|e| panic!("no JSON: {e}"));
        Self { text: text.to_owned(), all }
    }

    /// The documents of this kind.
    pub fn kind(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.all.iter().filter(move |document| document["kind"] == kind)
    }

    /// The only document of this kind.
    pub fn only(&self, kind: &'static str) -> &Value {
        let mut all = self.kind(kind);
        let (first, second) = (all.next(), all.next());
        assert!(second.is_none(), "there is more than one {kind}");
        first.unwrap_or_else(|| panic!("there is no {kind}"))
    }

    /// The DaemonSet's pod.
    pub fn pod(&self) -> &Value {
        &self.only("DaemonSet")["spec"]["template"]
    }

    /// The agent's container.
    pub fn container(&self) -> &Value {
        &self.pod()["spec"]["containers"][0]
    }

    /// What the container may do, sorted.
    pub fn capabilities(&self) -> Vec<String> {
        let capabilities = &self.container()["securityContext"]["capabilities"];
        assert_eq!(capabilities["drop"], serde_json::json!(["ALL"]));
        let mut names = strings(&capabilities["add"]);
        names.sort();
        names
    }

    /// The text of the configuration in the ConfigMap.
    pub fn config(&self) -> &str {
        self.only("ConfigMap")["data"]["netsonde.yaml"].as_str().expect("the ConfigMap has a configuration")
    }
}

/// The texts in a list.
pub fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    list.iter().map(|v| v.as_str().unwrap_or_else(|| panic!("no text: {v}")).to_owned()).collect()
}

/// The YAML of `netsonde docs rights`: the agent's own capabilities, the probes that are on by default, and those of each.
pub fn rights() -> Value {
    let text = shell::run(&mut crate::agent::netsonde(&["docs", "rights"]));
    Manifests::read(&text).all.remove(0)
}
