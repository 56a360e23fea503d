//! The directory of a zip archive (PKWARE's APPNOTE 6.3, with zip64): where each member's bytes lie.
//!
//! This is the general reader, for every format that is an archive: nothing is decompressed here,
//! nothing is written, and a member's name is never used as a path. It is stricter than most
//! unpackers, because two readers that disagree about an archive are how something is smuggled in:
//! the end record must end the file and the directory must end at that record, each local header must
//! repeat what the directory says, members may neither overlap nor share a name.

use std::collections::HashSet;
use std::ops::Range;

use super::Storage;
use super::problem::{Checked, Problem, rule};
use crate::error::Result;
use crate::text::printable;

/// How a member's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// As they are: [`Entry::data`] is the content.
    Stored,
    /// By DEFLATE (RFC 1951), without a header.
    Deflated,
}

/// One member of an archive; directories are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name, unescaped.
    pub name: String,
    pub method: Method,
    /// Where its bytes lie in the file; checked against the file's length.
    pub data: Range<u64>,
    /// The length of its content, as the archive says; that of `data` for a stored member.
    pub uncompressed: u64,
    /// The CRC-32 of its content, as the archive says; not checked here.
    pub crc32: u32,
}

/// The signature that a zip archive usually begins with: that of a local header.
pub(super) const SIGNATURE: &[u8; 4] = b"PK\x03\x04";

const END: &[u8; 4] = b"PK\x05\x06";
const END64: &[u8; 4] = b"PK\x06\x06";
const LOCATOR64: &[u8; 4] = b"PK\x06\x07";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";

/// Bytes of the fixed parts of the records.
const END_BYTES: u64 = 22;
const END64_BYTES: u64 = 56;
const LOCATOR64_BYTES: u64 = 20;
const LOCAL_BYTES: u64 = 30;

/// The longest directory that is read, in bytes, and the most members in it: as many as a file may
/// hold tensors in other formats, with 128 bytes for each.
const MAX_DIRECTORY: u64 = 1 << 24;
const MAX_MEMBERS: u64 = 1 << 17;

/// Flags of a member: encrypted, sizes behind the data, header masked by encryption.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const SIZES_BEHIND: u16 = 1 << 3;

/// The members of an archive, in the order of its directory.
///
/// # Errors
/// [`Error::Malformed`] with the broken rule, or those of [`Storage::read`].
pub(super) fn entries(file: &Storage) -> Result<Vec<Entry>> {
    read(file).map_err(|problem| problem.of(file.path(), "zip"))
}

/// A record of little-endian fields, read from its start on.
struct Record<'a> {
    bytes: &'a [u8],
    what: &'static str,
}

impl<'a> Record<'a> {
    fn take(&mut self, count: usize) -> Checked<&'a [u8]> {
        match self.bytes.split_at_checked(count) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => rule(format!("{} is cut off", self.what)),
        }
    }

    fn number(&mut self, count: usize) -> Checked<u64> {
        Ok(self.take(count)?.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b)))
    }

    fn u16(&mut self) -> Checked<u16> {
        Ok(self.number(2)? as u16)
    }

    fn u32(&mut self) -> Checked<u32> {
        Ok(self.number(4)? as u32)
    }

    fn u64(&mut self) -> Checked<u64> {
        self.number(8)
    }

    fn signature(&mut self, wanted: &[u8; 4]) -> Checked<()> {
        if self.take(4)? == wanted { Ok(()) } else { rule(format!("{} has no signature", self.what)) }
    }
}

/// Where the directory is, and how many members it should list.
struct Directory {
    bytes: Range<u64>,
    members: u64,
}

/// A member as the directory describes it.
struct Central {
    name: String,
    flags: u16,
    method: u16,
    crc32: u32,
    compressed: u64,
    uncompressed: u64,
    header: u64,
}

fn read(file: &Storage) -> Checked<Vec<Entry>> {
    let directory = directory(file)?;
    let bytes = file.copy(directory.bytes.clone())?;
    let mut record = Record { bytes: &bytes, what: "its directory" };
    let mut entries = Vec::new();
    let mut places = Vec::new();
    let mut names = HashSet::new();
    let mut found = 0;
    while !record.bytes.is_empty() {
        let central = central(&mut record)?;
        found += 1;
        if found > directory.members {
            return rule(format!(
                "its directory lists more members than the {} that it should",
                directory.members
            ));
        }
        if !names.insert(central.name.clone()) {
            return rule(format!("it has two members named `{}`", printable(&central.name)));
        }
        let data = local(file, &central, directory.bytes.start)?;
        places.push((central.header..data.end, entries.len()));
        entries.push(entry(central, data)?);
    }
    if found != directory.members {
        return rule(format!("its directory lists {found} members, but should list {}", directory.members));
    }
    places.sort_by_key(|(place, _)| (place.start, place.end));
    for (before, after) in places.iter().zip(places.iter().skip(1)) {
        if after.0.start < before.0.end {
            let name = entries.get(after.1).map_or("", |entry: &Entry| &entry.name);
            return rule(format!("the member `{}` overlaps the one before it", printable(name)));
        }
    }
    entries.retain(|entry| !entry.name.ends_with('/'));
    Ok(entries)
}

