//! The assembly: every part of the agent, in the order in which it starts.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netsonde_probes::os::Host;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cli::Failure;
use crate::discovery::Discovery;
use crate::events::Bus;
use crate::outlets::Outlets;
use crate::reload::{self, Agent, Reloads, Served};
use crate::scrape::{Format, Scraper};
use crate::selfmetrics::SelfMetrics;
use crate::status::Status;
use crate::supervisor::Supervisor;
use crate::{http, parts, scrape};

/// How long probes may take at the end to hand over their last events, and sinks to deliver them.
const DRAIN: Duration = Duration::from_millis(200);
const FLUSH: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
pub fn run(file: Option<&Path>, served: Served) -> Result<(), Failure> {
    file.map_or(Ok(()), refuse_pipe)?;
    // Watched before it is read, so that no change in between is missed.
    let (reload, mut wanted) = mpsc::channel::<()>(1);
    let _watch = file.map(|file| watch_file(file, reload.clone())).transpose()?;
    let ((host, changes), catalogue, config) = prepare(file)?;
    let known = parts::known(&catalogue);
    let catalogue = Arc::new(catalogue);

    let discovery = Discovery::with_runtime(host, reload::runtime(&config))
        .context("cannot look for network namespaces")?;
    let style = reload::style(&config);
    let bus = Arc::new(Bus::new(&style.node, reload::events(&config)));
    let style = Arc::new(Mutex::new(Arc::new(style)));
    let supervisor = Supervisor::new(Arc::clone(&catalogue), discovery.clone(), Arc::clone(&bus));
    let supervisor = Arc::new(Mutex::new(supervisor));
    let reloads = Arc::new(Mutex::new(Reloads::default()));
    let outlets = Arc::new(Outlets::new(Arc::clone(&bus)));
    let own = SelfMetrics::new(discovery.clone(), Arc::clone(&reloads), Arc::clone(&bus));
    let tally = Arc::<http::Tally>::default();
    let own = Arc::new(own.with_sinks(Arc::clone(&outlets)).with_server(Arc::clone(&tally)));
    let refused = |why: String| Failure { code: 1, error: anyhow::anyhow!(why) };

    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    runtime
        .block_on(async {
            // Before anything listens: a server whose rules cannot be read is not opened without them.
            let place = served.place(&config, file).map_err(refused)?;
            let listener = http::bind(place.address).await?;
            let (place, places) = watch::channel(place);
            let agent = Arc::new(Agent {
                known,
                file: file.map(Path::to_owned),
                served,
                paths: reload::paths(&config),
                discovery: discovery.clone(),
                supervisor: Arc::clone(&supervisor),
                bus: Arc::clone(&bus),
                outlets: Arc::clone(&outlets),
                style: Arc::clone(&style),
                reloads: Arc::clone(&reloads),
                place,
                tally: Arc::clone(&tally),
            });
            agent.reconcile(&config).map_err(refused)?;
            discovery.follow(changes).context("cannot start a thread")?;
            let scraper = Scraper::start(supervisor, style, own).context("cannot start a thread")?;
            let status = Status { agent: Arc::clone(&agent) };

            let (stop, stopped) = oneshot::channel();
            let serving = tokio::spawn(http::serve(
                listener,
                places,
                stopped,
                http::Routes { scraper, status, bus, tally },
            ));
            tracing::info!(namespaces = discovery.topology().len(), "netsonde runs");

            let mut hangup = signal(SignalKind::hangup()).context("cannot take SIGHUP")?;
            let mut terminate = signal(SignalKind::terminate()).context("cannot take SIGTERM")?;
            let mut interrupt = signal(SignalKind::interrupt()).context("cannot take SIGINT")?;
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    _ = hangup.recv() => {
                        outlets.reopen();
                        let _ = reload.try_send(());
                    }
                    Some(()) = wanted.recv() => {
                        let agent = Arc::clone(&agent);
                        // Starting probes may block; serving goes on meanwhile.
                        let _ = tokio::task::spawn_blocking(move || agent.reload()).await;
                    }
                }
            }
            tracing::info!("netsonde stops");
            let _ = stop.send(());
            let _ = serving.await;
            // What the kernel has told goes to the sinks, and what they have goes out.
            agent.supervisor.lock().unwrap_or_else(PoisonError::into_inner).stop(DRAIN);
            outlets.stop(FLUSH);
            Ok(())
        })
        .inspect(|()| runtime.shutdown_timeout(Duration::from_millis(500)))
}

fn watch_file(file: &Path, reload: mpsc::Sender<()>) -> anyhow::Result<netsonde_config::Watch> {
    let watch = netsonde_config::Watch::new(file, move || {
        // A full channel means that a reload is already on its way.
        let _ = reload.try_send(());
    })
    .with_context(|| format!("cannot watch {}", file.display()))?;
    if let Some(why) = watch.only_polls() {
        tracing::warn!(why, "changes of the configuration file are noticed only every 10 s");
    }
    Ok(watch)
}

/// One page, without a server.
pub fn scrape_once(file: Option<&Path>, format: Format, own: bool) -> Result<String, Failure> {
    let (host, catalogue, config) = prepare(file)?;
    let discovery = Discovery::with_runtime(host.0, reload::runtime(&config))
        .context("cannot look for network namespaces")?;
    let style = reload::style(&config);
    let bus = Arc::<Bus>::default();
    let supervisor = Mutex::new(Supervisor::new(Arc::new(catalogue), discovery.clone(), Arc::clone(&bus)));
    supervisor
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .reconcile(&config.probes, reload::limits(&config))
        .map_err(|why| Failure { code: 1, error: anyhow::anyhow!(why) })?;
    let own = own.then(|| SelfMetrics::new(discovery, Arc::default(), bus));
    let page = scrape::page(&supervisor, &style, own.as_ref(), Instant::now() + http::WITHIN)
        .context("the page could not be encoded")?;
    Ok(String::from_utf8_lossy(page.body(format)).into_owned())
}

/// A pipe tells what it holds once, and an agent that runs reads its configuration again.
fn refuse_pipe(file: &Path) -> Result<(), Failure> {
    // What cannot be looked at cannot be read either, and that is told there.
    if !std::fs::metadata(file).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return Ok(());
    }
    let error = anyhow::anyhow!(
        "{} is a pipe, which can be read only once, and `netsonde run` reads its configuration again when it changes; write \
         it to a file first",
        file.display()
    );
    Err(Failure { code: 1, error })
}

type Prepared =
    ((Host, netsonde_probes::os::Changes), netsonde_framework::Catalogue, netsonde_config::Config);

/// Reads the configuration and opens the machine that it names.
fn prepare(file: Option<&Path>) -> Result<Prepared, Failure> {
    // The catalogue names the probes that the configuration may use, and the configuration names the /proc that
    // they read: it is read first against a catalogue that starts nothing.
    let (offline, _) =
        Host::new(netsonde_probes::os::Paths::default()).context("cannot look at this machine")?;
    let config = reload::load(file, &parts::known(&parts::catalogue(&offline)))?;
    let host = Host::new(reload::paths(&config)).context("cannot look at this machine")?;
    let catalogue = parts::catalogue(&host.0);
    Ok((host, catalogue, config))
}
