//! gpt-oss: experts in MXFP4, `*_blocks` U8 [experts, out, in/32, 16] and `*_scales` U8
//! [experts, out, in/32]; W = e·2^(s − 127).

use super::microscaled::Microscaled;
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
