//! The statistics of ctnetlink: `struct nfgenmsg`, then attributes of 32 bits in network byte order.

use netsonde_framework::CollectError;

use crate::os::netlink::attributes;

/// CTA_STATS_SEARCHED (1) to CTA_STATS_CHAIN_TOOLONG (15); a counter's place is its attribute less one.
pub const COUNTERS: usize = 15;

/// The counters of one namespace, summed over its CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Which counters this kernel has.
    pub given: [bool; COUNTERS],
    /// The sums.
    pub wide: [u64; COUNTERS],
    /// Their lower 32 bits. The kernel's counters wrap at 32 bits, each CPU's at its own time, and still this grows
    /// by just what they grow together.
    pub lower: [u32; COUNTERS],
}

/// The table of one namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Table {
    /// Entries in it.
    pub entries: Option<u32>,
    /// How many there may be; `None` before Linux 4.18.
    pub max_entries: Option<u32>,
}

/// Adds one CPU's message of IPCTNL_MSG_CT_GET_STATS_CPU.
pub fn add_cpu(payload: &[u8], sums: &mut Sums) -> Result<(), CollectError> {
    each("IPCTNL_MSG_CT_GET_STATS_CPU", payload, |kind, value| {
        let Some(i) = usize::from(kind).checked_sub(1).filter(|i| *i < COUNTERS) else { return };
        sums.given[i] = true;
        sums.wide[i] += u64::from(value);
        sums.lower[i] = sums.lower[i].wrapping_add(value);
    })
}

/// Reads the message of IPCTNL_MSG_CT_GET_STATS.
pub fn table(payload: &[u8], table: &mut Table) -> Result<(), CollectError> {
    const CTA_STATS_GLOBAL_ENTRIES: u16 = 1;
    const CTA_STATS_GLOBAL_MAX_ENTRIES: u16 = 2;
    each("IPCTNL_MSG_CT_GET_STATS", payload, |kind, value| match kind {
        CTA_STATS_GLOBAL_ENTRIES => table.entries = Some(value),
        CTA_STATS_GLOBAL_MAX_ENTRIES => table.max_entries = Some(value),
        _ => {}
    })
}

fn each(message: &str, payload: &[u8], mut take: impl FnMut(u16, u32)) -> Result<(), CollectError> {
    const NFGENMSG: usize = 4;
    let bad = |why: String| CollectError::Parse { what: format!("netlink {message}"), why };
    let rest = payload.get(NFGENMSG..).ok_or_else(|| bad("is shorter than its header".into()))?;
    for (kind, value) in attributes(rest) {
        let value: [u8; 4] = value.try_into().map_err(|_| {
            bad(format!("attribute {kind} has {} bytes and not the 4 of a counter", value.len()))
        })?;
        take(kind, u32::from_be_bytes(value));
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A message with these attributes.
    pub fn message(attributes: &[(u16, u32)]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 1];
        for (kind, value) in attributes {
            bytes.extend_from_slice(&8u16.to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&value.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn the_counters_of_all_cpus_are_summed() {
        let mut sums = Sums::default();
        add_cpu(&message(&[(2, 5), (9, u32::MAX), (15, 1)]), &mut sums).expect("well formed");
        add_cpu(&message(&[(2, 6), (9, 3)]), &mut sums).expect("well formed");
        assert_eq!((sums.wide[1], sums.wide[14]), (11, 1));
        assert_eq!((sums.wide[8], sums.lower[8]), (u64::from(u32::MAX) + 3, 2));
        let given: Vec<usize> = (0..COUNTERS).filter(|i| sums.given[*i]).collect();
        assert_eq!(given, [1, 8, 14]);
    }

    #[test]
    fn attributes_of_a_newer_kernel_are_passed_over() {
        let mut sums = Sums::default();
        add_cpu(&message(&[(0, 7), (16, 7), (100, 7)]), &mut sums).expect("well formed");
        assert_eq!(sums, Sums::default());
    }

    #[test]
    fn entries_and_their_limit_are_read_and_an_old_kernel_has_no_limit() {
        let mut both = Table::default();
        table(&message(&[(1, 42), (2, 262_144)]), &mut both).expect("well formed");
        assert_eq!((both.entries, both.max_entries), (Some(42), Some(262_144)));
        let mut one = Table::default();
        table(&message(&[(1, 42)]), &mut one).expect("well formed");
        assert_eq!((one.entries, one.max_entries), (Some(42), None));
    }

    #[test]
    fn odd_messages_are_errors_that_name_them_and_none_panics() {
        let error = add_cpu(&[0; 3], &mut Sums::default()).expect_err("too short").to_string();
        assert!(error.contains("GET_STATS_CPU"), "{error}");
        let short = [0, 0, 0, 0, 6, 0, 1, 0, 9, 9, 0, 0];
        let error = table(&short, &mut Table::default()).expect_err("2 bytes").to_string();
        assert!(error.contains("attribute 1 has 2 bytes"), "{error}");
        let whole = message(&[(1, 42), (2, 7)]);
        for end in 0..whole.len() {
            let mut cut = Table::default();
            if table(&whole[..end], &mut cut).is_ok() {
                assert!(cut.entries.is_none_or(|n| n == 42) && cut.max_entries.is_none(), "{end}");
            }
        }
    }
}
