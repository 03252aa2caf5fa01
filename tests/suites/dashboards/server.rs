//! Debian's Prometheus over one agent.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netsonde_tests::agent::free_address;
use netsonde_tests::dashboards::list;
use netsonde_tests::running::mortal;
use netsonde_tests::{Agent, Running, http, until};
use serde_json::Value;

/// One lab at a time: each keeps a CPU busy, and what a scrape has no time for is not on its page.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A Prometheus that scrapes every two seconds: a busy machine needs more than one for a page.
pub struct Server {
    address: SocketAddr,
    _process: Running,
    _folder: tempfile::TempDir,
}

impl Server {
    /// It scrapes this agent; `more` is put into the scrape configuration.
    pub fn start(agent: &Agent, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("prometheus.yml");
        let scrape = format!(
            "global: {{scrape_interval: 2s, scrape_timeout: 2s}}\nscrape_configs:\n- job_name: netsonde\n  static_configs:\n  - targets: [\"{}\"]\n  {}\n",
            agent.address,
            more.replace('\n', "\n  ")
        );
        std::fs::write(&config, scrape).expect("written");
        let address = free_address();
        let process = Running::start(&mut program(&config, folder.path(), address));
        Self { address, _process: process, _folder: folder }
    }

    /// Waits until it has scraped this often, with `meanwhile` in between.
    pub fn scraped(&self, times: u32, mut meanwhile: impl FnMut()) {
        until(&format!("prometheus has scraped {times} times"), Duration::from_mins(2), || {
            meanwhile();
            let answer = self.ask("count_over_time(up[5m])").ok()?;
            answer.first()?.1.parse::<u32>().ok().filter(|count| *count >= times)
        });
    }

    /// The results of a query, each with its labels; the error is Prometheus's own.
    pub fn ask(&self, expression: &str) -> Result<Vec<(Value, String)>, String> {
        let escaped = expression.bytes().fold(String::new(), |escaped, byte| format!("{escaped}%{byte:02x}"));
        let path = format!("/api/v1/query?query={escaped}");
        let answer = http::get(self.address, &path, &[]).map_err(|e| e.to_string())?;
        // While it starts it answers 503, and not in JSON.
        let answer: Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
        if let Some(error) = answer["error"].as_str() {
            return Err(error.to_owned());
        }
        let result = |r: &Value| Some((r["metric"].clone(), r["value"][1].as_str()?.to_owned()));
        Ok(list(&answer["data"], "result").iter().filter_map(result).collect())
    }

    /// The numbers of an answer; what is no number is no answer.
    pub fn values(&self, expression: &str) -> Result<Vec<f64>, String> {
        let values = self.ask(expression)?.into_iter().filter_map(|(_, value)| value.parse::<f64>().ok());
        Ok(values.filter(|value| !value.is_nan()).collect())
    }
}

fn program(config: &Path, folder: &Path, address: SocketAddr) -> std::process::Command {
    let mut command = mortal("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address={address}"));
    let log = std::fs::File::create(folder.join("log")).expect("made");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}
