//! How the C library keeps memory.

/// Makes all threads allocate from one heap. Called once, before any thread is started.
///
/// glibc gives each thread a heap of its own, and never gives back what lies at the end of one. A probe's thread needs
/// tens of megabytes for a moment when it loads its programs, and then nearly nothing; probes work one at a time, so
/// they do not wait for each other here.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt sets a number in the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
