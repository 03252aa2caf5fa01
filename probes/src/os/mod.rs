//! The kernel as the probes see it: files of /proc, netlink, network namespaces.
//!
//! This is the only place of the crate with `unsafe`, and the only one that enters namespaces.

mod addresses;
mod enter;
pub mod heap;
mod host;
pub mod link;
pub mod mib;
mod names;
pub mod netlink;
mod netns;
pub mod process;
mod processes;
mod scan;
#[cfg(test)]
pub(crate) mod testing;
mod watch;

pub use host::{Host, Paths, Unreadable};
pub use netns::{NetFile, Netns};
pub use scan::{Found, Scan};
pub use watch::Changes;
