//! Facts about the file sink, on real files.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use netsonde_framework::Record;
use serde_json::json;

use super::{File, Limits, open};
use crate::{Context, Sink as _};

fn records(range: std::ops::Range<usize>) -> Vec<Arc<Record>> {
    let record = |n| Record {
        json: format!("{{\"n\":{n:03}}}"),
        time_ns: n as u64,
        probe: "tcp".into(),
        kind: "Test".into(),
        severity: "info".into(),
        namespace: "".into(),
        pod: "".into(),
    };
    range.map(|n| Arc::new(record(n))).collect()
}

fn text(range: std::ops::Range<usize>) -> String {
    records(range).iter().flat_map(|record| [record.json.as_str(), "\n"]).collect()
}

fn sink(path: &Path, bytes: u64, keep: usize, compress: bool) -> File {
    File::open(path.to_owned(), Limits { bytes, age: None }, keep, compress).expect("opened")
}

fn write(file: &mut File, range: std::ops::Range<usize>) {
    let (batch, mut done) = (records(range), 0);
    file.write(&batch, &mut done).expect("written");
    assert_eq!(done, batch.len());
}

/// The old files, oldest first.
fn old(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().expect("a folder");
    let mut old: Vec<_> = fs::read_dir(folder).expect("listed").flatten().map(|entry| entry.path()).collect();
    old.retain(|other| other != path);
    old.sort_unstable();
    old
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

#[test]
fn what_is_there_is_kept_and_the_file_is_not_for_all_to_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("events.json");
    write(&mut sink(&path, 1 << 20, 5, false), 0..3);
    write(&mut sink(&path, 1 << 20, 5, false), 3..5);
    assert_eq!(read(&path), text(0..5));
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o137, 0);
}

#[test]
fn half_a_line_at_the_start_is_ended_first() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("events.json");
    fs::write(&path, "{\"n\":0}\n{\"n\"").expect("written");
    write(&mut sink(&path, 1 << 20, 5, false), 1..2);
    assert_eq!(read(&path), format!("{{\"n\":0}}\n{{\"n\"\n{}", text(1..2)));
}

#[test]
fn a_full_file_is_rotated_and_old_ones_are_removed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("events.json");
    // Ten lines a file.
    let mut file = sink(&path, 100, 3, false);
    write(&mut file, 0..55);
    assert_eq!(read(&path), text(50..55));
    let kept: Vec<_> = old(&path).iter().map(|old| read(old)).collect();
    assert_eq!(kept, [text(20..30), text(30..40), text(40..50)]);
}

#[test]
fn an_old_file_is_rotated_with_the_next_event() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("events.json");
    let limits = Limits { bytes: 1 << 20, age: Some(Duration::from_millis(1)) };
    let mut file = File::open(path.clone(), limits, 5, false).expect("opened");
    write(&mut file, 0..2);
    std::thread::sleep(Duration::from_millis(20));
    write(&mut file, 2..3);
    assert!(read(&path).ends_with(&text(2..3)));
    assert!(!old(&path).is_empty());
}

#[test]
fn old_files_are_compressed_in_the_background() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("events.json");
    let mut file = sink(&path, 100, 9, true);
    write(&mut file, 0..25);
    let start = Instant::now();
    while !old(&path).iter().all(|old| old.extension().is_some_and(|ext| ext == "gz")) {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", old(&path));
        std::thread::sleep(Duration::from_millis(5));
    }
    let texts = old(&path).into_iter().map(|old| {
        let mut text = String::new();
        let packed = fs::File::open(old).expect("opened");
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).expect("a whole gzip file");
        text
    });
    assert_eq!(texts.collect::<Vec<_>>(), [text(0..10), text(10..20)]);
    assert_eq!(read(&path), text(20..25));
}

#[test]
fn a_file_that_was_moved_or_removed_is_made_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("events.json");
    let mut file = sink(&path, 1 << 20, 5, false);
    write(&mut file, 0..2);
    fs::rename(&path, folder.path().join("moved")).expect("moved");
    write(&mut file, 2..3);
    assert_eq!((read(&folder.path().join("moved")), read(&path)), (text(0..2), text(2..3)));
    fs::remove_file(&path).expect("removed");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(file.reopen());
    assert_eq!(read(&path), "");
    write(&mut file, 3..4);
    assert_eq!(read(&path), text(3..4));
}

#[test]
fn a_file_that_cannot_be_opened_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let context = Context { node: "n1".into() };
    for (args, wanted) in [
        (json!({"path": folder.path().join("not/there.json")}), "make the folder"),
        (json!({"path": folder.path()}), "no regular file"),
        (json!({"path": "/dev/null"}), "no regular file"),
        (json!({"path": "/"}), "path"),
        (json!({"path": "/proc/events.json"}), "/proc"),
        (json!({"path": "/x", "max_bytes": 5}), "max_bytes"),
        (json!({"path": "/x", "max_age": "5ms"}), "max_age"),
        (json!({"path": "/x", "keep": 5000}), "keep"),
        (json!({"path": "/x", "rotate": true}), "rotate"),
    ] {
        let why = open(&args, &context).err().unwrap_or_else(|| panic!("{args} was taken")).to_string();
        assert!(why.contains(wanted), "{args}: {why}");
    }
}
