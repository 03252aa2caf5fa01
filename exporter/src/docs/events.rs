//! docs/reference/events.md.

use std::fmt::Write as _;

use netsonde_framework::event::{COMMON, SUPPRESSED};
use netsonde_framework::{Catalogue, FieldDef, Form};

use super::cell;

const HEAD: &str = "\
# Events

Made by `make docs` from the code; do not edit. `netsonde schema --events` prints the same as a JSON Schema.

An event is one flat JSON object: the fields of the first table, then those of its type, then `suppressed`. A field
whose value is unknown is left out. Events are a sample, counters are exact: what the limits hold back is counted
(`suppressed` in the next event of the same kind, and in metrics).

Events go to the sinks of the configuration, to `GET /events` (server-sent events; `last=N`, `follow=false`, `pod=`,
`namespace=`, `probe=` and `type=` narrow it down) and so to `netsonde events`.

## Common fields
";

/// The page.
pub fn page(catalogue: &Catalogue) -> String {
    let mut out = String::from(HEAD);
    table(&mut out, COMMON.iter().chain([&SUPPRESSED]));
    for probe in catalogue.probes().filter(|p| !p.events.is_empty()) {
        let _ = write!(out, "\n## {}\n", probe.name);
        for event in probe.events {
            let severity = event.severity.text();
            let _ = write!(out, "\n### {}\n\n{} Severity: {severity}.\n", event.name, event.help);
            table(&mut out, event.fields.iter());
        }
    }
    out
}

fn table<'a>(out: &mut String, fields: impl Iterator<Item = &'a FieldDef>) {
    out.push_str("\n| field | holds | meaning |\n|---|---|---|\n");
    for field in fields {
        let form = match field.form {
            Form::Text => "text",
            Form::Number => "number",
            Form::Flag => "true or false",
            Form::Texts => "list of texts",
        };
        let _ = writeln!(out, "| `{}` | {form} | {} |", field.name, cell(field.help));
    }
}