/// Finds the record that ends the file, and from it the directory.
fn directory(file: &Storage) -> Checked<Directory> {
    let length = file.len();
    // A comment of up to 65,535 bytes may follow the record.
    let tail_start = length.saturating_sub(END_BYTES + u64::from(u16::MAX));
    let tail = file.copy(tail_start..length)?;
    let ends_file = |at: &usize| {
        let record = tail.get(*at..).unwrap_or_default();
        let comment = record.get(20..22).unwrap_or_default();
        let comment = comment.iter().rev().fold(0, |n, b| (n << 8) | usize::from(*b));
        record.starts_with(END) && record.len() == END_BYTES as usize + comment
    };
    let mut places = (0..tail.len().saturating_sub(END_BYTES as usize - 1)).filter(ends_file);
    let Some(at) = places.next() else {
        return rule("it has no end record (is it cut off?)");
    };
    if places.next().is_some() {
        return rule("it has two end records");
    }
    let position = tail_start + at as u64;
    let mut end = Record { bytes: tail.get(at..).unwrap_or_default(), what: "its end record" };
    end.signature(END)?;
    let (disk, first_disk) = (end.u16()?, end.u16()?);
    let (here, members) = (end.u16()?, end.u16()?);
    let (size, start) = (end.u32()?, end.u32()?);
    let (position, size, start, members) = match end64(file, position)? {
        Some(large) => {
            let repeats = (members == u16::MAX || u64::from(members) == large.members)
                && (size == u32::MAX || u64::from(size) == large.size)
                && (start == u32::MAX || u64::from(start) == large.start);
            if !repeats {
                return rule("its end record and its zip64 end record contradict each other");
            }
            (large.position, large.size, large.start, large.members)
        }
        None if (disk, first_disk) != (0, 0) || here != members => {
            return rule("it is one part of an archive of several");
        }
        None => (position, u64::from(size), u64::from(start), u64::from(members)),
    };
    if start.checked_add(size) != Some(position) {
        return rule(format!(
            "its directory of {size} bytes should begin at byte {start}, but its end record is at byte {position}"
        ));
    }
    if size > MAX_DIRECTORY {
        return rule(format!("its directory of {size} bytes is longer than {MAX_DIRECTORY}"));
    }
    if members > MAX_MEMBERS {
        return rule(format!("it has {members} members, more than {MAX_MEMBERS}"));
    }
    Ok(Directory { bytes: start..position, members })
}

/// What the zip64 end record says.
struct End64 {
    position: u64,
    size: u64,
    start: u64,
    members: u64,
}

/// The zip64 end record, whose locator stands right before the end record if there is one.
fn end64(file: &Storage, end: u64) -> Checked<Option<End64>> {
    let Some(at) = end.checked_sub(LOCATOR64_BYTES) else { return Ok(None) };
    let bytes = file.copy(at..end)?;
    if !bytes.starts_with(LOCATOR64) {
        return Ok(None);
    }
    let mut locator = Record { bytes: &bytes, what: "its zip64 locator" };
    locator.signature(LOCATOR64)?;
    let (disk, position, disks) = (locator.u32()?, locator.u64()?, locator.u32()?);
    if position.checked_add(END64_BYTES) != Some(at) {
        return rule(format!("its zip64 end record should be at byte {position}, which is the wrong place"));
    }
    let bytes = file.copy(position..at)?;
    let mut record = Record { bytes: &bytes, what: "its zip64 end record" };
    record.signature(END64)?;
    let length = record.u64()?;
    record.take(4)?; // the versions that wrote it and that are needed
    let (this, first) = (record.u32()?, record.u32()?);
    let (here, members) = (record.u64()?, record.u64()?);
    let (size, start) = (record.u64()?, record.u64()?);
    // Some writers count one disk, some none.
    if (disk, this, first) != (0, 0, 0) || disks > 1 || here != members {
        return rule("it is one part of an archive of several");
    }
    if length != END64_BYTES - 12 {
        return rule(format!("its zip64 end record claims {length} bytes"));
    }
    Ok(Some(End64 { position, size, start, members }))
}

