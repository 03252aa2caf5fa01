//! Writes a page through prometheus-client's encoder.
//!
//! The labels of a namespace are the same for all of its series, so they are escaped once a page.

use std::collections::BTreeMap;
use std::fmt::{Error, Write as _};

use netsonde_framework::label::escape;
use netsonde_framework::samples::{Column, Row};
use netsonde_framework::{Exp2, Kind, NsId, Samples, Topology, Value};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Style;
use super::names::{self, Family};
use crate::selfmetrics::OwnFamily;
use crate::supervisor::Gathered;

/// The whole page, OpenMetrics.
pub fn page(gathered: Gathered, style: &Style, own: Vec<OwnFamily>) -> Result<String, Error> {
    let series: usize = gathered.collected.iter().map(|c| c.samples.series()).sum();
    // About 130 bytes a series; growing in steps would copy megabytes.
    let mut out = String::with_capacity(series * 140 + 16 * 1024);
    let mut registry = Registry::default();
    let labels = Labels::new(&gathered.topology, style);
    registry.register_collector(Box::new(Probes { gathered, labels, metrics: style.metrics.clone() }));
    registry.register_collector(Box::new(Own(own)));
    encode(&mut out, &registry)?;
    Ok(out)
}

/// The namespace labels as text: everything up to the last label's name, and the last label's value.
#[derive(Debug)]
struct Labels {
    heads: Vec<String>,
    pods: Vec<String>,
}

impl Labels {
    fn new(topology: &Topology, style: &Style) -> Self {
        let names = &style.metrics.labels;
        let mut common = String::new();
        for (name, value) in &style.metrics.extra_labels {
            pair(&mut common, name, value);
        }
        pair(&mut common, &names.node, &style.node);
        let mut labels = Self { heads: Vec::new(), pods: Vec::new() };
        let pod_labels: Vec<(&str, String)> = style.metrics.pod_label_names().collect();
        for (_, ns) in topology.owners() {
            let mut head = common.clone();
            if let Some(pod) = &ns.pod {
                for (key, name) in &pod_labels {
                    if let Some(value) = pod.labels.get(*key) {
                        pair(&mut head, name, value);
                    }
                }
                if let (Some(name), Some(workload)) = (&names.workload, &pod.workload) {
                    pair(&mut head, name, workload);
                }
            }
            pair(&mut head, &names.namespace, &ns.identity.namespace);
            head.push_str(&names.pod);
            labels.heads.push(head);
            labels.pods.push(ns.identity.pod.clone());
        }
        labels
    }
}

fn pair(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str("=\"");
    escape(value, out);
    out.push_str("\",");
}

/// The labels of one series. A label's *name* is written as it is, so the labels that are escaped already go there,
/// in front of the last label's name; the last value is escaped by the encoder.
#[derive(Debug)]
struct Series<'a> {
    own: &'a str,
    head: &'a str,
    pod: &'a str,
}

impl EncodeLabelSet for Series<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), Error> {
        let mut label = encoder.encode_label();
        let mut name = label.encode_label_key()?;
        if !self.own.is_empty() {
            name.write_str(self.own)?;
            name.write_str(",")?;
        }
        name.write_str(self.head)?;
        let mut value = name.encode_label_value()?;
        value.write_str(self.pod)?;
        value.finish()
    }
}

#[derive(Debug)]
struct Probes {
    gathered: Gathered,
    labels: Labels,
    metrics: netsonde_config::Metrics,
}

