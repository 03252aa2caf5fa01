//! The settings of `tcpext`.

use netsonde_framework::Fields;
use schemars::JsonSchema;
use serde::Deserialize;

/// The settings of `tcpext`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// Which fields of TcpExt have series: `default` (46 that tell of faults), `all` (what the kernel has, 135 in
    /// Linux 6.18), or a list of up to 256 names as the kernel spells them in /proc/net/netstat, for example
    /// `[ListenOverflows, TCPTimeouts]`. A field that the kernel does not have gives no series. Each field is one
    /// series for each namespace. Default: `default`.
    pub(super) fields: Fields,
}

#[cfg(test)]
mod tests {
    use netsonde_framework::setting::schema;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_schema_offers_both_forms_and_the_default() {
        let schema = schema::<Settings>();
        let fields = &schema["properties"]["fields"];
        assert_eq!(fields["anyOf"][0]["enum"], json!(["default", "all"]));
        assert_eq!(fields["anyOf"][1]["items"]["type"], "string");
        assert_eq!(fields["default"], "default");
        assert!(fields["description"].is_string());
    }
}
