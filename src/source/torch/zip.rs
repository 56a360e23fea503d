//! torch's zip archives (since 1.6): every entry is stored as it is, so that storages can be mapped.
//!
//! Only that much of the zip format is read: entries without compression or encryption, in one file,
//! with ZIP64's lengths (PKWARE's APPNOTE 6.3, sections 4.3 to 4.5). Local headers are held against
//! the central directory, and no two entries may share bytes: an archive means one thing only.

use std::collections::HashMap;
use std::ops::Range;

use super::pickle::Unpickler;
use super::rebuild::{Places, Region};
use super::{Outcome, Pickled, rule, unusable};
use crate::source::Storage;
use crate::text::printable;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const LOCAL_BYTES: u64 = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: u64 = 22;
const LOCATOR_64_BYTES: u64 = 20;
const END_64_BYTES: u64 = 56;
/// The longest comment that may follow the end record.
const MAX_COMMENT: u64 = 0xffff;
/// The longest central directory that is read, in bytes: some 60 for each storage.
const MAX_DIRECTORY: u64 = 64 << 20;
/// The general-purpose bit that says that lengths stand behind the data, not before them.
const LENGTHS_BEHIND: u16 = 1 << 3;
const ENCRYPTED: u16 = 1;

/// Whether the archive's first entry is one that torch writes.
pub(super) fn is_of_torch(head: &[u8]) -> bool {
    const PARTS: [&str; 8] = [
        "/data.pkl",
        "/constants.pkl",
        "/version",
        "/byteorder",
        "/.format_version",
        "/.storage_alignment",
        "/data/",
        "/code/",
    ];
    let length = head.get(26..28).map_or(0, |b| number(b) as usize);
    let name = String::from_utf8_lossy(head.get(30..30 + length).unwrap_or_default());
    PARTS.iter().any(|part| name.contains(part))
}

/// Reads the pickle and finds the storages.
pub(super) fn read(storage: &Storage, unpickler: &mut Unpickler) -> Outcome<Pickled> {
    let entries = entries(storage)?;
    let mut pickles = entries.keys().filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        return unusable(format!(
            "this zip archive has {} entries called data.pkl where a torch file has one",
            entries.keys().filter(|name| name.ends_with("data.pkl")).count()
        ));
    };
    let prefix = pickle.strip_suffix("data.pkl").unwrap_or_default();
    let inside = |name: &str| entries.get(&format!("{prefix}{name}"));
    let code = format!("{prefix}code/");
    if inside("constants.pkl").is_some() || entries.keys().any(|name| name.starts_with(&code)) {
        return unusable(
            "this is a TorchScript archive, a program with its code; load it with torch.jit.load and save its \
             state_dict() with torch.save",
        );
    }
    if let Some(range) = inside("byteorder") {
        let order = storage.read(range.start..range.end.min(range.start + 16))?;
        if &*order != b"little" {
            return rule(format!(
                "its numbers are stored in the byte order `{}`, and this version reads `little`; save it again on a \
                 little-endian machine",
                printable(&String::from_utf8_lossy(&order))
            ));
        }
    }
    let range = inside("data.pkl").cloned().unwrap_or_default();
    let root = unpickler.load_range(storage, range)?;
    let data = format!("{prefix}data/");
    let region = |(name, range): (&String, &Range<u64>)| {
        Some((name.strip_prefix(&data)?.to_owned(), Region { bytes: range.clone(), element: None }))
    };
    Ok(Pickled { root, places: Places::Storages(entries.iter().filter_map(region).collect()) })
}

/// Where the central directory lies, and how many entries it should have.
struct Directory {
    range: Range<u64>,
    count: u64,
}

/// An entry of the central directory.
struct Entry {
    name: String,
    flags: u16,
    bytes: u64,
    header: u64,
}

/// The bytes of every entry, by its name.
fn entries(storage: &Storage) -> Outcome<HashMap<String, Range<u64>>> {
    let directory = directory(storage)?;
    let bytes = storage.read(directory.range.clone())?;
    let mut rest: &[u8] = &bytes;
    let mut found = HashMap::new();
    let mut taken = Vec::new();
    for _ in 0..directory.count {
        let entry = entry(&mut rest)?;
        let (whole, data) = place(storage, &entry, directory.range.start)?;
        taken.push(whole);
        if found.contains_key(&entry.name) {
            return rule(format!("its entry `{}` occurs twice", printable(&entry.name)));
        }
        found.insert(entry.name, data);
    }
    if !rest.is_empty() {
        return rule(format!("{} bytes of its central directory belong to no entry", rest.len()));
    }
    taken.sort_by_key(|range| (range.start, range.end));
    for pair in taken.windows(2) {
        if let [before, after] = pair
            && after.start < before.end
        {
            return rule(format!("two of its entries overlap at byte {}", after.start));
        }
    }
    Ok(found)
}

