//! The kernel's counter tables: `netstat`, `snmp` and `snmp6`, parsed without knowing their fields.
//!
//! Fields differ between kernels, so nothing is addressed by position: a [`Layout`] keeps the names of one kernel
//! and a [`Selection`] finds fields in it. The names are the same for every namespace and every scrape; they are
//! compared as bytes with the last layout, and only the numbers are parsed.

use std::sync::{Arc, Mutex, PoisonError};

use netsonde_framework::CollectError;

use super::netns::NetFile;

/// Which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `netstat`: groups TcpExt, IpExt, MPTcpExt.
    Netstat,
    /// `snmp`: groups Ip, Icmp, Tcp, Udp, UdpLite.
    Snmp,
    /// `snmp6`: groups Ip6, Icmp6, Udp6, UdpLite6.
    Snmp6,
}

impl Table {
    pub(super) const fn file(self) -> NetFile {
        match self {
            Self::Netstat => NetFile::Netstat,
            Self::Snmp => NetFile::Snmp,
            Self::Snmp6 => NetFile::Snmp6,
        }
    }
}

/// The names of a table's fields, in the order of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// Group and field, for example `Tcp` and `ActiveOpens`.
    pub fields: Vec<(String, String)>,
    /// The name lines of the file, to recognise it again.
    lines: Vec<Vec<u8>>,
}

/// One reading of a table.
#[derive(Debug)]
pub struct Mib {
    /// The names.
    pub layout: Arc<Layout>,
    /// The numbers; one that is negative in the file (`MaxConn -1`) is in two's complement.
    pub values: Vec<u64>,
}

/// The layouts that were seen. Namespaces of one machine have the same fields, but nothing relies on that: a few
/// are kept for each table.
#[derive(Debug, Default)]
pub struct Layouts([Mutex<Vec<Arc<Layout>>>; 3]);

const LAYOUTS_KEPT: usize = 8;

impl Layouts {
    /// Parses a file. The error names the file and the line.
    pub fn parse(&self, table: Table, text: &[u8]) -> Result<Mib, CollectError> {
        let kept = || self.0[table as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().clone();
        for layout in known {
            if let Some(values) = values_of(table, &layout, text) {
                return Ok(Mib { layout, values });
            }
        }
        let layout = Arc::new(layout_of(table, text)?);
        let values = values_of(table, &layout, text)
            .ok_or_else(|| bad(table, 0, "its numbers do not fit its names"))?;
        let mut kept = kept();
        if kept.len() >= LAYOUTS_KEPT {
            kept.remove(0);
        }
        kept.push(Arc::clone(&layout));
        Ok(Mib { layout, values })
    }
}

impl Mib {
    /// The value of one field, for single look-ups and tests.
    pub fn get(&self, group: &str, field: &str) -> Option<u64> {
        let i = self.layout.fields.iter().position(|(g, f)| g == group && f == field)?;
        self.values.get(i).copied()
    }
}

fn bad(table: Table, line: usize, why: &str) -> CollectError {
    CollectError::Parse { what: format!("/proc/net/{} line {line}", table.file().name()), why: why.into() }
}

/// The lines and their numbers, without the empty ones and those of [`by_type`].
fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    text.split(|&b| b == b'\n').zip(1..).filter(|(line, _)| !line.is_empty() && !by_type(line))
}

/// Lines for single ICMP types are there only for types that a namespace has seen. They would give nearly every
/// namespace a layout of its own, and each look-up of fields would start anew.
fn by_type(line: &[u8]) -> bool {
    line.starts_with(b"Icmp")
        && (line.starts_with(b"IcmpMsg:")
            || line.starts_with(b"Icmp6InType")
            || line.starts_with(b"Icmp6OutType"))
}

/// Reads decimal numbers after blanks until the end of the line; `None` at anything else.
fn numbers(line: &[u8], out: &mut Vec<u64>) -> Option<()> {
    let mut i = 0;
    loop {
        while i < line.len() && (line[i] == b' ' || line[i] == b'\t') {
            i += 1;
        }
        if i == line.len() {
            return Some(());
        }
        let negative = line[i] == b'-';
        i += usize::from(negative);
        let start = i;
        let mut n = 0u64;
        while i < line.len() && line[i].is_ascii_digit() {
            n = n.wrapping_mul(10).wrapping_add(u64::from(line[i] - b'0'));
            i += 1;
        }
        if i == start || i - start > 20 {
            return None;
        }
        out.push(if negative { n.wrapping_neg() } else { n });
    }
}

