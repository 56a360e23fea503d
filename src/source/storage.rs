//! The bytes of one file, mapped or read, always through checked ranges.
//!
//! What a reader interprets (headers, names, offsets) it takes by [`Storage::copy`], which reads the
//! file: bytes in a map can change while they are looked at, and text that stops being UTF-8 after it
//! was checked is undefined behaviour. The elements of tensors come by [`Storage::read`]; any bytes
//! are numbers.

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::companion::Stamp;
use crate::error::{Error, Result};

/// One open file of a checkpoint. It is opened read-only and never written.
#[derive(Debug)]
pub struct Storage {
    path: PathBuf,
    name: String,
    bytes: u64,
    stamp: Stamp,
    identity: Option<(u64, u64)>,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    /// `file` is `None` where nothing but elements will be read: see [`Storage::open_data`].
    Mapped {
        map: memmap2::Mmap,
        file: Option<File>,
    },
    Read(File),
    /// No file at all: bytes that a program handed over.
    Memory(Vec<u8>),
}

impl Storage {
    /// Opens a regular file, mapped into memory unless `mmap` is false.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be opened or mapped, [`Error::NoCheckpoint`] where it
    /// is no regular file or is empty.
    pub fn open(path: &Path, mmap: bool) -> Result<Storage> {
        Storage::open_as(path, mmap, true)
    }

    /// The same for a file that holds nothing but the elements of tensors. Where it is mapped, it takes
    /// none of the process's open files: a model may have very many of them.
    ///
    /// # Errors
    /// Those of [`Storage::open`].
    pub fn open_data(path: &Path, mmap: bool) -> Result<Storage> {
        Storage::open_as(path, mmap, false)
    }

    fn open_as(path: &Path, mmap: bool, has_header: bool) -> Result<Storage> {
        // The kind is asked before opening: opening a named pipe would wait for its writer.
        let unusable =
            |reason: &str| Error::NoCheckpoint { path: path.to_path_buf(), reason: reason.to_owned() };
        let metadata = match std::fs::metadata(path) {
            Err(_) if path.is_symlink() => {
                return Err(unusable("this link leads to no file (was the download interrupted?)."));
            }
            metadata => metadata.map_err(Error::io("open", path))?,
        };
        if !metadata.is_file() {
            return Err(unusable("this is not a regular file."));
        }
        let file = File::open(path).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        if metadata.len() == 0 {
            return Err(unusable("the file is empty."));
        }
        let backing = if mmap {
            // SAFETY: a mapped file must not be shortened or written by others while it is mapped.
            // No system can guarantee that. A file that shrinks raises SIGBUS where its missing bytes
            // are read, which stops the process before the read gives anything (the command line
            // handles it, and names the file: src/cli/sigbus.rs; `--no-mmap` reads instead).
            // Changed bytes can only change numbers: every range is checked against the length
            // taken here, text, indices and lengths are read by `copy`, not through the map, and
            // `verify_unchanged` reports the change.
            let map = unsafe { memmap2::Mmap::map(&file) };
            let map = map.map_err(Error::io("map", path))?;
            Backing::Mapped { map, file: has_header.then_some(file) }
        } else {
            Backing::Read(file)
        };
        let name = path.file_name().unwrap_or(path.as_os_str());
        Ok(Storage {
            path: path.to_path_buf(),
            name: name.to_string_lossy().into_owned(),
            bytes: metadata.len(),
            stamp: Stamp::of(&metadata),
            identity: identity(&metadata),
            backing,
        })
    }

