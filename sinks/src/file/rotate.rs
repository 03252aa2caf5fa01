//! Old files: `events.json` becomes `events.json.20251121T065501Z.000`, and later `….000.gz` if they are compressed.
//!
//! The names sort by age. A thread of its own compresses, so that writing never waits for it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{Access, access};

/// The old files of one path.
#[derive(Debug)]
pub(super) struct Old {
    keep: usize,
    /// Wakes the thread that compresses.
    compress: Option<SyncSender<()>>,
}

impl Old {
    /// Fails where the folder does not allow to rename files.
    pub(super) fn new(path: &Path, keep: usize, compress: bool) -> Result<Self, String> {
        let folder = folder(path);
        access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|why| {
            let folder = folder.display();
            format!("cannot rotate {}: the folder {folder} cannot be written: {why}", path.display())
        })?;
        remove_parts(path);
        let compress = compress.then(|| compressor(path.to_owned())).transpose();
        let old = Self {
            keep,
            compress: compress.map_err(|why| format!("cannot start a thread that compresses: {why}"))?,
        };
        old.tidy(path);
        Ok(old)
    }

    /// Gives the file a name of its own among the old ones, and removes those beyond the number that is kept.
    pub(super) fn take(&self, path: &Path) -> Result<(), String> {
        let wrong = |why: io::Error| format!("cannot rotate {}: {why}", path.display());
        fs::rename(path, free_name(path).map_err(wrong)?).map_err(wrong)?;
        self.tidy(path);
        Ok(())
    }

    fn tidy(&self, path: &Path) {
        if let Err(why) = remove_oldest(path, self.keep) {
            tracing::warn!(%why, path = %path.display(), "cannot remove old files of events");
        }
        if let Some(compress) = &self.compress {
            // If it has not begun yet with what it was woken for, it will see this file too.
            let _ = compress.try_send(());
        }
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A name that no old file has, later in order than those of the same second.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(['-', ':'], "");
    let taken = list(path)?;
    let last = taken.iter().rev().find_map(|old| {
        let rest = old.to_str()?.strip_prefix(with(path, &format!(".{now}.")).to_str()?)?;
        rest.get(..3)?.parse::<u32>().ok()
    });
    let number = last.map_or(0, |last| last + 1);
    if number > 999 {
        return Err(io::Error::other("a thousand files in one second; make max_bytes larger"));
    }
    Ok(with(path, &format!(".{now}.{number:03}")))
}

/// The old files, oldest first.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    let mut old = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let name = entry?.file_name();
        let suffix = name.to_str().and_then(|name| name.strip_prefix(&own));
        if suffix.is_some_and(is_ours) {
            let suffix = suffix.unwrap_or_default();
            old.push(with(path, &format!(".{suffix}")));
        }
    }
    old.sort_unstable();
    Ok(old)
}

/// Whether a name ends as [`free_name`] makes it, compressed or not.
fn is_ours(suffix: &str) -> bool {
    let suffix = suffix.strip_suffix(".gz").unwrap_or(suffix);
    let form = "########T######Z.###";
    suffix.len() == form.len()
        && suffix.bytes().zip(form.bytes()).all(|(b, f)| if f == b'#' { b.is_ascii_digit() } else { b == f })
}

fn remove_oldest(path: &Path, keep: usize) -> io::Result<()> {
    let old = list(path)?;
    for gone in &old[..old.len().saturating_sub(keep)] {
        match fs::remove_file(gone) {
            // Just compressed: the next rotation finds it under its new name.
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Removes what a process left behind that ended while it compressed.
fn remove_parts(path: &Path) {
    let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned() + ".";
    for entry in fs::read_dir(folder(path)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let suffix = name.to_str().and_then(|name| name.strip_prefix(&own)?.strip_suffix(".part"));
        if suffix.is_some_and(is_ours) {
            // It is tried again at the next start.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Starts the thread that compresses the old files of `path` whenever it is woken.
fn compressor(path: PathBuf) -> io::Result<SyncSender<()>> {
    let (wake, woken) = sync_channel(1);
    std::thread::Builder::new().name("sink-file-gzip".to_owned()).spawn(move || {
        while woken.recv().is_ok() {
            let old = list(&path).unwrap_or_default();
            for plain in old.iter().filter(|old| old.extension().is_none_or(|ext| ext != "gz")) {
                if let Err(why) = compress(plain) {
                    tracing::warn!(%why, path = %plain.display(), "cannot compress an old file; it stays as it is");
                }
            }
        }
    })?;
    Ok(wake)
}

/// Replaces a file with its compressed form, which appears whole or not at all.
fn compress(plain: &Path) -> io::Result<()> {
    let mut from = match File::open(plain) {
        // Removed as too old in the meantime.
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let (part, whole) = (with(plain, ".part"), with(plain, ".gz"));
    let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&part)?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    let written = io::copy(&mut from, &mut encoder).and_then(|_| encoder.finish());
    if let Err(why) = written {
        let _ = fs::remove_file(&part);
        return Err(why);
    }
    fs::rename(&part, &whole)?;
    match fs::remove_file(plain) {
        // Removed as too old in the meantime.
        Err(why) if why.kind() == io::ErrorKind::NotFound => fs::remove_file(&whole),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_own_making_are_old_files() {
        for (suffix, ours) in [
            ("20251121T065501Z.000", true),
            ("20251121T065501Z.999.gz", true),
            ("20251121T065501Z.000.part", false),
            ("20251121T065501Z", false),
            ("1", false),
            ("bak", false),
        ] {
            assert_eq!(is_ours(suffix), ours, "{suffix}");
        }
    }

    #[test]
    fn rotations_in_one_second_do_not_overwrite_each_other() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("events.json");
        let old = Old::new(&path, 100, false).expect("writable");
        for n in 0..20 {
            fs::write(&path, format!("{n}")).expect("written");
            old.take(&path).expect("rotated");
        }
        let texts: Vec<_> =
            list(&path).expect("listed").iter().map(|old| fs::read_to_string(old).expect("read")).collect();
        assert_eq!(texts, (0..20).map(|n| n.to_string()).collect::<Vec<_>>(), "in order of age");
    }
}
