//! The sinks that run: started and stopped by [`Outlets::reconcile`], fed by the bus.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netsonde_config::Wanted;
use netsonde_framework::Record;
use netsonde_sinks::{Context, Counts, Driver, SPECS, SinkSpec};

use crate::events::{Bus, Receiver};

/// How long a sink that leaves may take to deliver what it has.
const FLUSH: Duration = Duration::from_secs(5);

/// One running sink. Its driver is taken out when it stops; the bus may hold on to the outlet for a moment longer.
struct Outlet {
    spec: &'static SinkSpec,
    wanted: Wanted,
    node: String,
    driver: Mutex<Option<Driver>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outlet {
    fn start(wanted: &Wanted, node: &str) -> Result<Arc<Self>, String> {
        let spec = SPECS.iter().find(|spec| spec.name == wanted.name).ok_or("there is no such sink")?;
        let context = Context { node: node.to_owned() };
        let driver = Driver::start(spec, &wanted.args, &context).map_err(|error| error.to_string())?;
        let (wanted, node) = (wanted.clone(), node.to_owned());
        Ok(Arc::new(Self { spec, wanted, node, driver: Mutex::new(Some(driver)) }))
    }

    /// Whether the settings are right and what they name can be opened: all but the disk buffer, which one that runs
    /// keeps to itself.
    fn is_good(wanted: &Wanted, node: &str) -> bool {
        let spec = SPECS.iter().find(|spec| spec.name == wanted.name);
        spec.is_some_and(|spec| (spec.open)(&wanted.args, &Context { node: node.to_owned() }).is_ok())
    }

    fn with<T>(&self, use_it: impl FnOnce(&Driver) -> T) -> Option<T> {
        lock(&self.driver).as_ref().map(use_it)
    }

    fn stop(&self, within: Duration) {
        let driver = lock(&self.driver).take();
        if let Some(driver) = driver {
            let counts = driver.stop(within);
            let stopped = counts.dropped_for(netsonde_sinks::Reason::Stopped);
            if stopped > 0 {
                tracing::warn!(
                    sink = self.spec.name,
                    events = stopped,
                    "stopped before these were delivered"
                );
            }
        }
    }
}

impl Receiver for Outlet {
    fn push(&self, records: &[Arc<Record>]) {
        self.with(|driver| driver.push(records));
    }
}

/// Every running sink.
pub struct Outlets {
    bus: Arc<Bus>,
    running: Mutex<Vec<Arc<Outlet>>>,
}

impl Outlets {
    pub fn new(bus: Arc<Bus>) -> Self {
        Self { bus, running: Mutex::default() }
    }

    fn running(&self) -> MutexGuard<'_, Vec<Arc<Outlet>>> {
        lock(&self.running)
    }

    /// Starts what is new or changed. Nothing that runs is touched until [`Change::commit`], with one exception: a sink
    /// that cannot run twice (it holds a disk buffer) is stopped first, and started again as it was if the new one fails.
    pub fn prepare(&self, wanted: &[Wanted], node: &str) -> Result<Change<'_>, String> {
        let mut running = self.running();
        let mut next = Vec::new();
        for want in wanted {
            let old = running.iter().position(|o| o.wanted.name == want.name);
            if let Some(i) = old.filter(|i| running[*i].wanted == *want && running[*i].node == node) {
                next.push(Arc::clone(&running[i]));
                continue;
            }
            let started = Outlet::start(want, node).or_else(|why| match old {
                Some(i) if Outlet::is_good(want, node) => Self::replace(&mut running[i], want, node),
                _ => Err(why),
            });
            if started.is_err() {
                self.connect(&running);
            }
            next.push(started.map_err(|why| format!("sink {}: {why}", want.name))?);
        }
        Ok(Change { outlets: self, next })
    }

    /// Stops `old` and starts a new one in its place; if that fails, `old` runs again.
    fn replace(old: &mut Arc<Outlet>, want: &Wanted, node: &str) -> Result<Arc<Outlet>, String> {
        old.stop(FLUSH);
        Outlet::start(want, node).inspect_err(|_| match Outlet::start(&old.wanted, &old.node) {
            Ok(again) => *old = again,
            Err(why) => tracing::error!(sink = old.spec.name, why, "cannot be started again"),
        })
    }

    fn connect(&self, outlets: &[Arc<Outlet>]) {
        self.bus.connect(outlets.iter().map(|o| Arc::clone(o) as Arc<dyn Receiver>).collect());
    }

    /// SIGHUP: files are opened anew.
    pub fn reopen(&self) {
        for outlet in self.running().iter() {
            outlet.with(Driver::reopen);
        }
    }

    /// Delivers what it can within this time, all sinks at once, and ends them.
    pub fn stop(&self, within: Duration) {
        let running = std::mem::take(&mut *self.running());
        std::thread::scope(|scope| {
            for outlet in &running {
                scope.spawn(|| outlet.stop(within));
            }
        });
    }

    /// What has become of each sink's events.
    pub fn counts(&self) -> Vec<(&'static str, Counts)> {
        let counts = |outlet: &Arc<Outlet>| Some((outlet.spec.name, outlet.with(Driver::counts)?));
        self.running().iter().filter_map(counts).collect()
    }
}

