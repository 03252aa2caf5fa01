//! Files: rotation, logrotate, a full disk.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use netsonde_tests::records::{numbers, records};
use netsonde_tests::{Loki, agent, needs_root, shell};
use serde_json::json;

use super::{loki_args, start, wait};

/// A small disk of its own.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new(size: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let line = format!("mount -t tmpfs -o size={size} netsonde-lab {}", folder.path().display());
        shell::run(&mut shell::words(&line));
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let full = fs::write(self.at("filler"), vec![0; 64 << 20]).expect_err("the disk is small");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.at("filler")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever holds a file there is given up at once.
        let line = format!("umount -l {}", self.folder.path().display());
        let _ = shell::output(&mut shell::words(&line));
    }
}

fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if path.extension().is_none_or(|ext| ext != "gz") {
        return String::from_utf8(bytes).expect("text");
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("a whole gzip file");
    text
}

#[test]
fn rotation_loses_and_repeats_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("events.json");
    let args =
        json!({"path": path, "max_bytes": 20_000, "keep": 100, "compress": true, "batch": {"age": "10ms"}});
    let driver = start("file", &args);
    driver.push(&records(0..5000));
    let counts = driver.stop(super::LONG);
    assert_eq!((counts.delivered, counts.lost()), (5000, 0));
    let mut files: Vec<_> =
        fs::read_dir(folder.path()).expect("listed").flatten().map(|e| e.path()).collect();
    // While one is compressed, it is there twice for a moment.
    netsonde_tests::wait::until_true("all are compressed", super::LONG, || {
        files = fs::read_dir(folder.path()).expect("listed").flatten().map(|entry| entry.path()).collect();
        files.iter().all(|file| file == &path || file.extension().is_some_and(|ext| ext == "gz"))
    });
    files.retain(|file| file != &path);
    files.sort_unstable();
    assert!(files.len() > 20, "{files:?}");
    files.push(path);
    assert!(files.iter().all(|file| read(file).len() <= 20_000));
    let all: Vec<u64> = files.iter().flat_map(|file| numbers(&read(file))).collect();
    assert_eq!(all, (0..5000).collect::<Vec<_>>());
}

#[test]
fn a_file_that_logrotate_moved_is_made_anew_on_sighup() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, moved) = (folder.path().join("events.json"), folder.path().join("events.json.1"));
    let driver = start("file", &json!({"path": path, "batch": {"age": "10ms"}}));
    driver.push(&records(0..100));
    wait(&driver, "they are written", |counts| counts.delivered == 100);
    fs::rename(&path, &moved).expect("moved");
    driver.reopen();
    netsonde_tests::wait::until_true("the file is made anew", super::LONG, || path.exists());
    driver.push(&records(100..150));
    wait(&driver, "they are written", |counts| counts.delivered == 150);
    assert_eq!(numbers(&read(&moved)), (0..100).collect::<Vec<_>>());
    assert_eq!(numbers(&read(&path)), (100..150).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_costs_nothing_but_time_and_leaves_no_half_line() {
    needs_root!();
    let disk = Disk::new("256k");
    let path = disk.at("events.json");
    let args = json!({"path": path, "batch": {"age": "10ms"}, "retry": {"min": "10ms", "max": "50ms"}});
    let driver = start("file", &args);
    driver.push(&records(0..500));
    wait(&driver, "they are written", |counts| counts.delivered == 500);
    disk.fill();
    driver.push(&records(500..1500));
    let counts = wait(&driver, "the disk is full", |counts| counts.retries > 2);
    assert!(counts.last_error.as_ref().is_some_and(|why| why.contains("No space left")), "{counts:?}");
    let written = numbers(&read(&path));
    assert_eq!(written, (0..counts.delivered).collect::<Vec<_>>(), "whole lines, and all that are counted");
    assert!(read(&path).ends_with('\n'));
    disk.free();
    let counts = wait(&driver, "the rest is written", |counts| counts.delivered == 1500);
    assert_eq!(counts.lost(), 0);
    assert_eq!(numbers(&read(&path)), (0..1500).collect::<Vec<_>>());
    driver.stop(super::LONG);
}

#[test]
fn a_disk_buffer_on_a_full_disk_falls_back_to_memory() {
    needs_root!();
    let (disk, address) = (Disk::new("512k"), agent::free_address());
    let more = json!({"buffer": {"path": disk.at("buffer")}, "queue": {"events": 5000}});
    let driver = start("loki", &loki_args(&format!("http://{address}/loki/api/v1/push"), &more));
    driver.push(&records(0..500));
    wait(&driver, "they are on disk", |counts| counts.buffer_events == 500);
    disk.fill();
    driver.push(&records(500..1500));
    let counts = wait(&driver, "the full disk is told", |counts| counts.buffer_error.is_some());
    assert!(counts.buffer_error.as_ref().is_some_and(|why| why.contains("No space left")), "{counts:?}");
    assert_eq!(counts.lost(), 0);
    let loki = Loki::start_at(address);
    let counts = wait(&driver, "all are delivered", |counts| counts.delivered == 1500);
    assert_eq!((counts.lost(), loki.numbers()), (0, (0..1500).collect()));
    // How far it was delivered is saved although the disk is full: nothing is repeated.
    driver.stop(super::LONG);
    disk.free();
    assert_eq!(start("loki", &loki_args(&loki.url(), &more)).counts().restored, 0);
}
