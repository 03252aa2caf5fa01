//! What the agent tells of itself: its probes, its namespaces, its configuration, its cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use netsonde_framework::{CollectError, Kind};
use netsonde_sinks::Counts;

use crate::discovery::Discovery;
use crate::discovery::cluster;
use crate::discovery::cri::{Network, Record};
use crate::events::Bus;
use crate::http::Tally;
use crate::outlets::Outlets;
use crate::reload::Reloads;
use crate::supervisor::{State, Supervisor};

/// The description of one of these metrics.
#[derive(Debug, Clone, Copy)]
pub struct OwnDef {
    /// Without prefix and `_total`; one that begins with `process_` has no prefix.
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub labels: &'static [&'static str],
}

macro_rules! own {
    ($($name:ident = $metric:literal, $kind:ident, [$($label:literal),*], $help:literal;)+) => {
        $(static $name: OwnDef = OwnDef { name: $metric, kind: Kind::$kind, help: $help, labels: &[$($label),*] };)+
        /// All of them, for the reference.
        pub static ALL: &[&OwnDef] = &[$(&$name),+];
    };
}

own! {
    BUILD_INFO = "build_info", Gauge, ["version", "node"], "Always 1; the labels tell the build and the node's name.";
    PROBE_STATE = "probe_state", Gauge, ["probe", "state"], "1 for the state that the probe is in: running, unsupported, failed or stuck.";
    PROBE_SUCCESS = "probe_success", Gauge, ["probe"], "1 when the last collection of the probe was whole.";
    PROBE_COLLECT = "probe_collect_seconds", Gauge, ["probe"], "How long the last collection of the probe took.";
    PROBE_CPU = "probe_collect_cpu_seconds", Counter, ["probe"], "CPU time of all collections of the probe.";
    PROBE_FAILURES = "probe_failures", Counter, ["probe", "reason"], "Collections of the probe that were not whole, by reason.";
    PROBE_RESTARTS = "probe_restarts", Counter, ["probe"], "How often the probe was started again after it broke.";
    PROBE_SERIES = "probe_series", Gauge, ["probe"], "Series that the probe gave to the last scrape.";
    PROBE_HOOK = "probe_hook_info", Gauge, ["probe", "hook", "state"], "Always 1; the labels tell what became of each place in the kernel that the probe wants: attached, unsupported, failed, or silent (attached, but it sees nothing of what must have come by).";
    PROBE_MISSED = "probe_hook_missed", Counter, ["probe", "hook"], "How often the kernel passed over a place that the probe has attached to, because the place came up on a CPU that was in a program there already. What was passed over is not counted.";
    PROBE_REFUSED = "probe_refused_series", Counter, ["probe"], "Series that were left out because the probe had reached metrics.limits.series_per_probe.";
    EVENTS = "events", Counter, ["probe", "type"], "Events that were told, to every sink and on /events.";
    EVENTS_SUPPRESSED = "events_suppressed", Counter, ["probe"], "Events that the agent held back because of the bounds in `events`; what the kernel side held back is in the probe's own metrics.";
    EVENTS_UNATTRIBUTED = "events_unattributed", Counter, ["probe"], "Events that were told without a pod, because their network namespace was unknown a second later still.";
    SINK_RECEIVED = "sink_received_events", Counter, ["sink"], "Events that the sink was given, and those that its disk buffer held at the start.";
    SINK_DELIVERED = "sink_delivered_events", Counter, ["sink"], "Events that the sink delivered.";
    SINK_DROPPED = "sink_dropped_events", Counter, ["sink", "reason"], "Events that the sink dropped, by reason.";
    SINK_RETRIES = "sink_retries", Counter, ["sink"], "How often a batch of the sink had to be sent again.";
    SINK_QUEUE = "sink_queue_events", Gauge, ["sink"], "Events that wait in the sink's memory.";
    SINK_QUEUE_BYTES = "sink_queue_bytes", Gauge, ["sink"], "Size of the events that wait in the sink's memory.";
    SINK_BUFFER = "sink_buffer_events", Gauge, ["sink"], "Events that wait in the sink's disk buffer.";
    SINK_BUFFER_BYTES = "sink_buffer_bytes", Gauge, ["sink"], "Size of the files of the sink's disk buffer.";
    SINK_SUCCESS = "sink_last_success_timestamp_seconds", Gauge, ["sink"], "When the sink last delivered, in seconds since 1970; absent before.";
    NAMESPACES = "namespaces", Gauge, ["origin"], "Network namespaces that are read, by where their name comes from.";
    UNREADABLE_NS = "namespaces_unreadable", Gauge, [], "Network namespaces that are known and cannot be entered.";
    UNREADABLE_PROCESSES = "processes_unreadable", Gauge, [], "Processes whose network namespace cannot be told; a namespace that has only such processes and no name is not found.";
    SCANS = "discovery_scans", Counter, [], "Searches for network namespaces.";
    SCAN_FAILURES = "discovery_failures", Counter, [], "Searches for network namespaces that failed; the last known ones stay.";
    SCAN_SECONDS = "discovery_scan_seconds", Gauge, [], "How long the last search for network namespaces took.";
    SCAN_AGE = "discovery_age_seconds", Gauge, [], "Time since the last search for network namespaces that worked.";
    RUNTIME_INFO = "runtime_info", Gauge, ["runtime", "version", "events"], "Always 1 where a container runtime has answered; the labels tell which, and whose events wake netsonde (containerd, cri or none).";
    RUNTIME_UP = "runtime_connected", Gauge, [], "1 while the container runtime answers; while it does not, the last known pods stay.";
    RUNTIME_AGE = "runtime_age_seconds", Gauge, [], "Time since the container runtime last gave a whole list of its pods.";
    RUNTIME_LISTS = "runtime_lists", Counter, [], "Lists of pods that the container runtime gave.";
    RUNTIME_FAILURES = "runtime_failures", Counter, ["call"], "Calls to the container runtime that failed, by what was asked: connect, events, list or status.";
    PODS = "pods", Gauge, ["network"], "Pods that the container runtime knows as ready, by whether they have a network of their own (own) or use the node's (host).";
    PODS_UNMATCHED = "pods_unmatched", Gauge, [], "Pods with a network of their own whose network namespace is not found.";
    CLUSTER_UP = "cluster_watch_connected", Gauge, [], "1 while the API server tells what becomes of the cluster's pods; absent without discovery.cluster_peers.";
    CLUSTER_PODS = "cluster_pods", Gauge, [], "Pods of the cluster with addresses of their own that are known by the API server.";
    CLUSTER_AGE = "cluster_age_seconds", Gauge, [], "Time since the API server last told anything; a quiet one does so about each minute.";
    CLUSTER_LISTS = "cluster_lists", Counter, [], "Whole lists of the cluster's pods that the API server gave.";
    CLUSTER_FAILURES = "cluster_failures", Counter, ["call"], "What the API server was asked for in vain: settings (token, certificates or address cannot be used), list or watch.";
    CLUSTER_REFUSED = "cluster_refused_pods", Counter, [], "How often a pod of the cluster found no room: 100000 are kept. Its address has no name in events.";
    SCRAPES = "scrapes", Counter, [], "Pages that were made.";
    SCRAPES_SHARED = "scrapes_shared", Counter, [], "Scrapes that got a page which another one had asked for.";
    GATHER_SECONDS = "scrape_gather_seconds", Gauge, [], "How long gathering the values of this page took.";
    RELOADS = "config_reloads", Counter, ["result"], "Configurations that were taken (ok) or refused (refused) since the start.";
    RELOAD_OK = "config_last_reload_successful", Gauge, [], "1 when the configuration file as it is now is in force.";
    RELOAD_TIME = "config_last_reload_success_timestamp_seconds", Gauge, [], "When a configuration was last taken, in seconds since 1970.";
    CONNECTIONS = "http_connections", Gauge, [], "Connections to the HTTP server that are open.";
    HTTP_REFUSED = "http_refused_connections", Counter, ["reason"], "Connections that were closed before they asked for anything: too_many, handshake (no TLS, or no good certificate), slow (nothing whole in time).";
    HTTP_DENIED = "http_denied_requests", Counter, ["reason"], "Requests that were denied: no_credentials, wrong_credentials, busy (too many passwords to check at once).";
    WEB_RELOADS = "web_config_reloads", Counter, ["result"], "Web configurations that were taken (ok) or refused (refused); absent without one.";
    WEB_OK = "web_config_last_reload_successful", Gauge, [], "1 when the web configuration file and the files that it names are in force as they are now; absent without one.";
    WEB_TIME = "web_config_last_reload_success_timestamp_seconds", Gauge, [], "When a web configuration was last taken, in seconds since 1970; absent without one.";
    CPU = "process_cpu_seconds", Counter, [], "CPU time of the agent, user and system.";
    RSS = "process_resident_memory_bytes", Gauge, [], "Memory of the agent that is in RAM.";
    VSZ = "process_virtual_memory_bytes", Gauge, [], "Address space of the agent.";
    FDS = "process_open_fds", Gauge, [], "Open file descriptors of the agent.";
    MAX_FDS = "process_max_fds", Gauge, [], "The most file descriptors that the agent may open.";
    THREADS = "process_threads", Gauge, [], "Threads of the agent.";
    STARTED = "process_start_time_seconds", Gauge, [], "When the agent started, in seconds since 1970.";
}

