//! What the server counts: connections, refusals, and what became of the web configuration file.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a connection was closed before it asked for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many as may be are open.
    TooMany,
    /// TLS was not agreed on, or the client's certificate is not good.
    Handshake,
    /// Nothing whole came in time.
    Slow,
}

/// Why a request got no answer but this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// It has no credentials.
    Missing,
    /// They are wrong.
    Wrong,
    /// Too many passwords wait to be checked.
    Busy,
}

/// What became of the web configuration file so far.
#[derive(Debug, Default, Clone)]
pub struct WebState {
    /// The file in force; `None`: there is none.
    pub file: Option<PathBuf>,
    pub taken: u64,
    pub refused: u64,
    /// Seconds since 1970.
    pub taken_at: f64,
    /// Why the file as it is now is not in force.
    pub problem: Option<String>,
}

/// Shared by the server, `/metrics` and `/status`.
#[derive(Debug, Default)]
pub struct Tally {
    open: AtomicU64,
    refused: [AtomicU64; 3],
    denied: [AtomicU64; 3],
    web: Mutex<WebState>,
}

/// One open connection.
#[derive(Debug)]
pub struct Open(Arc<Tally>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tally {
    pub fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(self))
    }

    pub fn refuse(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn deny(&self, why: Denied) {
        self.denied[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn connections(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = ["too_many", "handshake", "slow"];
        names.into_iter().zip(&self.refused).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    pub fn denied(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = ["no_credentials", "wrong_credentials", "busy"];
        names.into_iter().zip(&self.denied).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }

    pub fn web(&self) -> WebState {
        self.lock().clone()
    }

    /// `file` is in force now.
    pub fn web_taken(&self, file: Option<PathBuf>) {
        let mut web = self.lock();
        web.taken += u64::from(file.is_some());
        web.taken_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        web.problem = None;
        web.file = file;
    }

    /// The file as it is now is not in force.
    pub fn web_refused(&self, problem: String) {
        let mut web = self.lock();
        web.refused += 1;
        web.problem = Some(problem);
    }

    fn lock(&self) -> MutexGuard<'_, WebState> {
        self.web.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
