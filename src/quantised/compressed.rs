//! compressed-tensors, the layouts of llm-compressor and vLLM.
//!
//! | format | tensors |
//! |---|---|
//! | int-, float-, naive-quantized | `weight` I8 or F8 [out, in], `weight_scale`, `weight_zero_point` like it |
//! | pack-quantized | `weight_packed` I32 [out, ⌈in·bits/32⌉], `weight_scale` [out, groups], `weight_shape` [2], `weight_zero_point` I32 [⌈out·bits/32⌉, groups], `weight_g_idx` [in] |
//! | nvfp4-, mxfp4-pack-quantized | `weight_packed` U8 [out, in/2], `weight_scale`, `weight_global_scale` [1] |
//!
//! Packed integers are unsigned, offset by half of their range; so are the packed zero points.
//! W = (q − z)·s, rounded to the type of the scales.

use std::ops::Range;

use super::fp8::{self, scale_type};
use super::grid::Grid;
use super::microscaled::{self, Microscaled};
use super::packed::{Groups, field, word};
use super::rows::{Rounding, Values, by_rows, encoding, is_words, numbers, words};
use super::scaled::Scaled;
use super::{Around, Found, Layout, Refusal, Weight};
use crate::error::Result;
use crate::tensors::{Bytes, Dtype, Kind, Tensor};
use crate::text::shape;

/// Tensors beside a weight, in any of the formats.
const PARTS: [&str; 8] = [
    "weight_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "weight_global_scale",
    "weight_scale_2",
    "input_scale",
    "input_global_scale",
];

fn companions(module: &str, around: &Around) -> Vec<String> {
    around.present(PARTS.map(|part| format!("{module}{part}")))
}

/// Eight bits an element, stored as they are.
pub(super) struct Plain;

impl Layout for Plain {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        let eight_bits = tensor.dtype == Dtype::I8 || tensor.dtype.kind() == Kind::Float8;
        let scales = around.get(&format!("{}_scale", tensor.name)).filter(|_| eight_bits)?;
        let module = tensor.name.strip_suffix("weight").unwrap_or(&tensor.name);
        let mut companions = companions(module, around);
        companions.push(scales.name.clone());
        Some(Found { companions, weight: plain(tensor, scales, around) })
    }
}

fn plain(tensor: &Tensor, scales: &Tensor, around: &Around) -> Result<Weight, Refusal> {
    let (block, groups) = (around.scheme.block(), around.scheme.weight_groups());
    let zeros = around.get(&format!("{}_zero_point", tensor.name));
    if tensor.dtype != Dtype::I8 {
        // Written for symmetric weights, too, by some versions: then it holds zeros.
        if zeros.is_some() {
            return Err("quantised, but 8-bit floats with zero points are not read".into());
        }
        return fp8::weight(tensor, scales, block, &groups);
    }
    let rounding = Rounding::of(scales.dtype).ok_or_else(|| scale_type(scales.dtype))?;
    let grid = Grid::fit(&tensor.shape, &scales.shape, block, &groups)?;
    if let Some(zeros) = zeros.filter(|zeros| zeros.dtype != Dtype::I8 || zeros.elements != scales.elements) {
        let (kind, shape) = (zeros.dtype.name(), shape(&zeros.shape));
        return Err(format!("quantised, but its zero points ({kind}, {shape}) do not fit its scales").into());
    }
    let companions: Vec<&Tensor> = [Some(scales), zeros].into_iter().flatten().collect();
    let values = Scaled {
        codes: tensor.clone(),
        scales: scales.clone(),
        zeros: zeros.cloned(),
        grid,
        factor: 1.0,
        rounding,
    };
    Ok(Weight {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        encoding: encoding(format!("INT8, {}", grid.describe()), tensor, &companions, values),
    })
}

/// Fewer bits an element, several in a word or byte.
pub(super) struct Packed;

impl Layout for Packed {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        let module = tensor.name.strip_suffix("weight_packed")?;
        let weight = match tensor.dtype {
            Dtype::U8 => four_bit_floats(tensor, module, around),
            _ => integers(tensor, module, around),
        };
        Some(Found { companions: companions(module, around), weight })
    }
}

