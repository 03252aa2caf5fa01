//! `netsonde docs rights`: the capabilities that the agent and each probe need, as YAML for the Helm chart and the tests.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use netsonde_framework::Catalogue;

/// What the agent needs whichever probes run: to find the namespaces of processes, and to enter them.
const AGENT: &[&str] = &["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"];

/// The page.
pub fn page(catalogue: &Catalogue) -> String {
    let mut out = String::from(
        "# The Linux capabilities that the agent and each probe need, from `netsonde docs rights`; do not edit.\n\
         # What the agent needs whichever probes run, to find network namespaces and to enter them.\n",
    );
    let _ = writeln!(out, "agent: [{}]", list(&AGENT.join(" ")));
    out.push_str("# Those that run when the configuration names none.\n");
    let on: Vec<_> = catalogue.probes().filter(|p| p.default_on).map(|p| p.name).collect();
    let _ = writeln!(out, "default: [{}]", on.join(", "));
    out.push_str(
        "# What each needs beyond the agent's, by every name that a configuration may use.\nprobes:\n",
    );
    for probe in catalogue.probes() {
        let needs = list(&probe.needs.join("\n"));
        for name in std::iter::once(&probe.name).chain(probe.aliases) {
            let _ = writeln!(out, "  {name}: [{needs}]");
        }
    }
    out
}

/// The capabilities that a text names, without `CAP_`, as Kubernetes writes them.
fn list(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    let names: BTreeSet<_> = words.filter_map(|word| word.strip_prefix("CAP_")).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_out_of_sentences() {
        assert_eq!(list("CAP_BPF and CAP_PERFMON\nCAP_SYSLOG for names, CAP_BPF"), "BPF, PERFMON, SYSLOG");
        assert_eq!(list("kernel with BTF (CONFIG_DEBUG_INFO_BTF), 5.15 or later"), "");
    }
}
