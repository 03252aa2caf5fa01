//! The metrics of `io`: what the processes of a namespace read and wrote, summed over processes that come and go.

netsonde_framework::metrics! {
    /// System calls that read: read(), pread(), readv() and their like, on files and sockets alike.
    READ_SYSCALLS: Counter<()> = "io_read_syscalls".reference("kubeskoop_io_ioreadsyscall").source("/proc/PID/io syscr");
    /// System calls that wrote: write(), pwrite(), writev() and their like, on files and sockets alike.
    WRITE_SYSCALLS: Counter<()> = "io_write_syscalls".reference("kubeskoop_io_iowritesyscall").source("/proc/PID/io syscw");
    /// Bytes that were fetched from storage.
    STORAGE_READ: Counter<()> = "io_storage_read_bytes".reference("kubeskoop_io_ioreadbytes").source("/proc/PID/io read_bytes");
    /// Bytes that were sent to storage, or will be: pages that were made dirty.
    STORAGE_WRITE: Counter<()> = "io_storage_write_bytes".reference("kubeskoop_io_iowritebytes").source("/proc/PID/io write_bytes");
    /// Bytes of dirty pages that never reached storage, because the file was truncated or removed before.
    STORAGE_CANCELLED: Counter<()> = "io_storage_cancelled_write_bytes".source("/proc/PID/io cancelled_write_bytes");
    /// Bytes that reading system calls returned, from the page cache, pipes and terminals too.
    SYSCALL_READ: Counter<()> = "io_syscall_read_bytes".source("/proc/PID/io rchar");
    /// Bytes that were handed to writing system calls, for the page cache, pipes and terminals too.
    SYSCALL_WRITE: Counter<()> = "io_syscall_write_bytes".source("/proc/PID/io wchar");
    /// Processes whose I/O may not be read; what they do is in none of the counters.
    UNREADABLE: Gauge<()> = "io_processes_unreadable".source("/proc/PID/io EACCES");
}
