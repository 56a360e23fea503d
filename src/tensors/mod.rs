//! Second stage: what the file holds, named and typed, and how its bytes become numbers.
//!
//! A [`Tensor`] is a name, a type, a shape and a [`Content`]: a byte range that its format's reader
//! has already checked against the file, or an [`Encoding`] that computes the elements from such
//! ranges. Nothing here knows how a file is laid out or what a weight is for.

mod decode;
mod float8;
mod strided;

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;

pub use decode::{Survey, decode, survey};
pub use strided::Strided;

/// Element types that occur in checkpoints, under the names of the safetensors format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are the format's own
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    F8E4M3Fnuz,
    F8E5M2Fnuz,
    F8E8M0,
    F6E2M3,
    F6E3M2,
    F4,
    C64,
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
}

/// What may be done with the elements of a [`Dtype`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Real numbers that mean what they say.
    Real,
    /// Complex numbers, two reals each.
    Complex,
    /// 8-bit floats: usually stored with a scale elsewhere, so their values alone mean little.
    Float8,
    /// Floats below 8 bits, and pure exponents: never a weight without their scales.
    Packed,
    /// Integers and booleans: indices, masks, or packed quantised weights.
    Integer,
}

impl Dtype {
    /// The name that reports use, as in safetensors: `F32`, `BF16`, `F8_E4M3`, …
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F64 => "F64",
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::F8E4M3 => "F8_E4M3",
            Dtype::F8E5M2 => "F8_E5M2",
            Dtype::F8E4M3Fnuz => "F8_E4M3FNUZ",
            Dtype::F8E5M2Fnuz => "F8_E5M2FNUZ",
            Dtype::F8E8M0 => "F8_E8M0",
            Dtype::F6E2M3 => "F6_E2M3",
            Dtype::F6E3M2 => "F6_E3M2",
            Dtype::F4 => "F4",
            Dtype::C64 => "C64",
            Dtype::Bool => "BOOL",
            Dtype::U8 => "U8",
            Dtype::I8 => "I8",
            Dtype::U16 => "U16",
            Dtype::I16 => "I16",
            Dtype::U32 => "U32",
            Dtype::I32 => "I32",
            Dtype::U64 => "U64",
            Dtype::I64 => "I64",
        }
    }

    /// Bits per element.
    pub const fn bits(self) -> usize {
        match self {
            Dtype::F64 | Dtype::C64 | Dtype::U64 | Dtype::I64 => 64,
            Dtype::F32 | Dtype::U32 | Dtype::I32 => 32,
            Dtype::F16 | Dtype::BF16 | Dtype::U16 | Dtype::I16 => 16,
            Dtype::F8E4M3
            | Dtype::F8E5M2
            | Dtype::F8E4M3Fnuz
            | Dtype::F8E5M2Fnuz
            | Dtype::F8E8M0
            | Dtype::Bool
            | Dtype::U8
            | Dtype::I8 => 8,
            Dtype::F6E2M3 | Dtype::F6E3M2 => 6,
            Dtype::F4 => 4,
        }
    }

    /// What may be done with the elements.
    pub const fn kind(self) -> Kind {
        match self {
            Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 => Kind::Real,
            Dtype::C64 => Kind::Complex,
            Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::F8E4M3Fnuz | Dtype::F8E5M2Fnuz => Kind::Float8,
            Dtype::F8E8M0 | Dtype::F6E2M3 | Dtype::F6E3M2 | Dtype::F4 => Kind::Packed,
            _ => Kind::Integer,
        }
    }

    /// The relative spacing of the stored type, where weights are kept at full precision: the
    /// `below-storage-precision` warning is about F32 and F64 only.
    pub const fn storage_epsilon(self) -> Option<f64> {
        match self {
            Dtype::F64 => Some(f64::EPSILON),
            Dtype::F32 | Dtype::C64 => Some(f32::EPSILON as f64),
            _ => None,
        }
    }
}

/// Bytes of a checkpoint's files, by checked range.
pub trait Bytes: Sync {
    /// The bytes of a range of a file, by the file's number.
    ///
    /// # Errors
    /// [`crate::Error::Changed`] where the file does not, or no longer, hold them;
    /// [`crate::Error::Io`].
    fn bytes(&self, file: usize, range: Range<u64>) -> Result<Cow<'_, [u8]>>;

