//! The superblock: where the file begins and ends, and its root group.

use std::ops::Range;

use super::image::{Fields, Image};
use crate::source::Storage;
use crate::source::problem::{Checked, Problem, rule};

/// The signature that every HDF5 file begins with, at its start or behind a user block.
pub(in crate::source) const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";

/// The longest superblock that is read, in bytes.
const LONGEST: u64 = 100;

/// Finds the superblock in a part of a file; gives the image of the HDF5 file, and the address of the
/// root group's header.
pub(super) fn open<'a>(storage: &'a Storage, part: &Range<u64>) -> Checked<(Image<'a>, u64)> {
    let length = part.end - part.start;
    let offset = find(storage, part)?;
    let start = part.start + offset;
    let bytes = storage.copy(start..part.end.min(start.saturating_add(LONGEST)))?;
    let mut fields = Fields::new(&bytes, "its superblock");
    fields.signature(SIGNATURE)?;
    let version = fields.version(&[0, 1, 2, 3])?;
    if version < 2 {
        fields.take(4)?; // versions of the free list, the root entry, shared headers
    }
    let widths = (fields.u8()?, fields.u8()?);
    if widths != (8, 8) {
        return rule(format!("its addresses and lengths have {} and {} bytes, not 8", widths.0, widths.1));
    }
    fields.take(match version {
        0 => 9,
        1 => 13,
        _ => 1,
    })?; // sizes of nodes, flags
    let base = fields.u64()?;
    fields.u64()?; // the free list, or the superblock's extension
    let end = fields.u64()?;
    let root = if version < 2 {
        fields.take(16)?; // the driver, the root's name
        fields.u64()?
    } else {
        fields.u64()?
    };
    if base != 0 && base != offset {
        return rule(format!("its addresses count from byte {base}, but its superblock is at byte {offset}"));
    }
    // With a base address the end counts from the start of the file, without one from the superblock.
    let end = if base == 0 { end } else { end.saturating_sub(base) };
    if end > length - offset {
        return rule(format!("it should have {end} bytes, but has {} (is it cut off?)", length - offset));
    }
    Ok((Image::new(storage, start, end), root))
}

/// The place of the signature: 0, 512, 1024, 2048, …
fn find(storage: &Storage, part: &Range<u64>) -> Checked<u64> {
    let mut at = 0u64;
    loop {
        let start = part.start.saturating_add(at);
        let end = start.saturating_add(SIGNATURE.len() as u64);
        if end > part.end {
            return Err(Problem::Rule("it has no HDF5 signature".to_owned()));
        }
        if *storage.read(start..end)? == *SIGNATURE {
            return Ok(at);
        }
        at = if at == 0 { 512 } else { at.saturating_mul(2) };
    }
}
