//! Quantised weights: (x − zero point) · scale, in single precision, as DequantizeLinear has it, and
//! the blocks of com.microsoft's MatMulNBits.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};

use crate::error::Result;
use crate::tensors::{Bytes, Dtype, Encoding, Tensor, decode};

/// Small integers.
#[derive(Debug)]
pub(super) enum Codes {
    Plain(Tensor),
    /// Two in a byte, the first one low.
    Nibbles {
        bytes: Tensor,
        signed: bool,
    },
}

impl Codes {
    fn tensor(&self) -> &Tensor {
        match self {
            Codes::Plain(tensor) | Codes::Nibbles { bytes: tensor, .. } => tensor,
        }
    }

    fn read(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<f32>> {
        match self {
            Codes::Plain(tensor) => Ok(numbers(tensor.dtype, &tensor.read(files, elements)?)),
            Codes::Nibbles { bytes, signed } => {
                let packed = bytes.read(files, elements.start / 2..elements.end.div_ceil(2))?;
                let code = |at: usize| nibble(&packed, at - elements.start / 2 * 2, *signed);
                Ok(elements.clone().map(code).collect())
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Codes::Plain(tensor) => tensor.dtype.name(),
            Codes::Nibbles { signed: true, .. } => "INT4",
            Codes::Nibbles { signed: false, .. } => "UINT4",
        }
    }
}

/// A number of four bits.
fn nibble(packed: &[u8], at: usize, signed: bool) -> f32 {
    let byte = packed.get(at / 2).copied().unwrap_or_default();
    let code = if at.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
    if signed { f32::from((code << 4).cast_signed() >> 4) } else { f32::from(code) }
}

/// Whether codes, scales and zero points of a type can be widened.
pub(super) fn is_readable(dtype: Dtype) -> bool {
    !matches!(
        dtype,
        Dtype::I64
            | Dtype::U64
            | Dtype::U32
            | Dtype::C64
            | Dtype::Bool
            | Dtype::F8E8M0
            | Dtype::F6E2M3
            | Dtype::F6E3M2
            | Dtype::F4
    )
}

/// Numbers of a readable type in single precision; NaN for any other.
fn numbers(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    let (pairs, _) = bytes.as_chunks::<2>();
    let (fours, _) = bytes.as_chunks::<4>();
    match dtype {
        Dtype::U8 => bytes.iter().map(|b| f32::from(*b)).collect(),
        Dtype::I8 => bytes.iter().map(|b| f32::from(b.cast_signed())).collect(),
        Dtype::U16 => pairs.iter().map(|b| f32::from(u16::from_le_bytes(*b))).collect(),
        Dtype::I16 => pairs.iter().map(|b| f32::from(i16::from_le_bytes(*b))).collect(),
        Dtype::I32 => fours.iter().map(|b| i32::from_le_bytes(*b) as f32).collect(),
        _ if !is_readable(dtype) => vec![f32::NAN; bytes.len() * 8 / dtype.bits()],
        _ => {
            let mut wide = vec![0.0; bytes.len() * 8 / dtype.bits()];
            decode(dtype, bytes, 0, 1, &mut wide);
            wide.into_iter().map(|value| value as f32).collect()
        }
    }
}

/// Appends a number in the type of the scales.
fn push(out: &mut Vec<u8>, dtype: Dtype, value: f32) {
    match dtype {
        Dtype::F16 => out.extend(f16::from_f32(value).to_le_bytes()),
        Dtype::BF16 => out.extend(bf16::from_f32(value).to_le_bytes()),
        _ => out.extend(value.to_le_bytes()),
    }
}

/// Which elements share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Groups {
    /// All.
    Tensor,
    /// Those with the same index on the axis, behind which `inner` elements lie.
    Axis { length: usize, inner: usize },
    /// As many neighbours on the axis as `block` says, with the other indexes equal.
    Block { length: usize, inner: usize, block: usize },
}

impl Groups {
    fn of(self, element: usize) -> usize {
        match self {
            Groups::Tensor => 0,
            Groups::Axis { length, inner } => element / inner % length,
            Groups::Block { length, inner, block } => {
                let (outer, at) = (element / inner / length, element / inner % length);
                (outer * length.div_ceil(block) + at / block) * inner + element % inner
            }
        }
    }

    /// The groups that some neighbouring elements belong to, at most.
    fn span(self, elements: &Range<usize>, count: usize) -> Range<usize> {
        match self {
            Groups::Block { length, inner, block } => {
                let each = length.div_ceil(block) * inner;
                let (first, last) =
                    (elements.start / (length * inner), elements.end.div_ceil(length * inner));
                first * each..(last * each).min(count)
            }
            _ => 0..count,
        }
    }
}

/// A weight with its scales and zero points.
#[derive(Debug)]
pub(super) struct Dequantised {
    pub codes: Codes,
    pub scale: Tensor,
    pub zero: Option<Codes>,
    pub groups: Groups,
}

impl Encoding for Dequantised {
    fn name(&self) -> Cow<'static, str> {
        Cow::Owned(format!("{} with scales", self.codes.name()))
    }

