//! The text of `/proc/PID/io`: seven lines of a name and a number.

/// How many counters the file has.
pub const FIELDS: usize = 7;

/// The counters of one process, in the order of [`NAMES`].
pub type Counters = [u64; FIELDS];

/// The names in the file, in the order in which the probe exposes them.
pub const NAMES: [&str; FIELDS] =
    ["syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes", "rchar", "wchar"];

/// Reads the file. The error says what is wrong with which line or name.
pub fn counters(text: &[u8]) -> Result<Counters, String> {
    let mut found = [None; FIELDS];
    for (line, number) in text.split_inclusive(|&b| b == b'\n').zip(1..) {
        // A line that does not end was cut off, and its number with it.
        let (name, value) =
            field(line).ok_or_else(|| format!("line {number} is not a whole line of a name and a number"))?;
        if let Some(i) = NAMES.iter().position(|n| n.as_bytes() == name) {
            found[i] = Some(value);
        }
    }
    let mut counters = [0; FIELDS];
    for ((value, found), name) in counters.iter_mut().zip(found).zip(NAMES) {
        *value = found.ok_or_else(|| format!("{name} is missing"))?;
    }
    Ok(counters)
}

fn field(line: &[u8]) -> Option<(&[u8], u64)> {
    let line = line.strip_suffix(b"\n")?;
    let colon = line.iter().position(|&b| b == b':')?;
    let digits = line[colon + 1..].trim_ascii();
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0u64, |n, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })?;
    Some((&line[..colon], value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"rchar: 6976\nwchar: 11\nsyscr: 10\nsyscw: 2\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 18446744073709551615\n";

    #[test]
    fn the_seven_counters_are_found_by_name() {
        assert_eq!(counters(TEXT), Ok([10, 2, 4096, 8192, u64::MAX, 6976, 11]));
    }

    #[test]
    fn lines_of_a_later_kernel_are_passed_over() {
        let mut text = b"something_new: 5\n".to_vec();
        text.extend_from_slice(TEXT);
        assert_eq!(counters(&text).map(|c| c[0]), Ok(10));
    }

    #[test]
    fn every_cut_off_file_is_refused() {
        for end in 0..TEXT.len() {
            assert!(counters(&TEXT[..end]).is_err(), "{end} bytes");
        }
    }

    #[test]
    fn the_error_names_the_line_or_the_counter() {
        let error = counters(b"rchar: 1\nwchar: x\n").expect_err("no number");
        assert!(error.contains("line 2"), "{error}");
        let error = counters(b"rchar: 1\n").expect_err("one of seven");
        assert!(error.contains("syscr"), "{error}");
        assert!(counters(b"rchar: 18446744073709551616\n").is_err());
        assert!(counters(b"\xff\xfe\n\n").is_err());
    }
}
