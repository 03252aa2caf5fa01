//! What is installed on a machine: the image as an archive, and the Debian package with its systemd unit.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use netsonde_tests::agent::binary;
use netsonde_tests::manifests::{Manifests, repository, script, tool};
use netsonde_tests::{needs_programs, needs_root, shell};
use serde_json::{Value, json};

/// Makes the image's archive of the binary under test.
fn image(output: &Path) -> String {
    let mut build = script("deploy/image/build.sh");
    shell::run(build.arg("--program").arg(binary()).arg("--output").arg(output))
}

/// A file of an archive.
fn member(archive: &Path, name: &str) -> Vec<u8> {
    let output = shell::output(Command::new("tar").arg("-xOf").arg(archive).arg(name));
    assert!(output.status.success(), "{name} is not in {}", archive.display());
    output.stdout
}

fn json_member(archive: &Path, name: &str) -> Value {
    serde_json::from_slice(&member(archive, name)).unwrap_or_else(|e| panic!("{name} is no JSON: {e}"))
}

fn sha256(file: &Path) -> String {
    shell::run(Command::new("sha256sum").arg(file)).split(' ').next().expect("a sum").to_owned()
}

#[test]
fn the_image_says_what_the_dockerfile_says() {
    needs_programs!("tar", "jq");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let archive = folder.path().join("image.tar");
    image(&archive);
    let manifest = json_member(&archive, "manifest.json").as_array().expect("a list").first().cloned();
    let manifest = manifest.expect("an image");
    let config = json_member(&archive, manifest["Config"].as_str().expect("a name"));
    let layer = folder.path().join("layer.tar");
    fs::write(&layer, member(&archive, "layer.tar")).expect("written");
    assert_eq!(config["rootfs"]["diff_ids"], json!([format!("sha256:{}", sha256(&layer))]));
    let run = &config["config"];
    assert_eq!(run["Entrypoint"], json!(["/usr/bin/netsonde"]));
    assert_eq!(run["Cmd"], json!(["run", "--config", "/etc/netsonde/netsonde.yaml"]));
    assert_eq!(run["ExposedPorts"], json!({"9102/tcp": {}}));
    let labels = run["Labels"].as_object().expect("labels");
    let dockerfile = fs::read_to_string(repository().join("deploy/image/Dockerfile")).expect("it is there");
    assert!(dockerfile.contains(&format!("ARG VERSION={}\n", env!("CARGO_PKG_VERSION"))));
    let written: BTreeSet<_> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("LABEL ")?.split_once('=').map(|(key, _)| key))
        .collect();
    assert_eq!(labels.keys().map(String::as_str).collect::<BTreeSet<_>>(), written);
    assert_eq!(labels["org.opencontainers.image.licenses"], "Apache-2.0");
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert!(labels.values().all(|value| !value.as_str().unwrap_or("$").contains('$')), "{labels:?}");
    // The tag that the manifests ask for.
    let wanted = Manifests::kustomize("base").container()["image"].clone();
    assert_eq!(manifest["RepoTags"], json!([wanted]));
}

#[test]
fn the_same_program_makes_the_same_image() {
    needs_programs!("tar", "jq");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [first, second] = ["first.tar", "second.tar"].map(|name| folder.path().join(name));
    image(&first);
    image(&second);
    assert_eq!(sha256(&first), sha256(&second));
}

#[test]
fn the_images_files_are_enough_to_run() {
    needs_root!();
    needs_programs!("tar", "jq", "chroot");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (archive, root) = (folder.path().join("image.tar"), folder.path().join("root"));
    image(&archive);
    fs::create_dir(&root).expect("made");
    let layer = folder.path().join("layer.tar");
    fs::write(&layer, member(&archive, "layer.tar")).expect("written");
    shell::run(Command::new("tar").arg("-xf").arg(&layer).arg("-C").arg(&root));
    // As anyone: nothing of it needs root.
    let mut inside = Command::new("chroot");
    inside.arg("--userspec=65532:65532").arg(&root).args(["/usr/bin/netsonde", "check"]);
    let said = shell::run(inside.arg("/etc/netsonde/netsonde.yaml"));
    assert!(said.contains(": good, "), "{said}");
    for file in ["etc/ssl/certs/ca-certificates.crt", "usr/share/licenses/netsonde/LICENSE"] {
        assert!(fs::metadata(root.join(file)).is_ok_and(|meta| meta.len() > 10_000), "{file}");
    }
}

#[test]
fn the_dockerfile_passes_hadolint() {
    let said = shell::run(tool("hadolint").arg("deploy/image/Dockerfile"));
    assert_eq!(said, "");
}

fn package(folder: &Path) -> std::path::PathBuf {
    let mut build = script("deploy/debian/build.sh");
    // A binary with debugging information takes a minute to compress.
    build.env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    shell::run(build.arg("--program").arg(binary()).arg("--output").arg(folder));
    let mut files = fs::read_dir(folder).expect("the folder is there").flatten();
    files.next().expect("a package was made").path()
}

