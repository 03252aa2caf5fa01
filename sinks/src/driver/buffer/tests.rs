//! Facts about the disk buffer, on real files that are spoilt on purpose.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netsonde_framework::Record;

use super::{Buffer, Found, Reason, Refusal};

const MIB: u64 = 1 << 20;

fn records(range: std::ops::Range<usize>, length: usize) -> Vec<Arc<Record>> {
    let record = |n: usize| Record {
        json: format!("{n}{}", "x".repeat(length)),
        time_ns: n as u64,
        probe: "tcp".into(),
        kind: "Test".into(),
        severity: "info".into(),
        namespace: "shop".into(),
        pod: "cart-0".into(),
    };
    range.map(|n| Arc::new(record(n))).collect()
}

fn open(folder: &Path) -> (Buffer, Found) {
    Buffer::open(folder, 8 * MIB).expect("opened")
}

/// Takes everything in batches of seven, and says which were there and how many turned out to be damaged.
fn drain(buffer: &mut Buffer) -> (Vec<u64>, u64) {
    let (mut times, mut sum) = (Vec::new(), 0);
    loop {
        let (records, damaged) = buffer.front(7, 1 << 20).expect("readable");
        sum += damaged;
        if records.is_empty() {
            return (times, sum);
        }
        times.extend(records.iter().map(|record| record.time_ns));
        buffer.acknowledge(records.len()).expect("saved");
    }
}

fn append(buffer: &mut Buffer, records: &[Arc<Record>]) {
    let appended = buffer.append(records);
    assert_eq!((appended.taken, appended.end), (records.len(), Ok(())));
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("listed").flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "events"));
    paths.sort_unstable();
    paths
}

#[test]
fn what_is_appended_comes_back_in_order_and_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut buffer, found) = open(folder.path());
    assert_eq!(found, Found { events: 0, damaged: 0 });
    let all = records(0..100, 20);
    append(&mut buffer, &all);
    assert_eq!(buffer.events(), 100);
    let (first, _) = buffer.front(100, 1 << 20).expect("readable");
    assert_eq!(first, all);
    assert_eq!(drain(&mut buffer).0, (0..100).collect::<Vec<_>>());
    assert_eq!(buffer.events(), 0);
}

#[test]
fn a_batch_is_bounded_by_bytes_and_has_at_least_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut buffer, _) = open(folder.path());
    append(&mut buffer, &records(0..10, 1000));
    assert_eq!(buffer.front(100, 5000).expect("readable").0.len(), 4);
    assert_eq!(buffer.front(100, 1).expect("readable").0.len(), 1);
}

#[test]
fn delivered_segments_are_removed_and_the_rest_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut buffer, _) = open(folder.path());
    append(&mut buffer, &records(0..4000, 1000));
    let many = segments(folder.path()).len();
    assert!(many >= 4, "{many}");
    for _ in 0..1500 {
        let (batch, _) = buffer.front(2, 1 << 20).expect("readable");
        buffer.acknowledge(batch.len()).expect("saved");
    }
    assert!(segments(folder.path()).len() < many);
    let left = buffer.events();
    drop(buffer);
    let (mut buffer, found) = open(folder.path());
    assert_eq!(found, Found { events: left, damaged: 0 });
    // Appended after a restart, it comes after what was there.
    append(&mut buffer, &records(4000..4010, 1000));
    assert_eq!(drain(&mut buffer).0, (4010 - left - 10..4010).collect::<Vec<_>>());
}

#[test]
fn events_that_are_in_no_acknowledged_batch_are_repeated_after_a_crash() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut buffer, _) = open(folder.path());
    append(&mut buffer, &records(0..20, 20));
    buffer.front(7, 1 << 20).expect("readable");
    buffer.acknowledge(7).expect("saved");
    buffer.front(7, 1 << 20).expect("readable");
    drop(buffer);
    assert_eq!(drain(&mut open(folder.path()).0).0, (7..20).collect::<Vec<_>>());
}

#[test]
fn a_tail_cut_anywhere_costs_one_event_and_is_counted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut buffer, _) = open(folder.path());
    append(&mut buffer, &records(0..3, 20));
    drop(buffer);
    let path = segments(folder.path()).remove(0);
    let whole = fs::read(&path).expect("read");
    let frame = (whole.len() - 8) / 3;
    for cut in 1..frame {
        fs::write(&path, &whole[..whole.len() - cut]).expect("written");
        let (mut buffer, found) = open(folder.path());
        assert_eq!(found, Found { events: 2, damaged: 1 }, "{cut} bytes less");
        // The cut file is not written any more.
        append(&mut buffer, &records(3..5, 20));
        let (front, damaged) = buffer.front(10, 1 << 20).expect("readable");
        assert_eq!((front.len(), damaged), (2, 0));
        drop(buffer);
        fs::remove_file(segments(folder.path()).remove(1)).expect("removed");
    }
}

