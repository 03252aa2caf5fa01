//! What a file may name: the probes and sinks that this build contains.
//!
//! The exporter fills [`Known`] from its catalogue; this crate has no list of its own.

use serde_json::Value;

/// One probe or one sink, with what its `args` may hold.
#[derive(Debug, Clone)]
pub struct Part {
    /// The name in the file, in the `probe` label and in the documentation.
    pub name: &'static str,
    /// Other spellings that a file may use; a parsed file always holds `name`.
    pub aliases: &'static [&'static str],
    /// Whether it runs when the file has no list. Of use for probes only.
    pub default_on: bool,
    /// One line on what it tells an operator.
    pub about: &'static str,
    /// JSON Schema (2020-12) of `args`: an object, with its own `$defs` if it needs them.
    pub schema: Value,
}

/// Every probe and sink of this build.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The probes, in the order in which the documentation lists them.
    pub probes: Vec<Part>,
    /// The sinks, in the order in which the documentation lists them.
    pub sinks: Vec<Part>,
}

impl Part {
    /// The name and the aliases.
    pub(crate) fn spellings(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// The part that is spelled `name`, by its name or by an alias.
pub(crate) fn find<'k>(parts: &'k [Part], name: &str) -> Option<&'k Part> {
    parts.iter().find(|part| part.spellings().any(|spelling| spelling == name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn part_is_found_by_name_and_by_alias() {
        let known = fixture::known();
        assert_eq!(find(&known.probes, "softirq").map(|p| p.name), Some("net_softirq"));
        assert_eq!(find(&known.probes, "net_softirq").map(|p| p.name), Some("net_softirq"));
        assert!(find(&known.probes, "stdout").is_none());
    }
}
