//! bitsandbytes: LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339) and the 4-bit types of QLoRA
//! (Dettmers et al. 2023, arXiv 2305.14314).
//!
//! Eight bits: `weight` I8 [out, in] and `SCB` F32 [out]; W = q·SCB/127.
//!
//! Four bits: `weight` of packed bytes, the first element in the high bits, in blocks over the
//! flattened weight; beside it `weight.absmax` with one scale a block, `weight.quant_map` with the 16
//! values, and `weight.quant_state.bitsandbytes__nf4`, a JSON object as U8. With double
//! quantisation `absmax` is U8 itself: it indexes `nested_quant_map`, is scaled by `nested_absmax`
//! block by block, and has `nested_offset` added.

use std::ops::Range;

use serde::Deserialize;

use super::grid::Grid;
use super::rows::{Rounding, Values, encoding, numbers};
use super::scaled::Scaled;
use super::{Around, Found, Layout, Refusal, Weight};
use crate::error::Result;
use crate::tensors::{Bytes, Dtype, Tensor};
use crate::text::{printable, shape};

/// 1/127 as the tool writes it.
const STEP: f32 = 7.874_016e-3;

/// Eight bits.
pub(super) struct EightBit;

impl Layout for EightBit {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        let module = tensor.name.strip_suffix("weight").filter(|_| tensor.dtype == Dtype::I8)?;
        let scales = around.get(&format!("{module}SCB"))?;
        let format = format!("{module}weight_format");
        let companions = around.present([scales.name.clone(), format.clone()]);
        Some(Found { companions, weight: eight_bit(tensor, scales, around.get(&format), around) })
    }
}

fn eight_bit(
    tensor: &Tensor,
    scales: &Tensor,
    format: Option<&Tensor>,
    around: &Around,
) -> Result<Weight, Refusal> {
    if let Some(format) = format {
        // 0 is row by row; the others are orders of certain processors, no longer written.
        let is_rows = format.dtype == Dtype::U8
            && format.elements == 1
            && format.read(around.files, 0..1)?.first() == Some(&0);
        if !is_rows {
            return Err(
                "quantised by bitsandbytes in an order of elements that this version does not read".into()
            );
        }
    }
    let &[outputs, _] = tensor.shape.as_slice() else {
        return Err(format!("quantised by bitsandbytes, but of shape {}", shape(&tensor.shape)).into());
    };
    if scales.dtype != Dtype::F32 || scales.elements != outputs {
        let (kind, shape) = (scales.dtype.name(), shape(&scales.shape));
        return Err(format!(
            "quantised, but its SCB ({kind}, {shape}) is not one F32 for each of {outputs} rows"
        )
        .into());
    }
    let grid = Grid::fit(&tensor.shape, &[outputs, 1], None, &[])?;
    let values = Scaled {
        codes: tensor.clone(),
        scales: scales.clone(),
        zeros: None,
        grid,
        factor: STEP,
        rounding: Rounding::F32,
    };
    Ok(Weight {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        encoding: encoding("bitsandbytes 8-bit".to_owned(), tensor, &[scales], values),
    })
}

/// Four bits.
pub(super) struct FourBit;

/// A 4-bit type: its name in files and in reports, and its values.
struct Kind {
    key: &'static str,
    name: &'static str,
    values: [f32; 16],
}

/// The quantiles of a normal distribution, and a float of three bits of exponent.
static KINDS: [Kind; 2] = [
    Kind {
        key: "nf4",
        name: "NF4",
        values: [
            -1.0,
            -0.696_192_8,
            -0.525_073_05,
            -0.394_917_5,
            -0.284_441_38,
            -0.184_773_43,
            -0.091_050_036,
            0.0,
            0.079_580_3,
            0.160_930_2,
            0.246_112_3,
            0.337_915_24,
            0.440_709_83,
            0.562_617,
            0.722_956_84,
            1.0,
        ],
    },
    Kind {
        key: "fp4",
        name: "FP4",
        values: [
            0.0,
            0.005_208_333_5,
            0.666_666_7,
            1.0,
            0.333_333_34,
            0.5,
            0.166_666_67,
            0.25,
            0.0,
            -0.005_208_333_5,
            -0.666_666_7,
            -1.0,
            -0.333_333_34,
            -0.5,
            -0.166_666_67,
            -0.25,
        ],
    },
];

