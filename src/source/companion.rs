//! Small files beside the weights, read whole: the index, `config.json`, an adapter's configuration.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Result};

/// What tells one state of a file from another: its length, and when it was last written. (Systems
/// keep that time to a few milliseconds: of two writes within one of these only the last is known.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    bytes: u64,
    /// Not every file system keeps it.
    modified: Option<SystemTime>,
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp { bytes: metadata.len(), modified: metadata.modified().ok() }
    }
}

/// A file that was read whole, or that was not there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Companion {
    path: PathBuf,
    /// `None` where there was no file: one that appears meanwhile is a change, too.
    stamp: Option<Stamp>,
}

impl Companion {
    /// Reads a regular file of at most `most` bytes, of a format for messages.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Malformed`].
    pub fn read(path: &Path, most: u64, format: &'static str) -> Result<(Vec<u8>, Companion)> {
        let unfit = || Error::Malformed {
            path: path.to_path_buf(),
            format,
            reason: format!("it is no regular file of at most {most} bytes"),
        };
        let fits = |metadata: &Metadata| metadata.is_file() && metadata.len() <= most;
        // The kind is asked before opening: opening a named pipe would wait for its writer.
        if !fits(&std::fs::metadata(path).map_err(Error::io("read", path))?) {
            return Err(unfit());
        }
        let file = File::open(path).map_err(Error::io("read", path))?;
        let stamp = Stamp::of(&file.metadata().map_err(Error::io("read", path))?);
        // A file that grows while it is read is cut here, and noticed later.
        let mut text = Vec::new();
        file.take(most).read_to_end(&mut text).map_err(Error::io("read", path))?;
        Ok((text, Companion { path: path.to_path_buf(), stamp: Some(stamp) }))
    }

    /// A file that was looked for and not found.
    pub fn absent(path: &Path) -> Companion {
        Companion { path: path.to_path_buf(), stamp: None }
    }

    /// Where it is, or would be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that length and time are still what they were before it was read.
    ///
    /// # Errors
    /// [`Error::Changed`] where they are not; a file that is gone has changed.
    pub fn verify_unchanged(&self) -> Result<()> {
        let now = std::fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata));
        if now == self.stamp { Ok(()) } else { Err(Error::Changed { path: self.path.clone() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appears_grows_or_goes_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let absent = Companion::absent(&path);
        absent.verify_unchanged().unwrap();
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(absent.verify_unchanged(), Err(Error::Changed { .. })));
        let (text, read) = Companion::read(&path, 2, "config.json").unwrap();
        assert_eq!(text, b"{}");
        read.verify_unchanged().unwrap();
        // A later time alone is a change, to the nanosecond.
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(time + std::time::Duration::from_nanos(100)).unwrap();
        assert!(matches!(read.verify_unchanged(), Err(Error::Changed { .. })));
        file.set_modified(time).unwrap();
        read.verify_unchanged().unwrap();
        std::fs::write(&path, "{ }").unwrap();
        assert!(matches!(read.verify_unchanged(), Err(Error::Changed { .. })));
        assert!(matches!(Companion::read(&path, 2, "config.json"), Err(Error::Malformed { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read.verify_unchanged(), Err(Error::Changed { .. })));
    }
}