#[test]
fn a_damaged_event_costs_itself_and_a_damaged_length_the_rest_of_its_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut buffer, _) = open(folder.path());
    append(&mut buffer, &records(0..10, 20));
    drop(buffer);
    let path = segments(folder.path()).remove(0);
    let mut bytes = fs::read(&path).expect("read");
    let frame = (bytes.len() - 8) / 10;
    bytes[8 + 3 * frame + 30] ^= 1;
    fs::write(&path, &bytes).expect("written");
    let (mut buffer, found) = open(folder.path());
    assert_eq!(found, Found { events: 9, damaged: 1 });
    assert_eq!(drain(&mut buffer), (vec![0, 1, 2, 4, 5, 6, 7, 8, 9], 0));
    drop(buffer);

    bytes[8 + 7 * frame] = 0xff;
    bytes[8 + 7 * frame + 3] = 0xff;
    fs::write(&path, &bytes).expect("written");
    fs::remove_file(folder.path().join("cursor")).expect("removed");
    let (mut buffer, found) = open(folder.path());
    assert_eq!(found, Found { events: 6, damaged: 2 });
    assert_eq!(drain(&mut buffer), (vec![0, 1, 2, 4, 5, 6], 0));
}

#[test]
fn damage_under_an_open_buffer_is_counted_exactly() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut buffer, _) = open(folder.path());
    append(&mut buffer, &records(0..10, 20));
    let path = segments(folder.path()).remove(0);
    let mut bytes = fs::read(&path).expect("read");
    let frame = (bytes.len() - 8) / 10;
    bytes[8 + 4 * frame + 3] = 0xff;
    let mut file = OpenOptions::new().write(true).open(&path).expect("opened");
    file.write_all(&bytes).expect("written");
    assert_eq!(drain(&mut buffer), (vec![0, 1, 2, 3], 6));
    append(&mut buffer, &records(10..12, 20));
    assert_eq!(drain(&mut buffer), (vec![10, 11], 0));
}

#[test]
fn files_that_are_not_ours_or_make_no_sense_are_no_obstacle() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("00000000000000000007.events"), b"").expect("written");
    fs::write(folder.path().join("00000000000000000008.events"), b"something else altogether")
        .expect("written");
    fs::write(folder.path().join("cursor"), b"1 8 00000000\n").expect("written");
    fs::write(folder.path().join("notes.txt"), b"mine").expect("written");
    let (mut buffer, found) = open(folder.path());
    assert_eq!(found, Found { events: 0, damaged: 1 });
    append(&mut buffer, &records(0..3, 20));
    assert_eq!(drain(&mut buffer), (vec![0, 1, 2], 0));
    assert_eq!(fs::read(folder.path().join("notes.txt")).expect("kept"), b"mine");
}

#[test]
fn a_new_file_never_gets_the_number_of_the_cursor() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut buffer, _) = open(folder.path());
    append(&mut buffer, &records(0..3, 20));
    buffer.front(2, 1 << 20).expect("readable");
    buffer.acknowledge(2).expect("saved");
    drop(buffer);
    fs::remove_file(segments(folder.path()).remove(0)).expect("removed");
    let (mut buffer, _) = open(folder.path());
    append(&mut buffer, &records(3..6, 20));
    drop(buffer);
    assert_eq!(drain(&mut open(folder.path()).0).0, [3, 4, 5]);
}

#[test]
fn a_full_buffer_refuses_new_events_and_takes_them_again_after_a_delivery() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut buffer, _) = Buffer::open(folder.path(), MIB).expect("opened");
    let appended = buffer.append(&records(0..2000, 1000));
    assert!(matches!(appended.end, Err(Refusal::Drop { reason: Reason::BufferFull, .. })), "{appended:?}");
    assert!(appended.taken > 800 && buffer.bytes() <= MIB, "{} taken", appended.taken);
    assert_eq!(drain(&mut buffer).0, (0..appended.taken as u64).collect::<Vec<_>>());
    append(&mut buffer, &records(0..100, 1000));
}

#[test]
fn an_event_that_is_too_large_is_refused_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (mut buffer, _) = open(folder.path());
    let batch = [records(0..2, 20), records(2..3, 2 << 20)].concat();
    let appended = buffer.append(&batch);
    assert_eq!(appended.taken, 2);
    assert!(
        matches!(appended.end, Err(Refusal::Drop { reason: Reason::TooLarge, .. })),
        "{:?}",
        appended.end
    );
    // Larger than a segment, it still comes back.
    append(&mut buffer, &records(3..4, 1_000_000));
    assert_eq!(drain(&mut buffer).0, [0, 1, 3]);
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    fs::write(&file, b"").expect("written");
    for path in [folder.path().join("not/there"), file] {
        let why = Buffer::open(&path, MIB).expect_err("refused").to_string();
        assert!(why.contains(&path.display().to_string()), "{why}");
    }
}
