//! The reference, made from the catalogue so that it cannot differ from the code.

pub mod events;
pub mod metrics;
pub mod probes;
pub mod rights;

/// Text for one cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
