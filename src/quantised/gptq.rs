//! GPTQ (Frantar et al. 2022, arXiv 2210.17323) as AutoGPTQ and GPTQModel store it.
//!
//! | tensor | shape | holds |
//! |---|---|---|
//! | `qweight` | [in·bits/32, out] | words of integers, packed along the inputs from the lowest bits on |
//! | `qzeros` | [groups, out·bits/32] | the zero points, packed along the outputs; less one in version 1 |
//! | `scales` | [groups, out] | |
//! | `g_idx` | [in] | the group of every input; neighbours where it is missing |
//!
//! W[o, i] = (q[i, o] − z[g, o])·s[g, o] with g the group of i.

use std::ops::Range;

use super::packed::{Groups, field, mask, word};
use super::qweight::{Qweight, module_of, neighbours};
use super::rows::{Values, encoding, words};
use super::scheme::Packing;
use super::{Around, Found, Layout, Refusal, Weight};
use crate::error::Result;
use crate::tensors::{Bytes, Dtype, Tensor};
use crate::text::shape;

/// Inputs whose integers fill whole words, at any number of bits.
const RUN: usize = 32;

/// Integers packed along the inputs.
pub(super) struct Gptq;

impl Layout for Gptq {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        let module = module_of(tensor)?;
        let packing = around.scheme.packing();
        if packing == Ok(Packing::Awq) {
            return None;
        }
        let companions =
            around.present(["qzeros", "scales", "g_idx", "perm"].map(|part| format!("{module}{part}")));
        let weight = match packing {
            Ok(Packing::Gptq { less_one }) => weight(tensor, module, less_one, around),
            Ok(Packing::Awq) => return None,
            Err(reason) => Err(reason.into()),
        };
        Some(Found { companions, weight })
    }
}

fn weight(tensor: &Tensor, module: &str, less_one: bool, around: &Around) -> Result<Weight, Refusal> {
    let parts = Qweight::of(tensor, module, around)?;
    let index = around.get(&format!("{module}g_idx"));
    let misfit = || parts.misfit();
    let sizes = parts.sizes().ok_or_else(misfit)?;
    let ([deep, wide], outputs) = (sizes.words, sizes.outputs);
    if wide != outputs {
        return Err(misfit());
    }
    let bits = bits(around.scheme.bits(), outputs, sizes.zero_words).ok_or_else(misfit)?;
    let inputs = deep.checked_mul(32).filter(|all| all.is_multiple_of(bits)).ok_or_else(misfit)? / bits;
    inputs.checked_mul(outputs).ok_or_else(misfit)?;
    let groups = match index {
        Some(index) => listed(index, inputs, sizes.groups, around)?,
        None if around.scheme.is_reordered() => {
            return Err("quantised in an order of its inputs (desc_act), but without its g_idx".into());
        }
        None => neighbours(around.scheme.group_size(inputs), inputs, sizes.groups)?,
    };
    if less_one && !around.scheme.is_symmetric() {
        check_zero_points(&parts.zeros, bits, outputs, around)?;
    }
    let own = parts.companions().map(Tensor::clone);
    let companions: Vec<&Tensor> = own.iter().chain(index).collect();
    let values = Columns { parts, groups, bits, less_one, inputs, outputs, zero_words: sizes.zero_words };
    Ok(Weight {
        name: format!("{module}weight"),
        shape: vec![outputs, inputs],
        encoding: encoding(format!("GPTQ {bits}-bit"), tensor, &companions, values),
    })
}

/// The bits of an integer: what the zero points have room for, and what the configuration says. For 5,
/// 6 and 7 bits the tools that have them pack differently.
fn bits(said: Option<usize>, outputs: usize, zero_words: usize) -> Option<usize> {
    let fits = |bits: &usize| outputs.checked_mul(*bits).is_some_and(|all| all.div_ceil(32) == zero_words);
    match said {
        Some(bits) => Some(bits).filter(|bits| [2, 3, 4, 8].contains(bits)).filter(fits),
        None => {
            let mut possible = [2, 3, 4, 8].into_iter().filter(fits);
            let first = possible.next();
            first.filter(|_| possible.next().is_none())
        }
    }
}

