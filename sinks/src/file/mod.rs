//! `file`: one JSON object a line, with rotation.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{SinkSpec, schema};

/// The description of this sink.
pub static SPEC: SinkSpec = SinkSpec {
    name: "file",
    about: "one JSON object a line in a file that is rotated",
    settings: schema::<Settings>,
};

/// Where to and how much.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file. Its folder must exist.
    #[schemars(length(min = 1))]
    pub path: String,
    /// Begin a new file when this one has so many bytes. Default 104857600 (100 MiB).
    #[serde(default = "max_bytes")]
    #[schemars(range(min = 4096))]
    pub max_bytes: u64,
    /// How many old files are kept. Default 5.
    #[serde(default = "keep")]
    #[schemars(range(max = 1000))]
    pub keep: u32,
}

fn max_bytes() -> u64 {
    100 << 20
}

fn keep() -> u32 {
    5
}
