//! `stdout`: one JSON object a line. Logs go to stderr.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{SinkSpec, schema};

/// The description of this sink.
pub static SPEC: SinkSpec =
    SinkSpec { name: "stdout", about: "one JSON object a line on stdout", settings: schema::<Settings> };

/// It has no settings.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {}
