//! From a tensor's description to its elements: raw bytes, typed data, or data in another file.
//!
//! All are checked here against the shape; raw bytes are never copied.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::encodings::{MARK, Varints};
use super::model::{External, Proto};
use super::wire::Wire;
use crate::source::problem::{Checked, rule};
use crate::tensors::{Content, Dtype, Tensor};
use crate::text::{self, printable};

/// The elements of a tensor.
#[derive(Debug)]
pub(super) enum Values {
    /// Numbers of a type that every format has.
    Plain(Tensor),
    /// Integers of four bits, two in a byte, the first one low; the tensor is that of the bytes.
    Nibbles { bytes: Tensor, shape: Vec<usize>, elements: usize, signed: bool },
    /// Not to be read, and why.
    Unread(String),
}

/// Where the data of a model may be.
pub(super) struct Places<'a, 'f> {
    pub wire: &'a Wire<'f>,
    /// The number of the model's own file.
    pub file: usize,
    /// Number and length of the files of external data, by location.
    pub externals: HashMap<String, (usize, u64)>,
}

/// ONNX's types: what the elements are.
enum Element {
    Number(Dtype),
    Nibble { signed: bool },
    Other(&'static str),
}

fn element(data_type: u64) -> Option<Element> {
    Some(Element::Number(match data_type {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        4 => Dtype::U16,
        5 => Dtype::I16,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::Bool,
        10 => Dtype::F16,
        11 => Dtype::F64,
        12 => Dtype::U32,
        13 => Dtype::U64,
        14 => Dtype::C64,
        16 => Dtype::BF16,
        17 => Dtype::F8E4M3,
        18 => Dtype::F8E4M3Fnuz,
        19 => Dtype::F8E5M2,
        20 => Dtype::F8E5M2Fnuz,
        24 => Dtype::F8E8M0,
        21 => return Some(Element::Nibble { signed: false }),
        22 => return Some(Element::Nibble { signed: true }),
        8 => return Some(Element::Other("texts")),
        15 => return Some(Element::Other("complex numbers of 128 bits")),
        23 => return Some(Element::Other("floats of 4 bits")),
        25 | 26 => return Some(Element::Other("integers of 2 bits")),
        _ => return None,
    }))
}

/// The field of typed data that a type uses.
fn typed_field(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::F32 | Dtype::C64 => 4,
        Dtype::I64 => 7,
        Dtype::F64 => 10,
        Dtype::U32 | Dtype::U64 => 11,
        _ => 5,
    }
}

/// Finds and checks the data of a tensor.
pub(super) fn values(proto: &Proto, places: &Places) -> Checked<Values> {
    let name = printable(&proto.name);
    let element = match element(proto.data_type) {
        Some(Element::Other(what)) => return Ok(Values::Unread(format!("{what}, which are not read"))),
        Some(element) => element,
        None => {
            return rule(format!(
                "the tensor `{name}` has the type {}, which this version does not know",
                proto.data_type
            ));
        }
    };
    if proto.segmented {
        return Ok(Values::Unread("stored in segments, which are not read".to_owned()));
    }
    let Some((shape, elements)) = checked_shape(&proto.dims) else {
        return rule(format!("the tensor `{name}` has a shape whose size overflows"));
    };
    let plain = |dtype: Dtype, shape: Vec<usize>, elements: usize| {
        let content = content(proto, dtype, elements, &shape, places)?;
        Ok(Tensor { name: proto.name.clone(), dtype, shape, elements, content, aliases: Vec::new() })
    };
    match element {
        Element::Number(dtype) => plain(dtype, shape, elements).map(Values::Plain),
        Element::Nibble { signed } => {
            let count = elements.div_ceil(2);
            let bytes = plain(Dtype::U8, vec![count], count)?;
            Ok(Values::Nibbles { bytes, shape, elements, signed })
        }
        Element::Other(_) => Ok(Values::Unread(String::new())),
    }
}

