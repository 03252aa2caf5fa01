//! How often the kernel passed over a program: one that is interrupted by its own tracepoint or function on the same CPU is
//! not run for the inner one.

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::programs::ProgramFd;

use super::maps::bpf;

const OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// `struct bpf_prog_info` as far as Linux 5.12 has it, where `recursion_misses` came to be its last member.
const WORDS: usize = 27;
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
    // Zeros: none of the lists that the kernel would fill in is asked for.
    let mut info = [0u64; WORDS];
    let mut attr = GetInfo {
        program: program.as_fd().as_raw_fd().unsigned_abs(),
        length: u32::try_from(size_of_val(&info)).expect("a few hundred bytes"),
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: `attr` has the layout of this command; it points to as many bytes as it says, which outlive the call.
    let answer = unsafe { bpf(OBJ_GET_INFO_BY_FD, (&raw mut attr).cast(), size_of::<GetInfo>()) };
    answer.map_or(0, |_| info[RECURSION_MISSES])
}
