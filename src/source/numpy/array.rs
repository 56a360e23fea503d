//! Arrays whose elements must be computed: inflated, put into row-major order, or with their bytes
//! swapped.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::advanced;
use crate::error::{Error, Result};
use crate::tensors::{Bytes, Dtype, Encoding};
use crate::text::{self, printable};

/// Where the bytes of an array's data are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In the file, as they are.
    Stored(Range<u64>),
    /// In a deflated member, behind its first `skip` bytes of content.
    Deflated { packed: Range<u64>, length: u64, crc32: u32, skip: u64 },
}

impl Source {
    /// Without its first bytes.
    pub fn skip(self, count: u64) -> Source {
        match self {
            Source::Stored(bytes) => Source::Stored(advanced(&bytes, count)),
            Source::Deflated { packed, length, crc32, skip } => {
                Source::Deflated { packed, length, crc32, skip: skip.saturating_add(count) }
            }
        }
    }
}

/// The one array of a file that is kept when it was computed: a stack of matrices is asked for part
/// by part, and each of them would compute all of it again.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<(Start, Arc<Vec<u8>>)>>);

/// What tells the arrays of one file apart: where they begin.
type Start = u64;

/// An array that does not stand in the file as it is.
#[derive(Debug)]
pub(super) struct Array {
    /// For messages: decoding knows the file by its number only.
    pub path: PathBuf,
    pub name: String,
    pub file: usize,
    pub source: Source,
    pub dtype: Dtype,
    /// Bytes of a big-endian word; 1 for none to swap.
    pub swap: usize,
    pub shape: Vec<usize>,
    pub elements: usize,
    pub fortran: bool,
    pub slot: Arc<Slot>,
}

impl Array {
    fn width(&self) -> usize {
        self.dtype.bits() / 8
    }

    /// The bytes of some of the stored elements, in the order in which they are stored.
    fn stored<'a>(&self, files: &'a dyn Bytes, elements: Range<usize>) -> Result<Cow<'a, [u8]>> {
        let (start, end) = (elements.start * self.width(), elements.end * self.width());
        match &self.source {
            Source::Stored(bytes) => {
                let from = bytes.start.saturating_add(start as u64);
                files.bytes(self.file, from..bytes.start.saturating_add(end as u64))
            }
            Source::Deflated { packed, length, crc32, skip } => {
                let packed = files.bytes(self.file, packed.clone())?;
                let mut content =
                    inflate(&packed, *length, *crc32).map_err(|reason| self.malformed(&reason))?;
                let skip = usize::try_from(*skip).unwrap_or(usize::MAX);
                content.truncate(skip.saturating_add(end));
                content.drain(..content.len().min(skip.saturating_add(start)));
                Ok(Cow::Owned(content))
            }
        }
    }

    fn compute(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let mut out = if self.fortran {
            let stored = self.stored(files, 0..self.elements)?;
            from_fortran(&stored, &self.shape, self.width(), elements)
        } else {
            self.stored(files, elements)?.into_owned()
        };
        if self.swap > 1 {
            out.chunks_exact_mut(self.swap).for_each(<[u8]>::reverse);
        }
        Ok(out)
    }

    /// The whole array, from the slot or for it.
    fn whole(&self, files: &dyn Bytes) -> Result<Arc<Vec<u8>>> {
        let key = match &self.source {
            Source::Stored(bytes) => bytes.start,
            Source::Deflated { packed, .. } => packed.start,
        };
        // Held while computing: who waits wants the same array, or would only compete for memory.
        let mut slot = self.slot.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((kept, array)) = slot.as_ref()
            && *kept == key
        {
            return Ok(Arc::clone(array));
        }
        *slot = None;
        let array = Arc::new(self.compute(files, 0..self.elements)?);
        *slot = Some((key, Arc::clone(&array)));
        Ok(array)
    }

    fn malformed(&self, reason: &str) -> Error {
        let reason = format!("the array `{}`: {reason}", printable(&self.name));
        Error::Malformed { path: self.path.clone(), format: "npz", reason }
    }

    /// Whether a part of it costs as much as the whole.
    fn is_whole(&self) -> bool {
        self.fortran || matches!(self.source, Source::Deflated { .. })
    }
}

impl Encoding for Array {
    fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(self.dtype.name())
    }

    fn file(&self) -> usize {
        self.file
    }

    fn stored_bytes(&self) -> u64 {
        match &self.source {
            Source::Stored(bytes) => bytes.end - bytes.start,
            Source::Deflated { packed, .. } => packed.end - packed.start,
        }
    }

    fn granule(&self) -> usize {
        if self.is_whole() { self.elements } else { 1 }
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        if !self.is_whole() || self.shape.len() < 3 {
            return self.compute(files, elements);
        }
        let whole = self.whole(files)?;
        let part = whole.get(elements.start * self.width()..elements.end * self.width());
        Ok(part.unwrap_or_default().to_vec())
    }
}