impl Layout for FourBit {
    fn find(&self, tensor: &Tensor, around: &Around) -> Option<Found> {
        let beside = |part: &str| format!("{}.{part}", tensor.name);
        let state = KINDS.iter().find_map(|kind| {
            around.get(&beside(&format!("quant_state.bitsandbytes__{}", kind.key))).map(|state| (kind, state))
        });
        let named = ["absmax", "quant_map", "nested_absmax", "nested_quant_map"].map(beside);
        let weight = match state {
            Some((kind, state)) => four_bit(tensor, kind, state, around),
            None if around.get(&beside("absmax")).is_some() => {
                Err("quantised by bitsandbytes, but without its quant_state".into())
            }
            None => return None,
        };
        let state = state.map(|(_, state)| state.name.clone());
        Some(Found { companions: around.present(named.into_iter().chain(state)), weight })
    }
}

/// What the JSON object says. Unknown entries are allowed, two equal ones are not.
#[derive(Deserialize)]
struct State {
    quant_type: String,
    blocksize: usize,
    dtype: String,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f64>,
}

impl State {
    fn read(tensor: &Tensor, around: &Around) -> Result<State, Refusal> {
        const LONGEST: usize = 1 << 16;
        if tensor.dtype != Dtype::U8 || tensor.elements > LONGEST {
            return Err("quantised, but its quant_state is no text".into());
        }
        // A copy: text in a map could stop being UTF-8 after it was checked.
        let bytes = tensor.read(around.files, 0..tensor.elements)?.into_owned();
        serde_json::from_slice(&bytes).map_err(|error| {
            format!("quantised, but its quant_state does not say how: {}", printable(&error.to_string()))
                .into()
        })
    }

    fn rounding(&self) -> Result<Rounding, String> {
        match self.dtype.as_str() {
            "float32" => Ok(Rounding::F32),
            "float16" => Ok(Rounding::F16),
            "bfloat16" => Ok(Rounding::BF16),
            other => Err(format!("quantised, but its quant_state names the type `{}`", printable(other))),
        }
    }
}

fn four_bit(
    tensor: &Tensor,
    kind: &'static Kind,
    state: &Tensor,
    around: &Around,
) -> Result<Weight, Refusal> {
    let need = |part: &str| around.need(&format!("{}.{part}", tensor.name), part);
    let (absmax, map) = (need("absmax")?, need("quant_map")?);
    let said = State::read(state, around)?;
    if said.quant_type != kind.key {
        return Err(format!("quantised, but its quant_state says `{}`", printable(&said.quant_type)).into());
    }
    let elements = said.shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side)).unwrap_or(0);
    // The bytes may be declared as a wider type; narrower ones are no bytes.
    let width = Some(tensor.dtype.bits()).filter(|bits| bits.is_multiple_of(8)).unwrap_or(0) / 8;
    let bytes = tensor.elements.saturating_mul(width);
    let whole_blocks = said.blocksize.is_power_of_two() && (32..=4096).contains(&said.blocksize);
    if elements == 0 || elements.div_ceil(2) != bytes || !whole_blocks {
        return Err(format!(
            "quantised, but a quant_state of shape {} in blocks of {} does not fit {bytes} bytes",
            shape(&said.shape),
            said.blocksize
        )
        .into());
    }
    check_values(map, kind, around)?;
    let blocks = elements.div_ceil(said.blocksize);
    let misfit = || {
        let (kind, found) = (absmax.dtype.name(), shape(&absmax.shape));
        format!("quantised, but its absmax ({kind}, {found}) is not one for each of {blocks} blocks")
    };
    if absmax.elements != blocks {
        return Err(misfit().into());
    }
    let rounding = said.rounding()?;
    let (scales, nested) = match absmax.dtype {
        Dtype::F32 => (Scales { absmax: absmax.clone(), nested: None }, None),
        Dtype::U8 => {
            let nested = [need("nested_absmax")?, need("nested_quant_map")?];
            (nested_scales(absmax, nested, &said)?, Some(nested))
        }
        _ => return Err(misfit().into()),
    };
    let values = FourBits {
        packed: tensor.clone(),
        values: &kind.values,
        scales,
        blocksize: said.blocksize,
        rounding,
    };
    let companions: Vec<&Tensor> =
        [absmax, map].into_iter().chain(nested.into_iter().flatten()).chain([state]).collect();
    let name = if nested.is_some() { format!("{}, nested scales", kind.name) } else { kind.name.to_owned() };
    Ok(Weight {
        name: tensor.name.clone(),
        shape: said.shape,
        encoding: encoding(name, tensor, &companions, values),
    })
}

/// The tool decodes with its own table whatever the file says: they must be the same.
fn check_values(map: &Tensor, kind: &Kind, around: &Around) -> Result<(), Refusal> {
    let refused = || format!("quantised, but its quant_map is not that of {}", kind.name);
    if map.dtype != Dtype::F32 || map.elements != kind.values.len() {
        return Err(refused().into());
    }
    let found = numbers(map, around.files, 0..map.elements)?;
    let same = found.iter().zip(&kind.values).all(|(found, known)| (found - known).abs() < 1e-6);
    if same { Ok(()) } else { Err(refused().into()) }
}

