//! `sockstat` and `sockstat6`: a line for each protocol, with names and numbers in turn.

use netsonde_framework::CollectError;
use netsonde_framework::label::Family;

use super::metrics::Protocol;

/// What one of the two files says. Fields that it does not have stay `None`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sockstat {
    /// `sockets: used`.
    pub(super) used: Option<i64>,
    /// `inuse`, in the order of [`Protocol::ALL`].
    pub(super) inuse: [Option<i64>; 4],
    /// `TCP: tw`.
    pub(super) tw: Option<i64>,
    /// `TCP: orphan`.
    pub(super) orphan: Option<i64>,
    /// `TCP: alloc`.
    pub(super) alloc: Option<i64>,
    /// `TCP: mem` and `UDP: mem`, in pages.
    pub(super) mem: [Option<i64>; 2],
    /// `FRAG: inuse`.
    pub(super) frag_inuse: Option<i64>,
    /// `FRAG: memory`, in bytes.
    pub(super) frag_memory: Option<i64>,
}

impl Sockstat {
    /// Reads a file. What it does not know is left out, what it cannot read is an error with file and line.
    pub(super) fn parse(family: Family, text: &[u8]) -> Result<Self, CollectError> {
        let file = match family {
            Family::Ipv4 => "sockstat",
            Family::Ipv6 => "sockstat6",
        };
        let bad = |line: usize, why: &str| CollectError::Parse {
            what: format!("/proc/net/{file} line {line}"),
            why: why.into(),
        };
        let Ok(text) = std::str::from_utf8(text) else { return Err(bad(1, "the file is not text")) };
        if !text.ends_with('\n') {
            return Err(bad(text.lines().count().max(1), "the file is empty or cut off"));
        }
        let mut stat = Self::default();
        for (line, number) in text.lines().zip(1..) {
            let (group, rest) = line.split_once(':').ok_or_else(|| bad(number, "has no colon"))?;
            let group = match family {
                Family::Ipv4 => group,
                Family::Ipv6 => group.strip_suffix('6').unwrap_or(""),
            };
            let mut words = rest.split_ascii_whitespace();
            while let Some(name) = words.next() {
                let value = words.next().and_then(|word| word.parse().ok());
                let value = value.ok_or_else(|| bad(number, &format!("has no number after {name}")))?;
                if let Some(place) = stat.place(group, name) {
                    *place = Some(value);
                }
            }
        }
        Ok(stat)
    }

    fn place(&mut self, group: &str, name: &str) -> Option<&mut Option<i64>> {
        Some(match (group, name) {
            ("sockets", "used") => &mut self.used,
            ("TCP", "inuse") => &mut self.inuse[Protocol::Tcp as usize],
            ("TCP", "tw") => &mut self.tw,
            ("TCP", "orphan") => &mut self.orphan,
            ("TCP", "alloc") => &mut self.alloc,
            ("TCP", "mem") => &mut self.mem[Protocol::Tcp as usize],
            ("UDP", "inuse") => &mut self.inuse[Protocol::Udp as usize],
            ("UDP", "mem") => &mut self.mem[Protocol::Udp as usize],
            ("UDPLITE", "inuse") => &mut self.inuse[Protocol::UdpLite as usize],
            ("RAW", "inuse") => &mut self.inuse[Protocol::Raw as usize],
            ("FRAG", "inuse") => &mut self.frag_inuse,
            ("FRAG", "memory") => &mut self.frag_memory,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKSTAT: &str = "sockets: used 290\nTCP: inuse 5 orphan 1 tw 2 alloc 7 mem 184\nUDP: inuse 3 mem 9\nUDPLITE: inuse 0\nRAW: inuse 4\nFRAG: inuse 6 memory 8192\n";
    const SOCKSTAT6: &str =
        "TCP6: inuse 11\nUDP6: inuse 12\nUDPLITE6: inuse 13\nRAW6: inuse 14\nFRAG6: inuse 15 memory 16\n";

    #[test]
    fn each_field_lands_in_its_place() {
        let stat = Sockstat::parse(Family::Ipv4, SOCKSTAT.as_bytes()).expect("well formed");
        assert_eq!(stat.used, Some(290));
        assert_eq!(stat.inuse, [Some(5), Some(3), Some(0), Some(4)]);
        assert_eq!((stat.orphan, stat.tw, stat.alloc), (Some(1), Some(2), Some(7)));
        assert_eq!(stat.mem, [Some(184), Some(9)]);
        assert_eq!((stat.frag_inuse, stat.frag_memory), (Some(6), Some(8192)));
        let stat = Sockstat::parse(Family::Ipv6, SOCKSTAT6.as_bytes()).expect("well formed");
        assert_eq!(stat.inuse, [Some(11), Some(12), Some(13), Some(14)]);
        assert_eq!((stat.frag_inuse, stat.frag_memory, stat.used), (Some(15), Some(16), None));
    }

    #[test]
    fn groups_and_fields_of_other_kernels_are_passed_over() {
        let text = "sockets: used 1\nMPTCP: inuse 3 new 4\nTCP: inuse 2 fresh 9\n";
        let stat = Sockstat::parse(Family::Ipv4, text.as_bytes()).expect("well formed");
        assert_eq!(stat.inuse, [Some(2), None, None, None]);
    }

    #[test]
    fn what_is_broken_is_named_with_file_and_line() {
        for (text, wanted) in [
            ("", "line 1: the file is empty"),
            ("sockets: used 1\nTCP: inuse 5 orp", "line 2: the file is empty or cut off"),
            ("sockets: used 1\nTCP: inuse 5 orphan\n", "line 2: has no number after orphan"),
            ("sockets: used x\n", "line 1: has no number after used"),
            ("sockets used 1\n", "line 1: has no colon"),
            ("sockets: used 99999999999999999999\n", "line 1: has no number"),
        ] {
            let error = Sockstat::parse(Family::Ipv4, text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(&format!("/proc/net/sockstat {wanted}")), "{text:?}: {error}");
        }
        let error = Sockstat::parse(Family::Ipv6, b"\xff\n").expect_err("not text").to_string();
        assert!(error.contains("/proc/net/sockstat6 line 1"), "{error}");
    }

    #[test]
    fn every_prefix_is_read_or_refused_without_a_panic() {
        for end in 0..SOCKSTAT.len() {
            let _ = Sockstat::parse(Family::Ipv4, &SOCKSTAT.as_bytes()[..end]);
        }
    }
}
