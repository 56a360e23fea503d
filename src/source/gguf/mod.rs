//! Reader of GGUF, the format of llama.cpp: a header of keys and values, a list of tensors, and their
//! data, aligned, in the types of ggml.
//!
//! Versions 2 and 3 with little-endian numbers are read. The dimensions in the file begin with the
//! innermost one; here they are turned round, so that a weight is [out, in] as in other formats.

mod cursor;
mod metadata;
mod split;

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::{Contents, Files, Format, LeftOut, OpenOptions, Storage};
use crate::encodings::ggml::{self, Blocks, Form, Type};
use crate::error::{Error, Result};
use crate::tensors::{Content, Dtype, Tensor};
use cursor::{Cursor, quoted};
use metadata::Metadata;

/// The first bytes of every file.
const MAGIC: &[u8] = b"GGUF";
/// The most tensors of a file: some hundred times those of the largest models.
const MAX_TENSORS: u64 = 1 << 17;
/// The bytes that all their names may take together.
const MAX_NAMES: usize = 1 << 24;
/// The bytes of the shortest entry in the list of tensors: the length of an empty name, no
/// dimension, a type and an offset.
const SMALLEST_TENSOR: u64 = 8 + 4 + 4 + 8;
/// ggml has no more.
const MAX_DIMENSIONS: u32 = 4;
/// Where `general.alignment` does not say otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The GGUF format.
pub struct Gguf;

impl Format for Gguf {
    fn name(&self) -> &'static str {
        "gguf"
    }

    fn usual_name(&self) -> &'static str {
        "model.gguf"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".gguf"]
    }

    fn first_part(&self, name: &str) -> Option<String> {
        split::first_part(name)
    }

    fn recognises(&self, head: &[u8], path: &Path) -> bool {
        let by_name = path.extension().is_some_and(|e| e == "gguf");
        // By its name alone a damaged file is still taken, for the reader to say what is wrong.
        head.starts_with(MAGIC) || by_name && super::foreign(head).is_none()
    }

    fn contents(&self, files: &mut Files, file: usize, _: &OpenOptions) -> Result<Contents> {
        let first = Header::read(files.get(file)?)?;
        let config = first.metadata.config();
        let others = split::other_parts(files, file, &first)?;
        let mut contents = Contents { config, ..Contents::default() };
        for (file, header) in std::iter::once((file, first)).chain(others) {
            contents.tensors.extend(header.tensors.into_iter().map(|placed| placed.into_tensor(file)));
            contents.left_out.extend(header.unknown);
        }
        Ok(contents)
    }
}

fn malformed(file: &Storage, reason: impl Into<String>) -> Error {
    Error::Malformed { path: file.path().to_path_buf(), format: "GGUF", reason: reason.into() }
}

/// What stands before the data, every tensor checked against the file and its neighbours.
struct Header {
    metadata: Metadata,
    tensors: Vec<Placed>,
    /// Tensors of types that are newer than this version (or older than ggml's present ones): not
    /// even their sizes are known.
    unknown: Vec<LeftOut>,
}

/// A tensor and its place, counted from the file's start.
struct Placed {
    name: String,
    kind: &'static Type,
    shape: Vec<usize>,
    elements: usize,
    bytes: Range<u64>,
}

/// A tensor's entry in the list, its shape already turned round.
struct Entry {
    name: String,
    shape: Vec<u64>,
    kind: u32,
    /// Counted from the start of the data.
    offset: u64,
}

