//! What is asked of the API server: pages of the list of pods, and a watch on it. GET and nothing else.

use std::error::Error as _;
use std::time::Duration;

use reqwest::{Certificate, Response, StatusCode, Url, redirect};
use tokio::time::timeout;

use super::Server;
use super::object::{Event, Failure, PodList};

/// How long a connection and a page may take.
const CONNECT: Duration = Duration::from_secs(10);
const PAGE: Duration = Duration::from_mins(1);
/// Pods on a page; one is some 10 kB of JSON.
const PAGE_PODS: &str = "500";
/// The largest page, line of a watch, and answer to what was refused that is read.
const MOST_PAGE: usize = 64 << 20;
const MOST_LINE: usize = 16 << 20;
const MOST_REFUSAL: usize = 16 << 10;
/// A peer that is gone without a word is noticed after about three times this.
const ALIVE: Duration = Duration::from_secs(5);
/// How long a watch may say nothing; bookmarks come each minute.
const SILENCE: Duration = Duration::from_secs(90);
/// Those that have ended have no addresses.
const WHICH: (&str, &str) = ("fieldSelector", "status.phase!=Succeeded,status.phase!=Failed");

/// What went wrong.
#[derive(Debug)]
pub(super) enum Error {
    /// The version that was asked for is too old: only a new list helps.
    Expired,
    /// A watch told what cannot be gone on from, and why. Only a new list helps.
    Broken(String),
    /// What was attempted, and why it did not work.
    Failed(&'static str, String),
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Error {
    move |why| Error::Failed(what, why.to_string())
}

/// A connection to an API server, with the certificates that were there when it was made.
pub(super) struct Api<'a> {
    server: &'a Server,
    http: reqwest::Client,
    pods: Url,
}

impl<'a> Api<'a> {
    pub(super) fn new(server: &'a Server) -> Result<Self, Error> {
        let pods = address(server).map_err(failed("settings"))?;
        let http = connect(server, &pods).map_err(failed("settings"))?;
        Ok(Self { server, http, pods })
    }

    /// Whom it asks.
    pub(super) fn server(&self) -> String {
        self.pods.origin().ascii_serialization()
    }

    /// A page of the list: the first, or the one that `next` of the last one names.
    pub(super) async fn page(&self, next: &str) -> Result<PodList, Error> {
        let mut query = vec![WHICH, ("limit", PAGE_PODS)];
        if !next.is_empty() {
            query.push(("continue", next));
        }
        let read = async {
            let mut answer = self.get("list", &query).await?;
            let mut page = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(|why| Error::Failed("list", said(why)))? {
                if page.len() + chunk.len() > MOST_PAGE {
                    return Err(Error::Failed("list", format!("a page has more than {MOST_PAGE} bytes")));
                }
                page.extend_from_slice(&chunk);
            }
            serde_json::from_slice(&page).map_err(failed("list"))
        };
        timeout(PAGE, read)
            .await
            .map_err(|_| Error::Failed("list", format!("no whole page within {PAGE:?}")))?
    }

    /// What happens after this version, for about so many seconds.
    pub(super) async fn watch(&self, version: &str, seconds: u64) -> Result<Watch, Error> {
        let seconds = seconds.to_string();
        let query = [
            WHICH,
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", &seconds),
        ];
        let answer = timeout(PAGE, self.get("watch", &query)).await;
        let answer = answer.map_err(|_| Error::Failed("watch", format!("no answer within {PAGE:?}")))??;
        Ok(Watch { answer, line: Vec::new(), looked: 0 })
    }

    async fn get(&self, what: &'static str, query: &[(&str, &str)]) -> Result<Response, Error> {
        // The kubelet replaces it now and then.
        let file = &self.server.token_file;
        let token = std::fs::read_to_string(file)
            .map_err(|why| Error::Failed("settings", format!("cannot read {}: {why}", file.display())))?;
        let request = self.http.get(self.pods.clone()).query(query).bearer_auth(token.trim());
        let answer = request.send().await.map_err(|why| Error::Failed(what, said(why)))?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::GONE => Err(Error::Expired),
            status => Err(Error::Failed(what, refusal(status, answer).await)),
        }
    }
}

/// A watch that is open.
pub(super) struct Watch {
    answer: Response,
    line: Vec<u8>,
    /// So much of it has no line feed.
    looked: usize,
}

