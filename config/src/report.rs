//! What is wrong with a file: every problem at once, each with its place.

use std::fmt;

use crate::tree::Mark;

/// How many problems are printed; the rest are counted. A file that is not ours at all would fill the log.
const SHOWN: usize = 100;

/// Every problem of one file. Displayed as one line for the file and one line for each problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The file, as the caller named it.
    pub source: String,
    /// In the order of the file. Never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, where, and what was probably meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Dotted path of the setting, such as `probes[2].args.fields`. Empty for the file as a whole.
    pub key: String,
    /// What was found and what is wanted.
    pub message: String,
    /// The nearest known name, when one is near.
    pub suggestion: Option<String>,
}

impl Problem {
    pub(crate) fn new(mark: Mark, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            line: mark.line,
            column: mark.column,
            key: key.into(),
            message: message.into(),
            suggestion: None,
        }
    }

    pub(crate) fn suggest(mut self, name: Option<&str>) -> Self {
        self.suggestion = name.map(str::to_owned);
        self
    }
}

impl Report {
    /// Sorted by place, without repeats: an anchor used twice reports its inside once for each key that uses it.
    pub(crate) fn new(source: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| (a.line, a.column, &a.key).cmp(&(b.line, b.column, &b.key)));
        problems.dedup();
        Self { source: source.to_owned(), problems }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(name) => write!(f, "; did you mean {name:?}?"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "{}: {count} {}", self.source, if count == 1 { "problem" } else { "problems" })?;
        for problem in self.problems.iter().take(SHOWN) {
            write!(f, "\n  {}:{}:{}: {problem}", self.source, problem.line, problem.column)?;
        }
        match count.saturating_sub(SHOWN) {
            0 => Ok(()),
            rest => write!(f, "\n  and {rest} more"),
        }
    }
}

// By hand: thiserror takes a field called `source` for the cause.
impl std::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: usize) -> Problem {
        Problem::new(Mark { line, column: 3 }, "listen", "is wrong")
    }

    #[test]
    fn problems_are_shown_in_the_order_of_the_file() {
        let report = Report::new("a.yaml", vec![problem(9), problem(2), problem(9)]);
        let text = "a.yaml: 2 problems\n  a.yaml:2:3: listen: is wrong\n  a.yaml:9:3: listen: is wrong";
        assert_eq!(report.to_string(), text);
    }

    #[test]
    fn a_very_long_report_is_cut_and_says_so() {
        let text = Report::new("a.yaml", (1..=150).map(problem).collect()).to_string();
        assert_eq!(text.lines().count(), 102);
        assert!(text.ends_with("and 50 more"));
    }
}
