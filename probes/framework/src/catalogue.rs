//! Everything netsonde can do, in one list: probes, metrics, events; and the rules that their names follow.
//!
//! Documentation, configuration, `netsonde probes` and the checks of dashboards all read this.

use std::collections::HashMap;

use crate::metric::MetricDef;
use crate::probe::{ProbeInfo, ProbeSpec, StartError, Started};

type Start = Box<dyn Fn(&serde_json::Value) -> Started + Send + Sync>;

struct Entry {
    info: &'static ProbeInfo,
    start: Start,
}

/// The probes of this build, with what it takes to start one.
#[derive(Default)]
pub struct Catalogue {
    entries: Vec<Entry>,
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|e| e.info.name)).finish()
    }
}

impl Catalogue {
    /// Adds the probes of one crate, which share `resources`.
    #[must_use]
    pub fn with<R: Clone + Send + Sync>(
        mut self,
        specs: &'static [&'static ProbeSpec<R>],
        resources: &R,
    ) -> Self {
        for spec in specs {
            let resources = resources.clone();
            self.entries.push(Entry {
                info: &spec.info,
                start: Box::new(move |args| (spec.start)(args, &resources)),
            });
        }
        self.entries.sort_by_key(|e| e.info.name);
        self
    }

    /// All probes, by name.
    pub fn probes(&self) -> impl Iterator<Item = &'static ProbeInfo> {
        self.entries.iter().map(|e| e.info)
    }

    /// The probe with this name or alias.
    pub fn find(&self, name: &str) -> Option<&'static ProbeInfo> {
        self.probes().find(|p| p.name == name || p.aliases.contains(&name))
    }

    /// Builds a probe.
    pub fn start(&self, name: &str, args: &serde_json::Value) -> Started {
        let entry = self
            .entries
            .iter()
            .find(|e| e.info.name == name)
            .ok_or_else(|| StartError::Settings(format!("there is no probe {name}")))?;
        (entry.start)(args)
    }

    /// What is wrong with the names in here; empty when all is well.
    pub fn lint(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for probe in self.probes() {
            for def in probe.metrics {
                remarks.extend(lint(probe.name, def));
                let names = [(!def.reference_only).then_some(def.name), def.reference.map(|r| r.name)];
                for name in names.into_iter().flatten() {
                    if let Some(other) = seen.insert(name, probe.name) {
                        remarks.push(format!("{name}: declared by {other} and again by {}", probe.name));
                    }
                }
            }
        }
        remarks
    }
}

const FORBIDDEN_ENDINGS: &[&str] = &["_total", "_count", "_sum", "_bucket", "_info", "_created"];
const NOT_BASE_UNITS: &[&str] = &[
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "ms",
    "us",
    "ns",
    "minutes",
    "hours",
    "kilobytes",
    "kb",
    "mb",
    "percent",
];
const RESERVED_LABELS: &[&str] = &["job", "instance", "le", "quantile"];

fn lint(probe: &str, def: &MetricDef) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut say = |what: String| remarks.push(format!("{}: {what}", def.name));
    let plain = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_lowercase())
            && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    if !plain(def.name) || def.name.contains("__") {
        say("not lower case with single underscores".into());
    }
    if !def.name.strip_prefix(probe).is_some_and(|rest| rest.starts_with('_')) {
        say(format!("does not begin with its probe's name, {probe}_"));
    }
    if let Some(ending) = FORBIDDEN_ENDINGS.iter().find(|e| def.name.ends_with(*e)) {
        say(format!("ends with {ending}, which the exposition format keeps for itself"));
    }
    for word in def.name.split('_') {
        if NOT_BASE_UNITS.contains(&word) {
            say(format!("\"{word}\" is not a base unit"));
        }
        if word == def.kind.text() {
            say("has its type in its name".into());
        }
    }
    if def.help.is_empty() || !def.help.ends_with('.') || def.help.contains('\n') {
        say("help text is not one line that ends with a full stop".into());
    }
    if def.source.is_empty() {
        say("does not say where in the kernel the value comes from".into());
    }
    for label in def.labels {
        if !plain(label.name) || RESERVED_LABELS.contains(&label.name) || label.name.starts_with("target_") {
            say(format!("label {} is not allowed", label.name));
        }
    }
    if let Some(reference) = def.reference
        && !reference.name.starts_with("kubeskoop_")
    {
        say(format!("reference name {} does not begin with kubeskoop_", reference.name));
    }
    if def.reference_only && def.reference.is_none() {
        say("is for the reference only and has no reference name".into());
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{Counter, Gauge};

    static GOOD: Counter<()> = Counter::new("tcp_in_segs", "Segments received.").source("x");
    static BAD: Gauge<()> = Gauge::new("udp_Wait_ms_total", "Waiting");

    #[test]
    fn good_names_pass_and_bad_ones_are_named() {
        assert_eq!(lint("tcp", &GOOD.def), Vec::<String>::new());
        let remarks = lint("tcp", &BAD.def);
        assert_eq!(remarks.len(), 6, "{remarks:#?}");
    }
}
