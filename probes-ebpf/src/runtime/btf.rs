//! What the running kernel's BTF tells: how many arguments a tracepoint has, and the names of an enumeration.
//!
//! Numbers of drop reasons move from kernel to kernel, so they are never written down; they are asked here. The one
//! crate that reads BTF in full is LGPL, which this binary must not link; only these two questions are needed.

use std::collections::BTreeMap;

const MAGIC: u16 = 0xeb9f;
const PTR: u32 = 2;
const STRUCT: u32 = 4;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const FUNC_PROTO: u32 = 13;

/// Type information in memory.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    /// Where each type begins; type 0 is void.
    types: Vec<usize>,
    strings: usize,
    /// How many bytes of strings, its own and those of its base.
    strings_end: usize,
    /// What a module's types build on: the kernel's.
    base: Option<Box<Btf>>,
}

struct Type {
    name: usize,
    kind: u32,
    members: usize,
    /// The type that it refers to, or its size.
    other: usize,
    /// Where its members begin.
    rest: usize,
}

impl Btf {
    /// Parses what /sys/kernel/btf/vmlinux holds; `None` where it is not BTF of this byte order.
    pub fn parse(data: Vec<u8>) -> Option<Self> {
        Self::parse_on(data, None)
    }

    /// Parses what /sys/kernel/btf holds for a module. Its strings go on where those of the kernel end.
    pub fn parse_module(data: Vec<u8>, kernel: Self) -> Option<Self> {
        Self::parse_on(data, Some(Box::new(kernel)))
    }

    fn parse_on(data: Vec<u8>, base: Option<Box<Self>>) -> Option<Self> {
        let word = |at: usize| word(&data, at);
        if u16::from_ne_bytes(*data.first_chunk()?) != MAGIC {
            return None;
        }
        let header = word(4)?;
        let (start, end) = (header + word(8)?, header + word(8)? + word(12)?);
        let strings = header + word(16)?;
        let strings_end = word(20)? + base.as_ref().map_or(0, |base| base.strings_end);
        let mut btf = Self { data, types: vec![0], strings, strings_end, base };
        let mut at = start;
        while at < end {
            btf.types.push(at);
            at = btf.end_of(at)?;
        }
        Some(btf)
    }

    fn type_at(&self, at: usize) -> Option<Type> {
        let info = u32::try_from(word(&self.data, at + 4)?).ok()?;
        Some(Type {
            name: word(&self.data, at)?,
            kind: info >> 24 & 0x1f,
            members: (info & 0xffff) as usize,
            other: word(&self.data, at + 8)?,
            rest: at + 12,
        })
    }

    fn end_of(&self, at: usize) -> Option<usize> {
        let found = self.type_at(at)?;
        let size = match found.kind {
            // INT, VAR, DECL_TAG
            1 | 14 | 17 => 4,
            // ARRAY
            3 => 12,
            // STRUCT, UNION, DATASEC, ENUM64
            4 | 5 | 15 | 19 => found.members * 12,
            // ENUM, FUNC_PROTO
            6 | 13 => found.members * 8,
            // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        };
        Some(found.rest + size)
    }

    fn name(&self, offset: usize) -> Option<&str> {
        let own = match &self.base {
            Some(base) if offset < base.strings_end => return base.name(offset),
            Some(base) => offset - base.strings_end,
            None => offset,
        };
        let text = self.data.get(self.strings.checked_add(own)?..)?;
        let end = text.iter().position(|b| *b == 0)?;
        std::str::from_utf8(&text[..end]).ok()
    }

    fn get(&self, id: usize) -> Option<Type> {
        self.type_at(*self.types.get(id).filter(|at| **at > 0)?)
    }

    fn find(&self, kind: u32, name: &str) -> Option<Type> {
        let types = self.types.iter().skip(1);
        types.filter_map(|at| self.type_at(*at)).find(|t| t.kind == kind && self.name(t.name) == Some(name))
    }

    /// Every tracepoint, with how many arguments it hands to a program.
    ///
    /// `btf_trace_NAME` is a pointer to its function, whose first argument is the kernel's own.
    pub fn tracepoints(&self) -> BTreeMap<String, u32> {
        let typedefs =
            self.types.iter().skip(1).filter_map(|at| self.type_at(*at)).filter(|t| t.kind == TYPEDEF);
        let tracepoints = typedefs.filter_map(|typedef| {
            let name = self.name(typedef.name)?.strip_prefix("btf_trace_")?;
            let pointer = self.get(typedef.other)?;
            let function = self.get(pointer.other).filter(|f| pointer.kind == PTR && f.kind == FUNC_PROTO)?;
            Some((name.to_owned(), u32::try_from(function.members).ok()?.checked_sub(1)?))
        });
        tracepoints.collect()
    }

    /// Where a member of a struct begins, in bytes. Not those of a struct without a name in it.
    pub fn offset_of(&self, name: &str, member: &str) -> Option<u32> {
        let found = self.find(STRUCT, name)?;
        (0..found.members).find_map(|i| {
            let at = found.rest + i * 12;
            let is_it = self.name(word(&self.data, at)?)? == member;
            // Above them is the width of a bit field.
            let bits = u32::try_from(word(&self.data, at + 8)? & 0x00ff_ffff).ok()?;
            is_it.then_some(bits / 8)
        })
    }

    /// The members of a struct in order: name and offset in bytes; and its size. For the tests that compare layouts.
    #[cfg(test)]
    pub fn layout(&self, name: &str) -> Option<(Vec<(String, usize)>, usize)> {
        let found = self.find(STRUCT, name)?;
        let members = (0..found.members).map(|i| {
            let at = found.rest + i * 12;
            let offset = word(&self.data, at + 8)? & 0x00ff_ffff;
            Some((self.name(word(&self.data, at)?)?.to_owned(), offset / 8))
        });
        Some((members.collect::<Option<_>>()?, found.other))
    }

    /// The members of an enumeration by value; empty where the kernel does not have it.
    pub fn enumeration(&self, name: &str) -> BTreeMap<u32, String> {
        let Some(found) = self.find(ENUM, name) else { return BTreeMap::new() };
        let members = (0..found.members).filter_map(|i| {
            let at = found.rest + i * 8;
            let value = u32::try_from(word(&self.data, at + 4)?).ok()?;
            Some((value, self.name(word(&self.data, at)?)?.to_owned()))
        });
        members.collect()
    }
}

fn word(data: &[u8], at: usize) -> Option<usize> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::types;

