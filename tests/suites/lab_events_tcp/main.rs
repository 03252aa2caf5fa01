//! What events tell of TCP faults that are provoked a known number of times: as many as the counters and as somebody
//! else counts, within a second, with the right pod, both ends and the kernel's reason; and for what was sent again,
//! where and why it was dropped.

mod lab;
mod resets;
mod retransmissions;
