//! Debian's Prometheus over one agent.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netsonde_tests::prometheus::Prometheus;
use netsonde_tests::{Agent, until};
use serde_json::Value;

/// One lab at a time: each keeps a CPU busy, and what a scrape has no time for is not on its page.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A Prometheus that scrapes every two seconds: a busy machine needs more than one for a page.
pub struct Server(Prometheus);

impl Server {
    /// It scrapes this agent; `more` is put into the scrape configuration.
    pub fn start(agent: &Agent, more: &str) -> Self {
        let scrape = format!(
            "global: {{scrape_interval: 2s, scrape_timeout: 2s}}\nscrape_configs:\n- job_name: netsonde\n  static_configs:\n  - targets: [\"{}\"]\n  {}\n",
            agent.address,
            more.replace('\n', "\n  ")
        );
        Self(Prometheus::start(&scrape, &[]))
    }

    /// Waits until it has scraped this often, with `meanwhile` in between.
    pub fn scraped(&self, times: u32, mut meanwhile: impl FnMut()) {
        until(&format!("prometheus has scraped {times} times"), Duration::from_mins(2), || {
            meanwhile();
            let answer = self.ask("count_over_time(up[5m])").ok()?;
            answer.first().is_some_and(|(_, count)| *count >= f64::from(times)).then_some(())
        });
    }

    /// The results of a query, each with its labels; the error is Prometheus's own.
    pub fn ask(&self, expression: &str) -> Result<Vec<(Value, f64)>, String> {
        self.0.query(expression)
    }

    /// The numbers of an answer; what is no number is no answer.
    pub fn values(&self, expression: &str) -> Result<Vec<f64>, String> {
        let values = self.ask(expression)?.into_iter().map(|(_, value)| value);
        Ok(values.filter(|value| !value.is_nan()).collect())
    }
}
