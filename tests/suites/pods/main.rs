//! Pods from a real container runtime: containerd makes sandboxes, and the agent names them.

mod churn;
mod host_network;
mod kit;
mod names;
mod outage;

use netsonde_tests::{Agent, Containerd};
use serde_json::Value;

/// An agent that asks this runtime.
fn agent(containerd: &Containerd, config: &str) -> Agent {
    let socket = containerd.socket();
    Agent::start(&format!("node_name: lab\ndiscovery: {{cri: {}}}\n{config}", socket.display()))
}

/// The row of a pod in `/status`.
fn pod(status: &Value, namespace: &str, name: &str) -> Option<Value> {
    let rows = status["namespaces"].as_array()?;
    rows.iter().find(|row| row["namespace"] == namespace && row["pod"] == name).cloned()
}
