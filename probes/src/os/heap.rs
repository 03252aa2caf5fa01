//! How the C library keeps memory.

/// Eight mebibytes: the page of about 60,000 series.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 8 << 20;

/// Makes all threads allocate from one heap. Called once, before any thread is started.
///
/// glibc gives each thread a heap of its own, and never gives back what lies at the end of one. A probe's thread needs
/// tens of megabytes for a moment when it loads its programs, and then nearly nothing; probes work one at a time, so
/// they do not wait for each other here.
///
/// Up to [`KEPT`] bytes of what is freed stay for the next scrape, so that the page of a usual node is not faulted in
/// anew each time; a larger page is given back to the kernel at once. Without fixed bounds glibc would raise them to
/// twice the largest page so far.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt sets a number in the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}