/// Row-major elements out of column-major ones.
fn from_fortran(stored: &[u8], shape: &[usize], width: usize, elements: Range<usize>) -> Vec<u8> {
    let mut out = Vec::with_capacity(elements.len() * width);
    // The place of the first element, dimension by dimension from the innermost one.
    let mut rest = elements.start;
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|dim| {
            let at = rest % (*dim).max(1);
            rest /= (*dim).max(1);
            at
        })
        .collect();
    let mut strides: Vec<usize> = shape
        .iter()
        .scan(1, |stride, dim| {
            let now = *stride;
            *stride *= dim;
            Some(now)
        })
        .collect();
    strides.reverse();
    let mut at: usize = index.iter().zip(&strides).map(|(i, stride)| i * stride).sum();
    for _ in elements {
        let element = stored.get(at * width..(at + 1) * width).unwrap_or_default();
        out.extend_from_slice(element);
        for ((i, stride), dim) in index.iter_mut().zip(&strides).zip(shape.iter().rev()) {
            *i += 1;
            at += stride;
            if *i < *dim {
                break;
            }
            at -= stride * *dim;
            *i = 0;
        }
    }
    out
}

/// The first bytes of a deflated content: as many as `wanted` asks for when it sees the first few.
pub(super) fn inflate_head(
    packed: &[u8],
    length: u64,
    wanted: impl Fn(&[u8]) -> usize,
) -> std::result::Result<Vec<u8>, String> {
    const FIRST: usize = 128;
    let up_to = |count: usize| {
        let mut out = Vec::with_capacity(count.min(usize::try_from(length).unwrap_or(usize::MAX)));
        let mut state = Decompress::new(false);
        // One call fills the vector's capacity, or ends at the end of the data.
        state.decompress_vec(packed, &mut out, FlushDecompress::Finish).map(|_| out)
    };
    let damaged = |_| "its compressed data are damaged".to_owned();
    let head = up_to(FIRST).map_err(damaged)?;
    let count = wanted(&head);
    if count <= head.len() { Ok(head) } else { up_to(count).map_err(damaged) }
}

/// A deflated content, which must be exactly as long as the archive says.
fn inflate(packed: &[u8], length: u64, crc32: u32) -> std::result::Result<Vec<u8>, String> {
    let length = usize::try_from(length).map_err(|_| "an array is too large for this machine")?;
    let mut out = Vec::with_capacity(length);
    let mut state = Decompress::new(false);
    let status = state.decompress_vec(packed, &mut out, FlushDecompress::Finish);
    let ended = matches!(status, Ok(Status::StreamEnd)) && state.total_in() == packed.len() as u64;
    // A content that fills the buffer to the last byte may need one more look to see its end.
    let ended = ended
        || out.len() == length && {
            let rest =
                packed.get(usize::try_from(state.total_in()).unwrap_or(usize::MAX)..).unwrap_or_default();
            let mut none = [0u8; 1];
            let last = state.decompress(rest, &mut none, FlushDecompress::Finish);
            matches!(last, Ok(Status::StreamEnd))
                && state.total_in() == packed.len() as u64
                && state.total_out() == length as u64
        };
    let mut crc = Crc::new();
    crc.update(&out);
    if !ended || out.len() != length || crc.sum() != crc32 {
        return Err(format!("its compressed data are damaged: they do not inflate to its {length} bytes"));
    }
    Ok(out)
}

/// A shape in the machine's own integers.
pub(super) struct Bounds {
    pub shape: Vec<usize>,
    pub elements: usize,
}

/// Checks that a shape has exactly as many bytes as there are.
pub(super) fn bounds(shape: &[u64], dtype: Dtype, bytes: u64) -> std::result::Result<Bounds, String> {
    let overflow = || "has a shape whose size overflows".to_owned();
    let shape: Vec<usize> =
        shape.iter().map(|d| usize::try_from(*d).ok()).collect::<Option<_>>().ok_or_else(overflow)?;
    // Also without its zeros the product must fit: a later stage multiplies some of the dimensions.
    shape.iter().filter(|d| **d != 0).try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(overflow)?;
    let elements: usize = shape.iter().product();
    if elements as u128 * (dtype.bits() / 8) as u128 != u128::from(bytes) {
        return Err(format!(
            "an array of shape {} and type {} needs {} bytes, but has {bytes}",
            text::shape(&shape),
            dtype.name(),
            elements as u128 * (dtype.bits() / 8) as u128
        ));
    }
    Ok(Bounds { shape, elements })
}