    #[test]
    fn the_running_kernel_tells_arguments_and_names() {
        let data = std::fs::read("/sys/kernel/btf/vmlinux").expect("these tests need a kernel with BTF");
        let btf = Btf::parse(data).expect("the kernel's own");
        let tracepoints = btf.tracepoints();
        assert!(tracepoints.get("kfree_skb").is_some_and(|n| *n >= 2), "{tracepoints:?}");
        let reasons = btf.enumeration("skb_drop_reason");
        assert!(reasons.values().any(|name| name == "SKB_DROP_REASON_NO_SOCKET"), "{reasons:?}");
        assert!(btf.enumeration("no_such_enumeration").is_empty());
    }

    #[test]
    fn a_member_is_found_by_name() {
        let btf = Btf::parse(types!("packetloss").to_vec()).expect("the object's own types");
        assert_eq!(btf.offset_of("drop", "reason"), Some(8));
        assert_eq!(btf.offset_of("drop", "no_such_member"), None);
        assert_eq!(btf.offset_of("no_such_struct", "reason"), None);
    }

    #[test]
    fn a_modules_names_go_on_where_the_kernels_end() {
        /// A struct with one member, 4 bytes in; the strings begin where `base` ends.
        fn module(base: u32, member: u32) -> Vec<u8> {
            let strings = b"\0own_struct\0own_member\0";
            let own = base + 1;
            let types: [u32; 6] = [own, 4 << 24 | 1, 8, member, 1, 32];
            let length = u32::try_from(strings.len()).expect("short");
            let head: [u32; 5] = [24, 0, 24, 24, length];
            let mut data = vec![0x9f, 0xeb, 1, 0];
            data.extend(head.iter().chain(&types).flat_map(|word| word.to_ne_bytes()));
            data.extend(strings);
            data
        }
        let kernel = || Btf::parse(types!("packetloss").to_vec()).expect("the object's own types");
        let end = u32::try_from(kernel().strings_end).expect("not that long");
        let own = Btf::parse_module(module(end, end + 12), kernel()).expect("well formed");
        assert_eq!(own.offset_of("own_struct", "own_member"), Some(4));
        let name = kernel().types.iter().skip(1).find_map(|at| {
            let found = kernel().type_at(*at)?;
            (kernel().name(found.name)? == "drop").then_some(found.name)
        });
        let name = u32::try_from(name.expect("it has the struct")).expect("not that long");
        let shared = Btf::parse_module(module(end, name), kernel()).expect("well formed");
        assert_eq!(shared.offset_of("own_struct", "drop"), Some(4), "a name that the kernel has, too");
    }

    #[test]
    fn what_is_no_btf_or_is_cut_off_is_refused_without_a_panic() {
        assert!(Btf::parse(Vec::new()).is_none());
        assert!(Btf::parse(vec![0; 100]).is_none());
        let whole = types!("packetloss");
        for length in 0..whole.len() {
            if let Some(btf) = Btf::parse(whole[..length].to_vec()) {
                let _ = btf.enumeration("skb_drop_reason");
                let _ = btf.tracepoints();
            }
        }
    }
}
