//! Eight bits an element, and scales for blocks of them: W = (q − z)·s.

use std::ops::Range;

use super::grid::Grid;
use super::rows::{Rounding, Values, by_rows, numbers};
use crate::error::Result;
use crate::tensors::{Bytes, Dtype, Tensor, decode};

/// Elements of a panel: enough that its cost is that of its elements.
const PANEL: usize = 1 << 12;

/// The numbers of a tensor of 8-bit integers or floats with its scales.
#[derive(Debug)]
pub(super) struct Scaled {
    /// q: [stack…, rows, cols].
    pub codes: Tensor,
    /// s, in the order of the grid.
    pub scales: Tensor,
    /// z, one a scale; 0 where there are none.
    pub zeros: Option<Tensor>,
    pub grid: Grid,
    /// What every product is multiplied by.
    pub factor: f32,
    pub rounding: Rounding,
}

impl Values for Scaled {
    fn granule(&self) -> usize {
        self.grid.cols
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let grid = &self.grid;
        let rows = grid.rows_of(&elements);
        let codes = self.codes.read(files, rows.start * grid.cols..rows.end * grid.cols)?;
        let first = grid.scale_row(rows.start);
        let scale_range = grid.scales_of(&rows);
        let scales = numbers(&self.scales, files, scale_range.clone())?;
        let zeros = match &self.zeros {
            Some(zeros) => numbers(zeros, files, scale_range)?,
            None => vec![0.0; scales.len()],
        };
        let table = value_table(self.codes.dtype);
        by_rows(elements, grid.cols, PANEL / grid.cols, |panel, out| {
            for (row, out) in panel.zip(out.chunks_exact_mut(grid.cols)) {
                let at = (row - rows.start) * grid.cols;
                let codes = codes.get(at..at + grid.cols).unwrap_or_default();
                let at = (grid.scale_row(row) - first) * grid.across;
                let scales = scales.iter().zip(&zeros).skip(at);
                for ((out, codes), (scale, zero)) in
                    out.chunks_mut(grid.wide).zip(codes.chunks(grid.wide)).zip(scales)
                {
                    scale_block(codes, &table, *scale, *zero, self.factor, out);
                }
            }
            self.rounding.apply(out);
            Ok(())
        })
    }
}

#[allow(clippy::indexing_slicing)] // every byte is below 256
fn scale_block(codes: &[u8], table: &[f32; 256], scale: f32, zero: f32, factor: f32, out: &mut [f32]) {
    for (out, code) in out.iter_mut().zip(codes) {
        *out = (table[usize::from(*code)] - zero) * scale * factor;
    }
}

/// The values of all 256 codes of an 8-bit type.
fn value_table(dtype: Dtype) -> [f32; 256] {
    if dtype == Dtype::I8 {
        return std::array::from_fn(|code| f32::from((code as u8).cast_signed()));
    }
    let codes: [u8; 256] = std::array::from_fn(|code| code as u8);
    let mut values = [0.0; 256];
    decode(dtype, &codes, 0, 1, &mut values);
    values.map(|value| value as f32)
}