impl Watch {
    /// The next event; `None` when the API server has ended the watch. What was read of a line stays when the future is
    /// dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(at) = self.line[self.looked..].iter().position(|byte| *byte == b'\n') {
                let rest = self.line.split_off(self.looked + at + 1);
                let line = std::mem::replace(&mut self.line, rest);
                self.looked = 0;
                return match Event::parse(&line).map_err(Error::Broken)? {
                    Event::Error(Failure { code: 410, .. }) => Err(Error::Expired),
                    Event::Error(failure) => Err(Error::Broken(told(failure.code, &failure))),
                    event => Ok(Some(event)),
                };
            }
            self.looked = self.line.len();
            if self.looked > MOST_LINE {
                return Err(Error::Broken(format!("a line has more than {MOST_LINE} bytes")));
            }
            // A silent connection may be one that nobody serves any more; the next one goes on from here.
            let Ok(chunk) = timeout(SILENCE, self.answer.chunk()).await else { return Ok(None) };
            match chunk.map_err(|why| Error::Failed("watch", said(why)))? {
                Some(chunk) => self.line.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// Where the pods are.
fn address(server: &Server) -> Result<Url, String> {
    let text = match &server.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => own_cluster(|name| std::env::var(name).ok())?,
    };
    Url::parse(&format!("{text}/api/v1/pods")).map_err(|why| format!("{text} is no address: {why}"))
}

/// The address that Kubernetes gives to every container.
fn own_cluster(variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let (host, port) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT"));
    match (host, port) {
        (Some(host), Some(port)) if host.contains(':') => Ok(format!("https://[{host}]:{port}")),
        (Some(host), Some(port)) => Ok(format!("https://{host}:{port}")),
        _ => Err(
            "no API server is known: this is no pod (KUBERNETES_SERVICE_HOST), and discovery.cluster_server \
                  is not set"
                .into(),
        ),
    }
}

fn connect(server: &Server, url: &Url) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        // The token goes to the API server only.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .tcp_keepalive(ALIVE)
        .tcp_keepalive_interval(ALIVE)
        .tcp_keepalive_retries(2)
        .pool_max_idle_per_host(1)
        .user_agent(concat!("netsonde/", env!("CARGO_PKG_VERSION")))
        .tls_built_in_root_certs(false);
    if url.scheme() == "https" {
        let file = &server.ca_file;
        let wrong = |why: &dyn std::fmt::Display| format!("cannot use {}: {why}", file.display());
        let pem = std::fs::read(file).map_err(|why| wrong(&why))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|why| wrong(&why))?;
        if certificates.is_empty() {
            return Err(wrong(&"it holds no certificate"));
        }
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(said)
}

/// What the API server says of a request that it refused.
async fn refusal(status: StatusCode, mut answer: Response) -> String {
    let mut text = Vec::new();
    while text.len() < MOST_REFUSAL {
        let Ok(Ok(Some(chunk))) = timeout(CONNECT, answer.chunk()).await else { break };
        text.extend_from_slice(&chunk);
    }
    told(status.as_u16(), &serde_json::from_slice(&text).unwrap_or_default())
}

fn told(code: u16, failure: &Failure) -> String {
    let hint = match code {
        401 => "; the token is not accepted",
        403 => "; the service account must be allowed to list and watch pods",
        _ => "",
    };
    let said: String = failure.message.chars().filter(|c| !c.is_control()).take(300).collect();
    let colon = if said.is_empty() { "" } else { ": " };
    format!("the API server answers {code}{colon}{said}{hint}")
}

/// An error with its causes; the innermost tells most.
fn said(why: reqwest::Error) -> String {
    let why = why.without_url();
    let mut text = why.to_string();
    let mut source = why.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_knows_its_api_server_and_nothing_else_does() {
        let with = |host: &'static str| {
            own_cluster(move |name| match name {
                "KUBERNETES_SERVICE_HOST" => Some(host.into()),
                "KUBERNETES_SERVICE_PORT" => Some("443".into()),
                _ => None,
            })
        };
        assert_eq!(with("10.96.0.1").as_deref(), Ok("https://10.96.0.1:443"));
        assert_eq!(with("fd00::1").as_deref(), Ok("https://[fd00::1]:443"));
        assert!(own_cluster(|_| None).is_err_and(|why| why.contains("discovery.cluster_server")));
    }

    #[test]
    fn a_refusal_says_what_is_missing() {
        let failure = Failure { code: 403, message: "pods is\nforbidden".into() };
        let text = told(403, &failure);
        assert!(text.contains("403: pods isforbidden; the service account must"), "{text}");
        assert_eq!(told(500, &Failure::default()), "the API server answers 500");
    }
}
