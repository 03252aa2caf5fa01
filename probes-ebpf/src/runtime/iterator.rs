//! BPF iterators: a program that the kernel runs once for each object of a kind, whenever user space asks.
//!
//! aya attaches those that walk over everything; one that walks over a map of ours needs to be told the map.

use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::maps::bpf;

const LINK_CREATE: libc::c_int = 28;
const ITER_CREATE: libc::c_int = 33;
const TRACE_ITER: u32 = 28;
/// The kernel gives up after a million objects without output, and goes on when asked again.
const MOST_READS: usize = 64;

/// A program of this kind, attached and ready to run.
#[derive(Debug)]
pub struct Walk {
    link: OwnedFd,
}

/// `union bpf_attr` for BPF_LINK_CREATE of an iterator.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    kind: u32,
    flags: u32,
    info: u64,
    info_length: u32,
    unused: u32,
}

/// `union bpf_attr` for BPF_ITER_CREATE.
#[repr(C)]
struct IterCreate {
    link: u32,
    flags: u32,
}

/// `union bpf_iter_link_info` for a map, as long as it was when maps came to be walked.
#[repr(C)]
struct LinkInfo {
    map: u32,
}

impl Walk {
    /// Attaches a loaded program, to a map where its kind walks over one.
    pub(super) fn attach(program: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let info = map.map(|map| LinkInfo { map: map.as_raw_fd().unsigned_abs() });
        let mut attr = LinkCreate {
            program: program.as_raw_fd().unsigned_abs(),
            target: 0,
            kind: TRACE_ITER,
            flags: 0,
            info: info.as_ref().map_or(0, |info| std::ptr::from_ref(info) as u64),
            info_length: if info.is_some() { 4 } else { 0 },
            unused: 0,
        };
        // SAFETY: `attr` has the layout of this command; `info` points to as many bytes as `info_length` says, and
        // outlives the call.
        let link = unsafe { bpf(LINK_CREATE, (&raw mut attr).cast(), size_of::<LinkCreate>()) }?;
        Ok(Self { link: owned(link) })
    }

    /// Runs the program for each object that there is now.
    pub fn run(&self) -> io::Result<()> {
        let mut attr = IterCreate { link: self.link.as_raw_fd().unsigned_abs(), flags: 0 };
        // SAFETY: `attr` has the layout of this command and has no pointers.
        let walk = unsafe { bpf(ITER_CREATE, (&raw mut attr).cast(), size_of::<IterCreate>()) }?;
        let mut walk = std::fs::File::from(owned(walk));
        let mut output = [0; 64];
        for _ in 0..MOST_READS {
            match walk.read(&mut output) {
                Ok(0) => return Ok(()),
                Err(error)
                    if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    return Err(error);
                }
                _ => {}
            }
        }
        Err(io::Error::other("the kernel did not come to an end"))
    }
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
