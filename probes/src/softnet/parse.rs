//! `softnet_stat`: a line of hexadecimal numbers for each CPU that is online.
//!
//! The columns have no names, and newer kernels have more of them: 10 to begin with, 11 with flow_limit, 13 with the
//! backlog length and the number of the CPU (5.x), 15 with the lengths of both queues (6.x). Where the number of the
//! CPU is not in the file, the lines are taken as CPU 0, 1, 2 and so on.

use netsonde_framework::CollectError;

/// How many counters there are: processed, dropped, time_squeeze, received_rps, flow_limit.
pub(super) const COUNTERS: usize = 5;
/// The columns of the counters, from 0.
const COUNTER_COLUMNS: [usize; COUNTERS] = [0, 1, 2, 9, 10];
/// The columns of the queue lengths: both queues, input, process.
const GAUGE_COLUMNS: [usize; 3] = [11, 13, 14];
const CPU_COLUMN: usize = 12;
/// Every kernel has these.
const LEAST_COLUMNS: usize = 3;
const MOST_COLUMNS: usize = 32;

/// One line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// The CPU; where the kernel does not say it, the place of the line.
    pub(super) cpu: u32,
    /// Whether the kernel says which CPU it is.
    pub(super) named: bool,
    /// Its counters, which wrap at 32 bits; `None` for those that this kernel does not have.
    pub(super) counters: [Option<u32>; COUNTERS],
    /// Its queue lengths: both together, input, process.
    pub(super) queues: [Option<u32>; 3],
}

/// Reads the file into `lines`. The error names the file and the line.
pub(super) fn parse(text: &[u8], lines: &mut Vec<Line>) -> Result<(), CollectError> {
    lines.clear();
    let bad = |line: usize, why: String| CollectError::Parse {
        what: format!("/proc/net/softnet_stat line {line}"),
        why,
    };
    let mut rest = text;
    let mut index = 0u32;
    while !rest.is_empty() {
        let number = index as usize + 1;
        let Some(end) = rest.iter().position(|&b| b == b'\n') else {
            return Err(bad(number, "the file is cut off".into()));
        };
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let mut columns = [0u32; MOST_COLUMNS];
        let mut count = 0;
        for word in line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            let value = std::str::from_utf8(word).ok().and_then(|word| u32::from_str_radix(word, 16).ok());
            let value =
                value.ok_or_else(|| bad(number, format!("column {} is not a 32-bit number", count + 1)))?;
            if let Some(column) = columns.get_mut(count) {
                *column = value;
                count += 1;
            }
        }
        if count < LEAST_COLUMNS {
            return Err(bad(number, format!("has {count} columns, not {LEAST_COLUMNS} or more")));
        }
        let column = |place: usize| columns[..count].get(place).copied();
        lines.push(Line {
            cpu: column(CPU_COLUMN).unwrap_or(index),
            named: column(CPU_COLUMN).is_some(),
            counters: COUNTER_COLUMNS.map(column),
            queues: GAUGE_COLUMNS.map(column),
        });
        index += 1;
    }
    if index == 0 {
        return Err(bad(1, "the file is empty".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Result<Vec<Line>, String> {
        let mut lines = Vec::new();
        parse(text.as_bytes(), &mut lines).map_err(|e| e.to_string())?;
        Ok(lines)
    }

    const LINUX_6_18: &str = "00000012 00000001 00000002 00000000 00000000 00000000 00000000 00000000 00000000 00000003 00000004 00000007 00000000 00000005 00000002
0000177a 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000003 00000000 00000000
";

    #[test]
    fn fifteen_columns_carry_the_number_of_the_cpu_and_three_lengths() {
        let lines = lines(LINUX_6_18).expect("well formed");
        assert_eq!(lines[0].counters, [0x12, 1, 2, 3, 4].map(Some));
        assert_eq!(lines[0].queues, [7, 5, 2].map(Some));
        assert_eq!(lines.iter().map(|l| l.cpu).collect::<Vec<_>>(), [0, 3]);
    }

    #[test]
    fn columns_that_an_older_kernel_lacks_are_absent_and_lines_count_as_cpus() {
        for (columns, counters, queues) in [
            (10, [true, true, true, true, false], [false; 3]),
            (11, [true; 5], [false; 3]),
            (13, [true; 5], [true, false, false]),
        ] {
            let cut: Vec<_> = LINUX_6_18.lines().map(|line| &line[..columns * 9 - 1]).collect();
            let text = cut.join("\n") + "\n";
            let lines = lines(&text).expect("well formed");
            assert_eq!(lines[0].counters.map(|c| c.is_some()), counters, "{columns}");
            assert_eq!(lines[0].queues.map(|c| c.is_some()), queues, "{columns}");
            let named = columns == 13;
            assert_eq!((lines[1].named, lines[1].cpu), (named, if named { 3 } else { 1 }), "{columns}");
        }
    }

    #[test]
    fn more_columns_than_known_are_passed_over() {
        let text = format!("{}\n", vec!["0000000a"; 100].join(" "));
        assert_eq!(lines(&text).expect("well formed")[0].counters, [Some(10); 5]);
    }

    #[test]
    fn what_is_broken_is_named_with_its_line() {
        for (text, wanted) in [
            ("", "line 1: the file is empty"),
            ("00000001 00000002\n", "line 1: has 2 columns"),
            ("1 2 3\n1 2 x\n", "line 2: column 3"),
            ("1 2 100000000\n", "line 1: column 3 is not a 32-bit number"),
            ("1 2 3\n1 2", "line 2: the file is cut off"),
            ("\n", "line 1: has 0 columns"),
        ] {
            let error = lines(text).expect_err(text);
            assert!(error.contains(&format!("/proc/net/softnet_stat {wanted}")), "{error}");
        }
    }

    #[test]
    fn every_prefix_is_read_or_refused_without_a_panic() {
        for end in 0..LINUX_6_18.len() {
            let _ = lines(&LINUX_6_18[..end]);
        }
    }
}
