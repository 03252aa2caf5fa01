//! A page of metrics, parsed as strictly as the OpenMetrics text format is written down.
//!
//! Any line that does not belong, a family that is interrupted or without a type, a series that is there twice, a
//! missing `# EOF`: all are errors. So whoever reads a page has checked it.

use std::collections::{BTreeMap, HashSet};

/// The labels of a series.
pub type Labels = BTreeMap<String, String>;

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name with its suffix, such as `_total`.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
}

/// What is said of a family before its samples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Family {
    /// `counter`, `gauge`, ...
    pub kind: String,
    /// The HELP text.
    pub help: String,
}

/// A page of metrics.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// By family name.
    pub families: BTreeMap<String, Family>,
    /// In the order of the page.
    pub samples: Vec<Sample>,
}

impl Page {
    /// Parses a page; the error names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let body = text.strip_suffix("# EOF\n").ok_or("the page does not end with # EOF")?;
        let mut page = Self::default();
        let mut current = String::new();
        let mut seen = HashSet::new();
        for (number, line) in body.lines().enumerate() {
            page.line(line, &mut current, &mut seen)
                .map_err(|why| format!("line {}: {why}: {line}", number + 1))?;
        }
        if !body.is_empty() && !body.ends_with('\n') {
            return Err("the last line before # EOF has no end".into());
        }
        Ok(page)
    }

    fn line(&mut self, line: &str, current: &mut String, seen: &mut HashSet<String>) -> Result<(), String> {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (Some(what), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else {
                return Err("a comment of fewer than three words".into());
            };
            if !is_name(name) {
                return Err(format!("{name:?} is no metric name"));
            }
            if name != current {
                if self.families.contains_key(name) {
                    return Err(format!("family {name} is there twice"));
                }
                self.families.insert(name.to_owned(), Family::default());
                name.clone_into(current);
            } else if self.samples.last().is_some_and(|s| belongs(&s.name, name)) {
                return Err("said after the family's samples".into());
            }
            let family = self.families.get_mut(name).ok_or("unknown family")?;
            let place = match what {
                "TYPE" => &mut family.kind,
                "HELP" => &mut family.help,
                "UNIT" if name.ends_with(&format!("_{rest}")) => return Ok(()),
                _ => return Err(format!("{what} is neither TYPE nor HELP nor the UNIT of this name")),
            };
            if !place.is_empty() {
                return Err(format!("{what} is there twice"));
            }
            rest.clone_into(place);
            return Ok(());
        }
        let sample = sample(line)?;
        let family = self.families.get(current).ok_or("a sample before any family")?;
        if !allowed(&sample.name, current, &family.kind) {
            return Err(format!("not a sample of the {} family {current}", family.kind));
        }
        if !seen.insert(format!("{}{:?}", sample.name, sample.labels)) {
            return Err("this series is there twice".into());
        }
        if family.kind == "counter" && (sample.value < 0.0 || sample.value.is_nan()) {
            return Err("a counter below zero".into());
        }
        self.samples.push(sample);
        Ok(())
    }

    /// Every sample of this name that has at least these labels.
    pub fn all<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        let has = move |s: &Sample| labels.iter().all(|(k, v)| s.labels.get(*k).is_some_and(|x| x == v));
        self.samples.iter().filter(move |s| s.name == name && has(s))
    }

    /// The value of the only series of this name with at least these labels; `None` if there is none.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found: Vec<_> = self.all(name, labels).collect();
        assert!(found.len() < 2, "{name} {labels:?} is not one series: {found:#?}");
        found.first().map(|sample| sample.value)
    }

    /// The value of the only series of this name with at least these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| {
            let near: Vec<_> = self.samples.iter().filter(|s| s.name == name).collect();
            panic!("no series {name} {labels:?}; of that name there are {near:#?}")
        })
    }

    /// Like [`Page::value`], for something that is counted: it must be a whole number.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        whole(name, self.value(name, labels))
    }

    /// The sum over all series of this name with at least these labels; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // The sum of nothing is -0.
        self.all(name, labels).map(|sample| sample.value).sum::<f64>() + 0.0
    }

    /// The series of one namespace, by `target_pod`.
    pub fn pod<'a>(&'a self, pod: &'a str) -> Pod<'a> {
        Pod { page: self, pod }
    }

    /// Every series of this pod.
    pub fn all_of<'a>(&'a self, pod: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |s| s.labels.get("target_pod").is_some_and(|p| p == pod))
    }

    /// Whether any series belongs to this pod.
    pub fn knows(&self, pod: &str) -> bool {
        self.all_of(pod).next().is_some()
    }
}

/// The series of one namespace.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    page: &'a Page,
    pod: &'a str,
}