/// NVFP4, with a scale of its own for the whole weight, or MXFP4, without.
fn four_bit_floats(tensor: &Tensor, module: &str, around: &Around) -> Result<Weight, Refusal> {
    let scales = around.need(&format!("{module}weight_scale"), "scales")?;
    let global = around.get(&format!("{module}weight_global_scale"));
    let (name, group) = match (scales.dtype, global) {
        (Dtype::F8E4M3, Some(_)) => ("NVFP4", 16),
        (Dtype::U8 | Dtype::F8E8M0, None) => ("MXFP4", 32),
        (Dtype::F8E4M3, None) => return Err("quantised, but without its weight_global_scale".into()),
        _ => return Err(scale_type(scales.dtype).into()),
    };
    if let Some(global) = global.filter(|global| global.dtype != Dtype::F32 || global.elements != 1) {
        let (kind, shape) = (global.dtype.name(), shape(&global.shape));
        return Err(
            format!("quantised, but its weight_global_scale ({kind}, {shape}) is no single F32").into()
        );
    }
    let values = Microscaled::new(tensor, &tensor.shape, scales, group, global)?;
    let companions: Vec<&Tensor> = [Some(scales), global].into_iter().flatten().collect();
    Ok(Weight {
        name: format!("{module}weight"),
        shape: microscaled::unpacked(&tensor.shape),
        encoding: encoding(name.to_owned(), tensor, &companions, values),
    })
}

fn integers(tensor: &Tensor, module: &str, around: &Around) -> Result<Weight, Refusal> {
    let scales = around.need(&format!("{module}weight_scale"), "scales")?;
    let stated = around.need(&format!("{module}weight_shape"), "weight_shape")?;
    let zeros = around.get(&format!("{module}weight_zero_point"));
    let rounding = Rounding::of(scales.dtype).ok_or_else(|| scale_type(scales.dtype))?;
    let whole = stated_shape(stated, around)?;
    let misfit = |what: &str, found: &Tensor| {
        let (kind, found, whole) = (found.dtype.name(), shape(&found.shape), shape(&whole));
        format!("quantised, but its {what} ({kind}, {found}) do not fit the shape {whole}")
    };
    let (&[outputs, inputs], &[packed_outputs, wide]) = (whole.as_slice(), tensor.shape.as_slice()) else {
        return Err(misfit("packed integers", tensor).into());
    };
    let bits = bits(inputs, wide, &around.scheme.weight_bits());
    let Some(bits) = bits.filter(|_| is_words(tensor) && packed_outputs == outputs) else {
        return Err(misfit("packed integers", tensor).into());
    };
    let grid = Grid::fit(&whole, &scales.shape, None, &around.scheme.weight_groups())?;
    let zeros = match zeros {
        None => Zeros::None,
        Some(zeros) if zeros.dtype == Dtype::I8 && zeros.elements == scales.elements => {
            Zeros::Plain(zeros.clone())
        }
        Some(zeros)
            if is_words(zeros)
                && zeros.shape == [(outputs * bits).div_ceil(32), grid.across]
                && grid.scale_row(1) == 1 =>
        {
            Zeros::Packed(zeros.clone())
        }
        Some(zeros) => return Err(misfit("zero points", zeros).into()),
    };
    let index = around.get(&format!("{module}weight_g_idx"));
    let groups = match index {
        Some(index) => listed(index, inputs, grid.across, around)?,
        None => None,
    }
    .unwrap_or(Groups::Of(grid.wide));
    let zero_points = match &zeros {
        Zeros::Plain(zeros) | Zeros::Packed(zeros) => Some(zeros.clone()),
        Zeros::None => None,
    };
    let companions: Vec<&Tensor> =
        [Some(scales), zero_points.as_ref(), index, Some(stated)].into_iter().flatten().collect();
    let described = format!("INT{bits}, {}", grid.describe());
    let values =
        Integers { words: tensor.clone(), scales: scales.clone(), zeros, groups, grid, bits, wide, rounding };
    Ok(Weight {
        name: format!("{module}weight"),
        shape: whole,
        encoding: encoding(described, tensor, &companions, values),
    })
}

/// The shape that a `weight_shape` holds.
fn stated_shape(stated: &Tensor, around: &Around) -> Result<Vec<usize>, Refusal> {
    let refused = || "quantised, but its weight_shape is no shape of two dimensions";
    if !matches!(stated.dtype, Dtype::I64 | Dtype::I32) || stated.shape != [2] {
        return Err(refused().into());
    }
    let bytes = stated.read(around.files, 0..2)?;
    let sides: Vec<i64> = match stated.dtype {
        Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|side| i64::from_le_bytes(*side)).collect(),
        _ => words(&bytes).iter().map(|side| i32::from_le_bytes(*side).into()).collect(),
    };
    let sides: Vec<usize> = sides.into_iter().filter_map(|side| usize::try_from(side).ok()).collect();
    // What a later stage multiplies must not overflow: no file has as many elements.
    let elements = sides.iter().try_fold(8usize, |product, side| product.checked_mul(*side));
    match elements {
        Some(1..) if sides.len() == 2 => Ok(sides),
        _ => Err(refused().into()),
    }
}

