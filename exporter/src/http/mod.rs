//! What is served: `/metrics`, `/events`, `/healthz`, `/readyz`, `/status`. Everything else is 404.
//!
//! Where the web configuration file asks for credentials, everything needs them but `/healthz` and `/readyz`, which the
//! kubelet asks without any and which say nothing but a word.

mod auth;
mod patient;
mod server;
mod tally;
mod tls;
mod web;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

use crate::events::{Bus, stream};
use crate::scrape::{Format, Scraper};
use crate::status::Status;

use server::Server;
use tally::Denied;
pub use tally::{Tally, WebState};
use web::Policy;
pub use web::Web;

/// Prometheus's own default, where the scraper does not say.
pub const WITHIN: Duration = Duration::from_secs(10);

/// How often the web configuration file and what it names are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What needs no credentials.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

#[derive(Clone)]
pub struct Routes {
    pub scraper: Scraper,
    pub status: Status,
    pub bus: Arc<Bus>,
    pub tally: Arc<Tally>,
}

/// Where to serve, and under which rules.
#[derive(Clone)]
pub struct Place {
    pub address: SocketAddr,
    pub web: Web,
}

/// Binds, or says in one sentence why not.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        let in_use = std::net::TcpListener::bind(address).is_err_and(|e| e.kind() == ErrorKind::AddrInUse);
        let hint = if in_use { "; another program serves there, choose another with --listen" } else { "" };
        format!("cannot listen on {address}{hint}")
    })
}

/// Serves until `stop`. When the address changes, the new one is served before the old one is closed. Scrapes that are
/// on their way are finished, on an address that is left as well as at the end. The rules of an address change with it,
/// never before: what was asked for on one address is not given away on another.
pub async fn serve(
    listener: TcpListener,
    mut places: watch::Receiver<Place>,
    stop: oneshot::Receiver<()>,
    routes: Routes,
) {
    let Place { mut address, mut web } = places.borrow_and_update().clone();
    let start = |listener: TcpListener, policy: &Arc<Policy>| {
        Server::start(listener, Arc::clone(policy), &routes.tally, |rules| router(routes.clone(), rules))
    };
    let mut server = start(listener, &web.policy);
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            _ = &mut stop => break,
            changed = places.changed() => {
                if changed.is_err() {
                    break;
                }
                let mut wanted = places.borrow_and_update().clone();
                wanted.web.continues(&web);
                if wanted.address != address {
                    match bind(wanted.address).await {
                        Ok(listener) => {
                            let next = start(listener, &wanted.web.policy);
                            tokio::spawn(std::mem::replace(&mut server, next).close());
                            address = wanted.address;
                        }
                        Err(error) => {
                            tracing::error!("{error:#}; the old address is still served, under the old rules");
                            continue;
                        }
                    }
                }
                web = wanted.web;
                server.obey(&web.policy);
            }
            _ = look.tick(), if web.file().is_some() => {
                let file = web.file().map(std::path::Path::to_owned);
                // Files may lie on something slow.
                let looked = tokio::task::spawn_blocking({
                    let mut web = web.clone();
                    move || (web.look(), web)
                });
                let Ok((news, looked)) = looked.await else { continue };
                web = looked;
                match news {
                    Some(Ok(())) => {
                        server.obey(&web.policy);
                        routes.tally.web_taken(file);
                        tracing::info!("the web configuration is in force");
                    }
                    Some(Err(problem)) => {
                        tracing::error!("the web configuration was refused, nothing was changed: {problem}");
                        routes.tally.web_refused(problem);
                    }
                    None => {}
                }
            }
        }
    }
    server.close().await;
}

fn router(routes: Routes, rules: watch::Receiver<Arc<Policy>>) -> Router {
    let tally = Arc::clone(&routes.tally);
    Router::new()
        .route("/metrics", get(metrics))
        .route("/events", get(events))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .with_state(routes)
        .layer(from_fn_with_state((rules, tally), admit))
}