    /// Says that a range will be asked for soon, so that it can be read meanwhile. A hint: it takes
    /// no memory of the process, waits for nothing, and may do nothing.
    fn will_need(&self, file: usize, range: Range<u64>) {
        let _ = (file, range);
    }
}

/// Elements that do not stand in a file as they are: quantised ones, views with strides, sums of a
/// weight and its adapters. They are computed when a matrix is measured, never all at once.
pub trait Encoding: Debug + Send + Sync {
    /// What reports call the stored form: `Q4_K`, `GPTQ 4-bit`; the plain type's name for a view.
    fn name(&self) -> Cow<'static, str>;

    /// The file that holds the largest part of the bytes, by its number.
    fn file(&self) -> usize;

    /// Bytes in the files.
    fn stored_bytes(&self) -> u64;

    /// Elements that are decoded together, at least 1: who goes through a tensor piece by piece asks
    /// for multiples of it.
    fn granule(&self) -> usize {
        1
    }

    /// Passes what [`decode`](Self::decode) will read for these elements to [`Bytes::will_need`].
    fn will_need(&self, files: &dyn Bytes, elements: Range<usize>) {
        let _ = (files, elements);
    }

    /// Why the elements cannot be had, where this version has no decoder for the stored form: the
    /// tensor is listed and skipped with this reason.
    fn unread(&self) -> Option<String> {
        None
    }

    /// The row-major elements of a range, as little-endian numbers of the tensor's `dtype`:
    /// exactly `elements.len()` of them. The range lies within the tensor.
    ///
    /// # Errors
    /// Those of [`Bytes::bytes`], and [`crate::Error::Malformed`] where the stored form turns out
    /// to break its own rules.
    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>>;

    /// The names of the stored tensors that it is computed from, the weight's own or the packed one
    /// first; none where that is one tensor of the same name.
    fn sources(&self) -> &[String] {
        &[]
    }

    /// The rank of an adapter's update ΔW without its base, which is a product of two factors and no
    /// weight; `None` for everything else.
    fn update_rank(&self) -> Option<usize> {
        None
    }

    /// The factors of such an update.
    ///
    /// # Errors
    /// Those of [`Encoding::decode`].
    fn factors(&self, files: &dyn Bytes) -> Result<Option<Factors>> {
        let _ = files;
        Ok(None)
    }
}

/// An update of low rank: scale · left · rightᵀ, a matrix of the first dimension of the tensor's
/// shape by all the others together.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// rows × rank, column by column.
    pub left: Vec<f64>,
    /// columns × rank, column by column.
    pub right: Vec<f64>,
    /// The number of columns of both, at least 1.
    pub rank: usize,
    /// What the product is multiplied by.
    pub scale: f64,
}

/// Where the elements of a tensor come from.
#[derive(Clone, Debug)]
pub enum Content {
    /// They lie in a file, row by row, in the tensor's type.
    Stored {
        /// Which of the checkpoint's files.
        file: usize,
        /// Where in that file; already checked against its length.
        bytes: Range<u64>,
    },
    /// They are computed from what lies in the files.
    Encoded(Arc<dyn Encoding>),
}

/// One tensor of a checkpoint, as its reader found it.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The name in the checkpoint, unescaped.
    pub name: String,
    /// The element type; of an encoded tensor, that of the decoded elements.
    pub dtype: Dtype,
    /// The shape, outermost dimension first; the elements are in row-major order.
    pub shape: Vec<usize>,
    /// The number of elements: the product of the shape, already checked against overflow.
    pub elements: usize,
    /// Where the elements come from.
    pub content: Content,
    /// Other names of the same bytes (tied weights).
    pub aliases: Vec<String>,
}

impl Tensor {
    /// The file that holds it, or the largest part of it.
    pub fn file(&self) -> usize {
        match &self.content {
            Content::Stored { file, .. } => *file,
            Content::Encoded(encoding) => encoding.file(),
        }
    }

    /// Its bytes in the files.
    pub fn stored_bytes(&self) -> u64 {
        match &self.content {
            Content::Stored { bytes, .. } => bytes.end - bytes.start,
            Content::Encoded(encoding) => encoding.stored_bytes(),
        }
    }

