//! Reader of the safetensors format: eight bytes of header length, a JSON header, then the data.
//!
//! The format's own crate leaves some hostile headers alone (two equal keys, unknown keys, byte
//! counts that overflow), and wants the whole file as one slice; so the header is checked here,
//! rule by rule, with the crate's [`safetensors::Dtype`] for the names and sizes of the types.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype as Stored;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::json::{Entries, Keyed};
use super::problem::{Checked, rule};
use super::{Contents, Files, Format, OpenOptions, Storage};
use crate::error::Result;
use crate::tensors::{Content, Dtype, Tensor};
use crate::text::printable;

/// The bytes before the header: its length as a little-endian u64.
const PREFIX: u64 = 8;
/// The longest header that is read, in bytes. The format's own library accepts 100 MB, but no file has
/// such a one: it would list half a million tensors.
const MAX_HEADER: u64 = 1 << 25;
/// The most dimensions of a tensor, as in torch.
const MAX_DIMENSIONS: usize = 64;

/// The safetensors format.
pub struct Safetensors;

impl Format for Safetensors {
    fn name(&self) -> &'static str {
        "safetensors"
    }

    fn usual_name(&self) -> &'static str {
        "model.safetensors"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[".safetensors"]
    }

    fn recognises(&self, head: &[u8], path: &Path) -> bool {
        let by_name = path.extension().is_some_and(|e| e == "safetensors");
        // In a GGUF file of 123 tensors byte 8 is a brace, too; as the length of a header its magic
        // is far beyond the longest.
        let by_content = head.get(8) == Some(&b'{') && !head.starts_with(b"GGUF");
        // By its name alone a damaged file is still taken, for the reader to say what is wrong.
        by_content || by_name && super::foreign(head).is_none()
    }

    fn contents(&self, files: &mut Files, file: usize, _: &OpenOptions) -> Result<Contents> {
        let storage = files.get(file)?;
        let entries = read_header(storage).map_err(|problem| problem.of(storage.path(), "safetensors"))?;
        let tensor = |entry: Placed| Tensor {
            name: entry.name,
            dtype: entry.dtype,
            shape: entry.shape,
            elements: entry.elements,
            content: Content::Stored { file, bytes: entry.bytes },
            aliases: Vec::new(),
        };
        Ok(Contents { tensors: entries.into_iter().map(tensor).collect(), ..Contents::default() })
    }
}

/// A tensor and the place that the header gives it, counted from the file's start.
struct Placed {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    elements: usize,
    bytes: Range<u64>,
}

/// A tensor's entry in the header, as it stands there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: Stored,
    shape: Shape,
    data_offsets: (u64, u64),
}

/// A shape, refused before it takes much memory.
#[derive(Debug)]
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dimensions;

        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = list.next_element()? {
                    if dims.len() == MAX_DIMENSIONS {
                        return Err(A::Error::custom(format_args!("more than {MAX_DIMENSIONS} dimensions")));
                    }
                    dims.push(dim);
                }
                Ok(Shape(dims))
            }
        }

        deserializer.deserialize_seq(Dimensions)
    }
}

/// A value of the header: the free-form `__metadata__`, or a tensor's entry.
#[derive(Debug)]
enum Item {
    Metadata,
    Tensor(Entry),
}

impl<'de> Keyed<'de> for Item {
    /// The most tensors of a file: some hundred times those of the largest shards.
    const MOST: usize = 1 << 17;

    fn next_value<A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Self, A::Error> {
        if key == "__metadata__" {
            map.next_value::<Entries<String>>().map(|_| Item::Metadata)
        } else {
            map.next_value().map(Item::Tensor)
        }
    }
}

fn read_header(file: &Storage) -> Checked<Vec<Placed>> {
    if file.len() < PREFIX {
        return rule(format!("the file is {} bytes long, too short for a header", file.len()));
    }
    let prefix = file.copy(0..PREFIX)?;
    let length = prefix.iter().rev().fold(0u64, |n, b| (n << 8) | u64::from(*b));
    if length > file.len() - PREFIX {
        return rule(format!(
            "its header should be {length} bytes long, but the file holds only {} after the length (is it cut off?)",
            file.len() - PREFIX
        ));
    }
    if length > MAX_HEADER {
        return rule(format!("its header of {length} bytes is longer than {MAX_HEADER}"));
    }
    let entries = parse(&file.copy(PREFIX..PREFIX + length)?)?;
    check_entries(entries, PREFIX + length, file.len())
}