#[test]
fn the_debian_package_holds_program_unit_and_configuration() {
    needs_programs!("dpkg-deb", "dpkg-shlibdeps");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let deb = package(folder.path());
    let field = |name: &str| shell::run(Command::new("dpkg-deb").arg("--field").arg(&deb).arg(name));
    assert_eq!(field("Package").trim(), "netsonde");
    assert_eq!(field("Version").trim(), env!("CARGO_PKG_VERSION"));
    assert!(field("Depends").contains("libc6 (>= "), "{}", field("Depends"));
    let listed = shell::run(Command::new("dpkg-deb").arg("--contents").arg(&deb));
    let has = |mode: &str, file: &str| {
        let found = listed.lines().find(|line| line.ends_with(&format!(" .{file}")));
        let line = found.unwrap_or_else(|| panic!("{file} is not in {listed}"));
        assert!(line.starts_with(mode) && line.contains(" root/root "), "{line}");
    };
    has("-rwxr-xr-x", "/usr/bin/netsonde");
    has("-rw-r--r--", "/etc/netsonde/netsonde.yaml");
    has("-rw-r--r--", "/lib/systemd/system/netsonde.service");
    has("-rw-r--r--", "/usr/share/doc/netsonde/copyright");
    has("-rw-r--r--", "/usr/share/doc/netsonde/changelog.gz");
    let again = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(sha256(&package(again.path())), sha256(&deb), "the same program makes the same package");
}

#[test]
fn the_package_is_installed_keeps_an_edited_configuration_and_goes() {
    needs_root!();
    needs_programs!("dpkg", "dpkg-deb", "dpkg-shlibdeps", "systemd-analyze");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let deb = package(&folder.path().join("packages"));
    let root = folder.path().join("root");
    for path in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs::create_dir_all(root.join(path)).expect("made");
    }
    fs::write(root.join("var/lib/dpkg/status"), "").expect("written");
    // Into a root of its own; its scripts see DPKG_ROOT and leave this machine's services alone.
    let dpkg = |args: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", root.display())).args(["--force-script-chrootless", "--force-depends"]);
        shell::output(dpkg.args(args))
    };
    let done = |output: std::process::Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let deb = deb.to_str().expect("a plain path");
    done(dpkg(&["--install", deb]));
    let status = dpkg(&["--status", "netsonde"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("Status: install ok installed"));
    let verified = dpkg(&["--verify", "netsonde"]);
    assert_eq!(String::from_utf8_lossy(&verified.stdout), "", "a file is not what its sum says");

    let config = root.join("etc/netsonde/netsonde.yaml");
    fs::write(&config, "probes: [udp]\n").expect("written");
    done(dpkg(&["--force-confold", "--install", deb]));
    assert_eq!(fs::read_to_string(&config).expect("it is there"), "probes: [udp]\n");

    // What the unit leans on comes from this machine.
    shell::run(
        Command::new("sh")
            .arg("-c")
            .arg("cp -r /lib/systemd/system/*.target \"$0\"/lib/systemd/system")
            .arg(&root),
    );
    fs::create_dir_all(root.join("bin")).expect("made");
    fs::copy("/bin/kill", root.join("bin/kill")).expect("this machine has it");
    let mut verify = Command::new("systemd-analyze");
    verify.arg(format!("--root={}", root.display())).args(["verify", "netsonde.service"]);
    let said = shell::output(&mut verify);
    let remarks = String::from_utf8_lossy(&said.stderr);
    let ours: Vec<_> = remarks.lines().filter(|line| line.contains("netsonde")).collect();
    assert_eq!(ours, Vec::<&str>::new(), "{remarks}");

    done(dpkg(&["--remove", "netsonde"]));
    assert!(!root.join("usr/bin/netsonde").exists() && config.exists());
    fs::create_dir_all(root.join("var/lib/netsonde/loki")).expect("made");
    done(dpkg(&["--purge", "netsonde"]));
    assert!(!config.exists() && !root.join("var/lib/netsonde").exists());
}

#[test]
fn every_script_can_be_run() {
    for path in [
        "deploy/render.sh",
        "deploy/image/build.sh",
        "deploy/image/rootfs.sh",
        "deploy/debian/build.sh",
        "deploy/debian/postinst",
        "deploy/debian/prerm",
        "deploy/debian/postrm",
        "tests/setup/tools.sh",
    ] {
        let file = repository().join(path);
        let mode = fs::metadata(&file).unwrap_or_else(|e| panic!("{path}: {e}")).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{path}");
        let first = fs::read_to_string(&file).expect("it is text");
        let shell = if first.starts_with("#!/bin/sh\n") { "sh" } else { "bash" };
        shell::run(Command::new(shell).arg("-n").arg(&file));
    }
}