    /// What reports call the form in which it is stored: its type, or its encoding.
    pub fn stored_as(&self) -> Cow<'static, str> {
        match &self.content {
            Content::Stored { .. } => Cow::Borrowed(self.dtype.name()),
            Content::Encoded(encoding) => encoding.name(),
        }
    }

    /// The names of the tensors in the files that its elements are computed from.
    pub fn sources(&self) -> &[String] {
        match &self.content {
            Content::Encoded(encoding) if !encoding.sources().is_empty() => encoding.sources(),
            _ => std::slice::from_ref(&self.name),
        }
    }

    /// See [`Encoding::update_rank`].
    pub fn update_rank(&self) -> Option<usize> {
        match &self.content {
            Content::Stored { .. } => None,
            Content::Encoded(encoding) => encoding.update_rank(),
        }
    }

    /// See [`Encoding::factors`].
    ///
    /// # Errors
    /// Those of [`Encoding::factors`].
    pub fn factors(&self, files: &dyn Bytes) -> Result<Option<Factors>> {
        match &self.content {
            Content::Stored { .. } => Ok(None),
            Content::Encoded(encoding) => encoding.factors(files),
        }
    }

    /// The numbers that were trained for it: its elements, or those of an update's factors.
    pub fn parameters(&self) -> u64 {
        let rows = self.shape.first().copied().unwrap_or(1).max(1);
        let sides = (rows as u64).saturating_add((self.elements / rows) as u64);
        self.update_rank().map_or(self.elements as u64, |rank| sides.saturating_mul(rank as u64))
    }

    /// Why its elements cannot be had; see [`Encoding::unread`].
    pub fn unread(&self) -> Option<String> {
        match &self.content {
            Content::Stored { .. } => None,
            Content::Encoded(encoding) => encoding.unread(),
        }
    }

    /// Elements that are best read together; see [`Encoding::granule`].
    pub fn granule(&self) -> usize {
        match &self.content {
            Content::Stored { .. } => 1,
            Content::Encoded(encoding) => encoding.granule().max(1),
        }
    }

    /// Says that some of its elements will be read soon; see [`Bytes::will_need`].
    pub fn will_need(&self, files: &dyn Bytes, elements: Range<usize>) {
        match &self.content {
            Content::Stored { file, bytes } => files.will_need(*file, self.place(bytes, elements)),
            Content::Encoded(encoding) => encoding.will_need(files, elements),
        }
    }

    /// Where some of the elements lie in the file that holds all of them at `bytes`.
    fn place(&self, bytes: &Range<u64>, elements: Range<usize>) -> Range<u64> {
        let at = |element: usize| {
            let bits = element as u128 * self.dtype.bits() as u128;
            u64::try_from(bits / 8).unwrap_or(u64::MAX).saturating_add(bytes.start)
        };
        at(elements.start)..at(elements.end)
    }

    /// Some of its elements, as little-endian numbers of its type, the first of them first.
    ///
    /// # Errors
    /// [`crate::Error::Changed`] where the elements lie outside the tensor or its file, and those
    /// of [`Encoding::decode`].
    pub fn read<'a>(&self, files: &'a dyn Bytes, elements: Range<usize>) -> Result<Cow<'a, [u8]>> {
        match &self.content {
            Content::Stored { file, bytes } => {
                let range = self.place(bytes, elements);
                // Beyond the tensor: an empty file range at an impossible place is refused there.
                let range = if range.end > bytes.end { u64::MAX..u64::MAX } else { range };
                files.bytes(*file, range)
            }
            Content::Encoded(encoding) => encoding.decode(files, elements).map(Cow::Owned),
        }
    }

    /// The last segment of the dotted name (`weight`), and the module that it belongs to: the
    /// segment before it, or itself where it is a parameter of its own (`in_proj_weight`).
    pub fn parameter_and_owner(&self) -> (&str, &str) {
        let mut segments = self.name.rsplit('.');
        let parameter = segments.next().unwrap_or_default();
        match segments.next() {
            Some(owner) if parameter == "weight" => (parameter, owner),
            _ => (parameter, parameter),
        }
    }
}
