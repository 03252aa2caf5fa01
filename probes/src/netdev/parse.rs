//! /proc/net/dev: two lines of headings, then a name and sixteen numbers for each device.

use netsonde_framework::CollectError;

use crate::os::link::{DeviceKind, Name};

/// The counters of a device that are summed: bytes, packets, errors and drops, received and sent.
pub const SUMMED: usize = 8;
/// Those and fifo, frame and multicast of reception, fifo and carrier of sending.
pub const COUNTERS: usize = 13;

/// The column of the file for each counter.
const COLUMNS: [usize; COUNTERS] = [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 7, 12, 14];
const IN_FILE: usize = 16;

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: Name,
    /// Its kind; the file does not tell.
    pub kind: DeviceKind,
    /// Whether it belongs to the sum of the namespace; the file does not tell.
    pub summed: bool,
    /// Its counters, in the order of the metrics.
    pub counters: [u64; COUNTERS],
}

/// Replaces `devices` by those of the file. The error names the line.
pub fn parse(text: &[u8], devices: &mut Vec<Device>) -> Result<(), CollectError> {
    devices.clear();
    let bad = |line: usize, why: &str| CollectError::Parse {
        what: format!("/proc/net/dev line {line}"),
        why: why.into(),
    };
    let mut lines = text.split_inclusive(|&b| b == b'\n').zip(1..);
    for heading in 1..=2 {
        if !lines.next().is_some_and(|(line, _)| line.contains(&b'|') && line.ends_with(b"\n")) {
            return Err(bad(heading, "is not the heading that the file begins with"));
        }
    }
    for (line, number) in lines {
        let line = line.strip_suffix(b"\n").ok_or_else(|| bad(number, "is cut off"))?;
        let colon = line.iter().position(|&b| b == b':').ok_or_else(|| bad(number, "has no name"))?;
        let name = Name::new(line[..colon].trim_ascii_start())
            .ok_or_else(|| bad(number, "does not begin with a name of 1 to 15 bytes"))?;
        let values = numbers(&line[colon + 1..])
            .ok_or_else(|| bad(number, "does not have 16 numbers after the name"))?;
        let counters = COLUMNS.map(|column| values[column]);
        devices.push(Device { name, kind: DeviceKind::Unknown, summed: false, counters });
    }
    Ok(())
}

fn numbers(line: &[u8]) -> Option<[u64; IN_FILE]> {
    let mut values = [0u64; IN_FILE];
    let mut rest = line;
    for value in &mut values {
        rest = rest.trim_ascii_start();
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if !(1..=20).contains(&digits) {
            return None;
        }
        for digit in &rest[..digits] {
            *value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        }
        rest = &rest[digits..];
        if rest.first().is_some_and(|b| !b.is_ascii_whitespace()) {
            return None;
        }
    }
    rest.trim_ascii().is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPTURED: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    3193      29    0    0    0     0          0         0     3193      29    0    0    0     0       0          0
  eth0: 116035986    5999    1    2    3     4          5         6   481739    4240    7    8    9    10      11         12
veth0123456789a:18446744073709551615 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0
";

    fn read(text: &str) -> Result<Vec<Device>, String> {
        let mut devices = Vec::new();
        parse(text.as_bytes(), &mut devices).map_err(|e| e.to_string())?;
        Ok(devices)
    }

    #[test]
    fn a_captured_file_gives_each_device_its_counters() {
        let devices = read(CAPTURED).expect("well formed");
        let names: Vec<_> = devices.iter().map(|d| d.name.text().into_owned()).collect();
        assert_eq!(names, ["lo", "eth0", "veth0123456789a"]);
        assert_eq!(devices[1].counters, [116_035_986, 5999, 1, 2, 481_739, 4240, 7, 8, 3, 4, 6, 9, 11]);
        assert_eq!(
            devices[2].counters[0],
            u64::MAX,
            "a full 64-bit counter is read, with no blank before it"
        );
    }

    #[test]
    fn a_namespace_without_devices_is_no_error() {
        let headings: String = CAPTURED.split_inclusive('\n').take(2).collect();
        assert_eq!(read(&headings), Ok(Vec::new()));
    }

    #[test]
    fn odd_lines_are_errors_that_name_them() {
        let (headings, _) = CAPTURED.split_once("    lo").expect("it is there");
        for (line, why) in [
            ("eth0 1 2 3\n", "has no name"),
            (": 1 2 3\n", "name of 1 to 15 bytes"),
            ("a234567890123456: 1\n", "name of 1 to 15 bytes"),
            ("eth0: 1 2 3\n", "16 numbers"),
            ("eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 x\n", "16 numbers"),
            ("eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n", "16 numbers"),
            ("eth0: 99999999999999999999 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", "16 numbers"),
            ("eth0: 1-2 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n", "16 numbers"),
            ("eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "cut off"),
        ] {
            let error = read(&format!("{headings}{line}")).expect_err(line);
            assert!(error.contains("/proc/net/dev line 3") && error.contains(why), "{line}: {error}");
        }
        assert!(read("").expect_err("empty").contains("line 1"));
        assert!(read("lo: 1\n").expect_err("no heading").contains("line 1"));
    }

    #[test]
    fn a_file_cut_anywhere_never_panics_and_is_never_taken_for_whole() {
        let whole = read(CAPTURED).expect("well formed");
        for end in 0..CAPTURED.len() {
            if let Ok(devices) = read(&CAPTURED[..end]) {
                assert!(CAPTURED[..end].ends_with('\n') && devices == whole[..devices.len()], "{end}");
            }
        }
    }
}
