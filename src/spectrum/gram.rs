//! The Gram matrix, n²·m operations: only the lower triangle, only a panel of W at a time.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};

use rayon::prelude::*;

use super::symmetric::stride;
use super::{Elements, Parallelism, Real, Symmetric};

/// Columns of a panel at most: so deep, a product by tiles comes near the speed of a whole one.
const DEPTH: usize = 512;
/// Rows of a tile, which one thread computes: a tile's rows of the panel fit into the second-level
/// cache of its core while they meet the panel's rows of all its columns.
const TILE_ROWS: usize = 256;
/// Columns of a tile at most.
const TILE_COLUMNS: usize = 512;

/// The smaller of WᵀW and WWᵀ.
pub fn gram(matrix: &dyn Elements, parallelism: Parallelism) -> Symmetric {
    let n = matrix.rows().min(matrix.cols());
    let mut product = Symmetric::zeros(n);
    for_each_panel(matrix, parallelism, |panel| {
        add_lower_product(product.as_mut(), panel.matrix(), panel.matrix(), 1.0, parallelism);
    });
    product
}

/// A part of W, n × count: so many columns of W where it is wide, so many rows,
/// transposed, where it is tall. The Gram matrix of the smaller side is the sum of P·Pᵀ.
pub(super) struct Panel<'a, T> {
    pub data: &'a mut [T],
    pub shape: PanelShape,
}

/// How a panel lies in memory.
#[derive(Clone, Copy)]
pub(super) struct PanelShape {
    pub n: usize,
    pub count: usize,
    /// Whether the n elements of a column lie together; else the `count` elements of a row do.
    pub column_major: bool,
    /// From a column, or a row, to the next.
    pub stride: usize,
}

impl PanelShape {
    fn new<T>(n: usize, count: usize, column_major: bool) -> PanelShape {
        let stride = if column_major { stride::<T>(n) } else { count };
        PanelShape { n, count, column_major, stride }
    }

    /// Elements, with the gaps.
    fn size(self) -> usize {
        self.stride * if self.column_major { self.count } else { self.n }
    }
}

impl<T: Real> Panel<'_, T> {
    pub fn matrix(&self) -> MatRef<'_, T> {
        let PanelShape { n, count, column_major, stride } = self.shape;
        match column_major {
            true => MatRef::from_column_major_slice_with_stride(self.data, n, count, stride),
            false => MatRef::from_row_major_slice_with_stride(self.data, n, count, stride),
        }
    }

    pub fn matrix_mut(&mut self) -> MatMut<'_, T> {
        let PanelShape { n, count, column_major, stride } = self.shape;
        match column_major {
            true => MatMut::from_column_major_slice_with_stride_mut(self.data, n, count, stride),
            // faer 0.24.4's from_row_major_slice_with_stride_mut exchanges the strides, and what is
            // written then lies outside the slice.
            false => {
                MatMut::from_column_major_slice_with_stride_mut(self.data, count, n, stride).transpose_mut()
            }
        }
    }
}

/// Goes through W panel by panel. The panels depend on the shape alone.
pub(super) fn for_each_panel<T: Real>(
    matrix: &dyn Elements,
    parallelism: Parallelism,
    mut visit: impl FnMut(Panel<'_, T>),
) {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let (n, m) = (rows.min(cols), rows.max(cols));
    if n == 0 {
        return;
    }
    let depth = panel_depth(m);
    let column_major = rows > cols;
    let mut buffer = vec![T::zero(); PanelShape::new::<T>(n, depth, column_major).size()];
    for start in (0..m).step_by(depth) {
        let shape = PanelShape::new::<T>(n, depth.min(m - start), column_major);
        let Some(data) = buffer.get_mut(..shape.size()) else {
            break;
        };
        fill(matrix, start, shape, data, parallelism);
        visit(Panel { data, shape });
    }
}

/// Columns of the largest panel: all are of nearly the same size.
fn panel_depth(m: usize) -> usize {
    m.div_ceil(m.div_ceil(DEPTH))
}

/// Elements of the largest panel in double precision.
pub(super) fn panel_size(matrix: &dyn Elements) -> usize {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    PanelShape::new::<f64>(rows.min(cols), panel_depth(rows.max(cols).max(1)), rows > cols).size()
}

/// Converts a panel, in parallel strips for a large matrix: rows `start..start + count` of a tall
/// matrix, those columns of a wide one.
fn fill<T: Real>(
    matrix: &dyn Elements,
    start: usize,
    shape: PanelShape,
    panel: &mut [T],
    parallelism: Parallelism,
) {
    let PanelShape { n, count, stride, .. } = shape;
    let (lines, width) = if shape.column_major { (count, n) } else { (n, count) };
    let copy = |first: usize, strip: &mut [T]| {
        if shape.column_major {
            let (here, rows) = (start + first, strip.len() / stride);
            let Some(dense) = strip.get_mut(..rows * width) else { return };
            T::copy_block(matrix, here..here + rows, 0..width, dense);
            // Rows without gaps at first; now each to its place, the last one first.
            for i in (1..rows).rev() {
                strip.copy_within(i * width..(i + 1) * width, i * stride);
            }
            for line in strip.chunks_exact_mut(stride) {
                line.iter_mut().skip(width).for_each(|gap| *gap = T::zero());
            }
        } else {
            T::copy_block(matrix, first..first + strip.len() / width, start..start + width, strip);
        }
    };
    match parallelism {
        Parallelism::Alone => copy(0, panel),
        Parallelism::Within => {
            let strip = lines.div_ceil(16).max(1);
            panel.par_chunks_mut(strip * stride).enumerate().for_each(|(i, chunk)| copy(i * strip, chunk));
        }
    }
}

/// C += a·L·Rᵀ on the lower triangle of the square matrix C. The tiles are the same whoever computes
/// them, so the result does not depend on the threads.
pub(super) fn add_lower_product<T: Real>(
    target: MatMut<'_, T>,
    left: MatRef<'_, T>,
    right: MatRef<'_, T>,
    factor: T,
    parallelism: Parallelism,
) {
    if parallelism == Parallelism::Alone {
        let all = Tile { row: 0, column: 0, diagonal: true, part: target };
        return all.add(left, right, factor);
    }
    let mut tiles = Vec::new();
    for (row, strip) in strips(target) {
        // Left of the diagonal, and on it.
        let (before, after) = strip.split_at_col_mut(row);
        let size = after.nrows();
        push_tiles(&mut tiles, row, before);
        let part = after.subcols_mut(0, size);
        tiles.push(Tile { row, column: row, diagonal: true, part });
    }
    // The longest strips first.
    tiles.reverse();
    tiles.into_par_iter().with_max_len(1).for_each(|tile| tile.add(left, right, factor));
}

/// C += a·L·Rᵀ, in tiles, too.
pub(super) fn add_product<T: Real>(
    target: MatMut<'_, T>,
    left: MatRef<'_, T>,
    right: MatRef<'_, T>,
    factor: T,
    parallelism: Parallelism,
) {
    if parallelism == Parallelism::Alone {
        let all = Tile { row: 0, column: 0, diagonal: false, part: target };
        return all.add(left, right, factor);
    }
    let mut tiles = Vec::new();
    for (row, strip) in strips(target) {
        push_tiles(&mut tiles, row, strip);
    }
    tiles.into_par_iter().with_max_len(1).for_each(|tile| tile.add(left, right, factor));
}

/// A part of C, and where it is.
struct Tile<'a, T> {
    row: usize,
    column: usize,
    /// Whether it is square, and only its lower triangle is wanted.
    diagonal: bool,
    part: MatMut<'a, T>,
}