impl Collector for Probes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut families: BTreeMap<String, (Family, &Column, &Samples)> = BTreeMap::new();
        for collected in &self.gathered.collected {
            for column in collected.samples.columns().iter().filter(|c| !c.rows.is_empty()) {
                for family in names::of(column.def, &self.metrics) {
                    families.insert(family.name.clone(), (family, column, &collected.samples));
                }
            }
        }
        for (name, (family, column, samples)) in &families {
            let mut metric = encoder.encode_descriptor(name, column.def.help, None, family.metric_type())?;
            match family.series {
                names::Series::Each => {
                    for row in &column.rows {
                        match samples.histogram(row).filter(|_| family.kind == Kind::Histogram) {
                            Some(value) => {
                                self.histogram(&mut metric, row.ns, samples.labels(row), value)?;
                            }
                            None => {
                                self.series(&mut metric, family, row.ns, samples.labels(row), row.value)?;
                            }
                        }
                    }
                }
                names::Series::Sum(only) => {
                    for (ns, value) in sums(&column.rows, samples, only) {
                        self.series(&mut metric, family, ns, "", value)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Probes {
    fn labels<'a>(&'a self, ns: NsId, own: &'a str) -> Option<Series<'a>> {
        let i = ns.0 as usize;
        Some(Series { own, head: self.labels.heads.get(i)?, pod: self.labels.pods.get(i)? })
    }

    fn histogram(
        &self,
        metric: &mut MetricEncoder<'_>,
        ns: NsId,
        own: &str,
        value: &Exp2,
    ) -> Result<(), Error> {
        let Some(labels) = self.labels(ns, own) else { return Ok(()) };
        let buckets: Vec<(f64, u64)> = Exp2::bounds().zip(value.counts).collect();
        let sum = value.sum_ns as f64 / 1e9;
        let mut series = metric.encode_family(&labels)?;
        series.encode_histogram::<NoLabelSet>(sum, value.count(), &buckets, None)
    }

    fn series(
        &self,
        metric: &mut MetricEncoder<'_>,
        family: &Family,
        ns: NsId,
        own: &str,
        value: Value,
    ) -> Result<(), Error> {
        let Some(labels) = self.labels(ns, own) else { return Ok(()) };
        let mut series = metric.encode_family(&labels)?;
        let counter = family.kind == Kind::Counter && family.series == names::Series::Each;
        match value {
            Value::U64(v) if counter => series.encode_counter::<NoLabelSet, _, f64>(&v, None),
            Value::I64(v) if counter => {
                series.encode_counter::<NoLabelSet, _, f64>(&v.max(0).unsigned_abs(), None)
            }
            Value::F64(v) if counter => series.encode_counter::<NoLabelSet, _, f64>(&v, None),
            Value::U64(v) => series.encode_gauge(&v),
            Value::I64(v) => series.encode_gauge(&v),
            Value::F64(v) => series.encode_gauge(&v),
        }
    }
}

/// The sum of the selected rows of each namespace, in the order in which the namespaces come.
fn sums(rows: &[Row], samples: &Samples, only: Option<&str>) -> Vec<(NsId, Value)> {
    let mut sums: Vec<(NsId, Value)> = Vec::new();
    for row in rows.iter().filter(|row| only.is_none_or(|only| samples.labels(row) == only)) {
        match sums.last_mut().filter(|(ns, _)| *ns == row.ns) {
            Some((_, sum)) => *sum = sum.plus(row.value),
            None => match sums.iter_mut().find(|(ns, _)| *ns == row.ns) {
                Some((_, sum)) => *sum = sum.plus(row.value),
                None => sums.push((row.ns, row.value)),
            },
        }
    }
    sums
}

fn one(series: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> Result<(), Error> {
    match kind {
        Kind::Counter => series.encode_counter::<NoLabelSet, _, f64>(&value, None),
        Kind::Gauge | Kind::Histogram => series.encode_gauge(&value),
    }
}

/// The agent's metrics about itself.
#[derive(Debug)]
struct Own(Vec<OwnFamily>);

impl Collector for Own {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for family in &self.0 {
            let kind = if family.def.kind == Kind::Counter { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(&family.name, family.def.help, None, kind)?;
            for (labels, value) in &family.rows {
                let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
                if labels.is_empty() {
                    one(&mut metric, family.def.kind, *value)?;
                } else {
                    one(&mut metric.encode_family(&labels)?, family.def.kind, *value)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use netsonde_config::{LabelNames, Metrics, Names};
    use netsonde_framework::label::Family as IpVersion;
    use netsonde_framework::{Identity, Limits, Namespace, NetnsKey, Origin};

    use super::*;
    use crate::supervisor::Collected;

    netsonde_framework::metrics! {
        /// Datagrams delivered.
        IN: Counter<(IpVersion,)> = "udp_in_datagrams".reference_where("kubeskoop_udp_indatagrams", "family=\"ipv4\"").source("x");
        /// How long it took.
        WAIT: Histogram<(IpVersion,)> = "udp_wait_seconds".source("x");
        /// Sockets.
        OPEN: Gauge<(IpVersion,)> = "udp_open".reference("kubeskoop_udp_open").source("x");
    }

    fn namespace(key: u64, pod: &str) -> Arc<Namespace> {
        let identity = Identity { namespace: "netns".into(), pod: pod.into() };
        let processes = Arc::new([]);
        let (inode, origin, pod) = (key, Origin::Name, None);
        Arc::new(Namespace { key: NetnsKey(key), inode, identity, origin, pod, processes })
    }

    fn made(names: Names) -> String {
        let mut samples = Samples::new(ALL, Limits::default());
        for ns in [NsId(0), NsId(1)] {
            samples.push(&IN, ns, IpVersion::Ipv4, 5u64);
            samples.push(&IN, ns, IpVersion::Ipv6, 7u64);
            let mut wait = Exp2::default();
            wait.observe(5_000);
            wait.observe(20_000_000_000);
            samples.push_histogram(&WAIT, ns, IpVersion::Ipv4, &wait);
            samples.push(&OPEN, ns, IpVersion::Ipv4, 1u64);
            samples.push(&OPEN, ns, IpVersion::Ipv6, 2u64);
        }
        let (wall, cpu) = (Duration::ZERO, Duration::ZERO);
        let collected = vec![Collected { probe: "udp", samples, error: None, wall, cpu }];
        let topology = Arc::new(Topology::new(vec![namespace(1, "a"), namespace(2, "b\"\\")]));
        let metrics = Metrics {
            names,
            prefix: "netsonde".into(),
            labels: LabelNames {
                node: "n".into(),
                namespace: "ns".into(),
                pod: "pod".into(),
                workload: None,
            },
            extra_labels: BTreeMap::from([("cluster".into(), "x".into())]),
            ..Metrics::default()
        };
        let style = Style { node: "vm".into(), metrics };
        page(Gathered { topology, collected }, &style, Vec::new()).expect("encoded")
    }

    #[test]
    fn native_names_have_every_label_escaped_once() {
        let page = made(Names::Native);
        assert!(page.contains(
            "# TYPE netsonde_udp_in_datagrams counter\n\
             netsonde_udp_in_datagrams_total{family=\"ipv4\",cluster=\"x\",n=\"vm\",ns=\"netns\",pod=\"a\"} 5\n"
        ), "{page}");
        assert!(page.contains("pod=\"b\\\"\\\\\"} 7\n"), "{page}");
        assert!(!page.contains("kubeskoop") && page.ends_with("# EOF\n"));
    }

    #[test]
    fn a_histogram_has_cumulative_buckets_in_seconds() {
        let page = made(Names::Native);
        let of = |suffix: &str, le: &str| {
            let own = "family=\"ipv4\",cluster=\"x\",n=\"vm\",ns=\"netns\",pod=\"a\"";
            format!("netsonde_udp_wait_seconds{suffix}{{{le}{own}}}")
        };
        assert!(page.contains("# TYPE netsonde_udp_wait_seconds histogram\n"), "{page}");
        for (line, value) in [
            (of("_sum", ""), "20.000005"),
            (of("_count", ""), "2"),
            (of("_bucket", "le=\"0.000004096\","), "0"),
            (of("_bucket", "le=\"0.000008192\","), "1"),
            (of("_bucket", "le=\"8.589934592\","), "1"),
            (of("_bucket", "le=\"+Inf\","), "2"),
        ] {
            assert!(page.contains(&format!("{line} {value}\n")), "{line}: {page}");
        }
    }

    #[test]
    fn reference_names_are_sums_over_what_they_stand_for() {
        let page = made(Names::Kubeskoop);
        assert!(
            page.contains(
                "# TYPE kubeskoop_udp_indatagrams unknown\n\
             kubeskoop_udp_indatagrams{cluster=\"x\",n=\"vm\",ns=\"netns\",pod=\"a\"} 5\n"
            ),
            "{page}"
        );
        assert!(
            page.contains("kubeskoop_udp_open{cluster=\"x\",n=\"vm\",ns=\"netns\",pod=\"a\"} 3\n"),
            "{page}"
        );
        assert!(!page.contains("netsonde_"), "{page}");
        let both = made(Names::Both);
        assert!(both.contains("netsonde_udp_open{") && both.contains("kubeskoop_udp_open{"));
    }
}
