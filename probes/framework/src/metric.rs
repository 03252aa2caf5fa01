//! Metrics as typed statics: one declaration drives registration, help text, documentation and label checks.
//!
//! Names are given without the configurable prefix and, for counters, without `_total`:
//! `tcp_active_opens` is exposed as `netsonde_tcp_active_opens_total`.

use std::marker::PhantomData;

use crate::label::{Label, Labels};

/// What kind of value a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the namespace, the device or the machine starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution of durations in seconds; see [`crate::histogram`].
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The name of the same value in the reference list (KubeSkoop's), and how it is made from our series.
///
/// A reference metric has the namespace labels only: it is the sum, in each namespace, of the series that
/// `only` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// The full name, `kubeskoop_...`.
    pub name: &'static str,
    /// `label="value"` that a series must have in whole to count; `None` for all series.
    pub only: Option<&'static str>,
}

/// Everything there is to say of a metric. Built by [`Counter`], [`Gauge`] and [`Histogram`].
#[derive(Debug, Clone, Copy)]
pub struct MetricDef {
    /// Name without prefix and without `_total`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Meaning and unit, in one or two sentences.
    pub help: &'static str,
    /// Labels beside the namespace's.
    pub labels: &'static [Label],
    /// Where in the kernel the value comes from: the file and field, or the netlink attribute.
    pub source: &'static str,
    /// Its name in the reference list, if it has one.
    pub reference: Option<Reference>,
    /// Exposed under the reference name only (a derived value that the native names give otherwise).
    pub reference_only: bool,
}

macro_rules! typed_metric {
    ($(#[$doc:meta])* $name:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<L: Labels = ()> {
            /// The untyped description.
            pub def: MetricDef,
            labels: PhantomData<fn(L)>,
        }

        impl<L: Labels> $name<L> {
            /// A metric called `name`, without prefix and suffix.
            pub const fn new(name: &'static str, help: &'static str) -> Self {
                Self {
                    def: MetricDef {
                        name,
                        kind: $kind,
                        help,
                        labels: L::LABELS,
                        source: "",
                        reference: None,
                        reference_only: false,
                    },
                    labels: PhantomData,
                }
            }

            /// Where in the kernel the value comes from.
            #[must_use]
            pub const fn source(mut self, source: &'static str) -> Self {
                self.def.source = source;
                self
            }

            /// Its name in the reference list: the sum over all series of a namespace.
            #[must_use]
            pub const fn reference(mut self, name: &'static str) -> Self {
                self.def.reference = Some(Reference { name, only: None });
                self
            }

            /// Its name in the reference list: only the series whose labels are exactly `only`.
            #[must_use]
            pub const fn reference_where(mut self, name: &'static str, only: &'static str) -> Self {
                self.def.reference = Some(Reference { name, only: Some(only) });
                self
            }

            /// Exposed under its reference name only.
            #[must_use]
            pub const fn reference_only(mut self) -> Self {
                self.def.reference_only = true;
                self
            }
        }

        impl<L: Labels> Typed for $name<L> {
            type Labels = L;
            fn def(&self) -> &MetricDef {
                &self.def
            }
        }
    };
}

/// A metric whose labels are known to the compiler.
pub trait Typed {
    /// Its labels.
    type Labels: Labels;
    /// Its description; the same address for the whole run.
    fn def(&self) -> &MetricDef;
}

/// A metric that has one value in each series.
pub trait Single: Typed {}

typed_metric! {
    /// A value that only grows.
    Counter, Kind::Counter
}
impl<L: Labels> Single for Counter<L> {}
typed_metric! {
    /// A value that goes up and down.
    Gauge, Kind::Gauge
}
impl<L: Labels> Single for Gauge<L> {}
typed_metric! {
    /// A distribution of durations.
    Histogram, Kind::Histogram
}

/// Declares the metrics of a probe: a static for each, and `ALL`, the list for its [`crate::ProbeSpec`].
///
/// The doc comment is the help text.
#[macro_export]
macro_rules! metrics {
    ($( $(#[doc = $help:literal])+ $name:ident: $kind:ident<$labels:ty> = $metric:literal $(.$method:ident($($arg:expr),*))*; )+) => {
        $(
            $(#[doc = $help])+
            pub static $name: $crate::$kind<$labels> =
                $crate::$kind::new($metric, concat!($($help),+).trim_ascii())$(.$method($($arg),*))*;
        )+
        /// Every metric of this probe.
        pub static ALL: &[&$crate::MetricDef] = &[$(&$name.def),+];
    };
}

#[cfg(test)]
mod tests {
    use crate::label::Family;

    crate::metrics! {
        /// Datagrams delivered.
        IN: Counter<(Family,)> = "udp_in_datagrams".reference_where("kubeskoop_udp_indatagrams", "family=\"ipv4\"").source("x");
        /// Sockets in use.
        SOCKETS: Gauge<()> = "sock_in_use";
    }

    #[test]
    fn a_declaration_is_a_typed_static_and_a_row_of_the_list() {
        assert_eq!(ALL.len(), 2);
        assert!(std::ptr::eq(ALL[0], &raw const IN.def));
        assert_eq!(IN.def.help, "Datagrams delivered.");
        assert_eq!(IN.def.labels[0].name, "family");
        assert!(SOCKETS.def.labels.is_empty());
    }
}
