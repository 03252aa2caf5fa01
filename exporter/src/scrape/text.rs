//! The older text format, for scrapers that do not ask for OpenMetrics.
//!
//! Only the comments differ: 0.0.4 names a counter's family with `_total`, calls `unknown` `untyped`, and has
//! neither `# UNIT` nor `# EOF`.

use std::fmt::Write as _;

/// The same page in format 0.0.4.
pub fn from_openmetrics(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut help: Option<(&str, &str)> = None;
    for line in page.split_inclusive('\n') {
        let Some(comment) = line.strip_prefix("# ") else {
            out.push_str(line);
            continue;
        };
        let mut words = comment.trim_end_matches('\n').splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("HELP"), Some(name), text) => help = Some((name, text.unwrap_or_default())),
            (Some("TYPE"), Some(name), Some(kind)) => {
                let (ending, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                if let Some((_, text)) = help.take().filter(|(of, _)| *of == name) {
                    let _ = writeln!(out, "# HELP {name}{ending} {text}");
                }
                let _ = writeln!(out, "# TYPE {name}{ending} {kind}");
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_rewritten_and_samples_are_not() {
        let page = "# HELP a_b Things done.\n# TYPE a_b counter\na_b_total{x=\"# TYPE\"} 1\n\
                    # HELP c Size.\n# TYPE c gauge\nc 2\n# HELP d Raw.\n# TYPE d unknown\nd 3\n# EOF\n";
        let text = "# HELP a_b_total Things done.\n# TYPE a_b_total counter\na_b_total{x=\"# TYPE\"} 1\n\
                    # HELP c Size.\n# TYPE c gauge\nc 2\n# HELP d Raw.\n# TYPE d untyped\nd 3\n";
        assert_eq!(from_openmetrics(page), text);
    }
}
