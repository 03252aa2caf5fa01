//! The thread that asks the API server: it lists the pods once, then watches from there on. It lists again when the server
//! no longer has what happened since, or when it was away for so long that the names are no longer told.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::api::{Api, Error};
use super::object::{Event, Pod};
use super::table::Table;
use super::{KEEP, Server, Shared};

/// Between two tries. Every node of a cluster may be trying.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// A watch that was open for so long has worked.
const WORKED: Duration = Duration::from_secs(10);
/// How long a watch is asked for, at least; at most twice as long, so that nodes do not come back at once.
const WATCH: Duration = Duration::from_mins(5);

/// A random part of a time.
fn part(of: Duration) -> Duration {
    // Each RandomState has keys of its own.
    let chance = RandomState::new().hash_one(()) >> 32;
    of.mul_f64(chance as f64 / f64::from(u32::MAX))
}

/// Never ends.
pub(super) async fn follow(shared: &Shared) {
    let mut pause = FIRST_PAUSE;
    let mut turn = 0;
    let mut version: Option<String> = None;
    loop {
        let (wanted, now) = {
            let state = shared.lock();
            (state.wanted.clone(), state.turn)
        };
        if turn != now {
            shared.begin();
            (version, pause, turn) = (None, FIRST_PAUSE, now);
        }
        let Some(server) = wanted else {
            shared.reconsider.notified().await;
            continue;
        };
        if shared.gave_up() {
            version = None;
        }
        let start = Instant::now();
        let ended = tokio::select! {
            ended = session(shared, &server, turn, &mut version) => ended,
            () = shared.reconsider.notified() => continue,
        };
        if matches!(ended, Err(Error::Expired | Error::Broken(_))) {
            version = None;
        }
        shared.ended(turn, ended);
        if start.elapsed() >= WORKED {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = sleep(pause / 2 + part(pause / 2)) => pause = (pause * 2).min(LAST_PAUSE),
            () = shared.reconsider.notified() => {}
        }
    }
}

/// A list where there is none yet, and one watch to its end. `version` is where the next watch goes on.
async fn session(
    shared: &Shared,
    server: &Server,
    turn: u64,
    version: &mut Option<String>,
) -> Result<(), Error> {
    let api = Api::new(server)?;
    let from = match version {
        Some(from) => from,
        None => version.insert(list(shared, &api, turn).await?),
    };
    let seconds = (WATCH + part(WATCH)).as_secs();
    let mut watch = api.watch(from, seconds).await?;
    shared.connected(turn, api.server());
    while let Some(event) = watch.next().await? {
        let meta = match &event {
            Event::Set(pod) | Event::Gone(pod) | Event::Bookmark(pod) => &pod.metadata,
            Event::Error(_) => continue,
        };
        if !meta.resource_version.is_empty() {
            from.clone_from(&meta.resource_version);
        }
        shared.happened(turn, &event);
    }
    Ok(())
}

/// Takes the whole list in place of what was known, and gives its version. Nothing of it is told before all of it is there:
/// an address may be another pod's, too.
async fn list(shared: &Shared, api: &Api<'_>, turn: u64) -> Result<String, Error> {
    let mut table = Table::default();
    let mut refused = 0;
    let mut next = String::new();
    loop {
        let page = api.page(&next).await?;
        for pod in page.items.iter().flatten() {
            refused += u64::from(!table.set(pod));
        }
        next = page.metadata.r#continue;
        if next.is_empty() {
            tracing::debug!(pods = table.len(), "the API server has listed the cluster's pods");
            shared.listed(turn, table, refused);
            return Ok(page.metadata.resource_version);
        }
    }
}

impl Shared {
    /// Another server is asked, or nobody. Counts go on.
    fn begin(&self) {
        let mut state = self.lock();
        state.lost = None;
        let record = &mut state.record;
        (record.server, record.connected, record.heard, record.last_error) = (None, false, None, None);
    }

    /// Changes the state while it is still this turn's.
    fn change(&self, turn: u64, change: impl FnOnce(&mut super::State)) {
        let mut state = self.lock();
        if state.turn == turn {
            change(&mut state);
        }
    }

    fn listed(&self, turn: u64, mut table: Table, refused: u64) {
        self.change(turn, |state| {
            // What was known goes after the lock: it may be large.
            std::mem::swap(&mut state.table, &mut table);
            state.lost = None;
            state.record.lists += 1;
            state.record.refused += refused;
            state.record.heard = Some(Instant::now());
        });
    }

    fn connected(&self, turn: u64, address: String) {
        self.change(turn, |state| {
            state.lost = None;
            let record = &mut state.record;
            if !record.connected {
                tracing::info!(server = address, pods = state.table.len(), "the cluster's pods are watched");
            }
            record.server = Some(address);
            record.connected = true;
            record.heard = Some(Instant::now());
            record.last_error = None;
        });
    }

    fn happened(&self, turn: u64, event: &Event) {
        self.change(turn, |state| {
            state.record.heard = Some(Instant::now());
            match event {
                Event::Set(pod) => state.record.refused += u64::from(!state.table.set(pod)),
                Event::Gone(Pod { metadata, .. }) => state.table.remove(&metadata.uid),
                Event::Bookmark(_) | Event::Error(_) => {}
            }
        });
    }

    /// A session is over. What is known stays for a while.
    fn ended(&self, turn: u64, how: Result<(), Error>) {
        self.change(turn, |state| {
            state.lost.get_or_insert_with(Instant::now);
            let (what, why) = match how {
                Ok(()) | Err(Error::Expired) => return,
                Err(Error::Failed(what, why)) => (what, why),
                Err(Error::Broken(why)) => ("watch", why),
            };
            let record = &mut state.record;
            // Once for each outage.
            if std::mem::replace(&mut record.connected, false) || record.last_error.is_none() {
                tracing::warn!(
                    what,
                    why,
                    "the cluster's pods are not watched; the last known names stay for {KEEP:?}"
                );
            }
            *record.failures.entry(what).or_default() += 1;
            record.last_error = Some(format!("{what}: {why}"));
        });
    }

    /// Whether what is known has become too old, so that it is forgotten.
    fn gave_up(&self) -> bool {
        let mut state = self.lock();
        if state.lost.is_none_or(|since| since.elapsed() < KEEP) {
            return false;
        }
        let old = std::mem::take(&mut state.table);
        drop(state);
        drop(old);
        true
    }
}
