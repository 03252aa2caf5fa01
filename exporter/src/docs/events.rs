//! docs/reference/events.md.

use std::fmt::Write as _;

use netsonde_framework::Catalogue;

use super::cell;

/// The page.
pub fn page(catalogue: &Catalogue) -> String {
    let mut out = String::from("# Events\n\nMade by `make docs` from the code; do not edit.\n");
    let mut any = false;
    for probe in catalogue.probes().filter(|p| !p.events.is_empty()) {
        any = true;
        let _ =
            write!(out, "\n## {}\n\n| type | severity | meaning | fields |\n|---|---|---|---|\n", probe.name);
        for event in probe.events {
            let severity = event.severity.text();
            let fields: Vec<String> =
                event.fields.iter().map(|f| format!("`{}`: {}", f.name, cell(f.help))).collect();
            let _ = writeln!(
                out,
                "| `{}` | {severity} | {} | {} |",
                event.name,
                cell(event.help),
                fields.join("; ")
            );
        }
    }
    if !any {
        out.push_str("\nNo probe of this build makes events: those that do read the kernel through eBPF.\n");
    }
    out
}
