//! 8-bit floats with scales of their own, as DeepSeek publishes its models: E4M3 and
//! `weight_scale_inv` [⌈rows/128⌉, ⌈cols/128⌉], which despite its name is multiplied with
//! (DeepSeek-AI 2024, arXiv 2412.19437, section 3.3). One for the whole weight is called `scale_weight`
//! in diffusion models, `qscale_weight` in Mistral's own files; DeepSeek's own have `scale`.

use super::grid::Grid;
use super::rows::{Rounding, encoding};
use super::scaled::Scaled;
use super::{Around, Found, Layout, Refusal, Weight};
use crate::tensors::{Dtype, Kind, Tensor};

/// The block where the configuration names none.
const BLOCK: [usize; 2] = [128, 128];

/// Scales of a layer's inputs.
const OF_INPUTS: [&str; 4] = ["activation_scale", "input_scale", "scale_input", "qscale_act"];

/// The tensor by which files of diffusion models say that they are such.
pub(super) const MARK: &str = "scaled_fp8";

/// 8-bit floats with block scales, or one scale.
pub(super) struct Fp8;

impl Layout for Fp8 {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        if tensor.dtype.kind() != Kind::Float8 {
            return None;
        }
        let module = tensor.name.strip_suffix("weight").unwrap_or(&tensor.name);
        let names = scale_names(tensor);
        let others = OF_INPUTS.map(|part| format!("{module}{part}"));
        let marks = ["", "model.diffusion_model."].map(|prefix| format!("{prefix}{MARK}"));
        let companions = around.present(names.clone().into_iter().chain(others).chain(marks));
        let Some(scales) = scales_of(tensor, around) else {
            // A cast to 8 bits has no scales at all, not even for its inputs.
            let weight = Err("8-bit floats beside scales that are not known to be theirs".into());
            return around.has_scales(module).then_some(Found { companions, weight });
        };
        let block = Some(around.scheme.block().unwrap_or(BLOCK));
        Some(Found { companions, weight: weight(tensor, scales, block, &[]) })
    }
}

/// What the scales of a weight can be called.
fn scale_names(tensor: &Tensor) -> [String; 4] {
    let module = tensor.name.strip_suffix("weight").unwrap_or(&tensor.name);
    [
        format!("{}_scale_inv", tensor.name),
        format!("{module}scale"),
        format!("{module}scale_weight"),
        format!("{module}qscale_weight"),
    ]
}

/// The scales of a weight under the first of these names.
pub(super) fn scales_of<'a>(tensor: &Tensor, around: &Around<'a>) -> Option<&'a Tensor> {
    scale_names(tensor).iter().find_map(|name| around.get(name))
}

/// A tensor of 8-bit floats with its scales.
pub(super) fn weight(
    tensor: &Tensor,
    scales: &Tensor,
    block: Option<[usize; 2]>,
    groups: &[usize],
) -> Result<Weight, Refusal> {
    let rounding = match scales.dtype {
        // Powers of two: the product is exact in any type.
        Dtype::U8 | Dtype::F8E8M0 => Rounding::F32,
        other => Rounding::of(other).ok_or_else(|| scale_type(other))?,
    };
    let grid = Grid::fit(&tensor.shape, &scales.shape, block, groups)?;
    let kind = match tensor.dtype {
        Dtype::F8E4M3 => "FP8 E4M3",
        Dtype::F8E5M2 => "FP8 E5M2",
        other => other.name(),
    };
    let values =
        Scaled { codes: tensor.clone(), scales: scales.clone(), zeros: None, grid, factor: 1.0, rounding };
    Ok(Weight {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        encoding: encoding(format!("{kind}, {}", grid.describe()), tensor, &[scales], values),
    })
}

/// The refusal of scales in a type that no tool writes.
pub(super) fn scale_type(dtype: Dtype) -> String {
    format!("quantised, but its scales are of the type {}", dtype.name())
}
