//! The bytes of an HDF5 file, which may be a part of another file (an archive), by checked address;
//! and records of little-endian fields in them.

use std::cell::Cell;
use std::ops::Range;

use crate::source::Storage;
use crate::source::problem::{Checked, Problem, rule};

/// The address that stands for none.
pub(super) const UNDEFINED: u64 = u64::MAX;

/// What reading a structure costs beside its bytes.
const COST: u64 = 16;

/// An HDF5 file. Addresses in it count from its own start.
pub(super) struct Image<'a> {
    storage: &'a Storage,
    start: u64,
    length: u64,
    /// How many bytes of structures may still be read. In an honest file each is read about once; in
    /// one whose structures share or overlap each other, following them all could take for ever.
    budget: Cell<u64>,
}

impl<'a> Image<'a> {
    /// The part of a file from `start` on, `length` bytes long; lies within the file.
    pub fn new(storage: &'a Storage, start: u64, length: u64) -> Image<'a> {
        let budget = length.saturating_mul(16).saturating_add(1 << 16);
        Image { storage, start, length, budget: Cell::new(budget) }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Where some of it lies in the whole file.
    pub fn range(&self, address: u64, count: u64, what: &str) -> Checked<Range<u64>> {
        match address.checked_add(count) {
            Some(end) if end <= self.length => Ok(self.start + address..self.start + end),
            _ => rule(format!(
                "{what} of {count} bytes at address {address} lies outside the file's {} bytes",
                self.length
            )),
        }
    }

    /// A copy of the bytes of a structure.
    pub fn read(&self, address: u64, count: u64, what: &str) -> Checked<Vec<u8>> {
        let range = self.range(address, count, what)?;
        self.spend(count)?;
        Ok(self.storage.copy(range)?)
    }

    /// Counts a name that is kept, which costs more than bytes that are only looked at.
    pub fn keep(&self, name: usize) -> Checked<()> {
        self.spend((name as u64).saturating_mul(4))
    }

    fn spend(&self, count: u64) -> Checked<()> {
        let rest = self.budget.get().checked_sub(count.saturating_add(COST)).ok_or_else(|| {
            Problem::Rule("its structures share each other's bytes many times over".to_owned())
        })?;
        self.budget.set(rest);
        Ok(())
    }
}

/// Fields of a record, read from its start on.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    what: &'a str,
}

impl<'a> Fields<'a> {
    /// The fields of `what`, as messages call it.
    pub fn new(bytes: &'a [u8], what: &'a str) -> Fields<'a> {
        Fields { bytes, what }
    }

    /// What was not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub fn take(&mut self, count: usize) -> Checked<&'a [u8]> {
        match self.bytes.split_at_checked(count) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => rule(format!("{} is cut off", self.what)),
        }
    }

    /// A number of up to eight bytes.
    pub fn number(&mut self, count: usize) -> Checked<u64> {
        Ok(self.take(count)?.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b)))
    }

    pub fn u8(&mut self) -> Checked<u8> {
        Ok(self.number(1)? as u8)
    }

    pub fn u16(&mut self) -> Checked<u16> {
        Ok(self.number(2)? as u16)
    }

    pub fn u32(&mut self) -> Checked<u32> {
        Ok(self.number(4)? as u32)
    }

    pub fn u64(&mut self) -> Checked<u64> {
        self.number(8)
    }

    pub fn signature(&mut self, wanted: &[u8]) -> Checked<()> {
        if self.take(wanted.len())? == wanted {
            Ok(())
        } else {
            rule(format!("{} has no signature", self.what))
        }
    }

    /// A version, which must be one of those that are known.
    pub fn version(&mut self, known: &[u8]) -> Checked<u8> {
        match self.u8()? {
            version if known.contains(&version) => Ok(version),
            version => {
                rule(format!("{} has the version {version}, which this version does not read", self.what))
            }
        }
    }
}
