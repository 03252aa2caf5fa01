//! What the suites share: namespaces with real traffic, a running agent, its page, and truth from elsewhere.
//!
//! Everything here panics when something does not work, with a message that says what was tried: a test has no other
//! way to go on. Whatever is made is removed again on drop, also after a panic.

pub mod agent;
pub mod apiserver;
pub mod containerd;
pub mod dashboards;
pub mod events;
pub mod faults;
pub mod histogram;
pub mod http;
pub mod images;
pub mod kernel;
pub mod lab;
pub mod logql;
pub mod loki;
pub mod manifests;
pub mod netns;
pub mod page;
pub mod pki;
pub mod prometheus;
pub mod promql;
pub mod records;
pub mod running;
pub mod shell;
pub mod skip;
pub mod truth;
pub mod wait;
pub mod worker;

pub use agent::Agent;
pub use containerd::Containerd;
pub use loki::Loki;
pub use netns::{Netns, Pair};
pub use page::Page;
pub use running::Running;
pub use wait::until;

/// The folder of fixtures.
pub fn fixtures() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Says something that is to be read although the test passes: libtest keeps back what the print macros write.
pub fn note(text: &str) {
    use std::io::Write as _;
    // Nobody reads it where stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "note: {text}");
}
