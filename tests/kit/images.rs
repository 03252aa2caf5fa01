//! Container images of a test's own: an archive as `docker save` writes it, from files and a few settings.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::shell::run;

/// What is in an image.
#[derive(Debug, Clone, Default)]
pub struct Image {
    name: String,
    files: BTreeMap<String, (Vec<u8>, u32)>,
    entrypoint: Vec<String>,
    environment: Vec<String>,
    user: String,
}

impl Image {
    /// An empty one of this name, such as `netsonde.test/pause:1`.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a file: `path` begins with a slash.
    #[must_use]
    pub fn with(mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        let path = path.strip_prefix('/').unwrap_or_else(|| panic!("{path} has no slash at its front"));
        self.files.insert(path.into(), (content.into(), mode));
        self
    }

    /// Adds a copy of a file of this machine, with its mode.
    #[must_use]
    pub fn file(self, path: &str, source: &Path) -> Self {
        let mode = fs::metadata(source).map(|meta| meta.permissions().mode() & 0o7777);
        let (Ok(mode), Ok(content)) = (mode, fs::read(source)) else {
            panic!("{} cannot be read", source.display())
        };
        self.with(path, content, mode)
    }

    /// Adds a program of this machine at `path`, and the libraries that it is linked with where they are here.
    #[must_use]
    pub fn program(mut self, path: &str, source: &Path) -> Self {
        for library in libraries(source) {
            let inside = library.to_str().expect("libraries have plain names").to_owned();
            self = self.file(&inside, &library);
        }
        self.file(path, source)
    }

    /// What runs in its containers.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|&word| word.into()).collect();
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// Who runs it, such as `65534:65534`; root where this is not called.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = user.into();
        self
    }

    /// Writes the archive, which `ctr images import` reads.
    pub fn write(&self, archive: &Path) {
        let layer = tar(self.files.iter().map(|(path, (content, mode))| (&**path, &**content, *mode)));
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": self.environment, "User": self.user },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
        });
        let manifest = json!([{ "Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"] }]);
        let (config, manifest) = (config.to_string(), manifest.to_string());
        let whole = tar([
            ("config.json", config.as_bytes(), 0o644),
            ("layer.tar", &*layer, 0o644),
            ("manifest.json", manifest.as_bytes(), 0o644),
        ]
        .into_iter());
        fs::write(archive, whole).unwrap_or_else(|e| panic!("{}: {e}", archive.display()));
    }
}

/// The name of [`pause`].
pub const fn pause_name() -> &'static str {
    "netsonde.test/pause:1"
}

/// A program that waits until it is killed, linked without libraries: what a sandbox runs.
pub fn pause() -> Image {
    static_program(pause_name(), "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n")
}

/// An image of this name whose only file, `/main`, is made of a line of C.
pub fn static_program(name: &str, code: &str) -> Image {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (source, program) = (folder.path().join("main.c"), folder.path().join("main"));
    fs::write(&source, code).expect("the source can be written");
    run(Command::new("cc").args(["-static", "-Os", "-s", "-o"]).arg(&program).arg(&source));
    Image::new(name).file("/main", &program).entrypoint(&["/main"])
}

/// The files that `ldd` names, under the names by which the program asks for them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = crate::shell::output(Command::new("ldd").arg(program));
    // A static program has none, and `ldd` then fails.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    fs::write(file.path(), bytes).expect("it can be written");
    let line = run(Command::new("sha256sum").arg(file.path()));
    line.split_whitespace().next().expect("a sum").to_owned()
}

const BLOCK: usize = 512;

/// A tar file in the ustar format; folders are made by whoever unpacks it.
fn tar<'a>(files: impl Iterator<Item = (&'a str, &'a [u8], u32)>) -> Vec<u8> {
    let mut whole = Vec::new();
    for (path, content, mode) in files {
        assert!(path.len() < 100, "{path} is too long for a plain tar file");
        let mut head = [0; BLOCK];
        let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, path);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        whole.extend_from_slice(&head);
        whole.extend_from_slice(content);
        whole.resize(whole.len().next_multiple_of(BLOCK), 0);
    }
    whole.resize(whole.len() + 2 * BLOCK, 0);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let archive = folder.path().join("image.tar");
        Image::new("netsonde.test/a:1").with("/etc/a", "hello", 0o640).write(&archive);
        let listed = run(Command::new("tar").arg("tf").arg(&archive));
        assert_eq!(listed, "config.json\nlayer.tar\nmanifest.json\n");
        run(Command::new("tar").arg("xf").arg(&archive).arg("-C").arg(folder.path()));
        let listed = run(Command::new("tar").arg("tvf").arg(folder.path().join("layer.tar")));
        assert!(listed.starts_with("-rw-r-----") && listed.ends_with("etc/a\n"), "{listed}");
    }
}
