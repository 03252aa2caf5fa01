//! Under which names a metric is exposed.

use netsonde_config::{Metrics, Names};
use netsonde_framework::{Kind, MetricDef};
use prometheus_client::metrics::MetricType;

/// Which series a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Series {
    /// All of the metric's, as they are.
    Each,
    /// One for each namespace: the sum of those whose labels are exactly this, or of all.
    Sum(Option<&'static str>),
}

/// One metric family of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// As `# TYPE` has it: without `_total`.
    pub name: String,
    pub kind: Kind,
    pub series: Series,
}

/// The families that this metric gives with these settings.
pub fn of(def: &MetricDef, metrics: &Metrics) -> Vec<Family> {
    let mut families = Vec::new();
    if metrics.names != Names::Kubeskoop && !def.reference_only {
        let name = format!("{}_{}", metrics.prefix, def.name);
        families.push(Family { name, kind: def.kind, series: Series::Each });
    }
    if metrics.names != Names::Native
        && let Some(reference) = def.reference
    {
        families.push(Family {
            name: reference.name.into(),
            kind: def.kind,
            series: Series::Sum(reference.only),
        });
    }
    families
}

impl Family {
    /// The reference's counters have no `_total`, which OpenMetrics asks of counters: there they are `unknown`.
    pub fn metric_type(&self) -> MetricType {
        match (self.kind, self.series) {
            (Kind::Gauge, _) => MetricType::Gauge,
            (Kind::Histogram, _) => MetricType::Histogram,
            (Kind::Counter, Series::Each) => MetricType::Counter,
            (Kind::Counter, Series::Sum(_)) => MetricType::Unknown,
        }
    }
}
