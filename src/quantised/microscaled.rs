//! 4-bit floats with a scale for every few neighbours: the MX formats (OCP Microscaling
//! Specification 1.0) and NVFP4.

use std::ops::Range;

use super::Refusal;
use super::grid::Grid;
use super::rows::{Rounding, Values, by_rows, numbers};
use crate::error::Result;
use crate::tensors::{Bytes, Tensor};
use crate::text::shape;

/// E2M1: a sign, two bits of exponent with bias 1, one of fraction.
const E2M1: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// E2M1 numbers, two a byte with the first in the low bits, and scales for groups in every row.
#[derive(Debug)]
pub(super) struct Microscaled {
    packed: Tensor,
    scales: Tensor,
    /// What every scale is divided by.
    global: Option<Tensor>,
    grid: Grid,
    rounding: Rounding,
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
    pub fn new(
        packed: &Tensor,
        bytes: &[usize],
        scales: &Tensor,
        group: usize,
        global: Option<&Tensor>,
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
        // The tool that writes NVFP4 dequantises it to BF16; MXFP4 is exact there, too.
        let rounding = if global.is_some() { Rounding::BF16 } else { Rounding::F32 };
        Ok(Microscaled {
            packed: packed.clone(),
            scales: scales.clone(),
            global: global.cloned(),
            grid,
            rounding,
        })
    }
}

impl Values for Microscaled {
    fn granule(&self) -> usize {
        self.grid.cols
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let (grid, cols) = (&self.grid, self.grid.cols);
        let rows = elements.start / cols..elements.end.div_ceil(cols);
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let packed = self.packed.read(files, rows.start * cols / 2..rows.end * cols / 2)?;
        let mut scales = numbers(&self.scales, files, rows.start * grid.across..rows.end * grid.across)?;
        if let Some(global) = &self.global {
            let divisor = numbers(global, files, 0..1)?.first().copied().unwrap_or(f32::NAN);
            scales.iter_mut().for_each(|scale| *scale /= divisor);
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
