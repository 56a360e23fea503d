//! Where the elements of one matrix lie inside a tensor.

use std::ops::Range;

use crate::spectrum::Elements;
use crate::tensors::{Dtype, Survey, decode, survey};

/// One direction of a matrix inside a row-major tensor: position i lies
/// `(i / run)·jump + (i % run)·stride` elements from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// How many positions.
    pub len: usize,
    /// Elements between neighbours of a run.
    pub stride: usize,
    /// Positions in a run; `len` for a plain axis.
    pub run: usize,
    /// Elements between the starts of two runs.
    pub jump: usize,
}

impl Axis {
    /// An axis with a constant stride.
    pub const fn plain(len: usize, stride: usize) -> Axis {
        Axis { len, stride, run: len, jump: 0 }
    }

    /// Runs of `run` positions, one in every `every` of them: the rows of one of several
    /// interleaved matrices.
    pub const fn interleaved(len: usize, stride: usize, run: usize, every: usize) -> Axis {
        Axis { len, stride, run, jump: every * stride }
    }

    /// Elements from the start of the axis to a position.
    pub fn offset(&self, position: usize) -> usize {
        let run = self.run.max(1);
        (position / run) * self.jump + (position % run) * self.stride
    }

    /// One past the largest offset.
    fn extent(&self) -> usize {
        let run = self.run.max(1);
        let last_run = self.len.saturating_sub(1) / run * self.jump;
        last_run + self.run.min(self.len).saturating_sub(1) * self.stride
    }
}

/// Where a matrix lies in its tensor, in elements from the tensor's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The first element.
    pub offset: usize,
    /// Down the rows.
    pub rows: Axis,
    /// Along a row.
    pub cols: Axis,
}

impl Layout {
    /// A whole row-major matrix.
    pub const fn dense(rows: usize, cols: usize) -> Layout {
        Layout { offset: 0, rows: Axis::plain(rows, cols), cols: Axis::plain(cols, 1) }
    }

    /// The elements from the first to the last of `pooled` slices that begin one element apart.
    pub fn span(&self, pooled: usize) -> Range<usize> {
        let end = self.offset + self.rows.extent() + self.cols.extent() + pooled;
        self.offset..end
    }
}

/// The elements of one matrix, decoded as they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Bytes of the tensor, beginning at element `first`.
    pub bytes: &'a [u8],
    /// The number of the element that `bytes` begins with.
    pub first: usize,
    /// The stored type; a complex one counts each number as two elements.
    pub dtype: Dtype,
    /// Where the matrix lies in the tensor.
    pub layout: Layout,
    /// What every element is multiplied by: a power of two.
    pub factor: f64,
}

impl View<'_> {
    /// Looks over all elements, a few rows at a time.
    pub fn survey(&self) -> Survey {
        let (rows, cols) = (self.rows(), self.cols());
        let step = ((1 << 16) / cols.max(1)).clamp(1, rows.max(1));
        let mut buffer = vec![0.0; step * cols];
        let mut found = Survey::default();
        for start in (0..rows).step_by(step) {
            let end = rows.min(start + step);
            let Some(block) = buffer.get_mut(..(end - start) * cols) else { break };
            self.copy_block(start..end, 0..cols, block);
            found = found.merge(survey(block));
        }
        found
    }
}

impl Elements for View<'_> {
    fn rows(&self) -> usize {
        self.layout.rows.len
    }

    fn cols(&self) -> usize {
        self.layout.cols.len
    }

    fn copy_block(&self, rows: Range<usize>, cols: Range<usize>, out: &mut [f64]) {
        let axis = &self.layout.cols;
        let base = self.layout.offset - self.first;
        for (line, row) in out.chunks_exact_mut(cols.len().max(1)).zip(rows) {
            let start = base + self.layout.rows.offset(row);
            let mut rest = line;
            let mut col = cols.start;
            while !rest.is_empty() {
                // Up to the end of the column's run, which for a plain axis is the whole row.
                let run = axis.run.max(1);
                let count = (run - col % run).min(rest.len());
                let (now, later) = rest.split_at_mut(count);
                decode(self.dtype, self.bytes, start + axis.offset(col), axis.stride, now);
                rest = later;
                col += count;
            }
        }
        if self.factor != 1.0 {
            out.iter_mut().for_each(|value| *value *= self.factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaved_rows_and_strided_columns() {
        let values: Vec<u8> = (0u8..48).flat_map(|i| f64::from(i).to_le_bytes()).collect();
        // 12 rows of 4: heads of 2 rows, three matrices in turn; the second one's odd columns.
        let layout =
            Layout { offset: 2 * 4 + 1, rows: Axis::interleaved(4, 4, 2, 6), cols: Axis::plain(2, 2) };
        let span = layout.span(1);
        let bytes = &values[span.start * 8..span.end * 8];
        let view = View { bytes, first: span.start, dtype: Dtype::F64, layout, factor: 2.0 };
        let mut out = [0.0; 8];
        view.copy_block(0..4, 0..2, &mut out);
        assert_eq!(out, [9.0, 11.0, 13.0, 15.0, 33.0, 35.0, 37.0, 39.0].map(|v| 2.0 * v));
        assert_eq!(span, 9..40);
        assert_eq!(view.survey().max_abs, 78.0);
    }
}
