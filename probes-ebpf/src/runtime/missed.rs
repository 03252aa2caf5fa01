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
    use aya::programs::{BtfTracePoint, Program};
    use aya::{Btf, EbpfLoader};

    use super::*;
    use crate::object;
    use crate::runtime::can_run;

    #[test]
    fn the_number_stands_before_that_of_the_verified_instructions() {
        if !can_run("the_number_stands_before_that_of_the_verified_instructions") {
            return;
        }
        let btf = Btf::from_sys_fs().expect("these tests need a kernel with BTF");
        let mut loaded = EbpfLoader::new().load(object!("relay")).expect("the object can be loaded");
        let Some(Program::BtfTracePoint(program)) = loaded.program_mut("relay") else { panic!("it has one") };
        let program: &mut BtfTracePoint = program;
        program.load("kfree_skb", &btf).expect("the verifier takes it");
        let info = info(program.fd().expect("it is loaded")).expect("the kernel tells of its programs");
        // A program of a few instructions that never ran. What stands behind them in that word is the id of the kernel's
        // types, which may be 0.
        let verified = info[RECURSION_MISSES + 1] & u64::from(u32::MAX);
        assert!((3..100).contains(&verified), "{info:?}");
        assert_eq!(info[RECURSION_MISSES], 0);
    }
}
