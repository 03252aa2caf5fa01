//! Debian's Prometheus and Alertmanager, each with a folder and a port of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::agent::free_address;
use crate::running::mortal;
use crate::{Running, http, until};

/// How long either may take until it is ready.
const READY: Duration = Duration::from_secs(30);

/// A folder of the repository, such as `deploy/prometheus`.
pub fn shipped(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder)
}

/// The text of a file of the repository.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = shipped("").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    /// Where it answers.
    pub address: SocketAddr,
    process: Running,
    folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one on this configuration. `files` are written beside it, by name.
    pub fn start(config: &str, files: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("prometheus.yml");
        std::fs::write(&path, config).expect("written");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let address = free_address();
        let mut command = mortal("prometheus");
        command.arg(format!("--config.file={}", path.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        // What alerts were told of is asked of the Alertmanager; how soon again does not matter here.
        command.arg("--rules.alert.resend-delay=1s");
        let process = start(command, folder.path());
        let mut prometheus = Self { address, process, folder };
        ready(&mut prometheus.process, address, &prometheus.folder);
        prometheus
    }

    /// What it says under `path`, which begins with `/api`.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        get(self.address, path)
    }

    /// The results of a query, each with its labels and its value.
    pub fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>, String> {
        let answer = self.get(&format!("/api/v1/query?query={}", escaped(expression)))?;
        if let Some(error) = answer["error"].as_str() {
            return Err(format!("{expression}: {error}"));
        }
        let results = answer["data"]["result"].as_array().ok_or("no list of results")?;
        let result = |r: &Value| Some((r["metric"].clone(), r["value"][1].as_str()?.parse().ok()?));
        Ok(results.iter().filter_map(result).collect())
    }

    /// The rules as it has read them: groups, each with `rules`.
    pub fn rules(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/rules").unwrap_or_else(|why| panic!("no rules: {why}"));
        let groups = answer["data"]["groups"].as_array().expect("a list of groups");
        groups.iter().flat_map(|group| group["rules"].as_array().expect("a list of rules").clone()).collect()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// A running Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    /// Where it answers.
    pub address: SocketAddr,
    _process: Running,
    _folder: tempfile::TempDir,
}

impl Alertmanager {
    /// Starts one that sends nothing anywhere.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("alertmanager.yml");
        std::fs::write(&path, "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n").expect("written");
        let address = free_address();
        let mut command = mortal("prometheus-alertmanager");
        command.arg(format!("--config.file={}", path.display()));
        command.arg(format!("--storage.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        command.arg("--cluster.listen-address=");
        let mut process = start(command, folder.path());
        ready(&mut process, address, &folder);
        Self { address, _process: process, _folder: folder }
    }

    /// The alerts that fire, each with `labels` and `annotations`.
    pub fn alerts(&self) -> Vec<Value> {
        let answer = get(self.address, "/api/v2/alerts").unwrap_or_else(|why| panic!("no alerts: {why}"));
        answer.as_array().expect("a list of alerts").clone()
    }
}

fn start(mut command: std::process::Command, folder: &Path) -> Running {
    let log = std::fs::File::create(folder.join("log")).expect("made");
    Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
}

fn ready(process: &mut Running, address: SocketAddr, folder: &tempfile::TempDir) {
    until("it is ready", READY, || {
        if let Some(status) = process.ended() {
            let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            panic!("it ended at once, {status}: {log}");
        }
        http::get(address, "/-/ready", &[]).is_ok_and(|answer| answer.status == 200).then_some(())
    });
}

fn get(server: SocketAddr, path: &str) -> Result<Value, String> {
    let answer = http::get(server, path, &[]).map_err(|e| e.to_string())?;
    serde_json::from_slice(&answer.body).map_err(|e| format!("{path}: {}: {e}", answer.status))
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| format!("{escaped}%{byte:02x}"))
}
