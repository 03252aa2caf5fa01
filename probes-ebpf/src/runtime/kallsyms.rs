//! The kernel's table of functions, read whole and held as small as it goes.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};

/// The functions of the kernel, of its modules and of BPF programs, by where they begin.
#[derive(Debug)]
pub struct Table {
    functions: Vec<Function>,
    /// Their names, one behind the other.
    names: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Function {
    start: u64,
    /// Where its name begins in `names`.
    name: u32,
    length: u16,
    /// Of the kernel itself and not of a module or a program: it stays where it is.
    fixed: bool,
}

/// The function that an address is in.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'a> {
    pub start: u64,
    pub name: &'a str,
    /// Where the next one begins; only for one of the kernel itself.
    pub end: Option<u64>,
}

/// No function is larger: an address further from every symbol is in none (a module that is gone).
const LARGEST: u64 = 1 << 16;

impl Table {
    /// Reads all of it, which takes the kernel tens of milliseconds. A hundred thousand functions take 4 MB.
    pub fn read(path: &str) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
        let (mut functions, mut names) = (Vec::new(), Vec::new());
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line)? > 0 {
            if let Some((start, text)) = function(&line)
                && let (Ok(name), Ok(length)) = (names.len().try_into(), text.len().try_into())
            {
                functions.push(Function { start, name, length, fixed: !line.contains(&b'[') });
                names.extend_from_slice(text);
            }
            line.clear();
        }
        // Modules follow the kernel, each in an order of its own. Of several names of one function the first one stays.
        functions.sort_by_key(|function| function.start);
        functions.dedup_by_key(|function| function.start);
        functions.shrink_to_fit();
        names.shrink_to_fit();
        Ok(Self { functions, names })
    }

    /// The function that this address is in.
    pub fn find(&self, address: u64) -> Option<Found<'_>> {
        let after = self.functions.partition_point(|function| function.start <= address);
        let function = self.functions[..after].last()?;
        if address - function.start > LARGEST {
            return None;
        }
        let name = function.name as usize;
        let name = std::str::from_utf8(&self.names[name..name + usize::from(function.length)]).ok()?;
        let end = self.functions.get(after).map(|next| next.start).filter(|_| function.fixed);
        Some(Found { start: function.start, name, end })
    }
}

/// Address and name in a line like `ffffffff81000000 T _text` (with a tab and the module in brackets behind it where it
/// has one) if it is a function's. There are hundreds of thousands of lines, so nothing is checked twice.
fn function(line: &[u8]) -> Option<(u64, &[u8])> {
    const DIGITS: usize = 16;
    const NAME: usize = DIGITS + 3;
    if !matches!(line.get(DIGITS..NAME)?, [b' ', b't' | b'T' | b'w' | b'W', b' ']) {
        return None;
    }
    let address = line[..DIGITS].iter().try_fold(0u64, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(sum << 4 | u64::from(value))
    })?;
    let length = line[NAME..].iter().position(u8::is_ascii_whitespace).unwrap_or(line.len() - NAME);
    Some((address, &line[NAME..NAME + length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        std::fs::write(file.path(), text).expect("written");
        Table::read(file.path().to_str().expect("UTF-8")).expect("it is there")
    }

    #[test]
    fn lines_that_are_no_functions_are_passed_over() {
        assert_eq!(function(b"ffffffff81000010 T start\n"), Some((0xffff_ffff_8100_0010, &b"start"[..])));
        let of_module = b"ffffffffc0000000 t nft_do_chain\t[nf_tables]\n";
        assert_eq!(function(of_module), Some((0xffff_ffff_c000_0000, &b"nft_do_chain"[..])));
        assert_eq!(function(b"ffffffff81000010 D data\n"), None);
        assert_eq!(function(b"nonsense\n"), None);
        assert_eq!(function(b"fffffffg81000010 T start\n"), None);
    }

    #[test]
    fn an_address_is_in_the_last_function_that_begins_before_it() {
        let table = table(
            "0000000000001000 T first\n0000000000001000 T alias\n0000000000002000 t second\n\
             0000000000100200 t late\t[module]\n0000000000100100 t early\t[module]\n",
        );
        let found = |address| table.find(address).map(|found| (found.start, found.name, found.end));
        assert_eq!(found(0xfff), None);
        assert_eq!(found(0x1000), Some((0x1000, "first", Some(0x2000))));
        assert_eq!(found(0x1fff), Some((0x1000, "first", Some(0x2000))));
        assert_eq!(found(0x2000 + LARGEST), Some((0x2000, "second", Some(0x10_0100))));
        assert_eq!(found(0x2001 + LARGEST), None, "too far away");
        assert_eq!(found(0x10_01ff), Some((0x10_0100, "early", None)), "a module may move");
        assert_eq!(found(0x10_0200), Some((0x10_0200, "late", None)));
    }
}
