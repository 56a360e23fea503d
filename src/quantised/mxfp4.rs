//! Experts in MXFP4, W = e·2^(s − 127). gpt-oss has `*_blocks` U8 [experts, out, in/32, 16] and `*_scales`
//! U8 [experts, out, in/32]; DeepSeek's fourth version has them among its 8-bit floats, as `weight` I8
//! [out, in/2] and `scale` E8M0 [out, in/32].

use super::fp8::scales_of;
use super::microscaled::{Microscaled, unpacked};
use super::rows::{Rounding, encoding};
use super::{Around, Found, Layout, Refusal, Weight};
use crate::tensors::{Dtype, Tensor};

/// Elements that share a scale.
const GROUP: usize = 32;
/// Bytes that hold them.
const BLOCK: usize = GROUP / 2;

/// MXFP4 in blocks of 16 bytes.
pub(super) struct GptOss;

impl Layout for GptOss {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        // The second form of the name is that of the original files.
        let suffixes = [("_blocks", "_scales"), (".blocks", ".scales")];
        let (name, other) = suffixes.into_iter().find_map(|(own, other)| {
            tensor.name.strip_suffix(own).map(|name| (name, format!("{name}{other}")))
        })?;
        let in_blocks =
            tensor.dtype == Dtype::U8 && tensor.shape.len() >= 3 && tensor.shape.last() == Some(&BLOCK);
        in_blocks.then(|| Found {
            companions: around.present([other.clone()]),
            weight: weight(tensor, name, &other, around),
        })
    }
}

/// MXFP4 in the pairs of an I8 `weight`, in models whose method is `fp8`.
pub(super) struct DeepSeek;

impl Layout for DeepSeek {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        let packed = tensor.dtype == Dtype::I8 && tensor.shape.len() >= 2 && around.scheme.is_fp8();
        let scales = scales_of(tensor, around).filter(|_| packed)?;
        Some(Found { companions: vec![scales.name.clone()], weight: pairs(tensor, scales) })
    }
}

fn pairs(tensor: &Tensor, scales: &Tensor) -> Result<Weight, Refusal> {
    // Under any other type they would be those of 8-bit integers.
    if scales.dtype != Dtype::F8E8M0 {
        return Err(super::fp8::scale_type(scales.dtype).into());
    }
    let values = Microscaled::new(tensor, &tensor.shape, scales, GROUP, None, Rounding::F32)?;
    Ok(Weight {
        name: tensor.name.clone(),
        shape: unpacked(&tensor.shape),
        encoding: encoding("MXFP4".to_owned(), tensor, &[scales], values),
    })
}

fn weight(tensor: &Tensor, name: &str, other: &str, around: &Around) -> Result<Weight, Refusal> {
    let scales = around.need(other, "scales")?;
    if !matches!(scales.dtype, Dtype::U8 | Dtype::F8E8M0) {
        return Err(super::fp8::scale_type(scales.dtype).into());
    }
    let (outer, blocks) = match tensor.shape.as_slice() {
        [outer @ .., blocks, _] => (outer, *blocks),
        _ => return Err("quantised in blocks of too few dimensions".into()),
    };
    let side = |bytes: usize| outer.iter().copied().chain([blocks.saturating_mul(bytes)]).collect::<Vec<_>>();
    let values = Microscaled::new(tensor, &side(BLOCK), scales, GROUP, None, Rounding::F32)?;
    Ok(Weight {
        name: name.to_owned(),
        shape: side(GROUP),
        encoding: encoding("MXFP4".to_owned(), tensor, &[scales], values),
    })
}