/// The numbers of `text`, if its names are exactly those of `layout`.
fn values_of(table: Table, layout: &Layout, text: &[u8]) -> Option<Vec<u64>> {
    let mut values = Vec::with_capacity(layout.fields.len());
    let mut rest = lines(text);
    for names in &layout.lines {
        let (line, _) = rest.next()?;
        if table == Table::Snmp6 {
            numbers(line.strip_prefix(names.as_slice())?, &mut values)?;
        } else {
            if line != names.as_slice() {
                return None;
            }
            let group = names.iter().position(|&b| b == b':')? + 1;
            let (line, _) = rest.next()?;
            numbers(line.strip_prefix(&names[..group])?, &mut values)?;
        }
    }
    (rest.next().is_none() && values.len() == layout.fields.len()).then_some(values)
}

fn layout_of(table: Table, text: &[u8]) -> Result<Layout, CollectError> {
    if table == Table::Snmp6 { layout_of_snmp6(text) } else { layout_of_pairs(table, text) }
}

fn layout_of_pairs(table: Table, text: &[u8]) -> Result<Layout, CollectError> {
    let mut layout = Layout { fields: Vec::new(), lines: Vec::new() };
    let mut rest = lines(text);
    while let Some((names, line)) = rest.next() {
        let text = std::str::from_utf8(names).map_err(|_| bad(table, line, "is not text"))?;
        let (group, fields) =
            text.split_once(':').ok_or_else(|| bad(table, line, "has no group before a colon"))?;
        let Some((values, _)) = rest.next() else {
            return Err(bad(table, line, "has names and no numbers: the file is cut off"));
        };
        let mut parsed = Vec::new();
        let fits = values.strip_prefix(&names[..=group.len()]).is_some_and(|v| {
            numbers(v, &mut parsed).is_some() && parsed.len() == fields.split_whitespace().count()
        });
        if !fits {
            return Err(bad(table, line + 1, "does not have one number for each name above it"));
        }
        layout.fields.extend(fields.split_whitespace().map(|f| (group.to_owned(), f.to_owned())));
        layout.lines.push(names.to_vec());
    }
    if layout.lines.is_empty() {
        return Err(bad(table, 1, "is missing: the file is empty"));
    }
    Ok(layout)
}

fn layout_of_snmp6(text: &[u8]) -> Result<Layout, CollectError> {
    const GROUPS: [&str; 4] = ["UdpLite6", "Udp6", "Icmp6", "Ip6"];
    let table = Table::Snmp6;
    let mut layout = Layout { fields: Vec::new(), lines: Vec::new() };
    for (line, number) in lines(text) {
        let text = std::str::from_utf8(line).map_err(|_| bad(table, number, "is not text"))?;
        let end =
            text.find(char::is_whitespace).ok_or_else(|| bad(table, number, "has a name and no number"))?;
        let mut value = Vec::new();
        if numbers(&line[end..], &mut value).is_none() || value.len() != 1 {
            return Err(bad(table, number, "does not have one number after its name"));
        }
        let group = GROUPS.iter().find(|g| text.starts_with(**g)).copied().unwrap_or("");
        layout.fields.push((group.to_owned(), text[group.len()..end].to_owned()));
        // With the blank, or `Ip6FragOK` would match `Ip6FragOKs`.
        layout.lines.push(line[..=end].to_vec());
    }
    if layout.lines.is_empty() {
        return Err(bad(table, 1, "is missing: the file is empty"));
    }
    Ok(layout)
}

/// Chosen fields of a table; where they are is looked up once for each layout.
#[derive(Debug)]
pub struct Selection {
    wanted: Vec<(&'static str, &'static str)>,
    found: Option<(Arc<Layout>, Vec<Option<usize>>)>,
}

impl Selection {
    /// These fields, as group and name.
    pub fn new(wanted: impl IntoIterator<Item = (&'static str, &'static str)>) -> Self {
        Self { wanted: wanted.into_iter().collect(), found: None }
    }