impl Header {
    fn read(file: &Storage) -> Result<Header> {
        let mut cursor = Cursor::new(file);
        check_version(file)?;
        cursor.skip(8)?;
        let (tensors, keys) = (cursor.u64()?, cursor.u64()?);
        cursor.check_count(tensors, SMALLEST_TENSOR, || "tensors".to_owned())?;
        if tensors > MAX_TENSORS {
            return Err(malformed(file, format!("it has {tensors} tensors, more than {MAX_TENSORS}")));
        }
        let metadata = Metadata::read(&mut cursor, keys)?;
        let alignment = alignment(file, &metadata)?;
        cursor.check_count(tensors, SMALLEST_TENSOR, || "tensors".to_owned())?;
        let mut entries = Vec::new();
        let mut names = 0;
        for _ in 0..tensors {
            let entry = Entry::read(&mut cursor)?;
            names += entry.name.len();
            if names > MAX_NAMES {
                return Err(cursor.malformed(format!(
                    "the names of its tensors, up to byte {}, are more than {MAX_NAMES} bytes long",
                    cursor.position()
                )));
            }
            entries.push(entry);
        }
        refuse_equal_names(file, &entries)?;
        // No overflow: a header ends below 2^28, and an alignment is below 2^32.
        let data = Data { start: cursor.position().next_multiple_of(alignment), alignment, end: file.len() };
        let (mut tensors, mut unknown) = (Vec::new(), Vec::new());
        for entry in entries {
            match ggml::by_id(entry.kind).filter(|kind| kind.elements > 0) {
                Some(kind) => {
                    tensors.push(entry.place(kind, &data).map_err(|reason| malformed(file, reason))?)
                }
                None => unknown.push(entry.unknown()),
            }
        }
        refuse_overlaps(file, &tensors)?;
        Ok(Header { metadata, tensors, unknown })
    }

    /// How many tensors it lists.
    fn len(&self) -> usize {
        self.tensors.len() + self.unknown.len()
    }
}

/// Where a file's data lie.
struct Data {
    start: u64,
    alignment: u64,
    /// The file's length.
    end: u64,
}

/// Magic and version, eight bytes.
fn check_version(file: &Storage) -> Result<()> {
    let head = file.copy(0..file.len().min(8))?;
    if !head.starts_with(MAGIC) {
        return Err(malformed(file, "it does not begin with `GGUF`"));
    }
    let version = match head.last_chunk::<4>() {
        Some(version) if head.len() == 8 => u32::from_le_bytes(*version),
        _ => {
            return Err(malformed(
                file,
                format!("the file is {} bytes long, too short for a header", file.len()),
            ));
        }
    };
    match version {
        2 | 3 => Ok(()),
        1 => Err(malformed(
            file,
            "it is of version 1, and this version of evenkeel reads 2 and 3; convert the model again",
        )),
        // Versions are small numbers: one in the upper half of the word has its bytes turned round.
        _ if version & 0xffff == 0 && version != 0 => {
            Err(malformed(file, "its numbers are big-endian, and only little-endian files are read"))
        }
        _ => Err(malformed(
            file,
            format!("it is of version {version}, and this version of evenkeel reads 2 and 3"),
        )),
    }
}

fn alignment(file: &Storage, metadata: &Metadata) -> Result<u64> {
    const KEY: &str = "general.alignment";
    if !metadata.contains(KEY) {
        return Ok(DEFAULT_ALIGNMENT);
    }
    let usable = |bytes: &u64| bytes.is_power_of_two() && *bytes <= 1 << 31;
    metadata
        .number(KEY)
        .filter(usable)
        .ok_or_else(|| malformed(file, format!("its {KEY} is no power of two of at most 2^31")))
}

impl Entry {
    fn read(cursor: &mut Cursor) -> Result<Entry> {
        let name = cursor.name("tensor")?;
        let dimensions = cursor.u32()?;
        if dimensions > MAX_DIMENSIONS {
            return Err(cursor.malformed(format!(
                "the tensor {} has {dimensions} dimensions, more than {MAX_DIMENSIONS}",
                quoted(&name)
            )));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(cursor.u64()?);
        }
        shape.reverse();
        Ok(Entry { name, shape, kind: cursor.u32()?, offset: cursor.u64()? })
    }