/// One entry of the directory.
fn central(record: &mut Record) -> Checked<Central> {
    record.signature(CENTRAL)?;
    record.take(4)?; // the versions that wrote it and that are needed
    let (flags, method) = (record.u16()?, record.u16()?);
    record.take(4)?; // time and date
    let crc32 = record.u32()?;
    let (compressed, uncompressed) = (record.u32()?, record.u32()?);
    let (name, extra, comment) = (record.u16()?, record.u16()?, record.u16()?);
    let disk = record.u16()?;
    record.take(6)?; // attributes
    let header = record.u32()?;
    let name = member_name(record.take(usize::from(name))?)?;
    let extra = record.take(usize::from(extra))?;
    record.take(usize::from(comment))?;
    if flags & ENCRYPTED != 0 {
        return rule(format!("the member `{}` is encrypted", printable(&name)));
    }
    if disk != 0 {
        return rule("it is one part of an archive of several");
    }
    let mut large = Record { bytes: zip64_extra(extra, &name)?, what: "a zip64 field" };
    let mut wide = |value: u32| if value == u32::MAX { large.u64() } else { Ok(u64::from(value)) };
    // The order of the fields in the extra field is fixed, and not that of the entry.
    let uncompressed = wide(uncompressed)?;
    let compressed = wide(compressed)?;
    let header = wide(header)?;
    Ok(Central { name, flags, method, crc32, compressed, uncompressed, header })
}

fn member_name(bytes: &[u8]) -> Checked<String> {
    match std::str::from_utf8(bytes) {
        Ok(name) if !name.is_empty() && !name.contains('\0') => Ok(name.to_owned()),
        _ => rule(format!(
            "a member's name is empty or no text: `{}`",
            printable(&String::from_utf8_lossy(bytes))
        )),
    }
}

/// The zip64 block of an extra field; empty where there is none.
fn zip64_extra<'a>(extra: &'a [u8], name: &str) -> Checked<&'a [u8]> {
    const ZIP64: u16 = 1;
    let mut record = Record { bytes: extra, what: "an extra field" };
    let mut found = None;
    // Alignment may leave up to three bytes behind the last block.
    while record.bytes.len() >= 4 {
        let (kind, length) = (record.u16()?, record.u16()?);
        let block = record.take(usize::from(length))?;
        if kind == ZIP64 && found.replace(block).is_some() {
            return rule(format!("the member `{}` has two zip64 fields", printable(name)));
        }
    }
    Ok(found.unwrap_or_default())
}

/// Checks the member's local header against the directory; where its data lie. They end before
/// `limit`.
fn local(file: &Storage, central: &Central, limit: u64) -> Checked<Range<u64>> {
    let name = printable(&central.name);
    let outside = || {
        Problem::Rule(format!(
            "the member `{name}` lies outside the {limit} bytes of members (is the file cut off?)"
        ))
    };
    let fixed_end =
        central.header.checked_add(LOCAL_BYTES).filter(|end| *end <= limit).ok_or_else(outside)?;
    let bytes = file.copy(central.header..fixed_end)?;
    let mut record = Record { bytes: &bytes, what: "a local header" };
    if record.take(4)? != SIGNATURE {
        return rule(format!("the member `{name}` has no local header at byte {}", central.header));
    }
    record.take(2)?; // the version that is needed
    let (flags, method) = (record.u16()?, record.u16()?);
    record.take(8)?; // time, date, CRC
    let (compressed, uncompressed) = (record.u32()?, record.u32()?);
    let (name_length, extra_length) = (record.u16()?, record.u16()?);
    let name_end = fixed_end + u64::from(name_length);
    let start = name_end + u64::from(extra_length);
    let end = start.checked_add(central.compressed).filter(|end| *end <= limit).ok_or_else(outside)?;
    let same_size = |local: u32, size: u64| {
        let unknown = flags & SIZES_BEHIND != 0 && local == 0;
        unknown || local == u32::MAX || u64::from(local) == size
    };
    let agrees = file.copy(fixed_end..name_end)? == central.name.as_bytes()
        && method == central.method
        && flags & (ENCRYPTED | SIZES_BEHIND) == central.flags & (ENCRYPTED | SIZES_BEHIND)
        && same_size(compressed, central.compressed)
        && same_size(uncompressed, central.uncompressed);
    if !agrees {
        return rule(format!("the local header of the member `{name}` contradicts the directory"));
    }
    Ok(start..end)
}

fn entry(central: Central, data: Range<u64>) -> Checked<Entry> {
    let Central { name, method, crc32, compressed, uncompressed, .. } = central;
    let method = match method {
        0 if compressed != uncompressed => {
            return rule(format!(
                "the stored member `{}` has {compressed} bytes, but should have {uncompressed}",
                printable(&name)
            ));
        }
        0 => Method::Stored,
        8 => Method::Deflated,
        _ => {
            return rule(format!(
                "the member `{}` is compressed by method {method}, which this version does not know",
                printable(&name)
            ));
        }
    };
    Ok(Entry { name, method, data, uncompressed, crc32 })
}

/// The start of a file that is a zip archive, empty ones included.
pub(super) fn is_archive(head: &[u8]) -> bool {
    head.starts_with(SIGNATURE) || head.starts_with(END)
}

#[cfg(test)]
mod tests;
