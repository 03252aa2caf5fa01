//! `netsonde probes`: what runs on this kernel, and if not, why.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use netsonde_config::Wanted;
use netsonde_framework::{HookState, HookStatus, Limits, ProbeInfo};
use netsonde_probes::os::{Host, Paths};
use serde_json::{Value, json};

use crate::cli::Output;
use crate::discovery::Discovery;
use crate::http::WITHIN;
use crate::parts;
use crate::supervisor::{Gathered, Record, State, Supervisor};

/// Starts every probe with its defaults, collects once, and tells how each fared.
pub fn report(output: Output) -> anyhow::Result<String> {
    let (host, _) = Host::new(Paths::default()).context("cannot look at this machine")?;
    let catalogue = Arc::new(parts::catalogue(&host));
    let discovery = Discovery::new(host).context("cannot look for network namespaces")?;
    let all: Vec<Wanted> =
        catalogue.probes().map(|p| Wanted { name: p.name.into(), args: json!({}) }).collect();
    let mut supervisor = Supervisor::new(catalogue, discovery, Arc::default());
    supervisor.reconcile(&all, Limits::default()).map_err(anyhow::Error::msg)?;
    let Gathered { topology, .. } = supervisor.gather(std::time::Instant::now() + WITHIN);
    let rows: Vec<Row<'_>> = supervisor.records().collect();
    Ok(match output {
        Output::Text => text(&rows, topology.len()),
        Output::Json => format!("{:#}\n", Value::Array(rows.iter().map(entry).collect())),
    })
}

type Row<'a> = (&'static ProbeInfo, &'a State, &'a Record, Vec<HookStatus>);

fn text(rows: &[Row<'_>], namespaces: usize) -> String {
    let width = rows.iter().map(|(info, ..)| info.name.len()).max().unwrap_or_default();
    let mut out = String::new();
    for (info, state, record, hooks) in rows {
        let why = state.reason().or(record.last_error.as_deref()).unwrap_or(info.about);
        let _ = writeln!(out, "{:width$}  {:11}  {:5} series  {why}", info.name, state.text(), record.series);
        // What this kernel lacks is no fault; these are.
        for hook in hooks {
            if let HookState::Failed(why) | HookState::Silent(why) = &hook.state {
                let _ = writeln!(out, "{:width$}  {}: {}: {why}", "", hook.name, hook.state.text());
            }
        }
    }
    let running = rows.iter().filter(|(_, state, ..)| **state == State::Running).count();
    let _ = writeln!(out, "{running} of {} probes run here, on {namespaces} network namespaces", rows.len());
    out
}

fn entry((info, state, record, hooks): &Row<'_>) -> Value {
    let metrics: Vec<Value> = info
        .metrics
        .iter()
        .map(|def| {
            json!({
                "name": (!def.reference_only).then(|| format!("netsonde_{}", def.name)),
                "type": def.kind.text(),
                "labels": def.labels.iter().map(|l| l.name).collect::<Vec<_>>(),
                "reference": def.reference.map(|r| r.name),
            })
        })
        .collect();
    let hooks: Vec<Value> = hooks
        .iter()
        .map(|hook| json!({ "name": hook.name, "state": hook.state.text(), "how": hook.state.how() }))
        .collect();
    json!({
        "name": info.name,
        "aliases": info.aliases,
        "about": info.about,
        "state": state.text(),
        "reason": state.reason(),
        "last_error": record.last_error,
        "series": record.series,
        "hooks": hooks,
        "default_on": info.default_on,
        "needs": info.needs,
        "metrics": metrics,
        "events": info.events.iter().map(|e| e.name).collect::<Vec<_>>(),
    })
}
