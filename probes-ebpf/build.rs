//! Finds the probe folders, compiles their kernel side with clang and writes the list of their specs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    let src = root.join("src");
    let mut names: Vec<String> = fs::read_dir(&src)
        .expect("the crate has sources")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry.path().join("probe.rs").is_file().then(|| entry.file_name().to_string_lossy().into_owned())
        })
        .collect();
    names.sort();

    let shared = shared_tracepoints(names.iter().map(|name| src.join(name)));
    let mut list = String::new();
    for name in &names {
        let path = src.join(name).join("probe.rs");
        writeln!(list, "#[path = \"{}\"]\npub mod {name};", path.display()).expect("writing to a string");
        compile(&root, &shared, &src.join(name).join("kernel.bpf.c"), &out.join(format!("{name}.o")));
    }
    compile(&root, &shared, &src.join("runtime/relay.bpf.c"), &out.join("relay.o"));
    compile(&root, &shared, &src.join("runtime/table/test.bpf.c"), &out.join("table.o"));
    compile(&root, &shared, &src.join("runtime/missed/test.bpf.c"), &out.join("missed.o"));
    list.push_str("/// Every probe of this crate.\npub static SPECS: &[&netsonde_framework::ProbeSpec<runtime::Kernel>] = &[\n");
    for name in &names {
        writeln!(list, "    &{name}::SPEC,").expect("writing to a string");
    }
    list.push_str("];\n");
    fs::write(out.join("probes.rs"), list).expect("cargo's folder is writable");
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=include");
}

/// The tracepoints at which there is more than one program, as the flags that tell clang (include/tracepoint.h).
fn shared_tracepoints(folders: impl Iterator<Item = PathBuf>) -> Vec<String> {
    let mut programs: BTreeMap<String, usize> = BTreeMap::new();
    for folder in folders {
        for entry in fs::read_dir(folder).expect("a folder of this crate").flatten() {
            let path = entry.path();
            if !path.extension().is_some_and(|extension| extension == "c" || extension == "h") {
                continue;
            }
            let text = fs::read_to_string(path).expect("a source file is text");
            let heads = text.lines().filter_map(|line| line.strip_prefix("TRACEPOINT(")?.split(',').next());
            for tracepoint in heads {
                *programs.entry(tracepoint.to_owned()).or_default() += 1;
            }
        }
    }
    let shared = programs.into_iter().filter(|(_, count)| *count > 1);
    shared.map(|(tracepoint, _)| format!("-DSHARED_{tracepoint}=,")).collect()
}

fn compile(root: &Path, shared: &[String], source: &Path, object: &Path) {
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let (define, triplet) = match architecture.as_str() {
        "x86_64" => ("-D__TARGET_ARCH_x86", "x86_64-linux-gnu"),
        "aarch64" => ("-D__TARGET_ARCH_arm64", "aarch64-linux-gnu"),
        other => panic!("no eBPF flags are known for {other}"),
    };
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-Wall", "-Werror", "-target", "bpf", "-mcpu=v3", define]);
    clang.args(shared).arg("-I").arg(root.join("include"));
    // asm/types.h stands there on Debian; elsewhere the folder does not exist and is ignored.
    clang.arg("-I").arg(format!("/usr/include/{triplet}"));
    run(clang.arg("-c").arg(source).arg("-o").arg(object), "clang (Debian: apt install clang libbpf-dev)");
    // Without DWARF the object is a third; BTF and the relocations stay.
    run(Command::new("llvm-strip").arg("-g").arg(object), "llvm-strip (Debian: apt install llvm)");
    // For the tests that hold the structs of user space against those of the kernel side.
    let types = format!(".BTF={}", object.with_extension("btf").display());
    run(
        Command::new("llvm-objcopy").arg("--dump-section").arg(types).arg(object),
        "llvm-objcopy (Debian: apt install llvm)",
    );
}

fn run(command: &mut Command, what: &str) {
    let status = command.status().unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
    assert!(status.success(), "{what} failed: {command:?}");
}