/// The bits of an integer: 32 of them fill whole words. For 3, 5, 6 and 7 bits versions of the tool
/// pack differently, so that only the others are read.
fn bits(inputs: usize, wide: usize, said: &[usize]) -> Option<usize> {
    let fits = |bits: &usize| (inputs * bits).div_ceil(32) == wide;
    let mut possible = [2, 4, 8].into_iter().filter(fits).filter(|b| said.is_empty() || said.contains(b));
    let first = possible.next();
    first.filter(|_| possible.next().is_none())
}

/// The groups of a `weight_g_idx`; none where it holds −1: then they are neighbours after all.
fn listed(index: &Tensor, inputs: usize, groups: usize, around: &Around) -> Result<Option<Groups>, Refusal> {
    if index.dtype != Dtype::I32 || index.shape != [inputs] {
        let (kind, shape) = (index.dtype.name(), shape(&index.shape));
        return Err(format!("quantised, but its weight_g_idx ({kind}, {shape}) does not fit").into());
    }
    let listed = Groups::Listed(index.clone());
    let table = listed.table(around.files, inputs)?;
    if table.contains(&usize::MAX) {
        return Ok(None);
    }
    match table.iter().position(|group| *group >= groups) {
        Some(input) => {
            Err(format!("quantised, but its weight_g_idx puts input {input} outside of its {groups} groups")
                .into())
        }
        None => Ok(Some(listed)),
    }
}

/// The zero points of packed integers.
#[derive(Debug)]
enum Zeros {
    None,
    /// One a scale, signed.
    Plain(Tensor),
    /// Packed along the outputs, offset like the weight.
    Packed(Tensor),
}

/// Integers in rows of words: [out, ⌈in·bits/32⌉].
#[derive(Debug)]
struct Integers {
    words: Tensor,
    scales: Tensor,
    zeros: Zeros,
    groups: Groups,
    grid: Grid,
    bits: usize,
    wide: usize,
    rounding: Rounding,
}

impl Values for Integers {
    fn granule(&self) -> usize {
        self.grid.cols
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let (grid, cols) = (&self.grid, self.grid.cols);
        let rows = elements.start / cols..elements.end.div_ceil(cols);
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let packed = self.words.read(files, rows.start * self.wide..rows.end * self.wide)?;
        let packed = words(&packed);
        let first = grid.scale_row(rows.start);
        let scale_range = first * grid.across..(grid.scale_row(rows.end - 1) + 1) * grid.across;
        let scales = numbers(&self.scales, files, scale_range.clone())?;
        let zeros = self.zero_points(files, scale_range)?;
        let groups = self.groups.table(files, cols)?;
        by_rows(elements, cols, 1, |panel, out| {
            let row = panel.start;
            let own = packed.get((row - rows.start) * self.wide..).unwrap_or_default();
            let at = (grid.scale_row(row) - first) * grid.across;
            let steps: Vec<(f32, f32)> =
                zeros.iter().copied().zip(scales.iter().copied()).skip(at).take(grid.across).collect();
            for (i, (out, group)) in out.iter_mut().zip(&groups).enumerate() {
                let q = field(|w| word(own, w), i * self.bits, self.bits);
                // The groups were checked; NaN would say that the file has changed since.
                let (zero, scale) = steps.get(*group).copied().unwrap_or((f32::NAN, f32::NAN));
                *out = (q as f32 - zero) * scale;
            }
            self.rounding.apply(out);
            Ok(())
        })
    }
}

impl Integers {
    /// The zero points of a range of scales, as the offset integers have them.
    fn zero_points(&self, files: &dyn Bytes, range: Range<usize>) -> Result<Vec<f32>> {
        let offset = (1u32 << (self.bits - 1)) as f32;
        match &self.zeros {
            Zeros::None => Ok(vec![offset; range.len()]),
            Zeros::Plain(zeros) => {
                let mut points = numbers(zeros, files, range)?;
                points.iter_mut().for_each(|point| *point += offset);
                Ok(points)
            }
            Zeros::Packed(zeros) => {
                let bytes = zeros.read(files, 0..zeros.elements)?;
                let (bytes, across) = (words(&bytes), self.grid.across);
                let point = |scale: usize| {
                    let (row, group) = (scale / across, scale % across);
                    field(|w| word(bytes, w * across + group), row * self.bits, self.bits) as f32
                };
                Ok(range.map(point).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_that_could_be_several_are_not_guessed() {
        assert_eq!(bits(128, 16, &[]), Some(4));
        assert_eq!(bits(128, 32, &[]), Some(8));
        assert_eq!(bits(100, 13, &[]), Some(4));
        assert_eq!(bits(128, 12, &[]), None, "three bits");
        assert_eq!(bits(4, 1, &[]), None, "2, 4 and 8 bits fit one word");
        assert_eq!(bits(4, 1, &[4]), Some(4));
        assert_eq!(bits(128, 16, &[8]), None);
    }
}
