//! `ip_vs_stats`: two lines of headings, a line of totals, and rates that are not read.
//!
//! The numbers are hexadecimal, without a prefix: `12` is eighteen.

use netsonde_framework::CollectError;

/// The totals in the order of the file: connections, packets in, packets out, bytes in, bytes out.
pub(super) type Totals = [u64; 5];

/// The line of the totals, from 1.
const LINE: usize = 3;

/// Reads the totals. The error names the file and the line.
pub(super) fn parse(text: &[u8]) -> Result<Totals, CollectError> {
    let bad = |why: &str| CollectError::Parse {
        what: format!("/proc/net/ip_vs_stats line {LINE}"),
        why: why.into(),
    };
    // Each line before the last part is whole: it ended with a line feed.
    let mut lines = text.split(|&b| b == b'\n');
    let line = lines.nth(LINE - 1).ok_or_else(|| bad("is missing: the file is cut off"))?;
    if lines.next().is_none() {
        return Err(bad("does not end: the file is cut off"));
    }
    let line = std::str::from_utf8(line).map_err(|_| bad("is not text"))?;
    let mut words = line.split_ascii_whitespace();
    let mut totals = Totals::default();
    for total in &mut totals {
        let word = words.next().ok_or_else(|| bad("has fewer than five numbers"))?;
        *total = u64::from_str_radix(word, 16).map_err(|_| bad("has something that is not a number"))?;
    }
    if words.next().is_some() {
        return Err(bad("has more than five numbers"));
    }
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = "   Total Incoming Outgoing         Incoming         Outgoing
   Conns  Packets  Packets            Bytes            Bytes
       3       12       34              567              89A

 Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
       1        2        3                4                5
";

    #[test]
    fn totals_are_hexadecimal_and_in_the_order_of_the_headings() {
        assert_eq!(parse(STATS.as_bytes()).expect("well formed"), [3, 0x12, 0x34, 0x567, 0x89a]);
    }

    #[test]
    fn numbers_of_64_bits_run_into_each_other_no_more_than_the_kernel_lets_them() {
        let text = STATS.replace("              567", " FFFFFFFFFFFFFFFF");
        assert_eq!(parse(text.as_bytes()).expect("well formed")[3], u64::MAX);
    }

    #[test]
    fn what_is_broken_is_named_with_file_and_line() {
        let cases = [
            (String::new(), "is missing"),
            ("a\nb\n3 12 34 567 89A".to_owned(), "does not end"),
            ("a\nb\n3 12 34 567\n\n".to_owned(), "fewer than five"),
            ("a\nb\n3 12 34 567 89A 1\n\n".to_owned(), "more than five"),
            ("a\nb\n3 12 34 567 x\n\n".to_owned(), "not a number"),
            ("a\nb\n3 12 34 567 11111111111111111\n\n".to_owned(), "not a number"),
        ];
        for (text, wanted) in cases {
            let error = parse(text.as_bytes()).expect_err(&text).to_string();
            assert!(error.contains("/proc/net/ip_vs_stats line 3") && error.contains(wanted), "{error}");
        }
        assert!(parse(b"a\nb\n\xff\n").is_err());
    }

    #[test]
    fn no_prefix_gives_other_numbers_than_the_whole() {
        let whole = parse(STATS.as_bytes()).expect("well formed");
        for end in 0..STATS.len() {
            if let Ok(totals) = parse(&STATS.as_bytes()[..end]) {
                assert_eq!(totals, whole);
            }
        }
    }
}