    /// What is said of a tensor whose type this version does not know.
    fn unknown(self) -> LeftOut {
        let named = ggml::by_id(self.kind).map(|kind| format!(" ({})", kind.name)).unwrap_or_default();
        let reason = format!("of the ggml type {}{named}, which this version does not know", self.kind);
        LeftOut { name: self.name, reason }
    }

    /// Checks shape and place; the sentence for what is wrong with them.
    fn place(self, kind: &'static Type, data: &Data) -> std::result::Result<Placed, String> {
        let wrong = |reason: String| format!("the tensor {} {reason}", quoted(&self.name));
        let Some((shape, elements)) = checked_shape(&self.shape) else {
            return Err(wrong("has a shape whose size overflows".to_owned()));
        };
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(kind.elements) {
            return Err(wrong(format!(
                "has rows of {row} elements, which is no multiple of the {} in a block of {}",
                kind.elements, kind.name
            )));
        }
        if !self.offset.is_multiple_of(data.alignment) {
            return Err(wrong(format!(
                "begins at offset {}, which is no multiple of the alignment {}",
                self.offset, data.alignment
            )));
        }
        let size = (elements / kind.elements) as u128 * kind.bytes as u128;
        let start = u128::from(data.start) + u128::from(self.offset);
        let bytes = match (u64::try_from(start), u64::try_from(start + size)) {
            // An empty tensor needs no place in the file.
            _ if size == 0 => 0..0,
            (Ok(start), Ok(end)) if end <= data.end => start..end,
            _ => {
                return Err(wrong(format!(
                    "takes {size} bytes from offset {} on, but there are {} bytes of data (is the file cut off?)",
                    self.offset,
                    data.end.saturating_sub(data.start)
                )));
            }
        };
        Ok(Placed { name: self.name, kind, shape, elements, bytes })
    }
}

/// The shape in the machine's own integers and the number of elements.
fn checked_shape(shape: &[u64]) -> Option<(Vec<usize>, usize)> {
    let shape: Vec<usize> = shape.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>()?;
    // Also without its zeros the product must fit: a later stage multiplies some of the dimensions.
    shape.iter().filter(|d| **d != 0).try_fold(1usize, |n, d| n.checked_mul(*d))?;
    let elements = shape.iter().product();
    Some((shape, elements))
}

fn refuse_equal_names(file: &Storage, entries: &[Entry]) -> Result<()> {
    let mut names = HashSet::new();
    match entries.iter().find(|entry| !names.insert(entry.name.as_str())) {
        Some(entry) => Err(malformed(file, format!("the tensor {} occurs twice", quoted(&entry.name)))),
        None => Ok(()),
    }
}

fn refuse_overlaps(file: &Storage, tensors: &[Placed]) -> Result<()> {
    let mut in_order: Vec<&Placed> = tensors.iter().filter(|tensor| !tensor.bytes.is_empty()).collect();
    in_order.sort_by_key(|tensor| tensor.bytes.start);
    let pairs = in_order.iter().zip(in_order.iter().skip(1));
    match pairs.into_iter().find(|(before, after)| before.bytes.end > after.bytes.start) {
        Some((before, after)) => Err(malformed(
            file,
            format!("the tensors {} and {} overlap", quoted(&before.name), quoted(&after.name)),
        )),
        None => Ok(()),
    }
}

impl Placed {
    fn into_tensor(self, file: usize) -> Tensor {
        let (dtype, content) = match self.kind.form {
            Form::Plain(dtype) => (dtype, Content::Stored { file, bytes: self.bytes }),
            Form::Blocks(_) | Form::Unread => {
                (Dtype::F32, Content::Encoded(Arc::new(Blocks { kind: self.kind, file, bytes: self.bytes })))
            }
        };
        Tensor {
            name: self.name,
            dtype,
            shape: self.shape,
            elements: self.elements,
            content,
            aliases: Vec::new(),
        }
    }
}