/// The shape in the machine's own integers and the number of elements. Also without its zeros the
/// product must fit: a later stage multiplies some of the dimensions.
fn checked_shape(dims: &[u64]) -> Option<(Vec<usize>, usize)> {
    let shape: Vec<usize> = dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>()?;
    shape.iter().filter(|d| **d != 0).try_fold(1usize, |n, d| n.checked_mul(*d))?;
    let elements = shape.iter().product();
    Some((shape, elements))
}

fn content(
    proto: &Proto,
    dtype: Dtype,
    elements: usize,
    shape: &[usize],
    places: &Places,
) -> Checked<Content> {
    let needed = elements as u128 * (dtype.bits() / 8) as u128;
    let (file, bytes) = match (&proto.external, &proto.raw, &proto.typed) {
        (Some(external), raw, typed)
            if raw.as_ref().is_none_or(|raw| raw.is_empty())
                && typed.as_ref().is_none_or(|(_, typed)| typed.is_empty()) =>
        {
            external_place(proto, external, needed, places)?
        }
        (Some(_), _, _) => {
            return rule(format!(
                "the tensor `{}` has data in the model and in another file",
                printable(&proto.name)
            ));
        }
        (None, Some(raw), None) => (places.file, raw.clone()),
        (None, Some(raw), Some((_, typed))) if typed.is_empty() => (places.file, raw.clone()),
        (None, Some(_), Some(_)) => {
            return rule(format!("the tensor `{}` has both raw and typed data", printable(&proto.name)));
        }
        (None, None, Some((field, place))) => {
            if *field != typed_field(dtype) {
                return rule(format!(
                    "the tensor `{}` of type {} has its data in the wrong field, {field}",
                    printable(&proto.name),
                    dtype.name()
                ));
            }
            if !matches!(dtype, Dtype::F32 | Dtype::F64 | Dtype::C64) {
                return varints(proto, place, dtype, elements, places);
            }
            (places.file, place.clone())
        }
        (None, None, None) => (places.file, 0..0),
    };
    if u128::from(bytes.end - bytes.start) != needed {
        return rule(format!(
            "the tensor `{}` of shape {} and type {} needs {needed} bytes, but has {}",
            printable(&proto.name),
            text::shape(shape),
            dtype.name(),
            bytes.end - bytes.start
        ));
    }
    Ok(Content::Stored { file, bytes })
}

fn external_place(
    proto: &Proto,
    external: &External,
    needed: u128,
    places: &Places,
) -> Checked<(usize, Range<u64>)> {
    let Some((file, file_length)) = places.externals.get(&external.location) else {
        return rule(format!("the tensor `{}` has no file of external data", printable(&proto.name)));
    };
    let length = external.length.map_or(needed, u128::from);
    let end = u128::from(external.offset) + length;
    match u64::try_from(end).ok().filter(|end| end <= file_length) {
        Some(end) => Ok((*file, external.offset..end)),
        None => rule(format!(
            "the tensor `{}` lies at {}..{end} of the {file_length} bytes of `{}` (is that file cut off?)",
            printable(&proto.name),
            external.offset,
            printable(&external.location)
        )),
    }
}

/// Walks over packed numbers once, to count them and to remember where some of them begin.
fn varints(
    proto: &Proto,
    place: &Range<u64>,
    dtype: Dtype,
    elements: usize,
    places: &Places,
) -> Checked<Content> {
    let mut marks = Vec::new();
    let mut rest = place.clone();
    let mut count = 0;
    while rest.start < rest.end {
        if count % MARK == 0 {
            marks.push(rest.start);
        }
        places.wire.varint(&mut rest)?;
        count += 1;
    }
    if count != elements {
        return rule(format!(
            "the tensor `{}` needs {elements} numbers, but has {count}",
            printable(&proto.name)
        ));
    }
    marks.push(place.end);
    Ok(Content::Encoded(Arc::new(Varints { file: places.file, place: place.clone(), dtype, marks })))
}
