//! NVIDIA's ModelOpt: 4-bit floats in a `weight` U8 [out, in/2].
//!
//! | format | beside it |
//! |---|---|
//! | NVFP4 | `weight_scale` E4M3 [out, in/16], `weight_scale_2` F32 [] ; W = e·(s·s₂) |
//! | MXFP4 | `weight_scale` U8 [out, in/32]; W = e·2^(s − 127) |
//!
//! Its 8-bit floats have the names and the meaning of compressed-tensors. ComfyUI writes NVFP4 under the
//! same names with the halves of a byte and the order of the scales otherwise, so that the shapes tell
//! nothing: only the configuration does.

use super::fp8::scale_type;
use super::microscaled::{Global, Microscaled, unpacked};
use super::rows::{Rounding, encoding};
use super::{Around, Found, Layout, Refusal, Weight};
use crate::tensors::{Dtype, Tensor};

/// 4-bit floats of ModelOpt.
pub(super) struct FourBit;

impl Layout for FourBit {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        let scales = around.get(&format!("{}_scale", tensor.name))?;
        let packed = tensor.dtype == Dtype::U8 && tensor.shape.len() >= 2;
        if !packed {
            return None;
        }
        let module = tensor.name.strip_suffix("weight").unwrap_or(&tensor.name);
        let beside = [
            scales.name.clone(),
            second_scale(tensor),
            format!("{module}input_scale"),
            format!("{module}pre_quant_scale"),
            format!("{module}comfy_quant"),
        ];
        Some(Found { companions: around.present(beside), weight: weight(tensor, scales, around) })
    }
}

fn second_scale(tensor: &Tensor) -> String {
    format!("{}_scale_2", tensor.name)
}

fn weight(tensor: &Tensor, scales: &Tensor, around: &Around) -> Result<Weight, Refusal> {
    if !around.scheme.is_by_modelopt() {
        return Err(
            "packed with scales, but config.json does not say how (a quantization_config by modelopt)".into(),
        );
    }
    refuse_scaled_inputs(tensor, around)?;
    let second = around.get(&second_scale(tensor));
    let (name, group, global) = match (scales.dtype, second) {
        (Dtype::F8E4M3, Some(second)) => ("NVFP4", 16, Some(Global::Factor(second.clone()))),
        (Dtype::F8E4M3, None) => return Err("quantised, but without its weight_scale_2".into()),
        (Dtype::U8 | Dtype::F8E8M0, None) => ("MXFP4", 32, None),
        _ => return Err(scale_type(scales.dtype).into()),
    };
    let said = around.scheme.weight_groups();
    if !said.is_empty() && !said.contains(&group) {
        return Err(
            format!("quantised in {name}, but the quantization_config has no groups of {group}").into()
        );
    }
    let values = Microscaled::new(tensor, &tensor.shape, scales, group, global, Rounding::F32)?;
    let companions: Vec<&Tensor> = [Some(scales), second].into_iter().flatten().collect();
    Ok(Weight {
        name: tensor.name.clone(),
        shape: unpacked(&tensor.shape),
        encoding: encoding(name.to_owned(), tensor, &companions, values),
    })
}

/// Refuses a weight that ModelOpt means to be multiplied with scaled inputs (AWQ, SVDQuant): it is
/// another one than that of the model.
///
/// # Errors
/// The reason.
pub(super) fn refuse_scaled_inputs(tensor: &Tensor, around: &Around) -> Result<(), Refusal> {
    let module = tensor.name.strip_suffix("weight").unwrap_or(&tensor.name);
    match around.get(&format!("{module}pre_quant_scale")) {
        Some(_) => {
            Err("quantised with scaled inputs (pre_quant_scale), which this version does not read".into())
        }
        None => Ok(()),
    }
}
