//! Finds the probe folders of `src/` and writes the list of their specs; no table is edited by hand.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let src = Path::new(&root).join("src");
    let mut names: Vec<String> = fs::read_dir(&src)
        .expect("the crate has sources")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry.path().join("probe.rs").is_file().then(|| entry.file_name().to_string_lossy().into_owned())
        })
        .collect();
    names.sort();

    let mut out = String::new();
    for name in &names {
        let path = src.join(name).join("probe.rs");
        writeln!(out, "#[path = \"{}\"]\npub mod {name};", path.display()).expect("writing to a string");
    }
    writeln!(
        out,
        "/// Every probe of this crate.\npub static SPECS: &[&netsonde_framework::ProbeSpec<os::Host>] = &["
    )
    .expect("writing to a string");
    for name in &names {
        writeln!(out, "    &{name}::SPEC,").expect("writing to a string");
    }
    out.push_str("];\n");
    let target = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("probes.rs");
    fs::write(target, out).expect("cargo's folder is writable");
    println!("cargo:rerun-if-changed=src");
}