impl<T: Real> Tile<'_, T> {
    fn add(self, left: MatRef<'_, T>, right: MatRef<'_, T>, factor: T) {
        let left = left.subrows(self.row, self.part.nrows());
        let right = right.subrows(self.column, self.part.ncols()).transpose();
        if !self.diagonal {
            return matmul(self.part, Accum::Add, left, right, factor, Par::Seq);
        }
        triangular::matmul(
            self.part,
            BlockStructure::TriangularLower,
            Accum::Add,
            left,
            BlockStructure::Rectangular,
            right,
            BlockStructure::Rectangular,
            factor,
            Par::Seq,
        );
    }
}

/// Strips of rows, each with its first row.
fn strips<T: Real>(target: MatMut<'_, T>) -> Vec<(usize, MatMut<'_, T>)> {
    let (mut rest, mut row) = (target, 0);
    let mut strips = Vec::new();
    while rest.nrows() > 0 {
        let count = TILE_ROWS.min(rest.nrows());
        let (strip, others) = rest.split_at_row_mut(count);
        strips.push((row, strip));
        row += count;
        rest = others;
    }
    strips
}

/// The tiles of a strip.
fn push_tiles<'a, T: Real>(tiles: &mut Vec<Tile<'a, T>>, row: usize, strip: MatMut<'a, T>) {
    let (mut rest, mut column) = (strip, 0);
    while rest.ncols() > 0 {
        let count = TILE_COLUMNS.min(rest.ncols());
        let (part, others) = rest.split_at_col_mut(count);
        tiles.push(Tile { row, column, diagonal: false, part });
        column += count;
        rest = others;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spectrum::Dense;

    /// Small integers: every product and sum is exact, so that the comparison can be, too.
    fn integers(rows: usize, cols: usize) -> Dense {
        let mut matrix = Dense::zeros(rows, cols);
        for (i, value) in matrix.data.iter_mut().enumerate() {
            *value = ((i * 7919) % 17) as f64 - 8.0;
        }
        matrix
    }

    #[test]
    fn equals_the_definition_for_tall_wide_and_large() {
        for (rows, cols) in [(1, 1), (5, 3), (3, 5), (40, 40), (700, 2), (2, 9000), (600, 520)] {
            let w = integers(rows, cols);
            let at = |i: usize, j: usize| w.data[i + j * rows];
            for parallelism in [Parallelism::Alone, Parallelism::Within] {
                let g = gram(&w, parallelism);
                let n = rows.min(cols);
                assert_eq!(g.n(), n);
                for (i, j) in (0..n).flat_map(|j| (j..n).map(move |i| (i, j))).step_by(7) {
                    let exact: f64 = if rows > cols {
                        (0..rows).map(|r| at(r, i) * at(r, j)).sum()
                    } else {
                        (0..cols).map(|c| at(i, c) * at(j, c)).sum()
                    };
                    assert_eq!(g.column(j)[i - j], exact, "({i}, {j}) of {rows}x{cols}");
                }
            }
        }
    }
}
