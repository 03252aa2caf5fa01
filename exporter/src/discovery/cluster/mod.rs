//! The pods of the whole cluster, as the API server tells them: for the names of peers that are not on this node.
//!
//! Off unless the configuration says otherwise; then a thread of its own lists the pods, watches what becomes of them and
//! keeps which address is whose. Everybody else looks up single addresses and waits for nothing longer than that.

mod api;
mod follow;
mod object;
mod table;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use table::Remote;
use table::Table;
use tokio::sync::Notify;

/// How long names are told after the API server was last heard. Later an address may well be another pod's.
const KEEP: Duration = Duration::from_secs(30);

/// An API server and what it is asked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `None`: that of the cluster whose pod this is.
    pub url: Option<String>,
    pub token_file: PathBuf,
    pub ca_file: PathBuf,
}

/// What is known of the API server.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Its address, as soon as it is known.
    pub server: Option<String>,
    /// Whether it is being watched now.
    pub connected: bool,
    /// When it last told anything.
    pub heard: Option<Instant>,
    pub lists: u64,
    /// What failed, by what was attempted.
    pub failures: BTreeMap<&'static str, u64>,
    /// How often a pod found no room.
    pub refused: u64,
    pub last_error: Option<String>,
    /// Pods whose addresses are known.
    pub pods: usize,
}

#[derive(Debug, Default)]
struct State {
    wanted: Option<Server>,
    /// How often that has changed: what belongs to an earlier one is not taken any more.
    turn: u64,
    started: bool,
    record: Record,
    table: Table,
    /// Since when nothing is heard; `None` while a watch is open.
    lost: Option<Instant>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The setting has changed.
    reconsider: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle to the thread that asks the API server. There is none before one is wanted; it ends with the process.
#[derive(Debug, Clone, Default)]
pub struct Cluster(Arc<Shared>);

impl Cluster {
    /// Starts the thread, if there is none yet. It waits until a server is set.
    pub fn start(&self) -> std::io::Result<()> {
        let mut state = self.0.lock();
        if !state.started {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let theirs = Arc::clone(&self.0);
            thread::Builder::new()
                .name("cluster".into())
                .stack_size(512 * 1024)
                .spawn(move || tokio.block_on(follow::follow(&theirs)))?;
            state.started = true;
        }
        Ok(())
    }

    /// Asks this server from now on, or nobody.
    pub fn set(&self, wanted: Option<Server>) {
        let mut state = self.0.lock();
        if state.wanted != wanted {
            state.wanted = wanted;
            state.turn += 1;
            // What another server, or nobody, says of an address is not known yet.
            let old = std::mem::take(&mut state.table);
            drop(state);
            drop(old);
            self.0.reconsider.notify_one();
        }
    }

    /// The only pod that has this address.
    pub fn owner(&self, address: IpAddr) -> Option<Arc<Remote>> {
        let state = self.0.lock();
        state.wanted.as_ref()?;
        if state.lost.is_some_and(|since| since.elapsed() >= KEEP) {
            return None;
        }
        state.table.only(address)
    }

    /// What is known now; `None` where nobody is to be asked.
    pub fn record(&self) -> Option<Record> {
        let state = self.0.lock();
        state.wanted.as_ref()?;
        Some(Record { pods: state.table.len(), ..state.record.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    /// One that knows one pod and has heard nothing for so long.
    fn cluster(silent: Option<Duration>) -> Cluster {
        let pod = serde_json::json!({
            "metadata": {"namespace": "shop", "name": "cart-0", "uid": "1"},
            "status": {"phase": "Running", "podIPs": [{"ip": ADDRESS}]},
        });
        let cluster = Cluster::default();
        cluster.set(Some(server("a")));
        {
            let mut state = cluster.0.lock();
            assert!(state.table.set(&serde_json::from_value(pod).expect("a pod")));
            state.lost = silent.map(|silent| Instant::now().checked_sub(silent).expect("up for so long"));
        }
        cluster
    }

    fn server(url: &str) -> Server {
        Server { url: Some(url.into()), token_file: "t".into(), ca_file: "c".into() }
    }

    #[test]
    fn names_are_told_for_a_while_after_the_api_server_is_gone_and_then_no_more() {
        let known = |silent| cluster(silent).owner(ADDRESS).map(|pod| pod.pod.to_string());
        assert_eq!(known(None).as_deref(), Some("cart-0"));
        assert_eq!(known(Some(KEEP / 2)).as_deref(), Some("cart-0"));
        assert_eq!(known(Some(KEEP)), None);
    }

    #[test]
    fn what_one_server_said_is_not_told_when_another_one_or_nobody_is_asked() {
        let one = cluster(None);
        one.set(Some(server("a")));
        assert!(one.owner(ADDRESS).is_some(), "the same one");
        one.set(Some(server("b")));
        assert!(one.owner(ADDRESS).is_none());
        let off = cluster(None);
        off.set(None);
        assert!(off.owner(ADDRESS).is_none() && off.record().is_none());
    }
}
