//! From samples to a page: one thread gathers and encodes, however many scrapers there are.
//!
//! Scrapers that ask while a page is being made get that page. A page is made of this scrape's values only.

mod encode;
mod names;
mod text;

use std::io::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;
use netsonde_config::Metrics;
use tokio::sync::{mpsc, oneshot};

use crate::selfmetrics::SelfMetrics;
use crate::supervisor::Supervisor;

/// The exposition format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// OpenMetrics 1.0.
    Openmetrics,
    /// Prometheus text 0.0.4.
    Text,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Openmetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// How a page is written: the part of the configuration that names things.
#[derive(Debug, Clone)]
pub struct Style {
    pub node: String,
    pub metrics: Metrics,
}

/// One page in the forms that were asked for.
#[derive(Debug, Default)]
pub struct Page {
    openmetrics: Bytes,
    text: OnceLock<Bytes>,
    gzip: [OnceLock<Bytes>; 2],
}

impl Page {
    pub fn body(&self, format: Format) -> &Bytes {
        match format {
            Format::Openmetrics => &self.openmetrics,
            Format::Text => self.text.get_or_init(|| {
                let page = std::str::from_utf8(&self.openmetrics).unwrap_or_default();
                text::from_openmetrics(page).into()
            }),
        }
    }

    pub fn gzip(&self, format: Format) -> &Bytes {
        self.gzip[format as usize].get_or_init(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            // Writing to a Vec does not fail.
            let _ = encoder.write_all(self.body(format));
            encoder.finish().unwrap_or_default().into()
        })
    }
}

/// Makes a page on the calling thread.
pub fn page(
    supervisor: &Mutex<Supervisor>,
    style: &Style,
    own: Option<&SelfMetrics>,
    deadline: Instant,
) -> Result<Page, std::fmt::Error> {
    let start = Instant::now();
    let gathered = supervisor.lock().unwrap_or_else(PoisonError::into_inner).gather(deadline);
    let families = own.map(|own| own.families(supervisor, &style.node, start.elapsed()));
    let openmetrics = encode::page(gathered, style, families.unwrap_or_default())?;
    Ok(Page { openmetrics: openmetrics.into(), ..Page::default() })
}

struct Request {
    deadline: Instant,
    format: Format,
    gzip: bool,
    reply: oneshot::Sender<Arc<Page>>,
}

/// Asks for pages, from async code.
#[derive(Debug, Clone)]
pub struct Scraper(mpsc::Sender<Request>);

/// Scrapers that may wait at once; the next is told to come back.
const WAITING: usize = 64;

impl Scraper {
    /// Starts the thread. It ends when the last handle is dropped.
    pub fn start(
        supervisor: Arc<Mutex<Supervisor>>,
        style: Arc<Mutex<Arc<Style>>>,
        own: Arc<SelfMetrics>,
    ) -> std::io::Result<Self> {
        let (requests, mut inbox) = mpsc::channel::<Request>(WAITING);
        thread::Builder::new().name("scrape".into()).spawn(move || {
            while let Some(first) = inbox.blocking_recv() {
                let style = Arc::clone(&style.lock().unwrap_or_else(PoisonError::into_inner));
                let made = page(&supervisor, &style, Some(&own), first.deadline);
                let Ok(page) = made.map(Arc::new) else {
                    tracing::error!("the page could not be encoded");
                    continue;
                };
                own.scraped();
                // Taken before anyone is answered: who asks after having seen this page gets a newer one.
                let waiting: Vec<Request> = std::iter::from_fn(|| inbox.try_recv().ok()).collect();
                answer(first, &page);
                for request in waiting {
                    own.shared();
                    answer(request, &page);
                }
            }
        })?;
        Ok(Self(requests))
    }

    /// A page, in this format; `None` when too many wait already.
    pub async fn page(&self, format: Format, gzip: bool, within: Duration) -> Option<Arc<Page>> {
        let (reply, answer) = oneshot::channel();
        let request = Request { deadline: Instant::now() + within, format, gzip, reply };
        self.0.try_send(request).ok()?;
        answer.await.ok()
    }
}

/// The form that was asked for is made here, not on the thread that serves everyone.
fn answer(request: Request, page: &Arc<Page>) {
    if request.gzip {
        page.gzip(request.format);
    } else {
        page.body(request.format);
    }
    // The scraper may have gone away.
    let _ = request.reply.send(Arc::clone(page));
}
