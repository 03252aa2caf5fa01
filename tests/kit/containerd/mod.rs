//! A containerd of a test's own, in a network namespace of its own: real sandboxes with real CNI addresses.
//!
//! Sandboxes' network namespaces appear in `/run/netns` of the machine, as they do on a node; bridge and veths stay in
//! the namespace of containerd. Everything is asked through CRI, with the product's own client where it has the call.

mod client;
mod leftovers;
mod messages;
mod pod;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub use client::{Client, Sandbox};
pub use pod::{Container, Pod};
use rustix::process::Signal;

use crate::images::{self, Image};
use crate::{Netns, Running, running, shell, until};

static COUNT: AtomicU32 = AtomicU32::new(0);
const STARTS: Duration = Duration::from_secs(20);

/// Where a containerd with mounts of its own has its folder, with the usual socket in it.
pub const FOLDER: &str = "/run/containerd";

/// The same command with the mounts that a process holds.
fn entering(mounts: &Running, command: &Command) -> Command {
    let mut entering = Command::new("nsenter");
    entering.arg(format!("--mount=/proc/{}/ns/mnt", mounts.pid())).arg("--");
    entering.arg(command.get_program()).args(command.get_args());
    entering
}

/// A running containerd, with all that runs in it removed on drop.
#[derive(Debug)]
pub struct Containerd {
    netns: Option<Netns>,
    /// Holds the mount namespace that it runs in, where that is not the test's.
    mounts: Option<Running>,
    process: Option<Running>,
    client: Option<Client>,
    cgroup: String,
    folder: tempfile::TempDir,
}

impl Containerd {
    /// Starts one that can run sandboxes. Call it on the test's own thread, whose end ends it.
    pub fn start() -> Self {
        Self::start_in(Some(Netns::new("containerd")), None)
    }

    /// Starts one whose containers can follow the mounts of any folder (`HostToContainer`), as they can on a node, where
    /// systemd makes all mounts shared: it has mounts of its own, in which its folder is at [`FOLDER`].
    pub fn start_with_shared_mounts() -> Self {
        let mut unshare = running::mortal("unshare");
        unshare.args(["--mount", "--propagation", "shared", "--", "sleep", "infinity"]);
        let holder = Running::start(&mut unshare);
        let mounts = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        until("the mounts are its own", STARTS, || {
            (mounts(&holder.pid().to_string())? != mounts("self")?).then_some(())
        });
        Self::start_in(Some(Netns::new("containerd")), Some(holder))
    }

    /// Starts one in this machine's own network namespace, for pods with the node's network. Others would lay their
    /// bridge there.
    pub fn start_on_host() -> Self {
        Self::start_in(None, None)
    }

    fn start_in(netns: Option<Netns>, mounts: Option<Running>) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("nst-containerd").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        let mut containerd = Self {
            netns,
            mounts,
            process: None,
            client: None,
            cgroup: format!("/nst{}-{count}", std::process::id()),
            folder,
        };
        containerd.write_settings();
        if let Some(mounts) = &containerd.mounts {
            fs::create_dir_all(FOLDER).unwrap_or_else(|e| panic!("{FOLDER}: {e}"));
            let mut bind = Command::new("mount");
            bind.arg("--bind").arg(containerd.folder.path()).arg(FOLDER);
            shell::run(&mut entering(mounts, &bind));
            // The name by which runtimes are looked for.
            let usual = containerd.path("containerd.sock");
            std::os::unix::fs::symlink("sock", usual).expect("a link can be made");
        }
        containerd.launch();
        containerd.import(&images::pause());
        containerd
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its socket: CRI and containerd's own API.
    pub fn socket(&self) -> PathBuf {
        self.path("sock")
    }

    /// The network namespace that it runs in, with the bridge `cni0`.
    pub fn netns(&self) -> &Netns {
        self.netns.as_ref().expect("it was not started on the host")
    }