    /// Bytes that lie in no file, under a name for messages. Nothing else can change them.
    pub(super) fn memory(name: &str, bytes: Vec<u8>) -> Storage {
        Storage {
            path: PathBuf::from(name),
            name: name.to_owned(),
            bytes: bytes.len() as u64,
            stamp: Stamp::default(),
            identity: None,
            backing: Backing::Memory(bytes),
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's name without its directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file's length, in bytes, when it was opened.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Never true of a file: an empty one is refused when it is opened.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The bytes of a range: borrowed from the map, or read into memory.
    ///
    /// # Errors
    /// [`Error::Changed`] where the range lies (or now lies) outside the file.
    pub fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        match &self.backing {
            Backing::Mapped { map, .. } => {
                let place = self.place(&range)?;
                map.get(place).map(Cow::Borrowed).ok_or_else(|| self.changed())
            }
            Backing::Memory(bytes) => {
                let place = self.place(&range)?;
                bytes.get(place).map(Cow::Borrowed).ok_or_else(|| self.changed())
            }
            Backing::Read(file) => self.read_from(file, &range).map(Cow::Owned),
        }
    }

    /// A copy of a range, which stays what it is whatever happens to the file.
    ///
    /// # Errors
    /// Those of [`Storage::read`].
    pub fn copy(&self, range: Range<u64>) -> Result<Vec<u8>> {
        match &self.backing {
            Backing::Mapped { file: Some(file), .. } | Backing::Read(file) => self.read_from(file, &range),
            Backing::Mapped { file: None, .. } | Backing::Memory(_) => self.read(range).map(Cow::into_owned),
        }
    }

    fn changed(&self) -> Error {
        Error::Changed { path: self.path.clone() }
    }

    /// A range of the file as one of memory.
    fn place(&self, range: &Range<u64>) -> Result<Range<usize>> {
        let inside = range.start <= range.end && range.end <= self.bytes;
        match (usize::try_from(range.start), usize::try_from(range.end)) {
            (Ok(start), Ok(end)) if inside => Ok(start..end),
            _ => Err(self.changed()),
        }
    }

    fn read_from(&self, file: &File, range: &Range<u64>) -> Result<Vec<u8>> {
        let mut buffer = vec![0; self.place(range)?.len()];
        match read_exact_at(file, &mut buffer, range.start) {
            Ok(()) => Ok(buffer),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(self.changed()),
            Err(e) => Err(Error::io("read", &self.path)(e)),
        }
    }

    /// Asks the system to read a range into its cache while other things are computed. Nothing is lost
    /// where it does not: the range is then read when it is needed.
    pub fn will_need(&self, range: Range<u64>) {
        let length = range.end.min(self.bytes).saturating_sub(range.start);
        let (Ok(start), Ok(count)) = (usize::try_from(range.start), usize::try_from(length)) else { return };
        if count == 0 {
            return;
        }
        match &self.backing {
            #[cfg(unix)]
            Backing::Mapped { map, .. } => {
                let _ = map.advise_range(memmap2::Advice::WillNeed, start, count);
            }
            #[cfg(target_os = "linux")]
            Backing::Read(file) => {
                let length = std::num::NonZeroU64::new(length);
                let _ = rustix::fs::fadvise(file, range.start, length, rustix::fs::Advice::WillNeed);
            }
            #[cfg(not(unix))]
            Backing::Mapped(_) => {}
            #[cfg(not(target_os = "linux"))]
            Backing::Read(_) => {}
            Backing::Memory(_) => {}
        }
    }

    /// The addresses that the file is mapped to, until this is dropped; `None` where it is read.
    pub fn mapped(&self) -> Option<Range<usize>> {
        match &self.backing {
            Backing::Mapped { map, .. } => {
                let addresses = map.as_ptr_range();
                Some(addresses.start.addr()..addresses.end.addr())
            }
            Backing::Read(_) | Backing::Memory(_) => None,
        }
    }

    /// Checks that the path still leads to the same file (so far as the system tells files apart), of
    /// the size and modification time that it had when it was opened. A file that another one was moved
    /// over could be read to its end, but is no longer what the path names, so that a verdict about the
    /// path would be wrong.
    ///
    /// # Errors
    /// [`Error::Changed`] where it is not, or leads nowhere.
    pub fn verify_unchanged(&self) -> Result<()> {
        if matches!(self.backing, Backing::Memory(_)) {
            return Ok(());
        }
        let same = |now: &Metadata| Stamp::of(now) == self.stamp && identity(now) == self.identity;
        match std::fs::metadata(&self.path) {
            Ok(now) if same(&now) => Ok(()),
            _ => Err(Error::Changed { path: self.path.clone() }),
        }
    }
}

/// Device and inode. A file keeps them as long as it is open, which it is here.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

/// Elsewhere the standard library does not say.
#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<(u64, u64)> {
    None
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer = std::mem::take(&mut buffer).get_mut(count..).unwrap_or_default();
        offset += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"12345678").unwrap();
        for mmap in [true, false] {
            let storage = Storage::open(&path, mmap).unwrap();
            assert_eq!(&*storage.read(2..5).unwrap(), b"345");
            assert_eq!(storage.copy(2..5).unwrap(), b"345");
            assert!(matches!(storage.read(5..9), Err(Error::Changed { .. })));
            assert!(matches!(storage.copy(5..9), Err(Error::Changed { .. })));
            storage.verify_unchanged().unwrap();
            assert_eq!(Storage::open_data(&path, mmap).unwrap().copy(2..5).unwrap(), b"345");
        }
        // Moved over: the same bytes and time, another file.
        #[cfg(unix)]
        for mmap in [true, false] {
            let storage = Storage::open(&path, mmap).unwrap();
            let (other, time) = (dir.path().join("g"), std::fs::metadata(&path).unwrap().modified().unwrap());
            std::fs::write(&other, b"12345678").unwrap();
            File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
            std::fs::rename(&other, &path).unwrap();
            assert_eq!(&*storage.read(2..5).unwrap(), b"345");
            assert!(matches!(storage.verify_unchanged(), Err(Error::Changed { .. })));
        }
        let (storage, mapped) = (Storage::open(&path, false).unwrap(), Storage::open(&path, true).unwrap());
        std::fs::write(&path, b"1234").unwrap();
        assert!(matches!(storage.read(5..8), Err(Error::Changed { .. })));
        // What is interpreted is read, not mapped: no signal.
        assert!(matches!(mapped.copy(5..8), Err(Error::Changed { .. })));
        assert!(matches!(storage.verify_unchanged(), Err(Error::Changed { .. })));
    }
}
