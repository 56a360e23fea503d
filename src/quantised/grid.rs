//! Which scale belongs to which element of a matrix.

use std::ops::Range;

use crate::text::shape;

/// The matrices of a tensor [stack…, rows, cols], cut into blocks of `high` × `wide` with one scale
/// each; the blocks at the lower and right edges may be smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// Rows of one matrix.
    rows: usize,
    /// Columns.
    pub cols: usize,
    high: usize,
    /// Columns of a block.
    pub wide: usize,
    /// Rows of scales for one matrix of the stack; none where the whole stack has one scale.
    down: usize,
    /// Scales in a row of scales.
    pub across: usize,
}

impl Grid {
    /// The blocks that scales of shape `scales` stand for: one for everything, one a row or a column,
    /// groups of equal width in every row, or the `block` of rows × columns that the configuration
    /// names. Where it lists widths of `groups`, no other is accepted.
    ///
    /// # Errors
    /// What does not fit.
    pub fn fit(
        weight: &[usize],
        scales: &[usize],
        block: Option<[usize; 2]>,
        groups: &[usize],
    ) -> Result<Grid, String> {
        let misfit = || {
            let (scales, weight) = (shape(scales), shape(weight));
            format!("quantised, but its scales of shape {scales} do not fit its shape {weight}")
        };
        let (stack, &[rows, cols]) = weight.split_last_chunk::<2>().ok_or_else(misfit)?;
        if rows == 0 || cols == 0 {
            return Err("empty".to_owned());
        }
        let whole = Grid { rows, cols, high: rows, wide: cols, down: 0, across: 1 };
        if scales.iter().all(|side| *side == 1) && scales.len() <= weight.len() {
            return Ok(whole);
        }
        let (down, across) = match (scales.split_last_chunk::<2>(), scales) {
            (Some((own, &[down, across])), _) if own == stack => (down, across),
            (None, &[down]) if stack.is_empty() => (down, 1),
            _ => return Err(misfit()),
        };
        let grid = |high, wide| Grid { high, wide, down, across, ..whole };
        if let Some([high, wide]) = block
            && (rows.div_ceil(high), cols.div_ceil(wide)) == (down, across)
        {
            return Ok(grid(high, wide));
        }
        match (down, across) {
            (1, 1) => Ok(grid(rows, cols)),
            (1, _) if across == cols => Ok(grid(rows, 1)),
            (_, 1) if down == rows => Ok(grid(1, cols)),
            _ if down == rows && across > 0 && cols.is_multiple_of(across) => {
                let wide = cols / across;
                if groups.is_empty() || groups.contains(&wide) {
                    return Ok(grid(1, wide));
                }
                Err(format!("quantised in groups of {wide}, which the quantization_config does not have"))
            }
            _ => Err(misfit()),
        }
    }

    /// The row of scales for a row of the tensor, counted through the stack.
    pub fn scale_row(&self, row: usize) -> usize {
        row / self.rows * self.down + if self.down > 0 { row % self.rows / self.high } else { 0 }
    }

    /// The rows that hold a range of elements.
    pub fn rows_of(&self, elements: &Range<usize>) -> Range<usize> {
        elements.start / self.cols..elements.end.div_ceil(self.cols).max(elements.start / self.cols)
    }

    /// The scales of some rows, in the order in which they are stored.
    pub fn scales_of(&self, rows: &Range<usize>) -> Range<usize> {
        let first = self.scale_row(rows.start) * self.across;
        match rows.end.checked_sub(1).filter(|last| *last >= rows.start) {
            Some(last) => first..(self.scale_row(last) + 1) * self.across,
            None => first..first,
        }
    }

    /// For reports: `128×128 scales`.
    pub fn describe(&self) -> String {
        match (self.high, self.wide) {
            (high, wide) if high == self.rows && wide == self.cols => "one scale".to_owned(),
            (1, wide) if wide == self.cols => "scales per row".to_owned(),
            (high, 1) if high == self.rows => "scales per column".to_owned(),
            (1, wide) => format!("groups of {wide}"),
            (high, wide) => format!("{high}×{wide} scales"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(weight: &[usize], scales: &[usize], block: Option<[usize; 2]>) -> Result<Grid, String> {
        Grid::fit(weight, scales, block, &[])
    }

    #[test]
    fn every_way_to_share_scales() {
        let described =
            |weight: &[usize], scales: &[usize], block| fit(weight, scales, block).unwrap().describe();
        let block = Some([128, 128]);
        assert_eq!(described(&[300, 200], &[3, 2], block), "128×128 scales");
        assert_eq!(described(&[4, 300, 200], &[4, 3, 2], block), "128×128 scales");
        for scales in [&[][..], &[1], &[1, 1]] {
            assert_eq!(described(&[300, 200], scales, None), "one scale");
        }
        for scales in [&[300][..], &[300, 1]] {
            assert_eq!(described(&[300, 200], scales, None), "scales per row");
        }
        assert_eq!(described(&[2, 300, 200], &[2, 1, 200], None), "scales per column");
        assert_eq!(described(&[300, 200], &[300, 4], None), "groups of 50");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for scales in [&[3, 2][..], &[200], &[300, 3], &[2, 1, 1], &[300, 0], &[1, 1, 1], &[1, 4]] {
            assert!(fit(&[300, 200], scales, None).is_err(), "{scales:?}");
        }
        assert!(fit(&[300, 200], &[2, 3], Some([128, 128])).is_err());
        assert!(fit(&[300], &[300], None).is_err());
        assert!(fit(&[2, 300, 200], &[300, 1], None).is_err());
        assert!(Grid::fit(&[300, 200], &[300, 4], None, &[128]).unwrap_err().contains("groups of 50"));
    }

    #[test]
    fn rows_of_a_stack_find_their_scales() {
        let grid = fit(&[2, 300, 200], &[2, 3, 2], Some([128, 128])).unwrap();
        let found: Vec<usize> =
            [0, 127, 128, 299, 300, 427, 428, 599].map(|row| grid.scale_row(row)).to_vec();
        assert_eq!(found, [0, 0, 1, 2, 3, 3, 4, 5]);
        let whole = fit(&[2, 300, 200], &[1], None).unwrap();
        assert_eq!((whole.scale_row(0), whole.scale_row(599)), (0, 0));
    }
}
