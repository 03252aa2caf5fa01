//! The configuration file of netsonde: one YAML file, read as a whole or refused as a whole.
//!
//! The exporter says which probes and sinks exist ([`Known`]), calls [`load`], and keeps a [`Watch`] on the file.
//! `load` reports every problem of a file at once, each with line, column and key. Nothing here starts or stops
//! anything, and nothing here reads a file but [`load`], [`load_web`] and [`Watch`].
//!
//! The way of a file: bytes -> `yaml` (a tree with positions) -> `validate` (against the JSON Schema)
//! and `rules` (what a schema cannot say) -> `model` (typed). The schema made from the model's doc comments
//! is the single truth: the checks, the reference page and the example file all come from it.

mod duration;
mod example;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod hostile;
mod known;
mod load;
mod model;
mod nearest;
mod parse;
mod reference;
mod report;
mod rules;
mod scalar;
mod schema;
mod tree;
mod validate;
mod watch;
mod web;
mod words;
mod yaml;

pub use duration::{parse as parse_duration, show as show_duration};
pub use example::example;
pub use known::{Known, Part};
pub use load::{LoadError, SIZE_LIMIT, load};
pub use model::{Config, Discovery, Events, LabelNames, Limits, Metrics, Names, Paths, Wanted};
pub use parse::parse;
pub use reference::reference;
pub use report::{Problem, Report};
pub use schema::schema;
pub use watch::{Watch, WatchError};
pub use web::{CIPHER_SUITES, CURVES, ClientAuth, HttpServer, Tls, TlsVersion, Web, load_web};
