//! Tensors whose elements stand in the file, but not in the order or width in which they are wanted.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::Result;
use crate::tensors::{Bytes, Dtype, Encoding, Tensor};

/// A matrix [in, out], as ONNX's MatMul has it, seen as [out, in], as everybody else stores it.
#[derive(Debug)]
pub(super) struct Transposed {
    /// The matrix as it is stored.
    pub of: Tensor,
    pub stored_rows: usize,
    pub stored_cols: usize,
}

impl Encoding for Transposed {
    fn name(&self) -> Cow<'static, str> {
        self.of.stored_as()
    }

    fn file(&self) -> usize {
        self.of.file()
    }

    fn stored_bytes(&self) -> u64 {
        self.of.stored_bytes()
    }

    fn granule(&self) -> usize {
        // A row of the view touches every row of the matrix.
        self.of.elements
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let stored = self.of.read(files, 0..self.of.elements)?;
        Ok(match self.of.dtype.bits() {
            8 => self.gather::<1>(&stored, elements),
            16 => self.gather::<2>(&stored, elements),
            32 => self.gather::<4>(&stored, elements),
            _ => self.gather::<8>(&stored, elements),
        })
    }
}

impl Transposed {
    fn gather<const N: usize>(&self, stored: &[u8], elements: Range<usize>) -> Vec<u8> {
        let (numbers, _) = stored.as_chunks::<N>();
        let mut out = vec![[0u8; N]; elements.len()];
        // Rows of the view, a few at a time, so that the stored rows are read in whole cache lines.
        const TOGETHER: usize = 16;
        let rows = elements.start / self.stored_rows.max(1)..elements.end.div_ceil(self.stored_rows.max(1));
        for first in rows.clone().step_by(TOGETHER) {
            for (col, line) in numbers.chunks_exact(self.stored_cols.max(1)).enumerate() {
                for row in first..rows.end.min(first + TOGETHER) {
                    let at = (row * self.stored_rows + col).checked_sub(elements.start);
                    let place = at.and_then(|at| out.get_mut(at));
                    if let (Some(place), Some(number)) = (place, line.get(row)) {
                        *place = *number;
                    }
                }
            }
        }
        out.into_flattened()
    }
}

/// Runs of another tensor's elements, one after the other: the gates of a recurrent layer in the
/// order of other formats.
#[derive(Debug)]
pub(super) struct Pieces {
    pub of: Tensor,
    /// In the other tensor's elements; none is empty.
    pub runs: Vec<Range<usize>>,
}

impl Encoding for Pieces {
    fn name(&self) -> Cow<'static, str> {
        self.of.stored_as()
    }

    fn file(&self) -> usize {
        self.of.file()
    }

    fn stored_bytes(&self) -> u64 {
        let elements: usize = self.runs.iter().map(Range::len).sum();
        let share = u128::from(self.of.stored_bytes()) * elements as u128 / self.of.elements.max(1) as u128;
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(elements.len() * self.of.dtype.bits() / 8);
        let mut before = 0;
        for run in &self.runs {
            let from = elements.start.clamp(before, before + run.len()) - before;
            let to = elements.end.clamp(before, before + run.len()) - before;
            if from < to {
                out.extend_from_slice(&self.of.read(files, run.start + from..run.start + to)?);
            }
            before += run.len();
        }
        Ok(out)
    }
}

/// Whole numbers, and the bits of small floats, in groups of seven bits (varints).
#[derive(Debug)]
pub(super) struct Varints {
    pub file: usize,
    pub place: Range<u64>,
    pub dtype: Dtype,
    /// Where every [`MARK`]-th number begins, the first included, and the end.
    pub marks: Vec<u64>,
}

/// Numbers between two marks.
pub(super) const MARK: usize = 4096;

impl Encoding for Varints {
    fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(self.dtype.name())
    }

    fn file(&self) -> usize {
        self.file
    }

    fn stored_bytes(&self) -> u64 {
        self.place.end - self.place.start
    }

    fn granule(&self) -> usize {
        MARK
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let mark = |at: usize| self.marks.get(at).copied().unwrap_or(self.place.end);
        let first = elements.start / MARK;
        let bytes = files.bytes(self.file, mark(first)..mark(elements.end.div_ceil(MARK)))?;
        let mut out = Vec::with_capacity(elements.len() * self.dtype.bits() / 8);
        let width = self.dtype.bits() / 8;
        let (mut value, mut shift) = (0u64, 0);
        let mut at = first * MARK;
        for byte in bytes.iter() {
            value |= u64::from(byte & 0x7f) << shift;
            shift = (shift + 7).min(63);
            if byte & 0x80 != 0 {
                continue;
            }
            if elements.contains(&at) {
                out.extend(value.to_le_bytes().into_iter().take(width));
            }
            at += 1;
            (value, shift) = (0, 0);
        }
        // Fewer are there only where the file was changed meanwhile, which is noticed later.
        out.resize(elements.len() * width, 0);
        Ok(out)
    }
}
