//! Taking a configuration, at the start and later: one path for both.
//!
//! [`Agent::reconcile`] resolves everything first, starts what is new before it drops what is old, and changes
//! nothing when any part is refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use netsonde_config::{Config, Known};
use netsonde_framework::Limits;
use netsonde_framework::event::Rate;
use netsonde_probes::os::Paths;
use tokio::sync::watch;

use crate::discovery::Discovery;
use crate::discovery::cluster::Server;
use crate::discovery::cri::Wanted;
use crate::events::{self, Bus};
use crate::http::{Place, Tally, Web};
use crate::node;
use crate::outlets::Outlets;
use crate::scrape::Style;
use crate::supervisor::Supervisor;

/// What became of the configurations so far.
#[derive(Debug, Default)]
pub struct Reloads {
    pub taken: u64,
    pub refused: u64,
    /// Seconds since 1970.
    pub taken_at: f64,
    /// Why the file as it is now is not in force.
    pub problem: Option<String>,
}

/// The parts that a configuration governs.
pub struct Agent {
    pub known: Known,
    pub file: Option<PathBuf>,
    /// What the command line says of the server.
    pub served: Served,
    pub paths: Paths,
    pub discovery: Discovery,
    pub supervisor: Arc<Mutex<Supervisor>>,
    pub bus: Arc<Bus>,
    pub outlets: Arc<Outlets>,
    pub style: Arc<Mutex<Arc<Style>>>,
    pub reloads: Arc<Mutex<Reloads>>,
    pub place: watch::Sender<Place>,
    pub tally: Arc<Tally>,
}

/// What the command line says of the server; it wins over the file.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--web.config.file`
    pub web_config: Option<PathBuf>,
}

impl Served {
    /// Where to serve and under which rules, all files read. `file` is the configuration file, whose folder a relative
    /// path in it is taken from.
    pub fn place(&self, config: &Config, file: Option<&Path>) -> Result<Place, String> {
        let address = match self.listen {
            Some(listen) => listen,
            None => {
                config.listen.parse().map_err(|_| format!("listen: {} is no address:port", config.listen))?
            }
        };
        let folder = file.and_then(Path::parent).unwrap_or(Path::new(""));
        let of_file = || config.web_config.as_ref().map(|path| folder.join(path));
        let web = Web::load(self.web_config.clone().or_else(of_file).as_deref());
        Ok(Place { address, web: web.map_err(|why| format!("web_config: {why}"))? })
    }
}

/// The folders and the procfs of a configuration.
pub fn paths(config: &Config) -> Paths {
    Paths { proc: config.paths.proc.clone(), netns: config.paths.netns.clone() }
}

/// Which container runtime is asked with this configuration.
pub fn runtime(config: &Config) -> Wanted {
    Wanted::new(&config.discovery.cri)
}

/// Which API server is asked for the pods of other nodes with this configuration.
pub fn cluster(config: &Config) -> Option<Server> {
    let netsonde_config::Discovery {
        cluster_peers, cluster_server, cluster_token_file, cluster_ca_file, ..
    } = &config.discovery;
    cluster_peers.then(|| Server {
        url: cluster_server.clone(),
        token_file: cluster_token_file.clone(),
        ca_file: cluster_ca_file.clone(),
    })
}

/// How pages are written with this configuration.
pub fn style(config: &Config) -> Style {
    Style { node: node::name(config.node_name.as_deref()), metrics: config.metrics.clone() }
}

/// The limits of one scrape.
pub fn limits(config: &Config) -> Limits {
    Limits { series: config.metrics.limits.series_per_probe }
}

/// The bounds on events.
pub fn events(config: &Config) -> events::Limits {
    let netsonde_config::Events { per_second, burst, recent } = config.events;
    events::Limits { rate: Rate { per_second, burst }, recent }
}

/// The configuration in `file`, or the defaults without one.
pub fn load(file: Option<&Path>, known: &Known) -> Result<Config, netsonde_config::LoadError> {
    file.map_or_else(|| Ok(Config::default_for(known)), |file| netsonde_config::load(file, known))
}

impl Agent {
    /// Reads the file anew and takes it. A file that is refused changes nothing and is told in the log, in
    /// `/status` and in a metric.
    pub fn reload(&self) {
        let loaded = load(self.file.as_deref(), &self.known).map_err(|error| error.to_string());
        match loaded.and_then(|config| self.reconcile(&config)) {
            Ok(()) => tracing::info!("the configuration is in force"),
            Err(problem) => {
                tracing::error!("the configuration was refused, nothing was changed: {problem}");
                let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
                reloads.refused += 1;
                reloads.problem = Some(problem);
            }
        }
    }

    /// Makes this configuration be in force, or says why not.
    pub fn reconcile(&self, config: &Config) -> Result<(), String> {
        if paths(config) != self.paths {
            return Err("paths cannot change while the agent runs; restart it".into());
        }
        let place = self.served.place(config, self.file.as_deref())?;
        // A new address is tried before anything else changes.
        let moved = self.place.borrow().address != place.address;
        if moved && let Err(error) = std::net::TcpListener::bind(place.address) {
            return Err(format!("cannot listen on {}: {error}", place.address));
        }
        let style = style(config);
        let cluster = cluster(config);
        if cluster.is_some() {
            let started = self.discovery.cluster().start();
            started.map_err(|why| format!("discovery.cluster_peers: cannot start a thread: {why}"))?;
        }
        // Before the probes, so that the first event of a new one finds its sinks.
        let sinks = self.outlets.prepare(&config.sinks, &style.node)?;
        self.supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .reconcile(&config.probes, limits(config))?;
        sinks.commit();
        self.discovery.set_interval(config.discovery.interval);
        if let Some(asked) = self.discovery.runtime() {
            asked.set(runtime(config));
        }
        self.discovery.cluster().set(cluster);
        self.bus.configure(&style.node, events(config));
        *self.style.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(style);
        self.tally.web_taken(place.web.file().map(Path::to_owned));
        self.place.send_replace(place);
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        reloads.taken += 1;
        reloads.taken_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        reloads.problem = None;
        Ok(())
    }
}
