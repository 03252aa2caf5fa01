//! Labels and their bounds: a metric's labels are part of its type, and each says how many values it can have.
//!
//! A probe writes `Counter<(Device, Kind)>`; a push with the wrong number or type of values does not compile.
//! The namespace labels (`target_node`, `target_namespace`, `target_pod`) are on every probe metric and are
//! not declared here: a sample names its namespace and the exporter writes those labels.

use std::fmt::Write as _;

/// How many values a label can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// One of these, never anything else.
    OneOf(&'static [&'static str]),
    /// One value for each CPU of the machine.
    PerCpu,
    /// At most this many values in each namespace; what is beyond is added up under `other`.
    AtMost(usize),
    /// The names that the running kernel uses, at most this many.
    KernelNames(usize),
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OneOf(values) => write!(f, "one of {}", values.join(", ")),
            Self::PerCpu => f.write_str("one for each CPU"),
            Self::AtMost(n) => write!(f, "at most {n} in a namespace by default, then `other`"),
            Self::KernelNames(n) => write!(f, "names of the running kernel, at most {n}"),
        }
    }
}

/// A label: its name, its meaning and its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The name in the exposition, `[a-z_]+`.
    pub name: &'static str,
    /// What its values are, for the reference.
    pub help: &'static str,
    /// How many values there can be.
    pub bound: Bound,
}

/// One label as a type, so that a metric can carry it in its own type.
pub trait LabelKind: 'static {
    /// Name, meaning and bound.
    const LABEL: Label;
    /// What a probe passes for it.
    type Value<'a>: Copy;
    /// Appends the value as it stands between the quotes, already escaped.
    fn write(value: Self::Value<'_>, out: &mut String);
}

/// The labels of a metric: `()`, one [`LabelKind`], or a tuple of up to four.
pub trait Labels: 'static {
    /// The labels in the order of the exposition.
    const LABELS: &'static [Label];
    /// What a probe passes for them.
    type Values<'a>: Copy;
    /// Appends `name="value",...` to `out`; nothing for no labels.
    fn write(values: Self::Values<'_>, out: &mut String);
}

impl Labels for () {
    const LABELS: &'static [Label] = &[];
    type Values<'a> = ();
    fn write((): Self::Values<'_>, _: &mut String) {}
}

fn pair<K: LabelKind>(value: K::Value<'_>, out: &mut String) {
    out.push_str(K::LABEL.name);
    out.push_str("=\"");
    K::write(value, out);
    out.push('"');
}

impl<A: LabelKind> Labels for (A,) {
    const LABELS: &'static [Label] = &[A::LABEL];
    type Values<'a> = A::Value<'a>;
    fn write(a: Self::Values<'_>, out: &mut String) {
        pair::<A>(a, out);
    }
}

macro_rules! labels_of_tuple {
    ($($kind:ident $value:ident),+) => {
        impl<$($kind: LabelKind),+> Labels for ($($kind,)+) {
            const LABELS: &'static [Label] = &[$($kind::LABEL),+];
            type Values<'a> = ($($kind::Value<'a>,)+);
            fn write(($($value,)+): Self::Values<'_>, out: &mut String) {
                let start = out.len();
                $(
                    if out.len() > start {
                        out.push(',');
                    }
                    pair::<$kind>($value, out);
                )+
            }
        }
    };
}
labels_of_tuple!(A a, B b);
labels_of_tuple!(A a, B b, C c);
labels_of_tuple!(A a, B b, C c, D d);

/// Appends `text` with `\`, `"` and line feed escaped, as the exposition wants label values.
pub fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

/// Declares a label whose values are a closed set, as an enum.
#[macro_export]
macro_rules! closed_label {
    ($(#[doc = $help:literal])+ $vis:vis enum $name:ident = $label:literal { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[doc = $help])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        $vis enum $name {
            $(#[doc = $text] $variant),+
        }
        impl $name {
            /// The value in the exposition.
            #[allow(dead_code)]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
            /// Every value there can be.
            #[allow(dead_code)]
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
        }
        impl $crate::label::LabelKind for $name {
            const LABEL: $crate::label::Label = $crate::label::Label {
                name: $label,
                help: concat!($($help),+),
                bound: $crate::label::Bound::OneOf(&[$($text),+]),
            };
            type Value<'a> = Self;
            fn write(value: Self, out: &mut String) {
                out.push_str(value.text());
            }
        }
    };
}

/// Declares a label with free text values and an explicit bound.
#[macro_export]
macro_rules! text_label {
    ($(#[doc = $help:literal])+ $vis:vis $name:ident = $label:literal, $bound:expr) => {
        $(#[doc = $help])+
        #[derive(Debug)]
        $vis enum $name {}
        impl $crate::label::LabelKind for $name {
            const LABEL: $crate::label::Label = $crate::label::Label {
                name: $label,
                help: concat!($($help),+),
                bound: $bound,
            };
            type Value<'a> = &'a str;
            fn write(value: &str, out: &mut String) {
                $crate::label::escape(value, out);
            }
        }
    };
}

closed_label! {
    /// The IP version.
    pub enum Family = "family" { Ipv4 = "ipv4", Ipv6 = "ipv6" }
}

text_label! {
    /// The network device, by its name in that namespace.
    pub Device = "device", Bound::AtMost(64)
}

/// The CPU, by its number in the kernel.
#[derive(Debug)]
pub enum Cpu {}

impl LabelKind for Cpu {
    const LABEL: Label =
        Label { name: "cpu", help: "The CPU, by its number in the kernel.", bound: Bound::PerCpu };
    type Value<'a> = u32;
    fn write(value: u32, out: &mut String) {
        let _ = write!(out, "{value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_written_in_order_and_escaped() {
        let mut out = String::new();
        <(Device, Family)>::write(("a\"b\\c\nd", Family::Ipv6), &mut out);
        assert_eq!(out, r#"device="a\"b\\c\nd",family="ipv6""#);
        out.clear();
        <(Cpu,)>::write(3, &mut out);
        assert_eq!(out, r#"cpu="3""#);
    }
}
