//! Sends a push over HTTP. Redirects are not followed, so credentials go to the address of the settings only.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Url, redirect};

use super::answer::judge;
use super::secret::Credentials;
use crate::{Refusal, SinkError};

/// So much of an answer is read.
const MOST_ANSWER: usize = 4 << 10;

/// A connection to one push endpoint.
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    tenant: Option<HeaderValue>,
    credentials: Credentials,
    ca_file: Option<PathBuf>,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(
        url: &str,
        tenant: Option<&str>,
        credentials: Credentials,
        ca_file: Option<PathBuf>,
        timeout: Duration,
    ) -> Result<Self, SinkError> {
        let url = address(url).map_err(SinkError::Settings)?;
        let tenant = tenant.map(HeaderValue::from_str).transpose();
        let tenant = tenant.map_err(|_| SinkError::Settings("tenant: must be visible ASCII".into()))?;
        let http = connect(&url, ca_file.as_deref(), timeout).map_err(SinkError::Open)?;
        Ok(Self { http, url, tenant, credentials, ca_file, timeout })
    }

    /// Reads the file of certificates again.
    pub(super) fn renew(&mut self) {
        match connect(&self.url, self.ca_file.as_deref(), self.timeout) {
            Ok(http) => self.http = http,
            Err(why) => tracing::warn!(why, "the old certificates stay in use"),
        }
    }

    /// Sends a body; it is taken when Loki says so.
    pub(super) async fn push(&mut self, body: Vec<u8>) -> Result<(), Refusal> {
        let mut request =
            self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/x-protobuf").body(body);
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        request = match &mut self.credentials {
            Credentials::None => request,
            Credentials::Basic(user, secret) => {
                request.basic_auth(user, Some(secret.text().map_err(Refusal::retry)?))
            }
            Credentials::Bearer(secret) => request.bearer_auth(secret.text().map_err(Refusal::retry)?),
        };
        let mut response = request.send().await.map_err(|why| Refusal::retry(said(why)))?;
        let status = response.status();
        let after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut text = Vec::new();
        // What Loki has taken is taken, even if the rest of its answer is lost.
        while !status.is_success() && text.len() < MOST_ANSWER {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    text.extend_from_slice(&chunk[..chunk.len().min(MOST_ANSWER - text.len())]);
                }
                Ok(None) | Err(_) => break,
            }
        }
        judge(status.as_u16(), after.as_deref(), &String::from_utf8_lossy(&text), SystemTime::now())
    }
}

fn address(text: &str) -> Result<Url, String> {
    let example = "such as http://loki:3100/loki/api/v1/push";
    let url = Url::parse(text).map_err(|why| format!("url: {why}; write a whole address {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("url: must begin with http:// or https://, {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("url: must not hold a password; use username and password_file".into());
    }
    if url.path() == "/" {
        return Err(format!("url: the path is missing; write the whole address {example}"));
    }
    Ok(url)
}

fn connect(url: &Url, ca_file: Option<&Path>, timeout: Duration) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_max_idle_per_host(1)
        .user_agent(concat!("netsonde/", env!("CARGO_PKG_VERSION")))
        // A machine without any certificates can still speak plain HTTP.
        .tls_built_in_root_certs(url.scheme() == "https" && ca_file.is_none());
    if let Some(path) = ca_file {
        let wrong = |why: &dyn std::fmt::Display| format!("cannot use ca_file {}: {why}", path.display());
        let pem = std::fs::read(path).map_err(|why| wrong(&why))?;
        let certificates = Certificate::from_pem_bundle(&pem).map_err(|why| wrong(&why))?;
        if certificates.is_empty() {
            return Err(wrong(&"it holds no certificate"));
        }
        for certificate in certificates {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|why| format!("cannot make an HTTP client for Loki: {}", said(why)))
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
