//! Reader of NumPy's files: `.npy`, one array, and `.npz`, a zip archive of them.
//!
//! An array that is stored as it is, in C order and little-endian, is mapped; one that is deflated,
//! big-endian or in Fortran order is computed when it is measured ([`array`]). Arrays of Python
//! objects are pickles inside: they are named and left out, and nothing in them is looked at.

mod array;
mod header;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{Contents, Files, Format, LeftOut, OpenOptions, Storage, zip};
use crate::error::{Error, Result};
use crate::tensors::{Content, Tensor};
use crate::text::printable;
use array::{Array, Bounds, Slot, Source};
use header::{Header, MAGIC, Type};

/// A single array.
pub struct Npy;

/// An archive of arrays, as `numpy.savez` and `numpy.savez_compressed` write it.
pub struct Npz;

/// What all deflated members of an archive may become together: this many times the file's length,
/// and as many bytes on top. DEFLATE reaches 1032 to one, which only zeros and bombs do.
const MAX_RATIO: u64 = 64;
const MAX_EXTRA: u64 = 1 << 24;

/// How much of a deflated member is looked at for its header, in bytes.
const HEAD: u64 = 1 << 16;

impl Format for Npy {
    fn name(&self) -> &'static str {
        "npy"
    }

    fn usual_name(&self) -> &'static str {
        "model.npy"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".npy"]
    }

    fn recognises(&self, head: &[u8], path: &Path) -> bool {
        head.starts_with(MAGIC) || has_suffix(path, "npy") && super::foreign(head).is_none()
    }

    fn contents(&self, files: &mut Files, file: usize, _: &OpenOptions) -> Result<Contents> {
        let storage = files.get(file)?;
        let malformed =
            |reason| Error::Malformed { path: storage.path().to_path_buf(), format: "npy", reason };
        let head = storage.copy(0..storage.len().min(header::LONGEST as u64))?;
        let header = header::parse(&head).map_err(malformed)?;
        let Type::Numbers { .. } = header.kind else {
            return Err(malformed(format!("it holds {}", header.kind.describe())));
        };
        let name =
            storage.path().file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let bytes = header.data..storage.len();
        let place = Place {
            name,
            file,
            source: Source::Stored(bytes),
            bytes: storage.len() - header.data.min(storage.len()),
        };
        let tensor = place.tensor(&header, storage, &Arc::default()).map_err(malformed)?;
        Ok(Contents { tensors: vec![tensor], ..Contents::default() })
    }
}

impl Format for Npz {
    fn name(&self) -> &'static str {
        "npz"
    }

    fn usual_name(&self) -> &'static str {
        "model.npz"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".npz"]
    }

    /// Many things are zip archives: by its content alone one is NumPy's if its first member is an
    /// array.
    fn recognises(&self, head: &[u8], path: &Path) -> bool {
        let first_name = || {
            let length = usize::from(u16::from_le_bytes([*head.get(26)?, *head.get(27)?]));
            head.get(30..30 + length)
        };
        zip::is_archive(head)
            && (has_suffix(path, "npz") || first_name().is_some_and(|name| name.ends_with(b".npy")))
    }

    fn contents(&self, files: &mut Files, file: usize, _: &OpenOptions) -> Result<Contents> {
        let storage = files.get(file)?;
        let entries = zip::entries(storage)?;
        let malformed =
            |reason| Error::Malformed { path: storage.path().to_path_buf(), format: "npz", reason };
        refuse_bombs(storage, &entries).map_err(malformed)?;
        let mut contents = Contents::default();
        let slot = Arc::default();
        for entry in entries {
            let Some(name) = entry.name.strip_suffix(".npy") else {
                contents.left_out.push(LeftOut {
                    name: entry.name,
                    reason: "no array (its name does not end in .npy)".to_owned(),
                });
                continue;
            };
            let in_member = |reason| malformed(format!("the array `{}`: {reason}", printable(name)));
            let (head, source) = open(storage, &entry)?.map_err(in_member)?;
            let header = header::parse(&head).map_err(in_member)?;
            match header.kind {
                Type::Numbers { .. } => {
                    let bytes = entry.uncompressed.saturating_sub(header.data);
                    let source = source.skip(header.data);
                    let place = Place { name: name.to_owned(), file, source, bytes };
                    contents.tensors.push(place.tensor(&header, storage, &slot).map_err(in_member)?);
                }
                _ => {
                    contents.left_out.push(LeftOut { name: name.to_owned(), reason: header.kind.describe() })
                }
            }
        }
        Ok(contents)
    }
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.extension().is_some_and(|e| e == suffix)
}

fn refuse_bombs(storage: &Storage, entries: &[zip::Entry]) -> std::result::Result<(), String> {
    let deflated = entries.iter().filter(|entry| entry.method == zip::Method::Deflated);
    let total = deflated.fold(0u64, |sum, entry| sum.saturating_add(entry.uncompressed));
    let allowed = storage.len().saturating_mul(MAX_RATIO).saturating_add(MAX_EXTRA);
    if total <= allowed {
        return Ok(());
    }
    Err(format!(
        "its members should inflate to {total} bytes, more than {MAX_RATIO} times the file (save it with numpy.savez if it is no bomb)"
    ))
}

/// The first bytes of a member's content, and where the content lies.
fn open(storage: &Storage, entry: &zip::Entry) -> Result<std::result::Result<(Vec<u8>, Source), String>> {
    match entry.method {
        zip::Method::Stored => {
            let end = entry.data.end.min(entry.data.start.saturating_add(header::LONGEST as u64));
            let head = storage.copy(entry.data.start..end)?;
            Ok(Ok((head, Source::Stored(entry.data.clone()))))
        }
        zip::Method::Deflated => {
            // Enough for any header that NumPy writes, and no more of a member that may be of any length.
            let end = entry.data.end.min(entry.data.start.saturating_add(HEAD));
            let packed = storage.copy(entry.data.start..end)?;
            let source = Source::Deflated {
                packed: entry.data.clone(),
                length: entry.uncompressed,
                crc32: entry.crc32,
                skip: 0,
            };
            Ok(array::inflate_head(&packed, entry.uncompressed, header::length_of).map(|head| (head, source)))
        }
    }
}

/// Where an array is, and how many bytes of data it has.
struct Place {
    name: String,
    file: usize,
    source: Source,
    bytes: u64,
}

impl Place {
    /// The tensor, once its size is known to be that of its shape.
    fn tensor(
        self,
        header: &Header,
        storage: &Storage,
        slot: &Arc<Slot>,
    ) -> std::result::Result<Tensor, String> {
        let Type::Numbers { dtype, swap } = header.kind else { return Err(header.kind.describe()) };
        let Bounds { shape, elements } = array::bounds(&header.shape, dtype, self.bytes)?;
        let fortran = header.fortran && shape.iter().filter(|d| **d != 1).count() > 1;
        let content = match self.source {
            Source::Stored(bytes) if swap == 1 && !fortran => Content::Stored { file: self.file, bytes },
            source => Content::Encoded(Arc::new(Array {
                path: storage.path().to_path_buf(),
                name: self.name.clone(),
                file: self.file,
                source,
                dtype,
                swap,
                shape: shape.clone(),
                elements,
                fortran,
                slot: Arc::clone(slot),
            })),
        };
        Ok(Tensor { name: self.name, dtype, shape, elements, content, aliases: Vec::new() })
    }
}

/// Moves the start of a range forward, at most to its end.
fn advanced(range: &Range<u64>, by: u64) -> Range<u64> {
    range.start.saturating_add(by).min(range.end)..range.end
}
