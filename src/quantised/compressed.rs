//! compressed-tensors, the layouts of llm-compressor and vLLM.
//!
//! | format | tensors |
//! |---|---|
//! | int-, float-, naive-quantized | `weight` I8 or F8 [out, in], `weight_scale`, `weight_zero_point` like it |
//! | pack-quantized | `weight_packed` I32 [out, ⌈in·bits/32⌉], `weight_scale` [out, groups], `weight_shape` [2], `weight_zero_point` I32 [⌈out·bits/32⌉, groups], `weight_g_idx` [in] |
//! | nvfp4-, mxfp4-pack-quantized | `weight_packed` U8 [out, in/2], `weight_scale`, `weight_global_scale` [1] |
//!
//! Packed integers of 1 to 8 bits are unsigned, offset by half of their range; so are the packed zero
//! points.
//! W = (q − z)·s, rounded to the type of the scales.

use std::ops::Range;

use super::fp8::{self, scale_type};
use super::grid::Grid;
use super::microscaled::{self, Global, Microscaled};
use super::modelopt;
use super::packed::{Groups, field, word};
use super::rows::{Rounding, Values, by_rows, encoding, is_words, numbers, words};
use super::scaled::Scaled;
use super::{Around, Found, Layout, Refusal, Weight};
use crate::error::Result;
use crate::tensors::{Bytes, Dtype, Kind, Tensor};
use crate::text::shape;

/// Tensors beside a weight, in any of the formats.
const PARTS: [&str; 10] = [
    "weight_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "weight_global_scale",
    "weight_scale_2",
    "input_scale",
    "input_global_scale",
    "pre_quant_scale",
    "comfy_quant",
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
    modelopt::refuse_scaled_inputs(tensor, around)?;
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
    // The tool dequantises both to BF16, where MXFP4 is exact.
    let (name, group, rounding) = match (scales.dtype, global) {
        (Dtype::F8E4M3, Some(_)) => ("NVFP4", 16, Rounding::BF16),
        (Dtype::U8 | Dtype::F8E8M0, None) => ("MXFP4", 32, Rounding::F32),
        (Dtype::F8E4M3, None) => return Err("quantised, but without its weight_global_scale".into()),
        _ => return Err(scale_type(scales.dtype).into()),
    };
    let divisor = global.map(|global| Global::Divisor(global.clone()));
    let values = Microscaled::new(tensor, &tensor.shape, scales, group, divisor, rounding)?;
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
    let said = around.scheme.weight_bits();
    let fields = Fields::of(inputs, wide, &said);
    if fields.is_none() && said.is_empty() {
        return Err(
            "quantised in integers of several possible widths, and no quantization_config says which".into(),
        );
    }
    let Some(fields) = fields.filter(|_| is_words(tensor) && packed_outputs == outputs) else {
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
                && zeros.shape == [fields.words(outputs), grid.across]
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
    let described = format!("INT{}, {}", fields.bits, grid.describe());
    let values = Integers {
        words: tensor.clone(),
        scales: scales.clone(),
        zeros,
        groups,
        grid,
        fields,
        wide,
        rounding,
    };
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

/// How integers lie in a row of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    bits: usize,
    /// Whether they go on from one word to the next, as the tool packs now; it once left the bits unused
    /// that were too few for another integer. Where integers fill whole words there is no difference.
    across_words: bool,
}

impl Fields {
    /// What `inputs` integers in `wide` words can be, where that is one thing only.
    fn of(inputs: usize, wide: usize, said: &[usize]) -> Option<Fields> {
        let widths = (1..=8).filter(|bits| said.is_empty() || said.contains(bits));
        let ways = widths.flat_map(|bits| {
            let now = Fields { bits, across_words: true };
            let once = Fields { bits, across_words: false };
            [Some(now), Some(once).filter(|_| 32 % bits != 0)].into_iter().flatten()
        });
        let mut possible = ways.filter(|fields| fields.words(inputs) == wide);
        let first = possible.next();
        first.filter(|_| possible.next().is_none())
    }

    /// The words of a row of `count` integers.
    fn words(self, count: usize) -> usize {
        if self.across_words { (count * self.bits).div_ceil(32) } else { count.div_ceil(32 / self.bits) }
    }

    /// Where integer `index` begins, in bits.
    #[inline]
    fn start(self, index: usize) -> usize {
        let in_word = 32 / self.bits;
        if self.across_words { index * self.bits } else { index / in_word * 32 + index % in_word * self.bits }
    }

    /// One integer of a row.
    #[inline]
    fn get(self, words: impl Fn(usize) -> u32, index: usize) -> u32 {
        field(words, self.start(index), self.bits)
    }
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
    fields: Fields,
    wide: usize,
    rounding: Rounding,
}

impl Values for Integers {
    fn granule(&self) -> usize {
        self.grid.cols
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let (grid, cols) = (&self.grid, self.grid.cols);
        let rows = grid.rows_of(&elements);
        let packed = self.words.read(files, rows.start * self.wide..rows.end * self.wide)?;
        let packed = words(&packed);
        let first = grid.scale_row(rows.start);
        let scale_range = grid.scales_of(&rows);
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
                let q = self.fields.get(|w| word(own, w), i);
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
        let offset = (1u32 << (self.fields.bits - 1)) as f32;
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
                    self.fields.get(|w| word(bytes, w * across + group), row) as f32
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
        let bits = |inputs, wide, said: &[usize]| {
            Fields::of(inputs, wide, said).map(|fields| (fields.bits, fields.across_words))
        };
        assert_eq!(bits(128, 16, &[]), Some((4, true)));
        assert_eq!(bits(100, 13, &[]), Some((4, true)));
        assert_eq!(bits(128, 12, &[]), Some((3, true)));
        assert_eq!(bits(128, 13, &[]), Some((3, false)), "ten in a word");
        assert_eq!(bits(128, 20, &[5]), Some((5, true)));
        assert_eq!(bits(128, 22, &[5]), Some((5, false)), "six in a word");
        assert_eq!(bits(128, 32, &[]), None, "8 bits, or 7 of them in a byte");
        assert_eq!(bits(128, 32, &[8]), Some((8, true)));
        assert_eq!(bits(128, 32, &[7]), Some((7, false)));
        assert_eq!(bits(4, 1, &[]), None, "most of them fit one word");
        assert_eq!(bits(8, 1, &[3]), None, "both ways fit one word");
        assert_eq!(bits(4, 1, &[4]), Some((4, true)));
        assert_eq!(bits(128, 16, &[8]), None);
        assert_eq!(bits(0, 0, &[4]), Some((4, true)));
    }

    #[test]
    fn fields_that_stay_in_their_word() {
        let fields = Fields { bits: 5, across_words: false };
        let words = [0b00_00110_00101_00100_00011_00010_00001u32, 7];
        let found: Vec<u32> = (0..7).map(|i| fields.get(|w| words[w], i)).collect();
        assert_eq!(found, [1, 2, 3, 4, 5, 6, 7]);
    }
}
