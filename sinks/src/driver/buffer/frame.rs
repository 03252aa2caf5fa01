//! One event on disk: its length, a checksum, and the record.
//!
//! Length and checksum are 32 bits each, little endian. Then come the time, 64 bits, and the record's texts, each but
//! the last with its length in 16 bits: probe, type, severity, namespace, pod, and the JSON object.

use std::sync::Arc;

use flate2::Crc;
use netsonde_framework::Record;

/// The largest record, as it is on disk without its head.
const MOST: usize = 1 << 20;

/// Length and checksum.
const HEAD: usize = 8;

/// The largest frame.
pub(super) const LARGEST: usize = HEAD + MOST;

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    /// A record, and how many bytes it takes.
    Whole(Record, usize),
    /// A damaged record that takes so many bytes.
    Damaged(usize),
    /// Nothing that tells where the next one begins.
    Broken,
}

fn sum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Adds a record to `out`. False, and nothing added, where it is too large.
pub(super) fn write(record: &Record, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    out.extend_from_slice(&record.time_ns.to_le_bytes());
    let short: [&str; 5] = [&record.probe, &record.kind, &record.severity, &record.namespace, &record.pod];
    for text in short {
        let Ok(length) = u16::try_from(text.len()) else {
            out.truncate(start);
            return false;
        };
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(record.json.as_bytes());
    let length = out.len() - start - HEAD;
    let Some(length32) = u32::try_from(length).ok().filter(|_| length <= MOST) else {
        out.truncate(start);
        return false;
    };
    let sum = sum(&out[start + HEAD..]);
    out[start..start + 4].copy_from_slice(&length32.to_le_bytes());
    out[start + 4..start + HEAD].copy_from_slice(&sum.to_le_bytes());
    true
}

/// Reads what stands at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Frame {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Frame::Broken };
    let Some((wanted, rest)) = rest.split_first_chunk::<4>() else { return Frame::Broken };
    let length = u32::from_le_bytes(*length) as usize;
    let Some(body) = rest.get(..length).filter(|_| (1..=MOST).contains(&length)) else {
        return Frame::Broken;
    };
    let whole = (sum(body) == u32::from_le_bytes(*wanted)).then(|| record(body)).flatten();
    whole.map_or(Frame::Damaged(HEAD + length), |record| Frame::Whole(record, HEAD + length))
}

fn record(body: &[u8]) -> Option<Record> {
    let (time, mut rest) = body.split_first_chunk::<8>()?;
    let mut short = || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (text, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        rest = after;
        std::str::from_utf8(text).ok()
    };
    let (probe, kind, severity, namespace, pod) = (short()?, short()?, short()?, short()?, short()?);
    Some(Record {
        time_ns: u64::from_le_bytes(*time),
        probe: probe.to_owned().into(),
        kind: kind.to_owned().into(),
        severity: severity.to_owned().into(),
        namespace: Arc::from(namespace),
        pod: Arc::from(pod),
        json: String::from_utf8(rest.to_vec()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Record {
        Record {
            json: "{\"id\":\"1\",\"comm\":\"größe\"}".to_owned(),
            time_ns: u64::MAX - 1,
            probe: "packetloss".into(),
            kind: "PacketLoss".into(),
            severity: "warning".into(),
            namespace: "".into(),
            pod: "cart-0".into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        assert!(write(&one(), &mut bytes));
        let length = bytes.len();
        bytes.extend_from_slice(b"more");
        assert_eq!(read(&bytes), Frame::Whole(one(), length));
    }

    #[test]
    fn a_cut_is_noticed_everywhere_and_no_flipped_bit_gets_through() {
        let mut bytes = Vec::new();
        write(&one(), &mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), Frame::Broken, "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut spoilt = bytes.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(read(&spoilt), Frame::Whole(..)), "bit {bit}");
        }
    }

    #[test]
    fn a_record_that_is_too_large_leaves_nothing_behind() {
        let mut bytes = b"before".to_vec();
        assert!(!write(&Record { json: "x".repeat(MOST), ..one() }, &mut bytes));
        assert!(!write(&Record { pod: "x".repeat(70_000).into(), ..one() }, &mut bytes));
        assert_eq!(bytes, b"before");
    }
}
