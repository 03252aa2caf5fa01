//! TLS, credentials and bounds of the server: who is let in, who is not, and what a change of the files does.

mod bounds;
mod credentials;
mod file;
mod tls;

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use netsonde_tests::pki::Pair;
use netsonde_tests::{Agent, Page, shell, until};

const SOON: Duration = Duration::from_secs(10);

/// bcrypt of "open sesame": at the cost of practice, and at the least.
const HASH: &str = "$2b$10$RC8XVrPTCbM8wSyTIoiCVu05IxImKplmJQbfQ9/lA6IosE0iVdsNi";
const CHEAP: &str = "$2b$04$Fhv8Zo/L8bY.EoGXiShNquYKzMp28jxJbwjiEbCbTuL6ceznsfekK";

/// An agent with a web configuration file.
struct Lab {
    agent: Agent,
    folder: tempfile::TempDir,
}

impl Lab {
    /// Starts one and waits until it listens. Paths in `web` that begin with `HERE` are in its folder.
    fn new(web: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let file = folder.path().join("web.yml");
        std::fs::write(&file, web).expect("written");
        let agent = Agent::launch(&format!("probes: [udp]\nweb_config: {}\n", file.display()));
        until("the agent listens", Duration::from_secs(20), || TcpStream::connect(agent.address).ok());
        Self { agent, folder }
    }

    /// Replaces a file of its folder at once.
    fn write(&self, name: &str, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(&new, self.folder.path().join(name)).expect("replaced");
    }

    /// The status code of a GET with these arguments of curl's, or curl's exit code.
    fn get(&self, url: &str, args: &[&str]) -> Result<u16, i32> {
        let url = format!(
            "{}://{}{}",
            if args.contains(&"--cacert") { "https" } else { "http" },
            self.agent.address,
            url
        );
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--max-time",
            "10",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        let output = shell::output(command.args(args).arg(url));
        match output.status.code() {
            Some(0) => Ok(String::from_utf8_lossy(&output.stdout).parse().expect("a status code")),
            code => Err(code.unwrap_or(-1)),
        }
    }

    /// The page, with these arguments of curl's.
    fn scrape(&self, args: &[&str]) -> Page {
        let scheme = if args.contains(&"--cacert") { "https" } else { "http" };
        let url = format!("{scheme}://{}/metrics", self.agent.address);
        let page = shell::run(
            Command::new("curl").args(["--silent", "--fail", "--max-time", "10"]).args(args).arg(url),
        );
        Page::parse(&page).unwrap_or_else(|why| panic!("{why}"))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn tls(pair: &Pair, more: &str) -> String {
    format!(
        "tls_server_config:\n  cert_file: {}\n  key_file: {}\n{more}",
        pair.cert.display(),
        pair.key.display()
    )
}
