//! The bytes of a pickle, window by window: a legacy file does not say where its pickles end, and
//! gigabytes of weights follow them.

use std::ops::Range;

use super::MAX_TEXT;
use crate::source::Storage;
use crate::source::problem::{Checked, rule};

/// How much is looked at together, in bytes.
const WINDOW: u64 = 1 << 16;

/// A position in a range of a file.
pub struct Input<'a> {
    storage: &'a Storage,
    window: Vec<u8>,
    /// Where in the file the window begins.
    start: u64,
    /// The position within the window.
    at: usize,
    end: u64,
}

impl<'a> Input<'a> {
    /// At the beginning of a range.
    pub fn new(storage: &'a Storage, range: Range<u64>) -> Input<'a> {
        Input { storage, window: Vec::new(), start: range.start, at: 0, end: range.end }
    }

    /// Where in the file the next byte is.
    pub fn position(&self) -> u64 {
        self.start + self.at as u64
    }

    /// How many bytes are left.
    pub fn left(&self) -> u64 {
        self.end.saturating_sub(self.position())
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: u64) -> Checked<&[u8]> {
        let position = self.position();
        if count > self.left() {
            return rule(format!(
                "it ends at byte {}, where {count} more bytes should stand after byte {position} (is it cut off?)",
                self.end
            ));
        }
        if count > MAX_TEXT {
            return rule(format!("{count} bytes should be read at once at byte {position}"));
        }
        let count = count as usize;
        if self.at + count > self.window.len() {
            let end = self.end.min(position + WINDOW.max(count as u64));
            self.window = self.storage.copy(position..end)?;
            (self.start, self.at) = (position, 0);
        }
        let bytes = self.window.get(self.at..self.at + count).unwrap_or_default();
        self.at += bytes.len();
        Ok(bytes)
    }

    /// Passes over `count` bytes.
    pub fn skip(&mut self, count: u64) -> Checked<()> {
        if count > self.left() {
            return rule(format!(
                "{count} bytes should stand after byte {}, but only {} are there (is it cut off?)",
                self.position(),
                self.left()
            ));
        }
        // What is left of the window is kept: between small storages there are many small steps.
        match usize::try_from(count).ok().and_then(|count| self.at.checked_add(count)) {
            Some(at) if at <= self.window.len() => self.at = at,
            _ => {
                (self.start, self.at) = (self.position() + count, 0);
                self.window = Vec::new();
            }
        }
        Ok(())
    }

    /// The next bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Checked<[u8; N]> {
        let mut array = [0; N];
        for (to, from) in array.iter_mut().zip(self.take(N as u64)?) {
            *to = *from;
        }
        Ok(array)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Checked<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next eight bytes as a number that counts something.
    pub fn u64(&mut self) -> Checked<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The bytes up to the next line feed, which is passed over.
    pub fn line(&mut self) -> Checked<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                _ if line.len() as u64 == MAX_TEXT => {
                    return rule(format!("a line before byte {} has no end", self.position()));
                }
                byte => line.push(byte),
            }
        }
    }
}