/// Finds the end record, from the back, and ZIP64's where there is one.
fn directory(storage: &Storage) -> Outcome<Directory> {
    let length = storage.len();
    let tail_start = length.saturating_sub(END_BYTES + MAX_COMMENT);
    let tail = storage.read(tail_start..length)?;
    let is_end = |at: &usize| {
        let record = tail.get(*at..).unwrap_or_default();
        let comment = field(record, 20, 2);
        field(record, 0, 4) == Some(END.into()) && comment == Some(record.len() as u64 - END_BYTES)
    };
    let Some(at) = (0..tail.len().saturating_sub(END_BYTES as usize - 1)).rev().find(is_end) else {
        return rule("it begins as a zip archive, but the archive's end is missing (is it cut off?)");
    };
    let record = tail.get(at..).unwrap_or_default();
    let end = tail_start + at as u64;
    let of = |at, size| field(record, at, size).unwrap_or_default();
    if of(4, 2) != 0 || of(6, 2) != 0 || of(8, 2) != of(10, 2) {
        return rule("it is a part of a zip archive in several parts");
    }
    let locator = end.checked_sub(LOCATOR_64_BYTES).map(|start| storage.read(start..end)).transpose()?;
    let locator = locator.filter(|bytes| field(bytes, 0, 4) == Some(LOCATOR_64.into()));
    let (size, start, count, limit) = match locator {
        Some(locator) => {
            let at = field(&locator, 8, 8).unwrap_or_default();
            let fits = at.checked_add(END_64_BYTES).is_some_and(|e| e <= end - LOCATOR_64_BYTES);
            let record = if fits { storage.read(at..at + END_64_BYTES)? } else { Default::default() };
            if field(&record, 0, 4) != Some(END_64.into()) {
                return rule(format!("its ZIP64 end record is not at byte {at}, where it should be"));
            }
            let of = |at| field(&record, at, 8).unwrap_or_default();
            (of(40), of(48), of(32), at)
        }
        None => (of(12, 4), of(16, 4), of(10, 2), end),
    };
    match start.checked_add(size) {
        Some(stop) if stop == limit && size <= MAX_DIRECTORY => Ok(Directory { range: start..stop, count }),
        _ => rule(format!(
            "its central directory should have {size} bytes at byte {start}, before byte {limit}"
        )),
    }
}

/// Takes one entry off the central directory.
fn entry(rest: &mut &[u8]) -> Outcome<Entry> {
    let bytes = *rest;
    let of = |at, size| field(bytes, at, size).unwrap_or_default();
    let (name, extra, comment) = (of(28, 2) as usize, of(30, 2) as usize, of(32, 2) as usize);
    let names = CENTRAL_BYTES..CENTRAL_BYTES + name;
    let extras = names.end..names.end + extra;
    let (Some(name), Some(extra), Some(next)) =
        (bytes.get(names), bytes.get(extras.clone()), bytes.get(extras.end + comment..))
    else {
        return rule("its central directory is cut off");
    };
    *rest = next;
    let Ok(name) = std::str::from_utf8(name) else {
        return rule("an entry's name is not UTF-8");
    };
    if of(0, 4) != u64::from(CENTRAL) {
        return rule(format!("its central directory has no entry where `{}` should stand", printable(name)));
    }
    if of(10, 2) != 0 || of(8, 2) as u16 & ENCRYPTED != 0 {
        return rule(format!(
            "its entry `{}` is compressed or encrypted, which torch never does; save the file again with torch.save",
            printable(name)
        ));
    }
    let mut wide = extra_64(extra).unwrap_or_default();
    let mut wide_or =
        |value: u64| if value == u64::from(u32::MAX) { take_u64(&mut wide) } else { Some(value) };
    let (bytes, packed, header) = (wide_or(of(24, 4)), wide_or(of(20, 4)), wide_or(of(42, 4)));
    match (bytes, packed, header) {
        (Some(bytes), Some(packed), Some(header)) if bytes == packed => {
            Ok(Entry { name: name.to_owned(), flags: of(8, 2) as u16, bytes, header })
        }
        _ => rule(format!("its entry `{}` has two lengths, or none", printable(name))),
    }
}

/// The bytes of an entry, with its header and without, held against its local header.
fn place(storage: &Storage, entry: &Entry, limit: u64) -> Outcome<(Range<u64>, Range<u64>)> {
    let broken = |what: &str| rule(format!("its entry `{}` {what}", printable(&entry.name)));
    let fixed_end = entry.header.checked_add(LOCAL_BYTES).filter(|end| *end <= limit);
    let Some(fixed_end) = fixed_end else {
        return broken("lies beyond the end of the archive (is the file cut off?)");
    };
    let fixed = storage.read(entry.header..fixed_end)?;
    let of = |at, size| field(&fixed, at, size).unwrap_or_default();
    let (name, extra) = (of(26, 2), of(28, 2));
    let start = fixed_end + name + extra;
    let data = match start.checked_add(entry.bytes) {
        Some(end) if end <= limit => start..end,
        _ => return broken("lies beyond the end of the archive (is the file cut off?)"),
    };
    let found = storage.read(fixed_end..fixed_end + name)?;
    let length_agrees = |local: u64| {
        let behind = entry.flags & LENGTHS_BEHIND != 0 && local == 0;
        behind || local == entry.bytes || local == u64::from(u32::MAX)
    };
    let agrees = of(0, 4) == u64::from(LOCAL)
        && of(6, 2) as u16 == entry.flags
        && of(8, 2) == 0
        && length_agrees(of(18, 4))
        && length_agrees(of(22, 4))
        && *found == *entry.name.as_bytes();
    if agrees {
        Ok((entry.header..data.end, data))
    } else {
        broken("has a local header that says something else")
    }
}

/// ZIP64's lengths in an entry's extra fields.
fn extra_64(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let (id, length) = (field(extra, 0, 2)?, field(extra, 2, 2)? as usize);
        let data = extra.get(4..4 + length)?;
        if id == 1 {
            return Some(data);
        }
        extra = extra.get(4 + length..)?;
    }
}

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    let value = field(bytes, 0, 8)?;
    *bytes = bytes.get(8..)?;
    Some(value)
}

/// A little-endian number of `size` bytes.
fn field(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    bytes.get(at..at + size).map(number)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, byte| (n << 8) | u64::from(*byte))
}
