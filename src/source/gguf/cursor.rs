//! Reads the header of a GGUF file from front to back, never beyond its end or its limits.

use crate::error::{Error, Result};
use crate::source::Storage;
use crate::text::printable;

/// The longest header that is read, in bytes: metadata with its vocabulary, and the list of tensors.
/// Real ones stay below 50 MB.
const MAX_HEADER: u64 = 1 << 28;

/// Bytes that are fetched together: what lies in memory of a header.
const WINDOW: u64 = 1 << 16;

/// The longest name that is read, in bytes: of a key, as the format has it. It fits the window.
const MAX_NAME: u64 = (1 << 16) - 1;

/// A place in a file, and the bytes from there on.
pub(super) struct Cursor<'a> {
    file: &'a Storage,
    position: u64,
    /// Bytes of the file from `position` on: at most a window of them.
    window: Vec<u8>,
    /// How many bytes of the window lie behind.
    used: usize,
}

impl<'a> Cursor<'a> {
    /// At the file's beginning.
    pub fn new(file: &'a Storage) -> Cursor<'a> {
        Cursor { file, position: 0, window: Vec::new(), used: 0 }
    }

    /// Bytes before this place.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// An error about the file.
    pub fn malformed(&self, reason: impl Into<String>) -> Error {
        super::malformed(self.file, reason)
    }

    /// Refuses a count of things of which each takes `size` bytes at least, where the file cannot
    /// hold as many: before anything is allocated or looped over.
    pub fn check_count(&self, count: u64, size: u64, what: impl FnOnce() -> String) -> Result<()> {
        let rest = self.file.len().min(MAX_HEADER).saturating_sub(self.position);
        match count.checked_mul(size) {
            Some(bytes) if bytes <= rest => Ok(()),
            _ => Err(self.malformed(format!(
                "it should hold {count} {} from byte {} on, but {} (is it cut off?)",
                what(),
                self.position,
                self.what_is_left()
            ))),
        }
    }

    /// Passes over bytes.
    pub fn skip(&mut self, count: u64) -> Result<()> {
        let end = self.position.checked_add(count);
        let end = end.filter(|end| *end <= self.file.len().min(MAX_HEADER)).ok_or_else(|| {
            self.malformed(format!(
                "{count} bytes should follow at byte {}, but {} (is it cut off?)",
                self.position,
                self.what_is_left()
            ))
        })?;
        self.position = end;
        let used = usize::try_from(count).ok().and_then(|count| self.used.checked_add(count));
        match used.filter(|used| *used <= self.window.len()) {
            Some(used) => self.used = used,
            None => {
                self.window = Vec::new();
                self.used = 0;
            }
        }
        Ok(())
    }

    /// The next bytes; no more than a window of them are ever asked for.
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let (at, first) = (self.position, self.used);
        let in_window = first.checked_add(count).is_some_and(|end| end <= self.window.len());
        let first = if in_window { first } else { 0 };
        self.skip(count as u64)?;
        if !in_window {
            self.window = self.file.copy(at..self.file.len().min(at + WINDOW))?;
            self.used = count;
        }
        let found = self.window.get(first..first + count);
        found.ok_or_else(|| Error::Changed { path: self.file.path().to_path_buf() })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes as a number.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes as a number.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length and as many bytes of text: the name of a key or a tensor.
    pub fn name(&mut self, what: &str) -> Result<String> {
        let at = self.position;
        let length = self.u64()?;
        if length > MAX_NAME {
            return Err(self.malformed(format!(
                "the name of a {what} at byte {at} is {length} bytes long, more than {MAX_NAME}"
            )));
        }
        let text = std::str::from_utf8(self.take(length as usize)?).map(str::to_owned);
        text.map_err(|_| self.malformed(format!("the name of a {what} at byte {at} is not UTF-8")))
    }

    /// A length and as many bytes: text of at most `longest` bytes, or `None` for what is longer or
    /// no text, which is passed over.
    pub fn text(&mut self, longest: u64) -> Result<Option<String>> {
        let length = self.u64()?;
        if length > longest.min(WINDOW) {
            return self.skip(length).map(|()| None);
        }
        Ok(std::str::from_utf8(self.take(length as usize)?).ok().map(str::to_owned))
    }

    fn what_is_left(&self) -> String {
        if self.file.len() > MAX_HEADER {
            format!("a header may be {MAX_HEADER} bytes long")
        } else {
            format!("the file ends at byte {}", self.file.len())
        }
    }
}

/// A name out of a file, for a message.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", printable(name))
}