/// The entries of a header, in its order.
fn parse(header: &[u8]) -> Checked<Vec<(String, Item)>> {
    let text = match std::str::from_utf8(header) {
        Ok(text) => text,
        Err(e) => return rule(format!("its header is not UTF-8 at byte {}", e.valid_up_to())),
    };
    match serde_json::from_str(text) {
        Ok(Entries(entries)) => Ok(entries),
        Err(e) => rule(format!("its header is not what the format allows: {}", printable(&e.to_string()))),
    }
}

/// Checks every tensor against the file's length and against its neighbours.
fn check_entries(entries: Vec<(String, Item)>, data_start: u64, file_len: u64) -> Checked<Vec<Placed>> {
    let data_len = file_len - data_start;
    let mut tensors = Vec::with_capacity(entries.len());
    for (name, item) in entries {
        let Item::Tensor(entry) = item else { continue };
        let (start, end) = entry.data_offsets;
        if start > end || end > data_len {
            return rule(format!(
                "the tensor `{}` lies at {start}..{end} of {data_len} bytes of data (is the file cut off?)",
                printable(&name)
            ));
        }
        let (shape, elements) = match checked_shape(&entry.shape.0, entry.dtype, end - start) {
            Ok(checked) => checked,
            Err(reason) => return rule(format!("the tensor `{}` {reason}", printable(&name))),
        };
        let Some(dtype) = dtype(entry.dtype) else {
            return rule(format!(
                "the tensor `{}` has the type {}, which this version does not know",
                printable(&name),
                entry.dtype
            ));
        };
        tensors.push(Placed { name, dtype, shape, elements, bytes: data_start + start..data_start + end });
    }
    check_layout(&mut tensors, data_start, file_len)?;
    Ok(tensors)
}

/// The shape in the machine's own integers and the number of elements, where they fit the bytes.
fn checked_shape(
    shape: &[u64],
    dtype: Stored,
    bytes: u64,
) -> std::result::Result<(Vec<usize>, usize), String> {
    let overflow = || "has a shape whose size overflows".to_owned();
    let dims: Vec<usize> =
        shape.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>().ok_or_else(overflow)?;
    // Also without its zeros the product must fit: a later stage multiplies some of the dimensions.
    dims.iter().filter(|d| **d != 0).try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(overflow)?;
    let elements: usize = dims.iter().product();
    let bits = (elements as u128) * (dtype.bitsize() as u128);
    if bits != u128::from(bytes) * 8 {
        return Err(format!(
            "of shape {} and type {dtype} needs {bits} bits, but has {bytes} bytes",
            crate::text::shape(&dims)
        ));
    }
    Ok((dims, elements))
}

/// The data must be covered from end to end, without a gap and without overlap.
fn check_layout(tensors: &mut [Placed], data_start: u64, file_len: u64) -> Checked<()> {
    tensors.sort_by_key(|tensor| (tensor.bytes.start, tensor.bytes.end));
    let mut covered = data_start;
    for tensor in tensors.iter() {
        let name = printable(&tensor.name);
        if tensor.bytes.start < covered {
            return rule(format!("the tensor `{name}` overlaps the one before it"));
        }
        if tensor.bytes.start > covered {
            return rule(format!(
                "{} bytes before the tensor `{name}` belong to no tensor",
                tensor.bytes.start - covered
            ));
        }
        covered = tensor.bytes.end;
    }
    if covered != file_len {
        return rule(format!("its last {} bytes belong to no tensor", file_len - covered));
    }
    Ok(())
}

fn dtype(stored: Stored) -> Option<Dtype> {
    let known = match stored {
        Stored::BOOL => Dtype::Bool,
        Stored::F4 => Dtype::F4,
        Stored::F6_E2M3 => Dtype::F6E2M3,
        Stored::F6_E3M2 => Dtype::F6E3M2,
        Stored::U8 => Dtype::U8,
        Stored::I8 => Dtype::I8,
        Stored::F8_E5M2 => Dtype::F8E5M2,
        Stored::F8_E4M3 => Dtype::F8E4M3,
        Stored::F8_E8M0 => Dtype::F8E8M0,
        Stored::F8_E4M3FNUZ => Dtype::F8E4M3Fnuz,
        Stored::F8_E5M2FNUZ => Dtype::F8E5M2Fnuz,
        Stored::I16 => Dtype::I16,
        Stored::U16 => Dtype::U16,
        Stored::F16 => Dtype::F16,
        Stored::BF16 => Dtype::BF16,
        Stored::I32 => Dtype::I32,
        Stored::U32 => Dtype::U32,
        Stored::F32 => Dtype::F32,
        Stored::C64 => Dtype::C64,
        Stored::F64 => Dtype::F64,
        Stored::I64 => Dtype::I64,
        Stored::U64 => Dtype::U64,
        // The crate's list may grow.
        _ => return None,
    };
    Some(known)
}
