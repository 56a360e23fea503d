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

use super::fp8::scale_type;
use super::packed::{Groups, Steps, field, mask, word};
use super::rows::{Rounding, Values, by_rows, encoding, is_words, words};
use super::scheme::Packing;
use super::{Around, Found, Layout, Refusal, Weight};
use crate::error::Result;
use crate::tensors::{Bytes, Dtype, Tensor};
use crate::text::shape;

/// Outputs that are decoded together: as many words as a cache line has.
const PANEL: usize = 16;
/// Inputs whose integers fill whole words, at any number of bits.
const RUN: usize = 32;

/// Integers packed along the inputs.
pub(super) struct Gptq;

impl Layout for Gptq {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        let module = module_of_qweight(tensor)?;
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

/// The module of a tensor called `qweight`, with its dot.
pub(super) fn module_of_qweight(tensor: &Tensor) -> Option<&str> {
    let module = tensor.name.strip_suffix("qweight")?;
    (module.is_empty() || module.ends_with('.')).then_some(module)
}

fn weight(tensor: &Tensor, module: &str, less_one: bool, around: &Around) -> Result<Weight, Refusal> {
    let scales = around.need(&format!("{module}scales"), "scales")?;
    let zeros = around.need(&format!("{module}qzeros"), "zero points")?;
    let index = around.get(&format!("{module}g_idx"));
    let rounding = Rounding::of(scales.dtype).ok_or_else(|| scale_type(scales.dtype))?;
    let misfit = || {
        let shapes = [tensor, zeros, scales].map(|t| shape(&t.shape));
        format!(
            "quantised, but qweight {}, qzeros {} and scales {} do not fit",
            shapes[0], shapes[1], shapes[2]
        )
    };
    let (&[deep, outputs], &[groups, zero_words], &[scale_groups, scale_outputs]) =
        (tensor.shape.as_slice(), zeros.shape.as_slice(), scales.shape.as_slice())
    else {
        return Err(misfit().into());
    };
    if !is_words(tensor) || !is_words(zeros) || (scale_groups, scale_outputs) != (groups, outputs) {
        return Err(misfit().into());
    }
    let bits = bits(around.scheme.bits(), outputs, zero_words).ok_or_else(misfit)?;
    let inputs = deep.checked_mul(32).filter(|all| all.is_multiple_of(bits)).ok_or_else(misfit)? / bits;
    inputs.checked_mul(outputs).ok_or_else(misfit)?;
    let grouping = match index {
        Some(index) => listed(index, inputs, groups, around)?,
        None => neighbours(around.scheme.group_size(inputs), inputs, groups)?,
    };
    let companions: Vec<&Tensor> = [Some(zeros), Some(scales), index].into_iter().flatten().collect();
    let values = Columns {
        words: tensor.clone(),
        zeros: zeros.clone(),
        scales: scales.clone(),
        groups: grouping,
        bits,
        less_one,
        inputs,
        outputs,
        rounding,
    };
    Ok(Weight {
        name: format!("{module}weight"),
        shape: vec![outputs, inputs],
        encoding: encoding(format!("GPTQ {bits}-bit"), tensor, &companions, values),
    })
}

/// The bits of an integer: what the zero points have room for, and what the configuration says.
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

/// Groups of neighbours, which must be as many as the scales.
pub(super) fn neighbours(size: Option<usize>, inputs: usize, groups: usize) -> Result<Groups, String> {
    let Some(size) = size else {
        return Err(
            "quantised, but neither g_idx nor a group_size in quantization_config says in which groups"
                .to_owned(),
        );
    };
    if inputs.div_ceil(size) != groups {
        return Err(format!(
            "quantised, but {inputs} inputs in groups of {size} do not make {groups} rows of scales"
        ));
    }
    Ok(Groups::Of(size))
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

/// Integers in columns of words: [in·bits/32, out].
#[derive(Debug)]
struct Columns {
    words: Tensor,
    zeros: Tensor,
    scales: Tensor,
    groups: Groups,
    bits: usize,
    less_one: bool,
    inputs: usize,
    outputs: usize,
    rounding: Rounding,
}

impl Values for Columns {
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
        let zero_words = self.zeros.shape.last().copied().unwrap_or(0);
        let zero = |group: usize, output: usize| {
            let stored = field(|w| word(zeros, group * zero_words + w), output * self.bits, self.bits);
            // Zero points are as wide as the integers: less one, 0 was stored as the largest of them.
            if self.less_one { (stored + 1) & mask(self.bits) } else { stored }
        };
        by_rows(elements, self.inputs, PANEL, |outputs, out| {
            let steps = Steps::new(&self.scales, &scales, outputs.clone(), zero);
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
            self.rounding.apply(out);
            Ok(())
        })
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