    /// The cgroup above those of all its pods.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The connection of the test's thread.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("containerd runs")
    }

    /// A connection for another thread.
    pub fn connect(&self) -> Client {
        until("containerd answers", STARTS, || self.try_connect())
    }

    fn try_connect(&self) -> Option<Client> {
        Client::connect(&self.socket(), &self.cgroup, &self.path("logs"))
    }

    /// Makes an image known to it.
    pub fn import(&self, image: &Image) {
        let archive = self.path("image.tar");
        image.write(&archive);
        self.import_archive(&archive, image.name());
    }

    /// Makes an image of this name known to it, from its archive.
    pub fn import_archive(&self, archive: &Path, name: &str) {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io", "images", "import"]);
        shell::run(ctr.arg("--no-unpack").arg(archive));
        // CRI learns of images through events.
        until(&format!("{name} is known"), STARTS, || self.client().has_image(name).then_some(()));
    }

    /// Runs a sandbox for this pod.
    pub fn run(&self, pod: &Pod) -> Sandbox {
        self.client().run(pod)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("containerd runs").pid()
    }

    /// Kills it with SIGKILL, as the machine's memory killer would. What it started goes on running.
    pub fn kill(&mut self) {
        self.client = None;
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::KILL);
            process.wait(Duration::from_secs(5)).expect("a killed process ends");
        }
    }

    /// Stops it in its tracks: it accepts connections and answers nothing.
    pub fn freeze(&self) {
        self.process.as_ref().expect("containerd runs").signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.as_ref().expect("containerd runs").signal(Signal::CONT);
    }

    /// Starts it again after [`Containerd::kill`].
    pub fn launch(&mut self) {
        let log = File::options().append(true).create(true).open(self.path("log"));
        let log = log.expect("the log can be written");
        let mut command = match &self.netns {
            Some(netns) => netns.mortal("containerd"),
            None => running::mortal("containerd"),
        };
        if let Some(mounts) = &self.mounts {
            command = entering(mounts, &command);
        }
        command.arg("--config").arg(self.path("config.toml")).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a descriptor can be had twice")).stderr(log);
        let mut process = Running::start(&mut command);
        let client = until("containerd answers", STARTS, || {
            assert!(process.ended().is_none(), "containerd ended: {}", self.log());
            self.try_connect()
        });
        (self.process, self.client) = (Some(process), Some(client));
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn write_settings(&self) {
        let write = |name: &str, text: String| {
            let path = self.path(name);
            fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder can be made");
            fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        };
        let folder = self.folder.path();
        write("config.toml", settings(folder));
        write("cni/10-lab.conflist", network(folder));
    }

    /// Removes every sandbox; says whether all are gone.
    fn remove_sandboxes(&self) -> bool {
        let Some(client) = &self.client else { return false };
        let Ok(all) = client.wait(client.channel().sandboxes(STARTS)) else { return false };
        all.iter().filter(|sandbox| client.try_remove(&sandbox.id).is_err()).count() == 0
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().filter(|line| !line.contains("level=info")).collect();
            eprintln!("--- containerd's log\n{}\n---", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        if let Some(process) = &self.process {
            process.signal(Signal::CONT);
        }
        let clean = self.remove_sandboxes();
        self.kill();
        leftovers::remove(self.folder.path(), &self.cgroup, clean);
    }
}

/// Debian's containerd 1.6. Without `restrict_oom_score_adj` no sandbox starts where CAP_SYS_RESOURCE is missing.
fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
oom_score = 0
disabled_plugins = [
    "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs",
    "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
address = "{folder}/sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
disable_apparmor = true
restrict_oom_score_adj = true
disable_tcp_service = true
stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
"#,
        pause = images::pause_name(),
    )
}

/// A bridge, and an address of each family. Runtimes that run at once, of one test binary or of several, should not give
/// the same addresses: an agent that sees both would know that they are nobody's.
fn network(folder: &Path) -> String {
    static BEFORE: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id() + BEFORE.fetch_add(1, Ordering::Relaxed);
    let subnets = [format!("10.{}.0.0/16", 100 + number % 100), format!("fd88:{:x}::/64", number % 0x1_0000)];
    serde_json::json!({
        "cniVersion": "0.4.0",
        "name": "lab",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipam": {
                "type": "host-local",
                "dataDir": folder.join("leases"),
                "ranges": [[{ "subnet": subnets[0] }], [{ "subnet": subnets[1] }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        }],
    })
    .to_string()
}
