//! What the layouts' arithmetic shares: reading companions as numbers, decoding whole rows, rounding
//! to the type that a tool dequantises to.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::error::Result;
use crate::tensors::{Bytes, Dtype, Encoding, Kind, Tensor, decode};

/// The arithmetic of a layout: which numbers its packed tensors stand for.
pub(super) trait Values: Debug + Send + Sync {
    /// See [`Encoding::granule`].
    fn granule(&self) -> usize;

    /// See [`Encoding::decode`]; the numbers are F32.
    ///
    /// # Errors
    /// Those of reading.
    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>>;
}

/// A quantised weight as an [`Encoding`].
#[derive(Debug)]
struct Quantised<V> {
    name: String,
    parts: Vec<String>,
    file: usize,
    stored_bytes: u64,
    values: V,
}

/// The encoding of a weight: `name` is what reports call it, `packed` holds most of the bytes,
/// `companions` are the other tensors that it is computed from.
pub(super) fn encoding(
    name: String,
    packed: &Tensor,
    companions: &[&Tensor],
    values: impl Values + 'static,
) -> Arc<dyn Encoding> {
    let parts = std::iter::once(packed).chain(companions.iter().copied());
    Arc::new(Quantised {
        name,
        parts: parts.map(|tensor| tensor.name.clone()).collect(),
        file: packed.file(),
        stored_bytes: packed.stored_bytes(),
        values,
    })
}

impl<V: Values> Encoding for Quantised<V> {
    fn name(&self) -> std::borrow::Cow<'static, str> {
        self.name.clone().into()
    }

    fn file(&self) -> usize {
        self.file
    }

    fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    fn sources(&self) -> &[String] {
        &self.parts
    }

    fn granule(&self) -> usize {
        self.values.granule()
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        self.values.decode(files, elements)
    }
}

/// The type whose precision a tool's dequantised numbers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    F32,
    F16,
    BF16,
}

impl Rounding {
    /// Tools compute in the type of the scales.
    pub fn of(scales: Dtype) -> Option<Rounding> {
        match scales {
            Dtype::F32 => Some(Rounding::F32),
            Dtype::F16 => Some(Rounding::F16),
            Dtype::BF16 => Some(Rounding::BF16),
            _ => None,
        }
    }

    /// Rounds products of numbers that are exact in F32: once, as the tools do.
    pub fn apply(self, values: &mut [f32]) {
        match self {
            Rounding::F32 => {}
            Rounding::F16 => values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32()),
            Rounding::BF16 => values.iter_mut().for_each(|v| *v = bf16::from_f32(*v).to_f32()),
        }
    }
}

/// Decodes a range of a matrix with `cols` columns in panels of up to `panel` whole rows: `fill`
/// gets the numbers of the rows and the panel's elements. Rows that the range only touches are
/// decoded as a whole and cut.
pub(super) fn by_rows(
    elements: Range<usize>,
    cols: usize,
    panel: usize,
    mut fill: impl FnMut(Range<usize>, &mut [f32]) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 4 * elements.len()];
    if elements.is_empty() || cols == 0 {
        return Ok(bytes);
    }
    let rows = elements.start / cols..elements.end.div_ceil(cols);
    let panel = panel.clamp(1, rows.len());
    let mut buffer = vec![0f32; panel * cols];
    let (mut slots, _) = bytes.as_chunks_mut::<4>();
    for start in rows.clone().step_by(panel) {
        let end = rows.end.min(start + panel);
        let Some(out) = buffer.get_mut(..(end - start) * cols) else { break };
        fill(start..end, out)?;
        let from = elements.start.saturating_sub(start * cols);
        let to = (elements.end - start * cols).min(out.len());
        let wanted = out.get(from..to).unwrap_or_default();
        let (now, later) = slots.split_at_mut(wanted.len().min(slots.len()));
        for (slot, value) in now.iter_mut().zip(wanted) {
            *slot = value.to_le_bytes();
        }
        slots = later;
    }
    Ok(bytes)
}

/// Elements of a tensor of real numbers or 8-bit integers, as F32.
pub(super) fn numbers(tensor: &Tensor, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<f32>> {
    let bytes = tensor.read(files, elements.clone())?;
    Ok(match tensor.dtype {
        Dtype::I8 => bytes.iter().map(|byte| f32::from(byte.cast_signed())).collect(),
        // The exponents of the microscaling formats: powers of two.
        Dtype::U8 | Dtype::F8E8M0 => bytes.iter().map(|byte| power_of_two(*byte)).collect(),
        dtype if matches!(dtype.kind(), Kind::Real | Kind::Float8) => {
            let mut values = vec![0.0; elements.len()];
            decode(dtype, &bytes, 0, 1, &mut values);
            values.iter().map(|value| *value as f32).collect()
        }
        _ => vec![f32::NAN; elements.len()],
    })
}

/// 2^(s − 127); 255 is not a number in the format, and not finite here.
pub(super) fn power_of_two(exponent: u8) -> f32 {
    match exponent {
        0 => f32::from_bits(1 << 22),
        s => f32::from_bits(u32::from(s) << 23),
    }
}

/// Elements of a tensor of 32-bit integers.
pub(super) fn words(bytes: &[u8]) -> &[[u8; 4]] {
    bytes.as_chunks::<4>().0
}

/// Whether a tensor holds 32-bit integers, the words of packed ones.
pub(super) fn is_words(tensor: &Tensor) -> bool {
    matches!(tensor.dtype, Dtype::I32 | Dtype::U32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_across_rows_are_cut_at_both_ends() {
        for panel in [1, 2, 3, 100] {
            let fill = |rows: Range<usize>, out: &mut [f32]| {
                let first = rows.start * 5;
                out.iter_mut().enumerate().for_each(|(i, value)| *value = (first + i) as f32);
                Ok(())
            };
            for start in 0..20 {
                for end in start..=20 {
                    let bytes = by_rows(start..end, 5, panel, fill).unwrap();
                    let found: Vec<f32> = words(&bytes).iter().map(|b| f32::from_le_bytes(*b)).collect();
                    let expected: Vec<f32> = (start..end).map(|i| i as f32).collect();
                    assert_eq!(found, expected, "{start}..{end} in panels of {panel}");
                }
            }
        }
    }

    #[test]
    fn exponents() {
        assert_eq!(power_of_two(127), 1.0);
        assert_eq!(power_of_two(0), 2f32.powi(-127));
        assert_eq!(power_of_two(254), 2f32.powi(127));
        assert!(!power_of_two(255).is_finite());
    }
}