    /// The values in the order of the selection; `None` for a field that this kernel does not have.
    pub fn values<'a>(&'a mut self, mib: &'a Mib) -> impl Iterator<Item = Option<u64>> + 'a {
        let stale = self.found.as_ref().is_none_or(|(layout, _)| !Arc::ptr_eq(layout, &mib.layout));
        if stale {
            let place = |&(group, field): &(&str, &str)| {
                mib.layout.fields.iter().position(|(g, f)| g == group && f == field)
            };
            let places = self.wanted.iter().map(place).collect();
            self.found = Some((Arc::clone(&mib.layout), places));
        }
        let places = self.found.as_ref().map_or(&[][..], |(_, places)| places);
        places.iter().map(|place| place.and_then(|i| mib.values.get(i).copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &[u8] =
        b"Ip: Forwarding InReceives\nIp: 1 42\nTcp: MaxConn ActiveOpens\nTcp: -1 18446744073709551615\n";

    #[test]
    fn names_and_numbers_are_paired() {
        let mib = Layouts::default().parse(Table::Snmp, SNMP).expect("well formed");
        assert_eq!(mib.get("Ip", "InReceives"), Some(42));
        assert_eq!(mib.get("Tcp", "MaxConn"), Some(u64::MAX));
        assert_eq!(mib.get("Tcp", "ActiveOpens"), Some(u64::MAX));
        assert_eq!(mib.get("Tcp", "PassiveOpens"), None);
    }

    #[test]
    fn snmp6_is_read_by_group() {
        let mib = Layouts::default()
            .parse(Table::Snmp6, b"Ip6InReceives \t7\nUdp6InDatagrams\t8\nUdpLite6InDatagrams 9\n")
            .expect("well formed");
        assert_eq!(mib.get("Ip6", "InReceives"), Some(7));
        assert_eq!(mib.get("Udp6", "InDatagrams"), Some(8));
        assert_eq!(mib.get("UdpLite6", "InDatagrams"), Some(9));
    }

    #[test]
    fn a_selection_follows_a_layout_that_changes() {
        let layouts = Layouts::default();
        let mut wanted = Selection::new([("Tcp", "ActiveOpens"), ("Tcp", "Nothing")]);
        let mib = layouts.parse(Table::Snmp, SNMP).expect("well formed");
        assert_eq!(wanted.values(&mib).collect::<Vec<_>>(), [Some(u64::MAX), None]);
        let other = layouts.parse(Table::Snmp, b"Tcp: Nothing ActiveOpens\nTcp: 3 4\n").expect("well formed");
        assert_eq!(wanted.values(&other).collect::<Vec<_>>(), [Some(4), Some(3)]);
    }

    #[test]
    fn icmp_types_that_one_namespace_has_seen_do_not_make_another_layout() {
        let layouts = Layouts::default();
        let quiet = layouts.parse(Table::Snmp, b"Tcp: A\nTcp: 1\n").expect("well formed");
        let busy = b"IcmpMsg: InType3 OutType8\nIcmpMsg: 1 2\nTcp: A\nTcp: 7\n";
        let busy = layouts.parse(Table::Snmp, busy).expect("well formed");
        assert!(Arc::ptr_eq(&quiet.layout, &busy.layout));
        assert_eq!(busy.get("Tcp", "A"), Some(7));
        let quiet = layouts.parse(Table::Snmp6, b"Icmp6InMsgs 1\nUdp6NoPorts 2\n").expect("well formed");
        let busy = b"Icmp6InMsgs 3\nIcmp6InType1 1\nIcmp6OutType143 4\nUdp6NoPorts 4\n";
        let busy = layouts.parse(Table::Snmp6, busy).expect("well formed");
        assert!(Arc::ptr_eq(&quiet.layout, &busy.layout));
        assert_eq!(busy.get("Udp6", "NoPorts"), Some(4));
        let error =
            layouts.parse(Table::Snmp, b"IcmpMsg: A\nIcmpMsg: 1\nTcp: A\nTcp: x\n").expect_err("broken");
        assert!(error.to_string().contains("line 4"), "{error}");
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_the_line() {
        for (text, line) in [
            (&b"Ip: A B\nIp: 1 2\nTcp: C D\n"[..], "line 3"),
            (b"Ip: A B\nIp: 1\n", "line 2"),
            (b"Ip: A B\nIp: 1 x\n", "line 2"),
            (b"Ip: A B\nTcp: 1 2\n", "line 2"),
            (b"\xff\xfe\n1\n", "line 1"),
            (b"no colon\n1\n", "line 1"),
            (b"", "line 1"),
        ] {
            let error = Layouts::default().parse(Table::Snmp, text).expect_err("broken").to_string();
            assert!(error.contains("/proc/net/snmp") && error.contains(line), "{error}");
        }
        assert!(Layouts::default().parse(Table::Snmp6, b"Ip6InReceives 7\nIp6In").is_err());
    }

    #[test]
    fn every_prefix_of_a_file_is_read_or_refused_without_a_panic() {
        for end in 0..SNMP.len() {
            let _ = Layouts::default().parse(Table::Snmp, &SNMP[..end]);
            let _ = Layouts::default().parse(Table::Snmp6, &SNMP[..end]);
        }
    }
}
