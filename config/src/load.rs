//! Reads the file from disk, within a bound on its size.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::known::Known;
use crate::model::Config;
use crate::parse::{mark_after, parse};
use crate::report::Report;

/// Largest file that is read, in bytes. A Kubernetes ConfigMap is no larger.
pub const SIZE_LIMIT: u64 = 1 << 20;

/// Why a file gave no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not there or cannot be read.
    #[error("cannot read {}: {source}; check that it exists and that netsonde may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is larger than [`SIZE_LIMIT`]; nothing beyond it was read.
    #[error("{} is {size} bytes long and at most {limit} are read; is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size, in bytes: at least, for what is no regular file.
        size: u64,
        /// [`SIZE_LIMIT`].
        limit: u64,
    },
    /// The file is not text.
    #[error("{}:{line}:{column}: this byte is not UTF-8; save the file as UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first bad byte, from 1.
        line: usize,
        /// Column of the first bad byte in characters, from 1.
        column: usize,
    },
    /// The file was read and has problems.
    #[error(transparent)]
    Invalid(#[from] Report),
}

/// Reads and checks the file at `path`. Reports name it as `path` does.
pub fn load(path: &Path, known: &Known) -> Result<Config, LoadError> {
    Ok(parse(&path.display().to_string(), text(path)?, known)?)
}

/// The file at `path` as text, within [`SIZE_LIMIT`].
pub(crate) fn text(path: &Path) -> Result<String, LoadError> {
    let bytes = match read(path) {
        Ok(Content::Bytes(bytes)) => bytes,
        Ok(Content::TooLarge(size)) => {
            return Err(LoadError::TooLarge { path: path.into(), size, limit: SIZE_LIMIT });
        }
        Err(source) => return Err(LoadError::Read { path: path.into(), source }),
    };
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let mark = mark_after(error.as_bytes(), valid);
        LoadError::NotUtf8 { path: path.into(), line: mark.line, column: mark.column }
    })
}

/// What a file holds, as far as it is read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    TooLarge(u64),
}

/// Reads at most [`SIZE_LIMIT`] bytes, even from a file that grows or that has no size, such as a device.
pub(crate) fn read(path: &Path) -> io::Result<Content> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > SIZE_LIMIT {
        return Ok(Content::TooLarge(size));
    }
    let mut bytes = Vec::new();
    file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes)?;
    let read = bytes.len() as u64;
    Ok(if read > SIZE_LIMIT { Content::TooLarge(read) } else { Content::Bytes(bytes) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fixture;

    fn error(bytes: Option<&[u8]>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        let error = load(&path, &fixture::known()).unwrap_err();
        error.to_string().replace(&dir.path().display().to_string(), "")
    }

    #[test]
    fn every_error_says_what_was_wrong_where() {
        assert!(error(None).starts_with("cannot read /a.yaml: No such file or directory"));
        assert!(error(Some(b"a: \xff")).starts_with("/a.yaml:1:4: this byte is not UTF-8"));
        assert!(
            error(Some(b"lisen: x")).starts_with("/a.yaml: 1 problem\n  /a.yaml:1:1: lisen: unknown key")
        );
    }

    #[test]
    fn ten_megabytes_are_refused_by_size() {
        let message = error(Some(&vec![b'#'; 10 << 20]));
        assert_eq!(
            message,
            "/a.yaml is 10485760 bytes long and at most 1048576 are read; is it the right file?"
        );
    }

    #[test]
    fn a_device_without_size_is_refused_too() {
        let result = load(Path::new("/dev/zero"), &fixture::known());
        assert!(matches!(result, Err(LoadError::TooLarge { size: 1_048_577, .. })));
    }

    #[test]
    fn a_valid_file_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        std::fs::write(&path, fixture::FULL).unwrap();
        assert_eq!(load(&path, &fixture::known()).unwrap().listen, "[::]:9000");
    }
}
