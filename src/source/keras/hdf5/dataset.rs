//! Datasets: type, shape, and where the elements lie.

use std::ops::Range;

use super::attribute;
use super::dataspace::{self, Dataspace};
use super::datatype::{self, Kind};
use super::header::{Message, kind, only};
use super::image::{Fields, Image, UNDEFINED};
use crate::source::problem::{Checked, Problem, rule};
use crate::tensors::Dtype;
use crate::text;

/// A dataset as it is stored.
#[derive(Debug)]
pub(in crate::source::keras) struct Dataset {
    /// The names of its groups and its own, with slashes between them.
    pub path: String,
    pub shape: Vec<usize>,
    /// The product of the shape, checked.
    pub elements: usize,
    /// Its elements, or why it has none that are numbers.
    pub content: Result<Content, String>,
}

/// The elements of a dataset.
#[derive(Debug)]
pub(in crate::source::keras) struct Content {
    pub dtype: Dtype,
    /// Where they lie in the whole file: as many as the shape asks for.
    pub bytes: Range<u64>,
}

/// Whether a header with these messages is that of a dataset.
pub(super) fn is_dataset(messages: &[Message]) -> bool {
    messages.iter().any(|message| message.kind == kind::LAYOUT)
}

/// The dataset with these messages.
pub(super) fn parse(image: &Image, messages: &[Message], path: String) -> Checked<Dataset> {
    let required = |kind, what: &str| {
        let found = only(messages, kind, what)?;
        found.ok_or_else(|| Problem::Rule(format!("it has not {what}")))
    };
    let none = |path, reason: &str| {
        Ok(Dataset { path, shape: Vec::new(), elements: 0, content: Err(reason.to_owned()) })
    };
    let dims = match dataspace::parse(&required(kind::DATASPACE, "a dataspace")?.bytes)? {
        Dataspace::Simple(dims) => dims,
        Dataspace::Null => return none(path, "a dataset without elements"),
    };
    let kind = match messages.iter().find(|message| message.kind == kind::DATATYPE) {
        Some(message) if message.shared => Kind::Other("elements of a type that stands elsewhere"),
        _ => datatype::parse(&required(kind::DATATYPE, "a datatype")?.bytes)?,
    };
    let dtype = match kind {
        Kind::Numbers(dtype) => dtype,
        Kind::Opaque(2) if attribute::text(image, messages, "dtype")?.as_deref() == Some("bfloat16") => {
            Dtype::BF16
        }
        Kind::Opaque(size) => return none(path, &format!("opaque elements of {size} bytes")),
        Kind::Other(what) => return none(path, what),
    };
    if messages.iter().any(|message| message.kind == kind::EXTERNAL_FILES) {
        return rule("its elements lie in another file, which is not read");
    }
    let (shape, elements) = shape(&dims)?;
    let wanted = elements as u128 * (dtype.bits() / 8) as u128;
    let (address, size) = place(required(kind::LAYOUT, "a layout")?)?;
    if address == UNDEFINED && wanted > 0 {
        return none(path, "it was never written");
    }
    let (address, size) = if address == UNDEFINED { (0, 0) } else { (address, size) };
    if wanted != u128::from(size) {
        return rule(format!(
            "a dataset of shape {} and type {} needs {wanted} bytes, but has {size}",
            text::shape(&shape),
            dtype.name()
        ));
    }
    let bytes = image.range(address, size, "its data")?;
    Ok(Dataset { path, shape, elements, content: Ok(Content { dtype, bytes }) })
}

/// A shape in the machine's own integers, and its product.
fn shape(dims: &[u64]) -> Checked<(Vec<usize>, usize)> {
    let overflow = || Problem::Rule("it has a shape whose size overflows".to_owned());
    let shape: Vec<usize> =
        dims.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>().ok_or_else(overflow)?;
    // Also without its zeros the product must fit: a later stage multiplies some of the dimensions.
    shape.iter().filter(|d| **d != 0).try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(overflow)?;
    let elements = shape.iter().product();
    Ok((shape, elements))
}

/// Address and size of the elements.
fn place(layout: &Message) -> Checked<(u64, u64)> {
    let mut fields = Fields::new(&layout.bytes, "a layout");
    fields.version(&[3, 4])?;
    match fields.u8()? {
        0 => {
            let size = fields.u16()?;
            let address = layout.address + (layout.bytes.len() - fields.rest().len()) as u64;
            fields.take(usize::from(size))?;
            Ok((address, u64::from(size)))
        }
        1 => Ok((fields.u64()?, fields.u64()?)),
        2 => rule("it is stored in chunks (compressed?), which Keras never does; save it without them"),
        3 => rule("it is a virtual dataset, whose elements lie in other ones"),
        other => rule(format!("it has the unknown layout {other}")),
    }
}