/// Sinks that are ready to take the place of those that run.
pub struct Change<'a> {
    outlets: &'a Outlets,
    next: Vec<Arc<Outlet>>,
}

impl Change<'_> {
    /// From now on events go to the new ones; the old ones deliver what they have and end.
    pub fn commit(self) {
        let mut running = self.outlets.running();
        self.outlets.connect(&self.next);
        let before = std::mem::replace(&mut *running, self.next);
        for outlet in before {
            if !running.iter().any(|kept| Arc::ptr_eq(kept, &outlet)) {
                let ended =
                    std::thread::Builder::new().name("sink-ends".into()).spawn(move || outlet.stop(FLUSH));
                if let Err(error) = ended {
                    tracing::warn!(%error, "a sink that leaves could not deliver what it had");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    /// Nobody listens there, so its events stay in its disk buffer.
    fn loki(buffer: &std::path::Path, tenant: &str) -> Wanted {
        let buffer = json!({"path": buffer, "max_bytes": 1 << 20});
        let args = json!({"url": "http://127.0.0.1:1/loki/api/v1/push", "tenant": tenant, "buffer": buffer});
        Wanted { name: "loki".into(), args }
    }

    fn record(n: usize) -> Arc<Record> {
        Arc::new(Record {
            json: format!("{{\"n\":{n}}}"),
            time_ns: 0,
            probe: "p".into(),
            kind: "K".into(),
            severity: "info".into(),
            namespace: "".into(),
            pod: "".into(),
        })
    }

    fn reconcile(outlets: &Outlets, wanted: &[Wanted]) -> Result<(), String> {
        outlets.prepare(wanted, "n").map(Change::commit)
    }

    #[test]
    fn a_sink_gets_events_until_it_is_taken_out_of_the_list() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("events");
        let bus = Arc::new(Bus::default());
        let outlets = Outlets::new(Arc::clone(&bus));
        let plain = Wanted { name: "file".into(), args: json!({"path": path}) };
        reconcile(&outlets, std::slice::from_ref(&plain)).expect("a good file");
        bus.publish("p", |_| (), &[record(1)]);
        let refused = Wanted { name: "file".into(), args: json!({"path": folder.path().join("none/x")}) };
        assert!(reconcile(&outlets, &[refused]).is_err());
        bus.publish("p", |_| (), &[record(2)]);
        assert_eq!(outlets.counts()[0].1.received, 2, "the old one went on");
        reconcile(&outlets, &[]).expect("nothing is a good list");
        bus.publish("p", |_| (), &[record(3)]);
        let start = std::time::Instant::now();
        while fs::read_to_string(&path).unwrap_or_default().lines().count() < 2 {
            assert!(start.elapsed() < FLUSH, "what it had is written before it ends");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(fs::read_to_string(&path).expect("written"), "{\"n\":1}\n{\"n\":2}\n");
    }

    #[test]
    fn a_sink_with_a_disk_buffer_takes_new_settings() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let bus = Arc::new(Bus::default());
        let outlets = Outlets::new(Arc::clone(&bus));
        for (n, tenant) in ["a", "b", "c"].into_iter().enumerate() {
            reconcile(&outlets, &[loki(folder.path(), tenant)]).expect("the lock is free in time");
            assert_eq!(outlets.counts()[0].1.restored, n as u64, "what the one before it had is not lost");
            bus.publish("p", |_| (), &[record(n)]);
        }
        let mut wrong = loki(folder.path(), "d");
        wrong.args["url"] = "nonsense".into();
        assert!(reconcile(&outlets, &[wrong]).is_err());
        bus.publish("p", |_| (), &[record(3)]);
        assert_eq!(outlets.counts()[0].1.received, 4, "the old one went on");
        outlets.stop(Duration::from_millis(100));
    }
}
