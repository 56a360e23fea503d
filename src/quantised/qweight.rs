//! What GPTQ and AWQ have in common: integers in a `qweight`, zero points in a `qzeros`, and `scales`
//! [groups, out]. W[o, i] = (q[i, o] − z[g, o])·s[g, o] with g the group of input i.

use std::ops::Range;

use super::fp8::scale_type;
use super::packed::{Groups, Steps};
use super::rows::{Rounding, by_rows, is_words, words};
use super::{Around, Refusal};
use crate::error::Result;
use crate::tensors::{Bytes, Tensor};
use crate::text::shape;

/// Outputs that are decoded together: as many words as a cache line has.
const PANEL: usize = 16;

/// The tensors of one weight.
#[derive(Debug)]
pub(super) struct Qweight {
    pub words: Tensor,
    pub zeros: Tensor,
    pub scales: Tensor,
    /// The type of the result.
    rounding: Rounding,
}

/// Their sizes, as far as the shapes of all three agree.
pub(super) struct Sizes {
    /// Rows and columns of `qweight`.
    pub words: [usize; 2],
    pub groups: usize,
    pub outputs: usize,
    /// Words in a row of `qzeros`.
    pub zero_words: usize,
}

/// The module of a tensor called `qweight`, with its dot.
pub(super) fn module_of(tensor: &Tensor) -> Option<&str> {
    let module = tensor.name.strip_suffix("qweight")?;
    (module.is_empty() || module.ends_with('.')).then_some(module)
}

impl Qweight {
    /// The tensors beside a `qweight`.
    ///
    /// # Errors
    /// What is missing, or scales of a type that no tool writes.
    pub fn of(words: &Tensor, module: &str, around: &Around) -> Result<Qweight, Refusal> {
        let scales = around.need(&format!("{module}scales"), "scales")?;
        let zeros = around.need(&format!("{module}qzeros"), "zero points")?;
        let rounding = Rounding::of(scales.dtype).ok_or_else(|| scale_type(scales.dtype))?;
        Ok(Qweight { words: words.clone(), zeros: zeros.clone(), scales: scales.clone(), rounding })
    }

    /// The sizes, where types and shapes fit each other.
    pub fn sizes(&self) -> Option<Sizes> {
        let (&[high, wide], &[groups, zero_words], &[scale_groups, outputs]) =
            (self.words.shape.as_slice(), self.zeros.shape.as_slice(), self.scales.shape.as_slice())
        else {
            return None;
        };
        let fits = is_words(&self.words) && is_words(&self.zeros) && groups == scale_groups;
        fits.then_some(Sizes { words: [high, wide], groups, outputs, zero_words })
    }

    /// The reason where they do not.
    pub fn misfit(&self) -> Refusal {
        let [words, zeros, scales] = [&self.words, &self.zeros, &self.scales].map(|t| shape(&t.shape));
        format!("quantised, but qweight {words}, qzeros {zeros} and scales {scales} do not fit").into()
    }

    /// The tensors that the weight is computed from, but for the packed one itself.
    pub fn companions(&self) -> [&Tensor; 2] {
        [&self.zeros, &self.scales]
    }

    /// Elements of W, out × `inputs`: `zero` finds the zero point of (words of `qzeros`, group, output),
    /// and `fill` computes the rows of some outputs from (words of `qweight`, group of every input).
    ///
    /// # Errors
    /// Those of reading.
    pub fn decode(
        &self,
        files: &dyn Bytes,
        elements: Range<usize>,
        inputs: usize,
        groups: &Groups,
        zero: impl Fn(&[[u8; 4]], usize, usize) -> u32,
        fill: impl Fn(&[[u8; 4]], &[usize], &Steps, Range<usize>, &mut [f32]),
    ) -> Result<Vec<u8>> {
        let packed = self.words.read(files, 0..self.words.elements)?;
        let zeros = self.zeros.read(files, 0..self.zeros.elements)?;
        let scales = self.scales.read(files, 0..self.scales.elements)?;
        let groups = groups.table(files, inputs)?;
        let zeros = words(&zeros);
        by_rows(elements, inputs, PANEL, |outputs, out| {
            let zero = |group, output| zero(zeros, group, output);
            let steps = Steps::new(&self.scales, &scales, outputs.clone(), zero);
            fill(words(&packed), &groups, &steps, outputs, out);
            self.rounding.apply(out);
            Ok(())
        })
    }
}

/// Groups of neighbours, which must be as many as the scales.
///
/// # Errors
/// What does not fit.
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
