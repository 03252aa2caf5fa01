//! `/status`: what the agent does right now, as JSON.

use std::sync::{Arc, PoisonError};

use netsonde_framework::HookStatus;
use netsonde_sinks::Counts;
use serde_json::{Value, json};

use crate::discovery::{cluster, cri::Record};
use crate::http::WebState;
use crate::reload::Agent;

#[derive(Clone)]
pub struct Status {
    pub agent: Arc<Agent>,
}

impl Status {
    pub fn json(&self) -> String {
        let agent = &self.agent;
        let probes: Vec<Value> = agent
            .supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .records()
            .map(|(info, state, record, hooks)| {
                json!({
                    "name": info.name,
                    "state": state.text(),
                    "reason": state.reason(),
                    "series": record.series,
                    "refused_series": record.refused,
                    "collect_seconds": record.wall.as_secs_f64(),
                    "last_error": record.last_error,
                    "hooks": hooks.iter().map(hook).collect::<Vec<_>>(),
                })
            })
            .collect();
        let topology = agent.discovery.topology();
        let namespaces: Vec<Value> = topology
            .owners()
            .map(|(_, ns)| {
                json!({
                    "namespace": ns.identity.namespace,
                    "pod": ns.identity.pod,
                    "origin": ns.origin.text(),
                    "inode": ns.inode,
                    "cookie": ns.key.0,
                    "processes": ns.processes.len(),
                    "uid": ns.pod.as_ref().map(|pod| &pod.uid),
                    "workload": ns.pod.as_ref().and_then(|pod| pod.workload.as_ref()),
                    "addresses": ns.pod.as_ref().map(|pod| &pod.addresses),
                })
            })
            .collect();
        let last = agent.discovery.last();
        let style = Arc::clone(&agent.style.lock().unwrap_or_else(PoisonError::into_inner));
        let reloads = agent.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        let status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "node": style.node,
            "kernel": rustix::system::uname().release().to_string_lossy(),
            "config": {
                "file": agent.file,
                "in_force": reloads.problem.is_none(),
                "problem": reloads.problem,
                "taken": reloads.taken,
                "refused": reloads.refused,
                "taken_at": reloads.taken_at,
            },
            "web_config": web(&agent.tally.web()),
            "probes": probes,
            "sinks": agent.outlets.counts().iter().map(|(name, counts)| sink(name, counts)).collect::<Vec<_>>(),
            "runtime": agent.discovery.runtime().map(|runtime| asked(&runtime.record(), last.notes.missing)),
            "cluster": agent.discovery.cluster().record().map(|record| watched(&record)),
            "namespaces": namespaces,
            "unreadable": {
                "namespaces": last.unreadable.namespaces,
                "processes": last.unreadable.processes,
                "why": last.unreadable.why,
            },
        });
        format!("{status:#}\n")
    }
}

fn asked(runtime: &Record, missing: usize) -> Value {
    json!({
        "state": if runtime.connected { "connected" } else { "not connected" },
        "socket": runtime.socket,
        "name": runtime.name,
        "version": runtime.version,
        "events": runtime.events,
        "sandboxes": runtime.sandboxes.len(),
        "sandboxes_without_namespace": missing,
        "age_seconds": runtime.listed.map(|at| at.elapsed().as_secs_f64()),
        "last_error": runtime.last_error,
    })
}

/// `null` where nobody asks for the pods of other nodes.
fn watched(cluster: &cluster::Record) -> Value {
    json!({
        "state": if cluster.connected { "connected" } else { "not connected" },
        "server": cluster.server,
        "pods": cluster.pods,
        "refused_pods": cluster.refused,
        "lists": cluster.lists,
        "age_seconds": cluster.heard.map(|at| at.elapsed().as_secs_f64()),
        "last_error": cluster.last_error,
    })
}

/// `null` where no web configuration file is in use.
fn web(web: &WebState) -> Value {
    let WebState { file, taken, refused, taken_at, problem } = web;
    match file {
        None => Value::Null,
        Some(file) => json!({
            "file": file,
            "in_force": problem.is_none(),
            "problem": problem,
            "taken": taken,
            "refused": refused,
            "taken_at": taken_at,
        }),
    }
}

fn sink(name: &str, counts: &Counts) -> Value {
    let dropped: serde_json::Map<String, Value> =
        counts.dropped.iter().map(|(reason, count)| ((*reason).to_owned(), (*count).into())).collect();
    json!({
        "name": name,
        "state": if counts.failing { "failing" } else { "delivering" },
        "last_error": counts.last_error,
        "buffer_error": counts.buffer_error,
        "last_success": counts.last_success,
        "received": counts.received,
        "delivered": counts.delivered,
        "dropped": dropped,
        "queued": counts.queued(),
        "retries": counts.retries,
    })
}

fn hook(hook: &HookStatus) -> Value {
    json!({
        "name": hook.name,
        "state": hook.state.text(),
        "how": hook.state.how(),
        "rungs": hook.rungs,
        "rung": hook.rung,
        "missed": hook.missed,
    })
}