/// Lets a request through that may be answered, as the rules are now.
async fn admit(
    State((rules, tally)): State<(watch::Receiver<Arc<Policy>>, Arc<Tally>)>,
    request: Request,
    next: Next,
) -> Response {
    if HEALTH.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let policy = Arc::clone(&rules.borrow());
    let Err(why) = policy.auth.admit(request.headers().get(header::AUTHORIZATION)).await else {
        return next.run(request).await;
    };
    tally.deny(why);
    if why == Denied::Busy {
        let later = [(header::RETRY_AFTER, "1")];
        return (StatusCode::SERVICE_UNAVAILABLE, later, "too many passwords to check\n").into_response();
    }
    let mut answer = (StatusCode::UNAUTHORIZED, "unauthorized\n").into_response();
    for challenge in policy.auth.challenges() {
        answer.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}

async fn metrics(State(routes): State<Routes>, headers: HeaderMap) -> Response {
    let format = format(&headers);
    let gzip = accepts_gzip(&headers);
    let Some(page) = routes.scraper.page(format, gzip, within(&headers)).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once\n").into_response();
    };
    let kind = (header::CONTENT_TYPE, format.content_type());
    if gzip {
        ([kind, (header::CONTENT_ENCODING, "gzip")], page.gzip(format).clone()).into_response()
    } else {
        ([kind], page.body(format).clone()).into_response()
    }
}

/// Ready when the first search for namespaces is done, which is before anything is served.
async fn ready() -> &'static str {
    "ready\n"
}

/// Server-sent events; see [`stream`] for what can be asked.
async fn events(State(routes): State<Routes>, RawQuery(query): RawQuery) -> Response {
    match stream::Wish::parse(query.as_deref().unwrap_or_default()) {
        Ok(wish) => stream::answer(&routes.bus, wish).into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

async fn status(State(routes): State<Routes>) -> Response {
    // Asking the supervisor waits for a scrape that is on its way.
    let text = tokio::task::spawn_blocking(move || routes.status.json()).await;
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn text_of(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// OpenMetrics for whoever asks for it by name or has no wish at all; else 0.0.4.
fn format(headers: &HeaderMap) -> Format {
    let accept = text_of(headers, header::ACCEPT);
    let old = accept.contains("text/plain") && !accept.contains("application/openmetrics-text");
    if old { Format::Text } else { Format::Openmetrics }
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    text_of(headers, header::ACCEPT_ENCODING).split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        named && !parts.any(|q| q.replace(' ', "").trim_end_matches(['0', '.']) == "q=")
    })
}

/// The scraper's own patience, less what it takes to send the page.
fn within(headers: &HeaderMap) -> Duration {
    let name = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
    let seconds = text_of(headers, name).parse::<f64>().ok().filter(|s| (0.05..=300.0).contains(s));
    let whole = seconds.map_or(WITHIN, Duration::from_secs_f64);
    whole.saturating_sub((whole / 10).min(Duration::from_millis(500)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().expect("a header value"));
        headers
    }

    #[test]
    fn the_format_is_the_one_that_the_scraper_names() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(format(&headers("accept", prometheus)), Format::Openmetrics);
        assert_eq!(format(&headers("accept", "text/plain;version=0.0.4")), Format::Text);
        assert_eq!(format(&headers("accept", "*/*")), Format::Openmetrics);
        assert_eq!(format(&HeaderMap::new()), Format::Openmetrics);
    }

    #[test]
    fn gzip_is_used_when_it_is_welcome() {
        assert!(accepts_gzip(&headers("accept-encoding", "deflate, gzip;q=1.0")));
        assert!(!accepts_gzip(&headers("accept-encoding", "gzip;q=0")));
        assert!(!accepts_gzip(&headers("accept-encoding", "identity")));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn the_deadline_is_a_little_before_the_scrapers() {
        let name = "x-prometheus-scrape-timeout-seconds";
        assert_eq!(within(&headers(name, "10")), Duration::from_millis(9500));
        assert_eq!(within(&headers(name, "1")), Duration::from_millis(900));
        assert_eq!(within(&headers(name, "nonsense")), Duration::from_millis(9500));
        assert_eq!(within(&headers(name, "-5")), Duration::from_millis(9500));
        assert_eq!(within(&headers(name, "inf")), Duration::from_millis(9500));
    }
}
