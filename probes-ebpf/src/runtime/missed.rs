//! How often the kernel passed over a program: one that is interrupted by its own tracepoint or function on the same CPU is
//! not run for the inner one.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::programs::ProgramFd;

use super::maps::bpf;

const OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// `struct bpf_prog_info` as far as Linux 5.16 has it; an older kernel leaves the end as it is.
const WORDS: usize = 28;
const RECURSION_MISSES: usize = 26;

/// `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct GetInfo {
    program: u32,
    length: u32,
    info: u64,
}

/// Since the program was loaded; 0 where the kernel does not tell.
pub(super) fn missed(program: &ProgramFd) -> u64 {
    info(program).map_or(0, |info| info[RECURSION_MISSES])
}

fn info(program: &ProgramFd) -> Option<[u64; WORDS]> {
    // Zeros: none of the lists that the kernel would fill in is asked for.
    let mut info = [0u64; WORDS];
    let mut attr = GetInfo {
        program: program.as_fd().as_raw_fd().unsigned_abs(),
        length: u32::try_from(size_of_val(&info)).expect("a few hundred bytes"),
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: `attr` has the layout of this command; it points to as many bytes as it says, which outlive the call.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, (&raw mut attr).cast(), size_of::<GetInfo>()) }.ok()?;
    Some(info)
}

#[cfg(test)]
mod tests {
    use aya::programs::{BtfTracePoint, RawTracePoint};
    use aya::{Btf, Ebpf, RawTracePointRunOptions, TestRun as _};

    use super::*;
    use crate::runtime::can_run;

    const TIMES: u64 = 7;

    /// A program at a tracepoint that it passes itself is passed over there, once for each time that it runs.
    #[test]
    fn what_is_missed_is_counted() {
        if !can_run("what_is_missed_is_counted") {
            return;
        }
        let btf = Btf::from_sys_fs().expect("these tests need a kernel with BTF");
        let bytes = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/missed.o"));
        let mut loaded = Ebpf::load(bytes).expect("the object can be loaded");
        let within: &mut BtfTracePoint =
            loaded.program_mut("missed_within").expect("the object has it").try_into().expect("its kind");
        within.load("bpf_trace_printk", &btf).expect("the verifier takes it");
        let before = info(within.fd().expect("it is loaded")).expect("the kernel tells of its programs");
        // Behind the number stands that of the verified instructions, and behind that the id of the kernel's types.
        let verified = before[RECURSION_MISSES + 1] & u64::from(u32::MAX);
        assert!((3..100).contains(&verified), "{before:?}");
        within.attach().expect("it can be attached");
        let first: &mut RawTracePoint =
            loaded.program_mut("missed_first").expect("the object has it").try_into().expect("its kind");
        first.load().expect("the verifier takes it");
        for _ in 0..TIMES {
            first.test_run(RawTracePointRunOptions::new()).expect("a run");
        }
        let within: &BtfTracePoint =
            loaded.program("missed_within").expect("the object has it").try_into().expect("its kind");
        assert_eq!(missed(within.fd().expect("it is loaded")), TIMES);
    }
}
