//! Facts about the watch, on real directories.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::{Timing, Watch, WatchError};

/// Events decide: the poll is too far away to help.
const EVENTS: Timing = Timing {
    quiet: Duration::from_millis(40),
    longest: Duration::from_millis(400),
    poll: Duration::from_mins(10),
};
/// The poll decides, for what events do not see.
const POLL: Timing = Timing { poll: Duration::from_millis(50), ..EVENTS };

fn watch(path: &Path, timing: Timing) -> (Watch, Receiver<()>) {
    let (news, changes) = channel();
    let watch = Watch::with_timing(path, timing, move || {
        let _ = news.send(());
    })
    .unwrap();
    (watch, changes)
}

fn told(changes: &Receiver<()>) -> bool {
    let told = changes.recv_timeout(Duration::from_secs(5)).is_ok();
    // A change is told once, not once for each of its events.
    told && quiet(changes)
}

fn quiet(changes: &Receiver<()>) -> bool {
    changes.recv_timeout(Duration::from_millis(150)).is_err()
}

#[test]
fn ten_swaps_of_a_config_map_are_each_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let publish = |n: u32| {
        // As the kubelet does it: a new directory, a link to it under another name, renamed over `..data`.
        let version = format!("..v{n}");
        fs::create_dir(at(&version)).unwrap();
        fs::write(at(&version).join("config.yaml"), format!("n: {n}\n")).unwrap();
        symlink(&version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        if n > 0 {
            fs::remove_dir_all(at(&format!("..v{}", n - 1))).unwrap();
        }
    };
    publish(0);
    symlink("..data/config.yaml", at("config.yaml")).unwrap();
    let (_watch, changes) = watch(&at("config.yaml"), EVENTS);
    for n in 1..=10 {
        publish(n);
        assert!(told(&changes), "swap {n}");
    }
}

#[test]
fn every_way_of_changing_a_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    fs::write(&path, "a").unwrap();
    let (_watch, changes) = watch(&path, EVENTS);

    fs::write(&path, "edited in place").unwrap();
    assert!(told(&changes), "edit in place");

    fs::write(dir.path().join("new"), "renamed over").unwrap();
    fs::rename(dir.path().join("new"), &path).unwrap();
    assert!(told(&changes), "rename over");

    fs::remove_file(&path).unwrap();
    assert!(quiet(&changes), "a file that is away is no change");
    fs::write(&path, "created again").unwrap();
    assert!(told(&changes), "created again");
}

#[test]
fn a_file_that_does_not_exist_yet_is_told_when_it_appears() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let (_watch, changes) = watch(&path, EVENTS);
    fs::write(&path, "a").unwrap();
    assert!(told(&changes));
}

#[test]
fn the_same_content_is_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    fs::write(&path, "a").unwrap();
    let (_watch, changes) = watch(&path, EVENTS);
    fs::write(&path, "a").unwrap();
    fs::write(dir.path().join("neighbour"), "b").unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "a").unwrap();
    assert!(quiet(&changes));
}

#[test]
fn a_file_written_in_pieces_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let (_watch, changes) = watch(&path, EVENTS);
    for n in 0..10 {
        fs::write(&path, "x".repeat(n + 1)).unwrap();
    }
    assert!(told(&changes));
}

#[test]
fn the_poll_finds_what_events_do_not_see() {
    let here = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (link, target) = (here.path().join("config.yaml"), elsewhere.path().join("config.yaml"));
    fs::write(&target, "a").unwrap();
    symlink(&target, &link).unwrap();
    let (_watch, changes) = watch(&link, POLL);
    fs::write(&target, "b").unwrap();
    assert!(told(&changes));
}

#[test]
fn a_directory_made_again_is_watched_again() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("etc");
    let path = inner.join("config.yaml");
    fs::create_dir(&inner).unwrap();
    fs::write(&path, "a").unwrap();
    let (_watch, changes) = watch(&path, POLL);
    fs::remove_dir_all(&inner).unwrap();
    fs::create_dir(&inner).unwrap();
    fs::write(&path, "b").unwrap();
    assert!(told(&changes));
    fs::write(&path, "c").unwrap();
    assert!(told(&changes));
}

#[test]
fn nothing_is_told_after_drop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    let (watch, changes) = watch(&path, EVENTS);
    drop(watch);
    fs::write(&path, "a").unwrap();
    assert!(quiet(&changes));
}

#[test]
fn a_missing_directory_is_an_error_that_names_it() {
    let error = Watch::new(Path::new("/nonexistent/a.yaml"), || {}).unwrap_err();
    assert!(matches!(error, WatchError::NoDirectory { .. }));
    assert!(error.to_string().contains("/nonexistent is not a directory"));
}
