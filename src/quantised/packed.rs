//! Integers of 2 to 8 bits, packed into 32-bit words, and the groups of inputs that share a scale.

use std::ops::Range;

use super::rows::words;
use crate::error::Result;
use crate::tensors::{Bytes, Tensor, decode};

/// The integer of `bits` bits that begins `first` bits into `words`.
#[inline]
pub(super) fn field(words: impl Fn(usize) -> u32, first: usize, bits: usize) -> u32 {
    let (word, shift) = (first / 32, first % 32);
    let mut value = words(word) >> shift;
    if shift + bits > 32 {
        value |= words(word + 1) << (32 - shift);
    }
    value & mask(bits)
}

/// The lowest `bits` bits, of 1 to 8.
pub(super) const fn mask(bits: usize) -> u32 {
    (1 << bits) - 1
}

/// One word of a tensor's bytes; 0 beyond its end.
#[inline]
pub(super) fn word(bytes: &[[u8; 4]], index: usize) -> u32 {
    bytes.get(index).map_or(0, |word| u32::from_le_bytes(*word))
}

/// Which group an input belongs to.
#[derive(Debug)]
pub(super) enum Groups {
    /// Neighbours, so many in each.
    Of(usize),
    /// A tensor says so for every input (`g_idx`, after an activation order).
    Listed(Tensor),
}

impl Groups {
    /// The group of every input.
    ///
    /// # Errors
    /// Those of reading.
    pub fn table(&self, files: &dyn Bytes, inputs: usize) -> Result<Vec<usize>> {
        match self {
            Groups::Of(size) => Ok((0..inputs).map(|input| input / size).collect()),
            Groups::Listed(tensor) => {
                let bytes = tensor.read(files, 0..inputs)?;
                // A negative number becomes one that no group has.
                let group = |word: &[u8; 4]| usize::try_from(i32::from_le_bytes(*word)).unwrap_or(usize::MAX);
                Ok(words(&bytes).iter().map(group).collect())
            }
        }
    }
}

/// Zero point and scale of every group, for some of the outputs: [groups, outputs].
pub(super) struct Steps {
    pairs: Vec<(f32, f32)>,
    outputs: usize,
}

impl Steps {
    /// From the bytes of scales [groups, outputs] and the zero point of (group, output).
    pub fn new(
        scales: &Tensor,
        bytes: &[u8],
        outputs: Range<usize>,
        zero: impl Fn(usize, usize) -> u32,
    ) -> Steps {
        let &[groups, all] = scales.shape.as_slice() else {
            return Steps { pairs: Vec::new(), outputs: 0 };
        };
        let mut pairs = Vec::with_capacity(groups * outputs.len());
        let mut line = vec![0.0; outputs.len()];
        for group in 0..groups {
            decode(scales.dtype, bytes, group * all + outputs.start, 1, &mut line);
            let pair = |(output, scale): (usize, &f64)| (zero(group, output) as f32, *scale as f32);
            pairs.extend(outputs.clone().zip(&line).map(pair));
        }
        Steps { pairs, outputs: outputs.len() }
    }

    /// (q − z)·s for an output counted from the first one. A group that does not exist is refused
    /// before; should the file have changed since, NaN says so.
    #[inline]
    pub fn value(&self, group: usize, output: usize, q: u32) -> f32 {
        let pair = group.checked_mul(self.outputs).and_then(|first| self.pairs.get(first + output));
        pair.map_or(f32::NAN, |(zero, scale)| (q as f32 - zero) * scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields that straddle two words, against the bits of one long number.
    #[test]
    fn fields_of_every_width() {
        let words = [0xdead_beef_u32, 0x0123_4567, 0x89ab_cdef];
        let long = words.iter().rev().fold(0u128, |n, word| n << 32 | u128::from(*word));
        for bits in 1..=8 {
            for i in 0..96 / bits {
                let found = field(|w| words.get(w).copied().unwrap_or(0), i * bits, bits);
                assert_eq!(
                    u128::from(found),
                    long >> (i * bits) & u128::from(mask(bits)),
                    "{bits} bits, {i}"
                );
            }
        }
    }
}
