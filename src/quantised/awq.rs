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

use super::packed::{Groups, field, word};
use super::qweight::{Qweight, module_of, neighbours};
use super::rows::{Values, encoding};
use super::scheme::Packing;
use super::{Around, Found, Layout, Refusal, Weight};
use crate::error::Result;
use crate::tensors::{Bytes, Tensor};

const BITS: usize = 4;
/// Integers in a word.
const IN_WORD: usize = 32 / BITS;
/// Where in its word an output lies, in integers from the lowest bits.
const PLACE: [usize; IN_WORD] = [0, 4, 1, 5, 2, 6, 3, 7];

/// Interleaved integers packed along the outputs.
pub(super) struct Awq;

impl Layout for Awq {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        let module = module_of(tensor)?;
        if around.scheme.packing() != Ok(Packing::Awq) {
            return None;
        }
        let companions = around.present(["qzeros", "scales"].map(|part| format!("{module}{part}")));
        Some(Found { companions, weight: weight(tensor, module, around) })
    }
}

fn weight(tensor: &Tensor, module: &str, around: &Around) -> Result<Weight, Refusal> {
    if let Some(bits) = around.scheme.bits().filter(|bits| *bits != BITS) {
        return Err(format!("quantised by AWQ in {bits} bits, which this version does not read").into());
    }
    let parts = Qweight::of(tensor, module, around)?;
    let sizes = parts.sizes().ok_or_else(|| parts.misfit())?;
    let ([inputs, wide], outputs) = (sizes.words, sizes.outputs);
    let fits = wide.checked_mul(IN_WORD) == Some(outputs) && sizes.zero_words == wide;
    if !fits || inputs.checked_mul(outputs).is_none() {
        return Err(parts.misfit());
    }
    let groups = neighbours(around.scheme.group_size(inputs), inputs, sizes.groups)?;
    let [zeros, scales] = parts.companions().map(Tensor::clone);
    let values = Interleaved { parts, groups, inputs, outputs };
    Ok(Weight {
        name: format!("{module}weight"),
        shape: vec![outputs, inputs],
        encoding: encoding(format!("AWQ {BITS}-bit"), tensor, &[&zeros, &scales], values),
    })
}

/// Integers in rows of words: [in, out/8].
#[derive(Debug)]
struct Interleaved {
    parts: Qweight,
    groups: Groups,
    inputs: usize,
    outputs: usize,
}

impl Values for Interleaved {
    /// The words of an output lie all over the tensor: it is best read once.
    fn granule(&self) -> usize {
        self.inputs.saturating_mul(self.outputs)
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let wide = self.outputs / IN_WORD;
        let integer = |bytes: &[[u8; 4]], row: usize, output: usize| {
            let own = word(bytes, row * wide + output / IN_WORD);
            let place = PLACE.get(output % IN_WORD).copied().unwrap_or(0);
            field(|_| own, place * BITS, BITS)
        };
        self.parts.decode(
            files,
            elements,
            self.inputs,
            &self.groups,
            integer,
            |packed, groups, steps, outputs, out| {
                for (c, line) in out.chunks_exact_mut(self.inputs).enumerate() {
                    for (input, (value, group)) in line.iter_mut().zip(groups).enumerate() {
                        *value = steps.value(*group, c, integer(packed, input, outputs.start + c));
                    }
                }
            },
        )
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
