//! One address that is served: takes connections, makes TLS of them, and ends those that waste it.
//!
//! A connection costs a descriptor and some kilobytes, so there are at most [`MOST`]; what comes beyond is closed at
//! once. Each has to shake hands, to send the head of its request and to read its answer in time. When the rules change, a
//! connection that was let in under the old ones ends: it must come again and be let in anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::patient::Patient;
use super::tally::{Refused, Tally};
use super::web::Policy;

/// The most connections at once, over one address.
pub const MOST: usize = 256;

/// How long TLS may take to be agreed on.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long the head of a request may take, with the idle time before it. Longer than Prometheus's usual interval, so
/// that it need not connect anew.
const HEAD: Duration = Duration::from_secs(20);

/// How long a client may stop in the middle of an answer.
const STALL: Duration = Duration::from_secs(30);

/// How long an answer that is on its way may take when its connection has to end.
const DRAIN: Duration = Duration::from_secs(1);

/// What every connection needs.
#[derive(Clone)]
struct Shared {
    router: Router,
    tally: Arc<Tally>,
    policy: watch::Receiver<Arc<Policy>>,
    closed: watch::Receiver<bool>,
}

/// One address that is served, until it is closed or dropped.
pub struct Server {
    task: JoinHandle<()>,
    policy: watch::Sender<Arc<Policy>>,
    close: watch::Sender<bool>,
}

impl Server {
    /// `router` makes the routes of a server with this policy, which changes while it runs.
    pub fn start(
        listener: TcpListener,
        policy: Arc<Policy>,
        tally: &Arc<Tally>,
        router: impl FnOnce(watch::Receiver<Arc<Policy>>) -> Router,
    ) -> Self {
        if let Ok(address) = listener.local_addr() {
            let (tls, credentials) = (policy.tls.is_some(), !policy.auth.is_open());
            tracing::info!(%address, tls, credentials, "serving /metrics");
        }
        let (policy, rules) = watch::channel(policy);
        let (close, closed) = watch::channel(false);
        let shared =
            Shared { router: router(rules.clone()), tally: Arc::clone(tally), policy: rules, closed };
        Self { task: tokio::spawn(accept(listener, shared)), policy, close }
    }

    /// From now on these rules hold.
    pub fn obey(&self, policy: &Arc<Policy>) {
        self.policy.send_if_modified(|current| {
            let differs = !Arc::ptr_eq(current, policy);
            if differs {
                *current = Arc::clone(policy);
            }
            differs
        });
    }

    /// Takes no more connections, and gives those that are there a moment to finish.
    pub async fn close(self) {
        let _ = self.close.send(true);
        let abort = self.task.abort_handle();
        if timeout(DRAIN, self.task).await.is_err() {
            abort.abort();
        }
    }
}

/// Dropping the set of connections, when the server's task is aborted, ends them.
async fn accept(listener: TcpListener, shared: Shared) {
    let mut connections = JoinSet::new();
    let mut closed = shared.closed.clone();
    loop {
        tokio::select! {
            // An error means that the server was dropped.
            _ = closed.changed() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok(_) if connections.len() >= MOST => shared.tally.refuse(Refused::TooMany),
                Ok((stream, _)) => drop(connections.spawn(connection(stream, shared.clone()))),
                Err(error) => {
                    // Most of these are of the one client. When descriptors have run out, looping would cost a CPU.
                    tracing::debug!(%error, "cannot take a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, mut shared: Shared) {
    let _open = shared.tally.open();
    // Pages are written in one go; what is small should not wait for more.
    let _ = stream.set_nodelay(true);
    let policy = Arc::clone(&shared.policy.borrow_and_update());
    let Some(tls) = &policy.tls else { return talk(stream, shared, &policy).await };
    match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => talk(stream, shared, &policy).await,
        Ok(Err(error)) => {
            shared.tally.refuse(Refused::Handshake);
            tracing::debug!(%error, "no TLS with a client");
        }
        Err(_) => shared.tally.refuse(Refused::Slow),
    }
}

async fn talk<IO: AsyncRead + AsyncWrite + Unpin>(stream: IO, mut shared: Shared, policy: &Policy) {
    let asked = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let mut router = shared.router.clone();
        async move { tower_service::Service::call(&mut router, request).await }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let stream = TokioIo::new(Patient::new(stream, STALL));
    let mut talk = std::pin::pin!(http.serve_connection(stream, service));
    let mut ends = false;
    loop {
        tokio::select! {
            done = talk.as_mut() => {
                // Later on it is the end of an idle connection.
                if done.is_err_and(|error| error.is_timeout()) && !asked.load(Ordering::Relaxed) {
                    shared.tally.refuse(Refused::Slow);
                }
                return;
            }
            _ = shared.closed.changed(), if !ends => ends = true,
            changed = shared.policy.changed(), if !ends => {
                ends = changed.is_err() || !policy.allows_what(&shared.policy.borrow_and_update());
            }
        }
        if ends {
            talk.as_mut().graceful_shutdown();
            let _ = timeout(DRAIN, talk).await;
            return;
        }
    }
}
