//! 4-bit floats with a scale for every few neighbours: the MX formats (OCP Microscaling
//! Specification 1.0) and NVFP4.

use std::ops::Range;

use super::Refusal;
use super::grid::Grid;
use super::rows::{Rounding, Values, by_rows, numbers};
use crate::error::Result;
use crate::tensors::{Bytes, Dtype, Tensor};
use crate::text::{printable, shape};

/// E2M1: a sign, two bits of exponent with bias 1, one of fraction.
const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// E2M1 numbers, two a byte with the first in the low bits, and scales for groups in every row.
#[derive(Debug)]
pub(super) struct Microscaled {
    packed: Tensor,
    scales: Tensor,
    global: Option<Global>,
    grid: Grid,
    rounding: Rounding,
}

/// A scale for the scales of a whole weight: one F32.
#[derive(Debug)]
pub(super) enum Global {
    /// What every scale is divided by.
    Divisor(Tensor),
    /// What it is multiplied by.
    Factor(Tensor),
}

impl Global {
    fn tensor(&self) -> &Tensor {
        match self {
            Global::Divisor(tensor) | Global::Factor(tensor) => tensor,
        }
    }

    fn apply(&self, files: &dyn Bytes, scales: &mut [f32]) -> Result<()> {
        let value = numbers(self.tensor(), files, 0..1)?.first().copied().unwrap_or(f32::NAN);
        match self {
            Global::Divisor(_) => scales.iter_mut().for_each(|scale| *scale /= value),
            Global::Factor(_) => scales.iter_mut().for_each(|scale| *scale *= value),
        }
        Ok(())
    }
}

/// The shape of the numbers in bytes of this shape.
pub(super) fn unpacked(bytes: &[usize]) -> Vec<usize> {
    let mut whole = bytes.to_vec();
    if let Some(last) = whole.last_mut() {
        *last = last.saturating_mul(2);
    }
    whole
}

impl Microscaled {
    /// `bytes` is the shape [stack…, rows, cols/2] of the packed bytes, `group` the width of a group.
    ///
    /// # Errors
    /// What does not fit.
    pub fn new(
        packed: &Tensor,
        bytes: &[usize],
        scales: &Tensor,
        group: usize,
        global: Option<Global>,
        rounding: Rounding,
    ) -> Result<Microscaled, Refusal> {
        let whole = unpacked(bytes);
        let misfit = || {
            let (scales, whole) = (shape(&scales.shape), shape(&whole));
            format!("quantised, but its scales of shape {scales} are not one for every {group} of {whole}")
        };
        whole.iter().try_fold(1usize, |n, side| n.checked_mul(*side)).ok_or_else(misfit)?;
        let expected: Vec<usize> = match whole.split_last() {
            Some((cols, outer)) if cols.is_multiple_of(group) => {
                outer.iter().copied().chain([cols / group]).collect()
            }
            _ => return Err(misfit().into()),
        };
        if scales.shape != expected || whole.len() < 2 {
            return Err(misfit().into());
        }
        let rows = expected.iter().rev().skip(1).product();
        let flat = [rows, whole.last().copied().unwrap_or(0)];
        let grid = Grid::fit(&flat, &[rows, flat[1] / group], Some([1, group]), &[])?;
        if let Some(global) = global.as_ref().map(Global::tensor)
            && (global.dtype != Dtype::F32 || global.elements != 1)
        {
            let (name, kind) = (global.name.rsplit('.').next().unwrap_or_default(), global.dtype.name());
            let shape = shape(&global.shape);
            return Err(
                format!("quantised, but its {} ({kind}, {shape}) is no single F32", printable(name)).into()
            );
        }
        Ok(Microscaled { packed: packed.clone(), scales: scales.clone(), global, grid, rounding })
    }
}

impl Values for Microscaled {
    fn granule(&self) -> usize {
        self.grid.cols
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let (grid, cols) = (&self.grid, self.grid.cols);
        let rows = grid.rows_of(&elements);
        let packed = self.packed.read(files, rows.start * cols / 2..rows.end * cols / 2)?;
        let mut scales = numbers(&self.scales, files, grid.scales_of(&rows))?;
        if let Some(global) = &self.global {
            global.apply(files, &mut scales)?;
        }
        by_rows(elements, cols, 1, |panel, out| {
            let row = panel.start - rows.start;
            let bytes = packed.get(row * cols / 2..).unwrap_or_default();
            let scales = scales.get(row * grid.across..).unwrap_or_default();
            for ((out, bytes), scale) in
                out.chunks_mut(grid.wide).zip(bytes.chunks(grid.wide / 2)).zip(scales)
            {
                scale_group(bytes, *scale, out);
            }
            self.rounding.apply(out);
            Ok(())
        })
    }
}

#[allow(clippy::indexing_slicing)] // four bits are below 16
fn scale_group(bytes: &[u8], scale: f32, out: &mut [f32]) {
    for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [E2M1[usize::from(byte & 15)] * scale, E2M1[usize::from(byte >> 4)] * scale];
    }
}