    fn file(&self) -> usize {
        self.codes.tensor().file()
    }

    fn stored_bytes(&self) -> u64 {
        let zero = self.zero.as_ref().map_or(0, |zero| zero.tensor().stored_bytes());
        self.codes.tensor().stored_bytes() + self.scale.stored_bytes() + zero
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let codes = self.codes.read(files, elements.clone())?;
        let span = self.groups.span(&elements, self.scale.elements);
        let scales = numbers(self.scale.dtype, &self.scale.read(files, span.clone())?);
        let zeros = self.zero.as_ref().map(|zero| zero.read(files, span.clone())).transpose()?;
        let mut out = Vec::with_capacity(elements.len() * self.scale.dtype.bits() / 8);
        for (element, code) in elements.zip(codes) {
            let group = self.groups.of(element) - span.start;
            let zero = zeros.as_ref().map_or(0.0, |zeros| zeros.get(group).copied().unwrap_or(f32::NAN));
            let scale = scales.get(group).copied().unwrap_or(f32::NAN);
            push(&mut out, self.scale.dtype, (code - zero) * scale);
        }
        Ok(out)
    }
}

/// The weight of MatMulNBits, [out, in]: each row in blocks of 4- or 8-bit codes, the first one low,
/// each block with a scale and, packed like the codes, a zero point.
#[derive(Debug)]
pub(super) struct Blocks {
    pub codes: Tensor,
    pub scales: Tensor,
    pub zeros: Option<Tensor>,
    pub cols: usize,
    pub bits: usize,
    pub block: usize,
}

impl Blocks {
    fn per_row(&self) -> usize {
        self.cols.div_ceil(self.block)
    }

    /// Bytes of the zero points of a row, where they are packed.
    fn zero_bytes(&self) -> usize {
        self.per_row().saturating_mul(self.bits).div_ceil(8)
    }

    fn code(&self, packed: &[u8], at: usize) -> f32 {
        if self.bits == 4 {
            nibble(packed, at, false)
        } else {
            packed.get(at).map_or(f32::NAN, |b| f32::from(*b))
        }
    }

    /// What the tensors' sizes must be for `rows` rows.
    pub fn fits(&self, rows: usize) -> bool {
        let blocks = rows.checked_mul(self.per_row());
        let bytes = blocks
            .and_then(|n| n.checked_mul(self.block))
            .and_then(|n| n.checked_mul(self.bits))
            .map(|n| n / 8);
        let zeros = self.zeros.as_ref().is_none_or(|zeros| match zeros.dtype {
            Dtype::U8 => Some(zeros.elements) == rows.checked_mul(self.zero_bytes()),
            _ => zeros.dtype == self.scales.dtype && Some(zeros.elements) == blocks,
        });
        Some(self.codes.elements) == bytes && Some(self.scales.elements) == blocks && zeros
    }
}

impl Encoding for Blocks {
    fn name(&self) -> Cow<'static, str> {
        Cow::Owned(format!("MatMulNBits {}-bit", self.bits))
    }

    fn file(&self) -> usize {
        self.codes.file()
    }

    fn stored_bytes(&self) -> u64 {
        let zeros = self.zeros.as_ref().map_or(0, Tensor::stored_bytes);
        self.codes.stored_bytes() + self.scales.stored_bytes() + zeros
    }

    fn granule(&self) -> usize {
        self.cols.max(1)
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let rows = elements.start / self.cols..elements.end.div_ceil(self.cols);
        let (per_row, row_bytes) = (self.per_row(), self.per_row() * self.block * self.bits / 8);
        let codes = self.codes.read(files, rows.start * row_bytes..rows.end * row_bytes)?;
        let groups = rows.start * per_row..rows.end * per_row;
        let scales = numbers(self.scales.dtype, &self.scales.read(files, groups.clone())?);
        let zeros = match &self.zeros {
            Some(zeros) if zeros.dtype == Dtype::U8 => {
                let each = self.zero_bytes();
                let packed = zeros.read(files, rows.start * each..rows.end * each)?;
                let of_row = |row: &[u8]| (0..per_row).map(|at| self.code(row, at)).collect::<Vec<_>>();
                packed.chunks_exact(each.max(1)).flat_map(of_row).collect()
            }
            Some(zeros) => numbers(zeros.dtype, &zeros.read(files, groups)?),
            None => vec![if self.bits == 4 { 8.0 } else { 128.0 }; scales.len()],
        };
        let mut out = Vec::with_capacity(elements.len() * self.scales.dtype.bits() / 8);
        for element in elements {
            let (row, col) = (element / self.cols - rows.start, element % self.cols);
            let group = row * per_row + col / self.block;
            let (scale, zero) = (scales.get(group).copied(), zeros.get(group).copied());
            let code = self.code(&codes, row * per_row * self.block + col);
            push(&mut out, self.scales.dtype, (code - zero.unwrap_or(f32::NAN)) * scale.unwrap_or(f32::NAN));
        }
        Ok(out)
    }
}
