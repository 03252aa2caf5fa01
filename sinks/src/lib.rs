//! Where events go. This crate knows the settings of each sink; a configuration that names one is checked whole.
//!
//! A folder each, like the probes.

pub mod file;
pub mod loki;
pub mod stdout;

/// A sink's name and settings.
#[derive(Debug)]
pub struct SinkSpec {
    /// Folder and configuration key.
    pub name: &'static str,
    /// One line: where events go.
    pub about: &'static str,
    /// JSON Schema of its `args`.
    pub settings: fn() -> serde_json::Value,
}

/// Every sink.
pub static SPECS: &[&SinkSpec] = &[&file::SPEC, &loki::SPEC, &stdout::SPEC];

fn schema<T: schemars::JsonSchema>() -> serde_json::Value {
    schemars::schema_for!(T).into()
}