type Rows = Vec<(Vec<(&'static str, String)>, f64)>;

/// One of these metrics with its values.
#[derive(Debug)]
pub struct OwnFamily {
    pub def: &'static OwnDef,
    pub name: String,
    pub rows: Rows,
}

/// Where the values come from.
pub struct SelfMetrics {
    discovery: Discovery,
    reloads: Arc<Mutex<Reloads>>,
    bus: Arc<Bus>,
    outlets: Option<Arc<Outlets>>,
    tally: Option<Arc<Tally>>,
    scrapes: AtomicU64,
    shared: AtomicU64,
}

impl SelfMetrics {
    pub fn new(discovery: Discovery, reloads: Arc<Mutex<Reloads>>, bus: Arc<Bus>) -> Self {
        let (scrapes, shared) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { discovery, reloads, bus, outlets: None, tally: None, scrapes, shared }
    }

    /// With the sinks of a running agent.
    pub fn with_sinks(self, outlets: Arc<Outlets>) -> Self {
        Self { outlets: Some(outlets), ..self }
    }

    /// With what the server of a running agent counts.
    pub fn with_server(self, tally: Arc<Tally>) -> Self {
        Self { tally: Some(tally), ..self }
    }

    pub fn scraped(&self) {
        self.scrapes.fetch_add(1, Ordering::Relaxed);
    }

    pub fn shared(&self) {
        self.shared.fetch_add(1, Ordering::Relaxed);
    }

    /// All values now; `gather` is how long this page's gathering took.
    pub fn families(&self, supervisor: &Mutex<Supervisor>, node: &str, gather: Duration) -> Vec<OwnFamily> {
        let mut out = Families::default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        out.add(&BUILD_INFO, vec![("version", version), ("node", node.to_owned())], 1.0);
        probes(&mut out, &supervisor.lock().unwrap_or_else(PoisonError::into_inner));
        events(&mut out, &self.bus);
        for (sink, counts) in self.outlets.iter().flat_map(|outlets| outlets.counts()) {
            add_sink(&mut out, sink, &counts);
        }
        self.discovery(&mut out);
        out.add(&SCRAPES, vec![], self.scrapes.load(Ordering::Relaxed) as f64);
        out.add(&SCRAPES_SHARED, vec![], self.shared.load(Ordering::Relaxed) as f64);
        out.add(&GATHER_SECONDS, vec![], gather.as_secs_f64());
        {
            let reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
            out.add(&RELOADS, vec![("result", "ok".into())], reloads.taken as f64);
            out.add(&RELOADS, vec![("result", "refused".into())], reloads.refused as f64);
            out.add(&RELOAD_OK, vec![], f64::from(u8::from(reloads.problem.is_none())));
            out.add(&RELOAD_TIME, vec![], reloads.taken_at);
        }
        if let Some(tally) = &self.tally {
            server(&mut out, tally);
        }
        process(&mut out);
        out.0
    }

    fn discovery(&self, out: &mut Families) {
        let topology = self.discovery.topology();
        let mut origins = std::collections::BTreeMap::<&str, u32>::new();
        for (_, ns) in topology.iter() {
            *origins.entry(ns.origin.text()).or_default() += 1;
        }
        for (origin, count) in origins {
            out.add(&NAMESPACES, vec![("origin", origin.into())], f64::from(count));
        }
        let last = self.discovery.last();
        out.add(&UNREADABLE_NS, vec![], last.unreadable.namespaces as f64);
        out.add(&UNREADABLE_PROCESSES, vec![], last.unreadable.processes as f64);
        out.add(&SCANS, vec![], last.scans as f64);
        out.add(&SCAN_FAILURES, vec![], last.failures as f64);
        out.add(&SCAN_SECONDS, vec![], last.seconds);
        if let Some(at) = last.at {
            out.add(&SCAN_AGE, vec![], at.elapsed().as_secs_f64());
        }
        if let Some(runtime) = self.discovery.runtime().filter(|runtime| runtime.is_wanted()) {
            add_runtime(out, &runtime.record());
            out.add(&PODS_UNMATCHED, vec![], last.notes.missing as f64);
        }
        if let Some(record) = self.discovery.cluster().record() {
            add_cluster(out, &record);
        }
    }
}

#[derive(Default)]
struct Families(Vec<OwnFamily>);

impl Families {
    fn add(&mut self, def: &'static OwnDef, labels: Vec<(&'static str, String)>, value: f64) {
        debug_assert!(
            labels.iter().map(|(name, _)| *name).eq(def.labels.iter().copied()),
            "labels of {}",
            def.name
        );
        if let Some(family) = self.0.iter_mut().find(|f| std::ptr::eq(f.def, def)) {
            family.rows.push((labels, value));
            return;
        }
        let name = name_of(def);
        self.0.push(OwnFamily { def, name, rows: vec![(labels, value)] });
    }
}

/// The name in the exposition, without `_total`.
pub fn name_of(def: &OwnDef) -> String {
    if def.name.starts_with("process_") && def.name != UNREADABLE_PROCESSES.name {
        def.name.into()
    } else {
        format!("netsonde_{}", def.name)
    }
}

fn probes(out: &mut Families, supervisor: &Supervisor) {
    for (info, state, record, hooks) in supervisor.records() {
        let probe = || ("probe", info.name.to_owned());
        for name in State::ALL {
            let value = f64::from(u8::from(name == state.text()));
            out.add(&PROBE_STATE, vec![probe(), ("state", name.into())], value);
        }
        for hook in hooks {
            let labels = vec![probe(), ("hook", hook.name.into()), ("state", hook.state.text().into())];
            out.add(&PROBE_HOOK, labels, 1.0);
            if hook.rung.is_some() {
                out.add(&PROBE_MISSED, vec![probe(), ("hook", hook.name.into())], hook.missed as f64);
            }
        }
        out.add(&PROBE_SUCCESS, vec![probe()], f64::from(u8::from(record.success)));
        out.add(&PROBE_COLLECT, vec![probe()], record.wall.as_secs_f64());
        out.add(&PROBE_CPU, vec![probe()], record.cpu.as_secs_f64());
        for reason in CollectError::REASONS {
            let count = record.failures.get(reason).copied().unwrap_or_default();
            out.add(&PROBE_FAILURES, vec![probe(), ("reason", (*reason).into())], count as f64);
        }
        out.add(&PROBE_RESTARTS, vec![probe()], record.restarts as f64);
        out.add(&PROBE_SERIES, vec![probe()], record.series as f64);
        out.add(&PROBE_REFUSED, vec![probe()], record.refused as f64);
    }
}

fn events(out: &mut Families, bus: &Bus) {
    for (probe, tally) in bus.tallies() {
        let probe = || ("probe", probe.to_owned());
        for (kind, told) in tally.told {
            out.add(&EVENTS, vec![probe(), ("type", kind.into())], told as f64);
        }
        out.add(&EVENTS_SUPPRESSED, vec![probe()], tally.suppressed as f64);
        out.add(&EVENTS_UNATTRIBUTED, vec![probe()], tally.unattributed as f64);
    }
}

fn add_runtime(out: &mut Families, runtime: &Record) {
    out.add(&RUNTIME_UP, vec![], f64::from(u8::from(runtime.connected)));
    if let Some(at) = runtime.listed {
        let labels =
            [("runtime", &*runtime.name), ("version", &*runtime.version), ("events", runtime.events)];
        out.add(&RUNTIME_INFO, labels.map(|(name, value)| (name, value.to_owned())).into(), 1.0);
        out.add(&RUNTIME_AGE, vec![], at.elapsed().as_secs_f64());
    }
    out.add(&RUNTIME_LISTS, vec![], runtime.lists as f64);
    for call in ["connect", "events", "list", "status"] {
        let count = runtime.failures.get(call).copied().unwrap_or_default();
        out.add(&RUNTIME_FAILURES, vec![("call", call.into())], count as f64);
    }
    let hosts = runtime.sandboxes.iter().filter(|sandbox| sandbox.network == Some(Network::Host)).count();
    for (network, count) in [("own", runtime.sandboxes.len() - hosts), ("host", hosts)] {
        out.add(&PODS, vec![("network", network.into())], count as f64);
    }
}

fn add_cluster(out: &mut Families, cluster: &cluster::Record) {
    out.add(&CLUSTER_UP, vec![], f64::from(u8::from(cluster.connected)));
    out.add(&CLUSTER_PODS, vec![], cluster.pods as f64);
    if let Some(at) = cluster.heard {
        out.add(&CLUSTER_AGE, vec![], at.elapsed().as_secs_f64());
    }
    out.add(&CLUSTER_LISTS, vec![], cluster.lists as f64);
    for call in ["settings", "list", "watch"] {
        let count = cluster.failures.get(call).copied().unwrap_or_default();
        out.add(&CLUSTER_FAILURES, vec![("call", call.into())], count as f64);
    }
    out.add(&CLUSTER_REFUSED, vec![], cluster.refused as f64);
}

fn add_sink(out: &mut Families, sink: &str, counts: &Counts) {
    let sink = || ("sink", sink.to_owned());
    out.add(&SINK_RECEIVED, vec![sink()], counts.received as f64);
    out.add(&SINK_DELIVERED, vec![sink()], counts.delivered as f64);
    for (reason, count) in counts.dropped {
        out.add(&SINK_DROPPED, vec![sink(), ("reason", reason.into())], count as f64);
    }
    out.add(&SINK_RETRIES, vec![sink()], counts.retries as f64);
    out.add(&SINK_QUEUE, vec![sink()], counts.queue_events as f64);
    out.add(&SINK_QUEUE_BYTES, vec![sink()], counts.queue_bytes as f64);
    out.add(&SINK_BUFFER, vec![sink()], counts.buffer_events as f64);
    out.add(&SINK_BUFFER_BYTES, vec![sink()], counts.buffer_bytes as f64);
    if let Some(at) = counts.last_success {
        out.add(&SINK_SUCCESS, vec![sink()], at as f64);
    }
}

fn server(out: &mut Families, tally: &Tally) {
    out.add(&CONNECTIONS, vec![], tally.connections() as f64);
    for (reason, count) in tally.refused() {
        out.add(&HTTP_REFUSED, vec![("reason", reason.into())], count as f64);
    }
    for (reason, count) in tally.denied() {
        out.add(&HTTP_DENIED, vec![("reason", reason.into())], count as f64);
    }
    let web = tally.web();
    if web.file.is_some() {
        out.add(&WEB_RELOADS, vec![("result", "ok".into())], web.taken as f64);
        out.add(&WEB_RELOADS, vec![("result", "refused".into())], web.refused as f64);
        out.add(&WEB_OK, vec![], f64::from(u8::from(web.problem.is_none())));
        out.add(&WEB_TIME, vec![], web.taken_at);
    }
}

/// What /proc/self tells is left out where it cannot be read.
fn process(out: &mut Families) {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    out.add(&CPU, vec![], cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
    let Ok(own) = procfs::process::Process::myself() else { return };
    let ticks = procfs::ticks_per_second() as f64;
    if let Ok(stat) = own.stat() {
        out.add(&RSS, vec![], (stat.rss * procfs::page_size()) as f64);
        out.add(&VSZ, vec![], stat.vsize as f64);
        out.add(&THREADS, vec![], stat.num_threads as f64);
        if let Ok(boot) = procfs::boot_time_secs() {
            out.add(&STARTED, vec![], boot as f64 + stat.starttime as f64 / ticks);
        }
    }
    if let Ok(count) = own.fd_count() {
        out.add(&FDS, vec![], count as f64);
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        out.add(&MAX_FDS, vec![], most as f64);
    }
}
