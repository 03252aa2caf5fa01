//! How the C library keeps memory.

/// Makes all threads allocate from one heap. Called once, before any thread is started.
///
/// glibc gives each thread a heap of its own, and never gives back what lies at the end of one. A probe's thread needs
/// tens of megabytes for a moment when it loads its programs, and then nearly nothing; probes work one at a time, so
/// they do not wait for each other here.
///
/// What is larger than a mebibyte, which is little more than the pages that are served, is given back to the kernel as
/// soon as it is freed; without a fixed bound glibc raises it to the largest page so far and keeps that much.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt sets a number in the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}
