//! From what a probe saw to what every sink and reader gets.
//!
//! A probe's thread drains its events into its [`Desk`], which labels each with its pod, writes it once as JSON and
//! hands it to the [`Bus`]. The bus keeps the last ones, and passes each on to the sinks and to who listens on
//! `/events`; none of these can hold a probe up.

mod bus;
mod desk;
mod json;
mod peers;
pub mod schema;
pub mod stream;
pub mod watch;

pub use bus::{Bus, Limits, Receiver};
pub use desk::Desk;
pub use peers::Peers;
