//! Datasets: type, shape, and where the elements lie.

use std::ops::Range;

use super::attribute;
use super::chunks::Chunks;
use super::dataspace::{self, Dataspace};
use super::datatype::{self, Kind};
use super::filters;
use super::header::{Message, kind, only};
use super::image::{Fields, Image, UNDEFINED};
use crate::source::problem::{Checked, Problem, rule};
use crate::tensors::Dtype;
use crate::text;

/// A dataset as it is stored.
#[derive(Debug)]
pub(in crate::source) struct Dataset {
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
pub(in crate::source) struct Content {
    pub dtype: Dtype,
    pub place: Place,
}

/// Where elements lie.
#[derive(Debug)]
pub(in crate::source) enum Place {
    /// In one piece of the whole file: as many as the shape asks for.
    Piece(Range<u64>),
    /// In chunks, which their index finds.
    Chunks(Chunks),
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
    let layout = layout(required(kind::LAYOUT, "a layout")?)?;
    let place = match layout {
        Layout::Piece { address, .. } | Layout::Chunks { address, .. }
            if address == UNDEFINED && elements > 0 =>
        {
            return none(path, "it was never written");
        }
        Layout::Chunks { .. } if elements == 0 => Place::Piece(0..0),
        Layout::Chunks { address, dims } => {
            let filters = match only(messages, kind::FILTERS, "a list of filters")? {
                Some(message) => filters::parse(&message.bytes)?,
                None => Vec::new(),
            };
            Place::Chunks(Chunks::new(address, &dims, &shape, dtype, filters)?)
        }
        Layout::Piece { address, size } => {
            let (address, size) = if address == UNDEFINED { (0, 0) } else { (address, size) };
            let wanted = elements as u128 * (dtype.bits() / 8) as u128;
            if wanted != u128::from(size) {
                return rule(format!(
                    "a dataset of shape {} and type {} needs {wanted} bytes, but has {size}",
                    text::shape(&shape),
                    dtype.name()
                ));
            }
            Place::Piece(image.range(address, size, "its data")?)
        }
    };
    Ok(Dataset { path, shape, elements, content: Ok(Content { dtype, place }) })
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

/// What a layout says.
enum Layout {
    /// Address and size of the elements.
    Piece { address: u64, size: u64 },
    /// The address of the index, and the size of a chunk in elements, with an element's bytes at the end.
    Chunks { address: u64, dims: Vec<u32> },
}

fn layout(message: &Message) -> Checked<Layout> {
    let mut fields = Fields::new(&message.bytes, "a layout");
    let version = fields.version(&[3, 4])?;
    match fields.u8()? {
        0 => {
            let size = fields.u16()?;
            let address = message.address + (message.bytes.len() - fields.rest().len()) as u64;
            fields.take(usize::from(size))?;
            Ok(Layout::Piece { address, size: u64::from(size) })
        }
        1 => Ok(Layout::Piece { address: fields.u64()?, size: fields.u64()? }),
        2 if version == 3 => {
            let rank = usize::from(fields.u8()?);
            let address = fields.u64()?;
            Ok(Layout::Chunks { address, dims: (0..rank).map(|_| fields.u32()).collect::<Checked<_>>()? })
        }
        2 => rule(
            "it is stored in chunks with an index of HDF5 1.10, which this version does not read; save it without \
             h5py's libver='latest'",
        ),
        3 => rule("it is a virtual dataset, whose elements lie in other ones"),
        other => rule(format!("it has the unknown layout {other}")),
    }
}
