//! A running agent.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::Signal;

use crate::http::{self, Response};
use crate::{Page, Running, running, shell, until};

/// The `netsonde` binary: the one that `NETSONDE_BIN` names, else this workspace's, built now.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(named) = std::env::var_os("NETSONDE_BIN") {
            return fs::canonicalize(&named)
                .unwrap_or_else(|e| panic!("NETSONDE_BIN={}: {e}", named.display()));
        }
        let own = std::env::current_exe().expect("a process knows its program");
        // target/debug/deps/suite-0123 or target/debug/bench
        let folder = own.ancestors().find(|p| p.ends_with("debug") || p.ends_with("release"));
        let folder = folder.unwrap_or_else(|| panic!("{} is not in a target folder", own.display()));
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--workspace", "--bin", "netsonde"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        shell::run(build.current_dir(env!("CARGO_MANIFEST_DIR")));
        folder.join("netsonde")
    })
}

/// A command line of netsonde.
pub fn netsonde(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env_remove("NETSONDE_LOG");
    command
}

/// A port of 127.0.0.1 that was free a moment ago.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// `netsonde run`, on a port of its own, with its configuration in a folder of its own.
#[derive(Debug)]
pub struct Agent {
    process: Running,
    /// Where its server listens.
    pub address: SocketAddr,
    folder: tempfile::TempDir,
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

fn write(folder: &tempfile::TempDir, config: &str) -> PathBuf {
    let file = folder.path().join("netsonde.yaml");
    fs::write(&file, config).expect("the configuration can be written");
    file
}

/// How long an agent may take until it is ready.
const READY: Duration = Duration::from_secs(20);

impl Agent {
    /// Starts one with this configuration and waits until it is ready.
    pub fn start(config: &str) -> Self {
        Self::launch(config).ready()
    }

    /// Starts one on a configuration file that the test keeps elsewhere.
    pub fn start_with_file(file: &Path) -> Self {
        let address = free_address();
        Self::spawn(address, file, &["--listen", &address.to_string()], folder()).ready()
    }

    /// Starts one that lacks these capabilities, as `setpriv --bounding-set` has them after its first minus, and waits
    /// until it is ready.
    pub fn start_without(capabilities: &str, config: &str) -> Self {
        let (address, folder) = (free_address(), folder());
        let file = write(&folder, config);
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--bounding-set", &format!("-{capabilities}"), "--"])
            .arg(binary());
        Self::run(command, address, &file, &["--listen", &address.to_string()], folder).ready()
    }

    /// Starts one that leaves out these ways into the kernel, with commas between them, and waits until it is ready.
    pub fn start_without_rungs(rungs: &str, config: &str) -> Self {
        let mut command = running::mortal(binary());
        command.env("NETSONDE_WITHOUT", rungs);
        Self::start_by(command, config)
    }

    /// Starts one of another program than the one under test, for comparisons, and waits until it is ready.
    pub fn start_program(program: &Path, config: &str) -> Self {
        Self::start_by(running::mortal(program), config)
    }

    fn start_by(command: Command, config: &str) -> Self {
        let (address, folder) = (free_address(), folder());
        let file = write(&folder, config);
        Self::run(command, address, &file, &["--listen", &address.to_string()], folder).ready()
    }

    /// Starts one whose address is a line of its file and not on its command line.
    pub fn start_listening_by_file(config: &str) -> Self {
        let (address, folder) = (free_address(), folder());
        let file = write(&folder, &format!("{config}listen: {address}\n"));
        Self::spawn(address, &file, &[], folder).ready()
    }

    /// Starts one and does not wait.
    pub fn launch(config: &str) -> Self {
        let (address, folder) = (free_address(), folder());
        let file = write(&folder, config);
        Self::spawn(address, &file, &["--listen", &address.to_string()], folder)
    }

    fn spawn(address: SocketAddr, file: &Path, args: &[&str], folder: tempfile::TempDir) -> Self {
        Self::run(running::mortal(binary()), address, file, args, folder)
    }

    fn run(
        mut command: Command,
        address: SocketAddr,
        file: &Path,
        args: &[&str],
        folder: tempfile::TempDir,
    ) -> Self {
        let log = File::create(folder.path().join("log")).expect("the log can be made");
        command.args(["run", "--config"]).arg(file).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).env_remove("NETSONDE_LOG");
        Self { process: Running::start(&mut command), address, folder }
    }

    fn ready(mut self) -> Self {
        let address = self.address;
        until("the agent is ready", READY, || {
            if let Some(status) = self.process.ended() {
                panic!("the agent ended at once, {status}: {}", self.log());
            }
            http::get(address, "/readyz", &[]).is_ok_and(|r| r.status == 200).then_some(())
        });
        self
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Running {
        &mut self.process
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("netsonde.yaml")
    }

    /// Replaces its configuration file at once, as an editor or a ConfigMap does.
    pub fn write_config(&self, text: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, text).expect("the new configuration can be written");
        fs::rename(&new, self.config()).expect("the configuration can be replaced");
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// GET a path.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        http::get(self.address, path, headers).unwrap_or_else(|e| panic!("GET {path}: {e}\n{}", self.log()))
    }

    /// Its page, parsed strictly.
    pub fn scrape(&self) -> Page {
        let response = self.get("/metrics", &[("Accept", "application/openmetrics-text; version=1.0.0")]);
        assert_eq!(response.status, 200, "{}", response.text());
        Page::parse(response.text()).unwrap_or_else(|why| panic!("/metrics is no OpenMetrics: {why}"))
    }

    /// Waits until it has found the namespace of this `target_pod`, which need not have any series.
    pub fn find(&self, pod: &str) {
        until(&format!("{pod} is found"), Duration::from_secs(5), || {
            let status = self.status();
            status["namespaces"].as_array()?.iter().find(|ns| ns["pod"] == pod).map(|_| ())
        });
    }

    /// Scrapes until `pod` is on the page.
    pub fn scrape_with(&self, pod: &str) -> Page {
        until(&format!("{pod} is on the page"), Duration::from_secs(5), || {
            Some(self.scrape()).filter(|page| page.knows(pod))
        })
    }

    /// `/status`.
    pub fn status(&self) -> serde_json::Value {
        self.get("/status", &[]).json()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        let folder = self.process.proc().join("fd");
        fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).count()
    }

    /// What the kernel tells of each of them.
    pub fn fdinfo(&self) -> Vec<String> {
        let folder = self.process.proc().join("fdinfo");
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        // One may be closed meanwhile.
        entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
    }

    /// Stops it as a service manager does; it must end well, and within two seconds.
    pub fn stop(mut self) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait(Duration::from_secs(2));
        let status =
            status.unwrap_or_else(|| panic!("still running two seconds after SIGTERM: {}", self.log()));
        assert!(status.success(), "after SIGTERM: {status}, signal {:?}: {}", status.signal(), self.log());
        let log = self.log();
        assert!(!log.contains("panicked"), "the agent panicked: {log}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the agent's log\n{}\n---", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}
