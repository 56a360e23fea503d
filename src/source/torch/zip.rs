//! torch's zip archives (since 1.6): the pickle is the entry `data.pkl`, each storage one of `data/`.

use std::collections::HashMap;
use std::ops::Range;

use super::Pickled;
use super::pickle::Unpickler;
use super::rebuild::{Places, Region};
use crate::source::problem::{Checked, rule, unusable};
use crate::source::{Storage, zip};
use crate::text::printable;

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
    let length = head.get(26..28).map_or(0, |b| b.iter().rev().fold(0, |n, b| (n << 8) | usize::from(*b)));
    let name = String::from_utf8_lossy(head.get(30..30 + length).unwrap_or_default());
    PARTS.iter().any(|part| name.contains(part))
}

/// Reads the pickle and finds the storages.
pub(super) fn read(storage: &Storage, unpickler: &mut Unpickler) -> Checked<Pickled> {
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
        let order = storage.copy(range.start..range.end.min(range.start + 16))?;
        if order != b"little" {
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

/// The bytes of every entry, by its name. Entries are stored as they are, so that storages can be
/// mapped.
fn entries(storage: &Storage) -> Checked<HashMap<String, Range<u64>>> {
    let entries = zip::entries(storage)?;
    if let Some(entry) = entries.iter().find(|entry| entry.method != zip::Method::Stored) {
        return rule(format!(
            "its entry `{}` is compressed, which torch never does; unpack the archive and zip it without compression",
            printable(&entry.name)
        ));
    }
    Ok(entries.into_iter().map(|entry| (entry.name, entry.data)).collect())
}
