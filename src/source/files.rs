//! The open files of one checkpoint, by number.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{OpenOptions, Storage};
use crate::error::{Error, Result};
use crate::tensors::Bytes;

/// The files that the tensors of a checkpoint lie in. A clone shares them, with their maps.
#[derive(Clone, Debug)]
pub struct Files {
    storages: Vec<Arc<Storage>>,
    mmap: bool,
    opened: fn(&Storage),
}

impl Files {
    /// None yet; the options say how they will be opened.
    pub(super) fn new(options: &OpenOptions) -> Files {
        Files { storages: Vec::new(), mmap: options.mmap, opened: options.opened }
    }

    /// Opens one more file and returns its number.
    ///
    /// # Errors
    /// Those of [`Storage::open`].
    pub fn open(&mut self, path: &Path) -> Result<usize> {
        let storage = Storage::open(path, self.mmap)?;
        Ok(self.add(storage))
    }

    /// The same for a file without a header: see [`Storage::open_data`].
    ///
    /// # Errors
    /// Those of [`Storage::open`].
    pub fn open_data(&mut self, path: &Path) -> Result<usize> {
        let storage = Storage::open_data(path, self.mmap)?;
        Ok(self.add(storage))
    }

    fn add(&mut self, storage: Storage) -> usize {
        (self.opened)(&storage);
        self.storages.push(Arc::new(storage));
        self.storages.len() - 1
    }

    /// Takes bytes that lie in no file, under a name for messages, and returns their number.
    pub(super) fn hold(&mut self, name: &str, bytes: Vec<u8>) -> usize {
        self.storages.push(Arc::new(Storage::memory(name, bytes)));
        self.storages.len() - 1
    }

    /// All of them, in the order of their numbers.
    pub fn all(&self) -> &[Arc<Storage>] {
        &self.storages
    }

    /// One of them.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a number that was never given out.
    pub fn get(&self, file: usize) -> Result<&Storage> {
        let missing = || Error::NotFound(format!("the checkpoint has no file number {file}."));
        self.storages.get(file).map(Arc::as_ref).ok_or_else(missing)
    }

    /// The name of a file without its directory; empty for a number that was never given out.
    pub fn name(&self, file: usize) -> &str {
        self.storages.get(file).map_or("", |storage| storage.name())
    }
}

impl Bytes for Files {
    fn bytes(&self, file: usize, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
        self.get(file)?.read(range)
    }

    fn will_need(&self, file: usize, range: Range<u64>) {
        if let Some(storage) = self.storages.get(file) {
            storage.will_need(range);
        }
    }
}