/// The groups that a `g_idx` lists, each of them checked.
fn listed(index: &Tensor, inputs: usize, groups: usize, around: &Around) -> Result<Groups, Refusal> {
    if index.dtype != Dtype::I32 || index.shape != [inputs] {
        let (kind, shape) = (index.dtype.name(), shape(&index.shape));
        return Err(format!("quantised, but its g_idx ({kind}, {shape}) does not fit {inputs} inputs").into());
    }
    let listed = Groups::Listed(index.clone());
    let table = listed.table(around.files, inputs)?;
    match table.iter().position(|group| *group >= groups) {
        Some(input) => {
            Err(format!("quantised, but its g_idx puts input {input} outside of its {groups} groups").into())
        }
        None => Ok(listed),
    }
}

/// Refuses zero points of version 1 that are the largest integer. 0 less one has no place in a field:
/// AutoGPTQ's writer spoils the rest of the word, its readers take the field for 0 or for 2^bits.
/// GPTQModel alone subtracts and adds whole words, so that everything comes back.
fn check_zero_points(zeros: &Tensor, bits: usize, outputs: usize, around: &Around) -> Result<(), Refusal> {
    if around.scheme.is_by_gptqmodel() && 32 % bits == 0 {
        return Ok(());
    }
    let bytes = zeros.read(around.files, 0..zeros.elements)?;
    let wide = zeros.shape.last().copied().unwrap_or(0).max(1);
    let largest = |row: &[[u8; 4]]| (0..outputs).any(|o| stored(row, o, bits) == mask(bits));
    match words(&bytes).chunks(wide).position(largest) {
        Some(group) => Err(format!(
            "quantised, but a zero point of group {group} is the largest integer, which readers of GPTQ's \
             first version take for 0 or for {}",
            mask(bits) + 1
        )
        .into()),
        None => Ok(()),
    }
}

fn stored(row: &[[u8; 4]], output: usize, bits: usize) -> u32 {
    field(|w| word(row, w), output * bits, bits)
}

/// One in every field of a word, where fields fill words.
const fn ones(bits: usize) -> u32 {
    u32::MAX / mask(bits)
}

/// Integers in columns of words: [in·bits/32, out].
#[derive(Debug)]
struct Columns {
    parts: Qweight,
    groups: Groups,
    bits: usize,
    less_one: bool,
    inputs: usize,
    outputs: usize,
    zero_words: usize,
}

impl Columns {
    fn zero(&self, zeros: &[[u8; 4]], group: usize, output: usize) -> u32 {
        let row = zeros.get(group * self.zero_words..).unwrap_or_default();
        match (self.less_one, self.bits) {
            (false, bits) => stored(row, output, bits),
            (true, 3) => (stored(row, output, 3) + 1) & mask(3),
            // To a whole word, from which GPTQModel subtracted.
            (true, bits) => field(|w| word(row, w).wrapping_add(ones(bits)), output * bits, bits),
        }
    }
}

impl Values for Columns {
    /// The words of an output lie all over the tensor: it is best read once.
    fn granule(&self) -> usize {
        self.inputs.saturating_mul(self.outputs)
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let zero = |zeros: &[[u8; 4]], group, output| self.zero(zeros, group, output);
        self.parts.decode(
            files,
            elements,
            self.inputs,
            &self.groups,
            zero,
            |packed, groups, steps, outputs, out| {
                for (at, groups) in groups.chunks(RUN).enumerate() {
                    let first = at * self.bits;
                    for (c, line) in out.chunks_exact_mut(self.inputs).enumerate() {
                        let mut own = [0; 9];
                        for (w, slot) in own.iter_mut().take(self.bits).enumerate() {
                            *slot = word(packed, (first + w) * self.outputs + outputs.start + c);
                        }
                        let line = line.get_mut(at * RUN..).unwrap_or_default();
                        unpack(&own, self.bits, groups, |group, q| steps.value(group, c, q), line);
                    }
                }
            },
        )
    }
}

/// One run of integers out of its words.
#[allow(clippy::indexing_slicing)] // 32 integers of at most 8 bits lie in eight words
fn unpack(
    own: &[u32; 9],
    bits: usize,
    groups: &[usize],
    value: impl Fn(usize, u32) -> f32,
    line: &mut [f32],
) {
    for (i, (out, group)) in line.iter_mut().zip(groups).enumerate() {
        *out = value(*group, field(|w| own[w], i * bits, bits));
    }
}
