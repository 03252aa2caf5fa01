//! Passwords and tokens from files, read again when the file has changed. They are never logged.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// A secret is at most this long.
const MOST: u64 = 64 << 10;

/// Tells a changed file from an unchanged one: device, inode, length, and time of the last change in nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

/// A file with one secret.
pub(super) struct Secret {
    path: PathBuf,
    stamp: Stamp,
    text: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("path", &self.path).finish_non_exhaustive()
    }
}

/// As whom to push.
#[derive(Debug)]
pub(super) enum Credentials {
    /// As nobody.
    None,
    /// With a user's name and password.
    Basic(String, Secret),
    /// With a token.
    Bearer(Secret),
}

impl Secret {
    /// Reads the file. The error says what is wrong with it.
    pub(super) fn open(path: PathBuf) -> Result<Self, String> {
        let mut secret = Self { path, stamp: Stamp::default(), text: String::new() };
        secret.text().map(str::len)?;
        Ok(secret)
    }

    /// What the file holds now, without white space around it.
    pub(super) fn text(&mut self) -> Result<&str, String> {
        let wrong = |why: &dyn fmt::Display| format!("cannot read {}: {why}", self.path.display());
        let about = fs::metadata(&self.path).map_err(|why| wrong(&why))?;
        if !about.is_file() {
            return Err(wrong(&"it is no regular file"));
        }
        let stamp = (about.dev(), about.ino(), about.len(), about.mtime(), about.mtime_nsec());
        if stamp != self.stamp {
            let text = self.read().map_err(|why| wrong(&why))?;
            let text = text.trim();
            if text.is_empty() || !text.chars().all(|c| c == '\t' || !c.is_control()) {
                return Err(wrong(&"it must hold one line of text"));
            }
            text.clone_into(&mut self.text);
            self.stamp = stamp;
        }
        Ok(&self.text)
    }

    fn read(&self) -> io::Result<String> {
        let mut text = String::new();
        File::open(&self.path)?.take(MOST).read_to_string(&mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_never_shown() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("token");
        fs::write(&path, "first\n").expect("written");
        let mut secret = Secret::open(path.clone()).expect("read");
        assert_eq!(secret.text(), Ok("first"));
        assert!(!format!("{secret:?}").contains("first"));
        let new = folder.path().join("new");
        fs::write(&new, "other").expect("written");
        fs::rename(&new, &path).expect("replaced");
        assert_eq!(secret.text(), Ok("other"));
        fs::remove_file(&path).expect("removed");
        assert!(secret.text().expect_err("gone").contains("token"));
    }

    #[test]
    fn a_file_without_a_secret_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for text in ["", " \n", "two\nlines"] {
            let path = folder.path().join("token");
            fs::write(&path, text).expect("written");
            assert!(Secret::open(path).is_err(), "{text:?}");
        }
        assert!(Secret::open(folder.path().to_owned()).is_err());
    }
}
