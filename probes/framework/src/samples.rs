//! What a probe has measured: one column of rows for each of its metrics.
//!
//! A probe appends with [`Samples::push`]; nothing is kept from one scrape to the next, so what is gone from
//! the kernel is gone from the page. Rows beyond the limit are refused and counted, never silently lost.

use crate::histogram::{BUCKETS, Exp2};
use crate::label::Labels;
use crate::metric::{Histogram, MetricDef, Single};
use crate::topology::NsId;

/// A sample's value, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Counters and sizes.
    U64(u64),
    /// Values that can be below zero.
    I64(i64),
    /// Seconds and ratios.
    F64(f64),
}

impl From<u64> for Value {
    fn from(v: u64) -> Self {
        Self::U64(v)
    }
}
impl From<u32> for Value {
    fn from(v: u32) -> Self {
        Self::U64(v.into())
    }
}
impl From<i64> for Value {
    fn from(v: i64) -> Self {
        Self::I64(v)
    }
}
impl From<f64> for Value {
    fn from(v: f64) -> Self {
        Self::F64(v)
    }
}

impl Value {
    /// The sum, exact as long as both are integers; it wraps where the kernel's own counters would.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::U64(a), Self::U64(b)) => Self::U64(a.wrapping_add(b)),
            (Self::I64(a), Self::I64(b)) => Self::I64(a.wrapping_add(b)),
            (a, b) => Self::F64(a.as_f64() + b.as_f64()),
        }
    }

    /// The value as Prometheus stores it.
    pub fn as_f64(self) -> f64 {
        match self {
            Self::U64(v) => v as f64,
            Self::I64(v) => v as f64,
            Self::F64(v) => v,
        }
    }
}

/// One series of a metric: the namespace, the other labels (as text in the arena) and the value.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Whose it is.
    pub ns: NsId,
    labels: (u32, u32),
    /// What was read; of a histogram, its place among [`Samples::histogram`].
    pub value: Value,
}

/// All rows of one metric.
#[derive(Debug)]
pub struct Column {
    /// The metric.
    pub def: &'static MetricDef,
    /// In the order in which they were pushed.
    pub rows: Vec<Row>,
}

/// How much a probe may expose.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most series of one probe in one scrape.
    pub series: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { series: 100_000 }
    }
}

/// Where a probe puts what it read.
#[derive(Debug)]
pub struct Samples {
    columns: Vec<Column>,
    text: String,
    histograms: Vec<Exp2>,
    hint: usize,
    series: usize,
    refused: u64,
    limits: Limits,
}