impl Pod<'_> {
    /// See [`Page::value`].
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.page.value(name, &self.with(labels))
    }

    /// See [`Page::count`].
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.page.count(name, &self.with(labels))
    }

    /// [`Page::sum`] of something that is counted.
    pub fn total(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        whole(name, self.sum(name, labels))
    }

    /// See [`Page::find`].
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.page.find(name, &self.with(labels))
    }

    /// See [`Page::sum`].
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.page.sum(name, &self.with(labels))
    }

    fn with<'b>(&'b self, labels: &[(&'b str, &'b str)]) -> Vec<(&'b str, &'b str)> {
        labels.iter().copied().chain([("target_pod", self.pod)]).collect()
    }
}

fn whole(name: &str, value: f64) -> u64 {
    format!("{value}").parse().unwrap_or_else(|_| panic!("{name} is {value}, which is no whole number"))
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

const SUFFIXES: &[(&str, &[&str])] = &[
    ("counter", &["_total", "_created"]),
    ("gauge", &[""]),
    ("info", &["_info"]),
    ("unknown", &[""]),
    ("histogram", &["_bucket", "_count", "_sum", "_created"]),
];

fn allowed(sample: &str, family: &str, kind: &str) -> bool {
    let suffixes = SUFFIXES.iter().find(|(k, _)| *k == kind).map_or(&[] as &[&str], |(_, s)| s);
    sample.strip_prefix(family).is_some_and(|rest| suffixes.contains(&rest))
}

fn belongs(sample: &str, family: &str) -> bool {
    SUFFIXES.iter().any(|(kind, _)| allowed(sample, family, kind))
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let name = &line[..end];
    if !is_name(name) {
        return Err(format!("{name:?} is no metric name"));
    }
    let (labels, rest) = match line[end..].strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), &line[end..]),
    };
    let value = rest.strip_prefix(' ').ok_or("no blank before the value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number if number.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            number.parse().map_err(|e| format!("{number:?}: {e}"))?
        }
        other => return Err(format!("{other:?} is no value")),
    };
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// The labels and what follows the closing brace.
fn labels(mut rest: &str) -> Result<(Labels, &str), String> {
    let mut labels = Labels::new();
    if let Some(rest) = rest.strip_prefix('}') {
        return Ok((labels, rest));
    }
    loop {
        let (name, after) = rest.split_once("=\"").ok_or("a label without =\"")?;
        if !is_name(name) || name.contains(':') {
            return Err(format!("{name:?} is no label name"));
        }
        let (value, after) = quoted(after)?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("label {name} is there twice"));
        }
        match after.split_at_checked(1) {
            Some((",", after)) => rest = after,
            Some(("}", after)) => return Ok((labels, after)),
            _ => return Err("neither , nor } after a label".into()),
        }
    }
}

/// A label's value and what follows the closing quote.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                other => return Err(format!("\\ before {other:?}")),
            },
            c => value.push(c),
        }
    }
    Err("a label's value has no end".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_b What.\n# TYPE a_b counter\na_b_total{x=\"1\",target_pod=\"p\"} 3\n\
                        a_b_total{x=\"2\\\"\\\\\\n\",target_pod=\"p\"} 4\n# HELP g G.\n# TYPE g gauge\ng -1.5\n# EOF\n";

    #[test]
    fn a_good_page_is_read() {
        let page = Page::parse(GOOD).expect("good");
        assert_eq!(page.pod("p").value("a_b_total", &[("x", "1")]).to_string(), "3");
        assert_eq!(page.sum("a_b_total", &[]).to_string(), "7");
        assert_eq!(page.value("g", &[]).to_string(), "-1.5");
        assert_eq!(page.find("g", &[("x", "1")]), None);
        assert_eq!(page.samples[1].labels["x"], "2\"\\\n");
        assert!(page.knows("p") && !page.knows("q"));
    }

    #[test]
    fn what_is_wrong_with_a_page_is_found() {
        let wrong = [
            ("g 1\n# EOF\n", "a sample before any family"),
            ("# TYPE g gauge\ng 1\n", "does not end with # EOF"),
            ("# TYPE g gauge\ng 1\ng 2\n# EOF\n", "twice"),
            (
                "# TYPE g gauge\ng{a=\"1\"} 1\n# TYPE h gauge\nh 1\n# TYPE g gauge\n# EOF\n",
                "family g is there twice",
            ),
            ("# TYPE g gauge\ng 1\n# HELP g x\n# EOF\n", "after the family's samples"),
            ("# TYPE c counter\nc 1\n# EOF\n", "not a sample of the counter family"),
            ("# TYPE c counter\nc_total -1\n# EOF\n", "below zero"),
            ("# TYPE g gauge\ng{a=\"1\",} 1\n# EOF\n", "label"),
            ("# TYPE g gauge\ng{a=\"1\",a=\"2\"} 1\n# EOF\n", "label a is there twice"),
            ("# TYPE g gauge\ng inf\n# EOF\n", "no value"),
            ("# TYPE g gauge\n\n# EOF\n", "no value"),
            ("# TYPE g gauge\ng{a=\"1} 1\n# EOF\n", "no end"),
        ];
        for (text, why) in wrong {
            let error = Page::parse(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }
}
