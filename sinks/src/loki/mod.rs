//! `loki`: pushes events to Loki.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{SinkSpec, schema};

/// The description of this sink.
pub static SPEC: SinkSpec =
    SinkSpec { name: "loki", about: "Loki, through its push endpoint", settings: schema::<Settings> };

/// Where to and as whom.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The whole address of the push endpoint, for example `http://loki:3100/loki/api/v1/push`.
    #[schemars(length(min = 1))]
    pub url: String,
    /// The tenant (`X-Scope-OrgID`), for a Loki that has several. Default none.
    #[serde(default)]
    pub tenant: Option<String>,
}
