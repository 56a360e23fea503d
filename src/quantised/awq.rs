//! AWQ (Lin et al. 2023, arXiv 2306.00978) as AutoAWQ's `gemm` version stores it.
//!
//! | tensor | shape | holds |
//! |---|---|---|
//! | `qweight` | [in, out/8] | eight 4-bit integers a word, packed along the outputs |
//! | `qzeros` | [groups, out/8] | the zero points, packed alike |
//! | `scales` | [groups, out] | |
//!
//! From the lowest bits on, a word holds its outputs 0, 2, 4, 6, 1, 3, 5, 7.
//! W[o, i] = (q[i, o] − z[g, o])·s[g, o].

use std::ops::Range;

use super::fp8::scale_type;
use super::gptq::{module_of_qweight, neighbours};
use super::packed::{Groups, Steps, field, word};
use super::rows::{Rounding, Values, by_rows, encoding, is_words, words};
use super::scheme::Packing;
use super::{Around, Found, Layout, Refusal, Weight};
use crate::error::Result;
use crate::tensors::{Bytes, Tensor};
use crate::text::shape;

/// Outputs that are decoded together: two words.
const PANEL: usize = 16;
const BITS: usize = 4;
/// Integers in a word.
const IN_WORD: usize = 32 / BITS;
/// Where in its word an output lies, in integers from the lowest bits.
const PLACE: [usize; IN_WORD] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Interleaved integers packed along the outputs.
pub(super) struct Awq;

impl Layout for Awq {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        let module = module_of_qweight(tensor)?;
        if around.scheme.packing() != Ok(Packing::Awq) {
            return None;
        }
        let companions = around.present(["qzeros", "scales"].map(|part| format!("{module}{part}")));
        Some(Found { companions, weight: weight(tensor, module, around) })
    }
}

fn weight(tensor: &Tensor, module: &str, around: &Around) -> Result<Weight, Refusal> {
    let scales = around.need(&format!("{module}scales"), "scales")?;
    let zeros = around.need(&format!("{module}qzeros"), "zero points")?;
    let rounding = Rounding::of(scales.dtype).ok_or_else(|| scale_type(scales.dtype))?;
    if let Some(bits) = around.scheme.bits().filter(|bits| *bits != BITS) {
        return Err(format!("quantised by AWQ in {bits} bits, which this version does not read").into());
    }
    let misfit = || {
        let shapes = [tensor, zeros, scales].map(|t| shape(&t.shape));
        format!(
            "quantised, but qweight {}, qzeros {} and scales {} do not fit",
            shapes[0], shapes[1], shapes[2]
        )
    };
    let (&[inputs, wide], &[groups, zero_words], &[scale_groups, outputs]) =
        (tensor.shape.as_slice(), zeros.shape.as_slice(), scales.shape.as_slice())
    else {
        return Err(misfit().into());
    };
    let fits = wide.checked_mul(IN_WORD) == Some(outputs)
        && zero_words == wide
        && scale_groups == groups
        && is_words(tensor)
        && is_words(zeros);
    if !fits || inputs.checked_mul(outputs).is_none() {
        return Err(misfit().into());
    }
    let groups = neighbours(around.scheme.group_size(inputs), inputs, groups)?;
    let values = Interleaved {
        words: tensor.clone(),
        zeros: zeros.clone(),
        scales: scales.clone(),
        groups,
        inputs,
        outputs,
        rounding,
    };
    Ok(Weight {
        name: format!("{module}weight"),
        shape: vec![outputs, inputs],
        encoding: encoding(format!("AWQ {BITS}-bit"), tensor, &[zeros, scales], values),
    })
}

/// Integers in rows of words: [in, out/8].
#[derive(Debug)]
struct Interleaved {
    words: Tensor,
    zeros: Tensor,
    scales: Tensor,
    groups: Groups,
    inputs: usize,
    outputs: usize,
    rounding: Rounding,
}

impl Values for Interleaved {
    /// The words of an output lie all over the tensor: it is best read once.
    fn granule(&self) -> usize {
        self.inputs.saturating_mul(self.outputs)
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let packed = self.words.read(files, 0..self.words.elements)?;
        let packed = words(&packed);
        let zeros = self.zeros.read(files, 0..self.zeros.elements)?;
        let zeros = words(&zeros);
        let scales = self.scales.read(files, 0..self.scales.elements)?;
        let groups = self.groups.table(files, self.inputs)?;
        let wide = self.outputs / IN_WORD;
        let integer = |bytes: &[[u8; 4]], row: usize, output: usize| {
            let own = word(bytes, row * wide + output / IN_WORD);
            let place = PLACE.get(output % IN_WORD).copied().unwrap_or(0);
            field(|_| own, place * BITS, BITS)
        };
        by_rows(elements, self.inputs, PANEL, |outputs, out| {
            let zero = |group, output| integer(zeros, group, output);
            let steps = Steps::new(&self.scales, &scales, outputs.clone(), zero);
            for (c, line) in out.chunks_exact_mut(self.inputs).enumerate() {
                for (input, (value, group)) in line.iter_mut().zip(&groups).enumerate() {
                    *value = steps.value(*group, c, integer(packed, input, outputs.start + c));
                }
            }
            self.rounding.apply(out);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_undo_the_order_in_a_word() {
        let order = [0, 2, 4, 6, 1, 3, 5, 7];
        for (place, output) in order.into_iter().enumerate() {
            assert_eq!(PLACE[output], place);
        }
    }
}
