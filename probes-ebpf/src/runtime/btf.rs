//! What the running kernel's BTF tells: how many arguments a tracepoint has, and the names of an enumeration.
//!
//! Numbers of drop reasons move from kernel to kernel, so they are never written down; they are asked here. The one
//! crate that reads BTF in full is LGPL, which this binary must not link; only these two questions are needed.

use std::collections::BTreeMap;

const MAGIC: u16 = 0xeb9f;
const PTR: u32 = 2;
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
        let word = |at: usize| word(&data, at);
        if u16::from_ne_bytes(*data.first_chunk()?) != MAGIC {
            return None;
        }
        let header = word(4)?;
        let (start, end) = (header + word(8)?, header + word(8)? + word(12)?);
        let strings = header + word(16)?;
        let mut btf = Self { data, types: vec![0], strings };
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
        let text = self.data.get(self.strings + offset..)?;
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

    /// The members of a struct in order: name and offset in bytes; and its size. For the tests that compare layouts.
    #[cfg(test)]
    pub fn layout(&self, name: &str) -> Option<(Vec<(String, usize)>, usize)> {
        const STRUCT: u32 = 4;
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