impl Samples {
    /// Empty columns for these metrics.
    pub fn new(metrics: &'static [&'static MetricDef], limits: Limits) -> Self {
        let columns = metrics.iter().map(|def| Column { def, rows: Vec::new() }).collect();
        Self { columns, text: String::new(), histograms: Vec::new(), hint: 0, series: 0, refused: 0, limits }
    }

    /// Appends one series of `metric` in namespace `ns`.
    ///
    /// A metric that the probe's spec does not list is refused, like one beyond the limit.
    #[inline]
    pub fn push<M: Single>(
        &mut self,
        metric: &'static M,
        ns: NsId,
        labels: <M::Labels as Labels>::Values<'_>,
        value: impl Into<Value>,
    ) {
        self.row(metric.def(), ns, |text| M::Labels::write(labels, text), value.into(), 1);
    }

    /// Appends one histogram, which is as many series as it has buckets, and two more.
    pub fn push_histogram<L: Labels>(
        &mut self,
        metric: &'static Histogram<L>,
        ns: NsId,
        labels: L::Values<'_>,
        value: &Exp2,
    ) {
        let place = Value::U64(self.histograms.len() as u64);
        if self.row(&metric.def, ns, |text| L::write(labels, text), place, BUCKETS + 2) {
            self.histograms.push(value.clone());
        }
    }

    /// Gives `false` when the row was refused.
    #[inline]
    fn row(
        &mut self,
        def: &'static MetricDef,
        ns: NsId,
        write: impl FnOnce(&mut String),
        value: Value,
        series: usize,
    ) -> bool {
        let Some(column) = self.column_of(def) else {
            debug_assert!(false, "{} is not in its probe's list of metrics", def.name);
            self.refused += series as u64;
            return false;
        };
        if self.series + series > self.limits.series {
            self.refused += series as u64;
            return false;
        }
        let start = self.text.len();
        write(&mut self.text);
        let end = self.text.len();
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else {
            self.text.truncate(start);
            self.refused += series as u64;
            return false;
        };
        self.series += series;
        self.columns[column].rows.push(Row { ns, labels: (start, end), value });
        true
    }

    /// Probes push in the order of their list, so the column after the last one is nearly always it.
    fn column_of(&mut self, def: &'static MetricDef) -> Option<usize> {
        let found = |i: usize, columns: &[Column]| columns.get(i).is_some_and(|c| std::ptr::eq(c.def, def));
        let next = self.hint + 1;
        let i = if found(next, &self.columns) {
            next
        } else if found(self.hint, &self.columns) {
            self.hint
        } else {
            self.columns.iter().position(|c| std::ptr::eq(c.def, def))?
        };
        self.hint = i;
        Some(i)
    }

    /// The columns, in the order of the probe's list.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The labels of a row beside the namespace's: `name="value",...`, escaped; empty for none.
    pub fn labels(&self, row: &Row) -> &str {
        &self.text[row.labels.0 as usize..row.labels.1 as usize]
    }

    /// The distribution of a row of a histogram.
    pub fn histogram(&self, row: &Row) -> Option<&Exp2> {
        let Value::U64(place) = row.value else { return None };
        self.histograms.get(usize::try_from(place).ok()?)
    }

    /// How many series were taken.
    pub fn series(&self) -> usize {
        self.series
    }

    /// How many series were refused because of the limit.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The value of one series, for tests: metric name, namespace, labels as text.
    pub fn value(&self, name: &str, ns: NsId, labels: &str) -> Option<Value> {
        let column = self.columns.iter().find(|c| c.def.name == name)?;
        let row = column.rows.iter().find(|r| r.ns == ns && self.labels(r) == labels)?;
        Some(row.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::Device;

    crate::metrics! {
        /// a
        A: Counter<()> = "x_a";
        /// b
        B: Counter<(Device,)> = "x_b";
    }

    #[test]
    fn rows_land_in_the_column_of_their_metric() {
        let mut s = Samples::new(ALL, Limits::default());
        for ns in 0..3u32 {
            s.push(&A, NsId(ns), (), u64::from(ns));
            s.push(&B, NsId(ns), "eth0", 7u64);
            s.push(&B, NsId(ns), "eth1", 8u64);
        }
        assert_eq!(s.columns()[0].rows.len(), 3);
        assert_eq!(s.columns()[1].rows.len(), 6);
        assert_eq!(s.value("x_b", NsId(2), "device=\"eth1\""), Some(Value::U64(8)));
        assert_eq!(s.series(), 9);
    }

    #[test]
    fn rows_beyond_the_limit_are_refused_and_counted() {
        let mut s = Samples::new(ALL, Limits { series: 2 });
        for ns in 0..5u32 {
            s.push(&A, NsId(ns), (), 1u64);
        }
        assert_eq!((s.series(), s.refused()), (2, 3));
    }

    #[test]
    fn a_histogram_is_many_series_and_is_found_by_its_row() {
        crate::metrics! {
            /// h
            H: Histogram<(Device,)> = "x_h_seconds";
        }
        let mut s = Samples::new(ALL, Limits { series: 40 });
        let mut value = Exp2::default();
        value.observe(5000);
        s.push_histogram(&H, NsId(0), "eth0", &value);
        s.push_histogram(&H, NsId(0), "eth1", &value);
        assert_eq!((s.series(), s.refused()), (25, 25), "the second has no room");
        let row = s.columns()[0].rows[0];
        assert_eq!((s.labels(&row), s.histogram(&row)), ("device=\"eth0\"", Some(&value)));
    }

    #[test]
    fn integers_add_exactly() {
        let big = u64::MAX - 1;
        assert_eq!(Value::U64(big).plus(Value::U64(1)), Value::U64(u64::MAX));
        assert_eq!(Value::U64(1).plus(Value::F64(0.5)), Value::F64(1.5));
    }
}
