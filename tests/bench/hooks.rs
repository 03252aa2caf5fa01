//! What the kernel takes for the hooks alone: programs that do nothing, at each place where the agent has one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;

use aya::programs::{BtfTracePoint, Program};
use aya::{Btf, Ebpf};
use netsonde_tests::{Agent, shell};

/// Attached as long as it lives.
pub struct Empty {
    _programs: Ebpf,
}

/// The tracepoints at which this agent has programs. Those of several probes share one attached program.
pub fn of(agent: &Agent) -> BTreeSet<String> {
    let status = agent.status();
    let probes = status["probes"].as_array().expect("probes").iter();
    let hooks = probes.filter_map(|probe| probe["hooks"].as_array()).flatten();
    let rungs = hooks.filter_map(|hook| hook["rung"].as_str());
    rungs.filter_map(|rung| rung.strip_prefix("tp_btf ").map(str::to_owned)).collect()
}

/// The kernel's code for as many programs that return at once.
pub fn compile(tracepoints: &BTreeSet<String>) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (source, object) = (folder.path().join("empty.c"), folder.path().join("empty.o"));
    let mut text = String::from("#define SEC(name) __attribute__((section(name), used))\n");
    for (number, tracepoint) in tracepoints.iter().enumerate() {
        writeln!(text, "SEC(\"tp_btf/{tracepoint}\") int empty_{number}(void *ctx) {{ return 0; }}")
            .expect("a text takes all");
    }
    text += "char LICENSE[] SEC(\"license\") = \"Dual BSD/GPL\";\n";
    std::fs::write(&source, text).expect("written");
    let mut clang = Command::new("clang");
    shell::run(clang.args(["-O2", "-g", "-target", "bpf", "-c"]).arg(&source).arg("-o").arg(&object));
    std::fs::read(&object).expect("clang has made it")
}

impl Empty {
    pub fn attach(object: &[u8], tracepoints: &BTreeSet<String>) -> Self {
        let types = Btf::from_sys_fs().expect("the agent's programs need it too");
        let mut programs = Ebpf::load(object).expect("it has no maps");
        for (number, tracepoint) in tracepoints.iter().enumerate() {
            let program = programs.program_mut(&format!("empty_{number}")).expect("it was compiled");
            let program: &mut BtfTracePoint = match program {
                Program::BtfTracePoint(program) => program,
                other => panic!("{other:?} is at no tracepoint"),
            };
            program.load(tracepoint, &types).unwrap_or_else(|e| panic!("{tracepoint}: {e}"));
            program.attach().unwrap_or_else(|e| panic!("{tracepoint}: {e}"));
        }
        Self { _programs: programs }
    }
}
