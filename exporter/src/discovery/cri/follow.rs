//! The thread that asks the runtime: once connected, it lists the sandboxes after each event, when discovery asks for
//! it and now and then; of a sandbox that it does not know yet it asks the status.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use netsonde_cri::v1::{PodSandbox, PodSandboxStatusResponse};
use netsonde_cri::{Channel, Code, Error};
use tokio::time::{Instant, sleep, timeout_at};

use super::connect::{Events, Found, connect};
use super::sandbox::is_ready;
use super::{Record, Sandbox, Shared, Wanted};

/// How long a list and a status may take.
const LIST: Duration = Duration::from_secs(5);
const STATUS: Duration = Duration::from_secs(2);
/// How many statuses are asked for at once.
const AT_ONCE: usize = 4;
/// Between two lists: events come in bursts, and what an event tells of is in the list a moment later.
const GAP: Duration = Duration::from_millis(100);
/// The runtime tells of an end before its list does, so after events one more list is asked for.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// Between lists passes at least as many times the time that the last one took, so that a runtime that is slow has time
/// for others.
const SHARE: u32 = 4;
/// When a list is asked for although nothing happened: with events and without.
const NOW_AND_THEN: Duration = Duration::from_secs(30);
const WITHOUT_EVENTS: Duration = Duration::from_secs(2);
/// Between two tries to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// What went wrong, and what was asked.
struct Failure(&'static str, Error);

fn failed(what: &'static str) -> impl FnOnce(Error) -> Failure {
    move |error| Failure(what, error)
}

/// The sandboxes whose status is known, by id.
type Known = HashMap<String, Arc<Sandbox>>;

/// Never ends.
pub(super) async fn follow(shared: &Shared) {
    let mut known = Known::new();
    let mut pause = FIRST_PAUSE;
    let mut asked = Wanted::Off;
    loop {
        let wanted = shared.lock().wanted.clone();
        if wanted != asked {
            // Another runtime has other pods.
            known.clear();
            shared.lock().record = Record::default();
            shared.host.wake();
            asked = wanted.clone();
        }
        if wanted == Wanted::Off {
            shared.was_tried();
            shared.reconsider.notified().await;
            continue;
        }
        let ended = session(shared, &wanted, &mut known, &mut pause).await;
        shared.ended(ended.err());
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
            () = shared.reconsider.notified() => pause = FIRST_PAUSE,
        }
    }
}

/// From one connection to its end, or to a change of the setting.
async fn session(
    shared: &Shared,
    wanted: &Wanted,
    known: &mut Known,
    pause: &mut Duration,
) -> Result<(), Failure> {
    let Some(found) = connect(wanted).await.map_err(failed("connect"))? else { return Ok(()) };
    let Found { socket, channel, version } = found;
    let mut events = Events::open(&channel, &version.runtime_name).await.map_err(failed("events"))?;
    tracing::info!(
        socket = %socket.display(),
        runtime = version.runtime_name,
        version = version.runtime_version,
        "the container runtime answers"
    );
    {
        let mut state = shared.lock();
        state.record.socket = Some(socket);
        state.record.name = version.runtime_name;
        state.record.version = version.runtime_version;
    }
    let mut settled = true;
    loop {
        let took = list(shared, &channel, known).await?;
        shared.listed(known, events.source());
        *pause = FIRST_PAUSE;
        let next = Instant::now() + GAP.max(took * SHARE);
        let idle = match events {
            _ if !settled => AFTERWARDS,
            Events::None => WITHOUT_EVENTS,
            _ => NOW_AND_THEN,
        };
        settled = tokio::select! {
            event = events.next() => event.map(|()| false).map_err(failed("events"))?,
            () = shared.ask.notified() => settled,
            () = sleep(idle) => true,
            () = shared.reconsider.notified() => return Ok(()),
        };
        // What comes until then is in the next list.
        while let Ok(event) = timeout_at(next, events.next()).await {
            event.map_err(failed("events"))?;
            settled = false;
        }
    }
}

/// Brings `known` up to date, and says how long the list alone took.
async fn list(shared: &Shared, channel: &Channel, known: &mut Known) -> Result<Duration, Failure> {
    let start = Instant::now();
    let listed = channel.sandboxes(LIST).await.map_err(failed("list"))?;
    let took = start.elapsed();
    let ready: HashMap<&str, &PodSandbox> =
        listed.iter().filter(|s| is_ready(s)).map(|s| (s.id.as_str(), s)).collect();
    known.retain(|id, sandbox| ready.contains_key(id.as_str()) && sandbox.network.is_some());
    let new = ready.values().filter(|sandbox| !known.contains_key(&sandbox.id));
    let ask = |sandbox: &'_ PodSandbox| {
        let sandbox = sandbox.clone();
        async move {
            let status = channel.sandbox(&sandbox.id, STATUS).await;
            (sandbox, status)
        }
    };
    let mut answers = stream::iter(new.map(|s| ask(s)).collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
    let mut told = Vec::new();
    while let Some((listed, status)) = answers.next().await {
        told.extend(sandbox(shared, &listed, status)?);
    }
    known.extend(told.into_iter().map(|sandbox| (sandbox.id.clone(), Arc::new(sandbox))));
    Ok(took)
}

/// A sandbox whose status cannot be had is known by the list alone, and asked for again next time.
fn sandbox(
    shared: &Shared,
    listed: &PodSandbox,
    status: Result<PodSandboxStatusResponse, Error>,
) -> Result<Option<Sandbox>, Failure> {
    match status {
        Ok(status) => Ok(Sandbox::new(listed, Some(&status))),
        // It ended since.
        Err(Error::Refused { code: Code::NotFound, .. }) => Ok(None),
        Err(error @ Error::Refused { .. }) => {
            shared.count("status", &error);
            Ok(Sandbox::new(listed, None))
        }
        Err(error) => Err(Failure("status", error)),
    }
}

impl Shared {
    fn was_tried(&self) {
        self.lock().tried = true;
        self.tried.notify_all();
    }

    /// Publishes what is known now and wakes discovery where it is news.
    fn listed(&self, known: &Known, events: &'static str) {
        let mut sandboxes: Vec<Arc<Sandbox>> = known.values().map(Arc::clone).collect();
        sandboxes.sort_by(|a, b| a.id.cmp(&b.id));
        let news = {
            let mut state = self.lock();
            let record = &mut state.record;
            let news = !record.connected || *record.sandboxes != *sandboxes;
            record.connected = true;
            record.events = events;
            record.listed = Some(std::time::Instant::now());
            record.lists += 1;
            record.last_error = None;
            if news {
                record.sandboxes = sandboxes.into();
            }
            news
        };
        self.was_tried();
        if news {
            self.host.wake();
        }
    }

    fn count(&self, what: &'static str, error: &Error) {
        let mut state = self.lock();
        *state.record.failures.entry(what).or_default() += 1;
        state.record.last_error = Some(format!("{what}: {error}"));
    }

    /// The connection is over, or there was none. What is known stays.
    fn ended(&self, why: Option<Failure>) {
        let was = std::mem::replace(&mut self.lock().record.connected, false);
        if let Some(Failure(what, error)) = why {
            // Once for each outage.
            let first = self.lock().record.last_error.is_none();
            self.count(what, &error);
            if was || first {
                tracing::warn!(what, error = %error, "the container runtime does not answer; the last known pods stay");
            }
        }
        self.was_tried();
    }
}