/// The scales of a double quantisation, where its parts fit.
fn nested_scales(absmax: &Tensor, [scales, map]: [&Tensor; 2], said: &State) -> Result<Scales, Refusal> {
    let (Some(blocksize @ 1..), Some(offset)) = (said.nested_blocksize, said.nested_offset) else {
        return Err("quantised, but its quant_state lacks nested_blocksize or nested_offset".into());
    };
    let fits = scales.dtype == Dtype::F32
        && scales.elements == absmax.elements.div_ceil(blocksize)
        && map.dtype == Dtype::F32
        && map.elements == 256;
    if !fits {
        let (scales, map) = (shape(&scales.shape), shape(&map.shape));
        return Err(format!(
            "quantised, but its nested_absmax ({scales}) and nested_quant_map ({map}) do not fit"
        )
        .into());
    }
    let nested = Nested { map: map.clone(), scales: scales.clone(), blocksize, offset: offset as f32 };
    Ok(Scales { absmax: absmax.clone(), nested: Some(Box::new(nested)) })
}

/// The scales of the blocks.
#[derive(Debug)]
struct Scales {
    /// One F32 a block, or one code.
    absmax: Tensor,
    /// What the codes mean.
    nested: Option<Box<Nested>>,
}

/// Scales that are quantised themselves.
#[derive(Debug)]
struct Nested {
    map: Tensor,
    scales: Tensor,
    blocksize: usize,
    offset: f32,
}

impl Scales {
    fn read(&self, files: &dyn Bytes, blocks: Range<usize>) -> Result<Vec<f32>> {
        let Some(Nested { map, scales, blocksize, offset }) = self.nested.as_deref() else {
            return numbers(&self.absmax, files, blocks);
        };
        let codes = self.absmax.read(files, blocks.clone())?;
        let map = numbers(map, files, 0..map.elements)?;
        let outer = blocks.start / blocksize;
        let scales = numbers(scales, files, outer..blocks.end.div_ceil(*blocksize))?;
        let scale = |(block, code): (usize, &u8)| {
            let pair = map.get(usize::from(*code)).zip(scales.get(block / blocksize - outer));
            pair.map_or(f32::NAN, |(value, scale)| value * scale + offset)
        };
        Ok(blocks.zip(codes.iter()).map(scale).collect())
    }
}

/// Codes of four bits in blocks over the flattened weight.
#[derive(Debug)]
struct FourBits {
    /// Bytes, whatever type they are declared as.
    packed: Tensor,
    values: &'static [f32; 16],
    scales: Scales,
    blocksize: usize,
    rounding: Rounding,
}

impl Values for FourBits {
    fn granule(&self) -> usize {
        self.blocksize
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        if elements.is_empty() {
            return Ok(Vec::new());
        }
        // Of a wider type whole elements are read.
        let wide = (self.packed.dtype.bits() / 8).max(1);
        let first = elements.start / 2 / wide;
        let packed = self.packed.read(files, first..elements.end.div_ceil(2).div_ceil(wide))?;
        let packed = packed.get(elements.start / 2 - first * wide..).unwrap_or_default();
        let blocks = elements.start / self.blocksize..elements.end.div_ceil(self.blocksize);
        let scales = self.scales.read(files, blocks.clone())?;
        let mut bytes = vec![0; 4 * elements.len()];
        let mut out: &mut [[u8; 4]] = bytes.as_chunks_mut().0;
        let mut values = vec![0f32; self.blocksize];
        let even = elements.start & !1;
        for (block, scale) in blocks.zip(scales) {
            let from = elements.start.max(block * self.blocksize);
            let to = elements.end.min((block + 1) * self.blocksize);
            let (now, later) = out.split_at_mut((to - from).min(out.len()));
            let own = values.get_mut(..now.len()).unwrap_or_default();
            self.block(packed, from - even, scale, own);
            for (slot, value) in now.iter_mut().zip(own) {
                *slot = value.to_le_bytes();
            }
            out = later;
        }
        Ok(bytes)
    }
}

impl FourBits {
    /// Elements of one block, the first of them `first` elements from the start of `packed`.
    #[allow(clippy::indexing_slicing)] // four bits are below 16
    fn block(&self, packed: &[u8], first: usize, scale: f32, out: &mut [f32]) {
        for (i, out) in (first..).zip(out.iter_mut()) {
            let byte = packed.get(i / 2).copied().unwrap_or(0);
            let code = if i % 2 == 0 { byte >> 4 } else { byte & 15 };
            *out = self.values[usize::from(code)] * scale;
        }
        self.rounding.apply(out);
    }
}
