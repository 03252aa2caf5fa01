//! What is served: `/metrics`, `/events`, `/healthz`, `/readyz`, `/status`. Everything else is 404.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::events::{Bus, stream};
use crate::scrape::{Format, Scraper};
use crate::status::Status;

/// Prometheus's own default, where the scraper does not say.
pub const WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Routes {
    pub scraper: Scraper,
    pub status: Status,
    pub bus: Arc<Bus>,
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
/// on their way are finished, on an address that is left as well as at the end.
pub async fn serve(
    listener: TcpListener,
    mut addresses: watch::Receiver<SocketAddr>,
    stop: oneshot::Receiver<()>,
    routes: Routes,
) {
    let mut server = Server::start(listener, routes.clone());
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            _ = &mut stop => break,
            changed = addresses.changed() => {
                if changed.is_err() {
                    break;
                }
                let wanted = *addresses.borrow_and_update();
                match bind(wanted).await {
                    Ok(listener) => {
                        let left = std::mem::replace(&mut server, Server::start(listener, routes.clone()));
                        tokio::spawn(left.close());
                    }
                    Err(error) => tracing::error!("{error:#}; the old address is still served"),
                }
            }
        }
    }
    server.close().await;
}

/// One address that is served.
struct Server {
    task: tokio::task::JoinHandle<std::io::Result<()>>,
    close: oneshot::Sender<()>,
}

/// How long a scrape that is on its way may take to finish.
const DRAIN: Duration = Duration::from_secs(1);

impl Server {
    fn start(listener: TcpListener, routes: Routes) -> Self {
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, "serving /metrics");
        }
        let (close, closed) = oneshot::channel::<()>();
        let closed = async {
            // Dropping the sender closes as well.
            let _ = closed.await;
        };
        let serving = axum::serve(listener, router(routes)).with_graceful_shutdown(closed);
        Self { task: tokio::spawn(async { serving.await }), close }
    }

    async fn close(self) {
        let _ = self.close.send(());
        let abort = self.task.abort_handle();
        if tokio::time::timeout(DRAIN, self.task).await.is_err() {
            abort.abort();
        }
    }
}

fn router(routes: Routes) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/events", get(events))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .with_state(routes)
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
