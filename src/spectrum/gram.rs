//! The Gram matrix, n²·m operations: only the lower triangle, only a panel of W at a time.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};

use super::{Dense, Elements, Parallelism, Real};

/// Elements in a panel: 2 MiB of f64, which stays in the second-level cache of a server core
/// while every tile of the product reads it, and bounds the memory beside the result.
const PANEL: usize = 1 << 18;
/// Tiles below this size are computed by one thread.
const TILE: usize = 256;

/// The lower triangle of the smaller of WᵀW and WWᵀ; the strict upper triangle stays zero.
pub fn gram(matrix: &dyn Elements, parallelism: Parallelism) -> Dense {
    let n = matrix.rows().min(matrix.cols());
    let mut product = Dense::zeros(n, n);
    for_each_panel(matrix, parallelism, |panel| {
        let target = MatMut::from_column_major_slice_mut(&mut product.data, n, n);
        add_lower_product(target, panel.matrix(), panel.matrix(), 1.0, parallelism);
    });
    product
}

/// A part of W in double precision, n × count: so many columns of W where it is wide, so many rows,
/// transposed, where it is tall. The Gram matrix of the smaller side is the sum of P·Pᵀ.
pub(super) struct Panel<'a, T = f64> {
    pub data: &'a mut [T],
    pub n: usize,
    pub count: usize,
    /// Whether the n elements of a column lie together; else the `count` elements of a row do.
    pub column_major: bool,
}

impl<T: Real> Panel<'_, T> {
    pub fn matrix(&self) -> MatRef<'_, T> {
        match self.column_major {
            true => MatRef::from_column_major_slice(self.data, self.n, self.count),
            false => MatRef::from_row_major_slice(self.data, self.n, self.count),
        }
    }

    pub fn matrix_mut(&mut self) -> MatMut<'_, T> {
        match self.column_major {
            true => MatMut::from_column_major_slice_mut(self.data, self.n, self.count),
            false => MatMut::from_row_major_slice_mut(self.data, self.n, self.count),
        }
    }
}

/// Goes through W panel by panel. The panels depend on the shape alone.
pub(super) fn for_each_panel(
    matrix: &dyn Elements,
    parallelism: Parallelism,
    mut visit: impl FnMut(Panel<'_>),
) {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let (n, m) = (rows.min(cols), rows.max(cols));
    if n == 0 {
        return;
    }
    let depth = panel_depth(n, m);
    let mut buffer = vec![0.0; n * depth];
    for start in (0..m).step_by(depth) {
        let count = depth.min(m - start);
        let Some(data) = buffer.get_mut(..n * count) else {
            break;
        };
        let column_major = rows > cols;
        fill(matrix, start, count, column_major, data, parallelism);
        visit(Panel { data, n, count, column_major });
    }
}

/// Columns of the largest panel.
pub(super) fn panel_depth(n: usize, m: usize) -> usize {
    (PANEL / n.max(1)).max(256).min(m)
}

/// Widens a panel, in parallel strips for a large matrix: rows `start..start + count` of a tall
/// matrix, those columns of a wide one.
fn fill(
    matrix: &dyn Elements,
    start: usize,
    count: usize,
    tall: bool,
    panel: &mut [f64],
    parallelism: Parallelism,
) {
    use rayon::prelude::*;
    let (lines, width) = if tall { (count, matrix.cols()) } else { (matrix.rows(), count) };
    let copy = |first: usize, strip: &mut [f64]| {
        let here = first..first + strip.len() / width;
        if tall {
            matrix.copy_block(start + here.start..start + here.end, 0..width, strip);
        } else {
            matrix.copy_block(here, start..start + width, strip);
        }
    };
    match parallelism {
        Parallelism::Alone => copy(0, panel),
        Parallelism::Within => {
            let strip = lines.div_ceil(16).max(1);
            panel.par_chunks_mut(strip * width).enumerate().for_each(|(i, chunk)| copy(i * strip, chunk));
        }
    }
}

/// C += a·L·Rᵀ on the lower triangle of the square matrix C, halving until the tiles are small. The
/// tiles are the same whoever computes them, so the result does not depend on the threads.
pub(super) fn add_lower_product<T: Real>(
    target: MatMut<'_, T>,
    left: MatRef<'_, T>,
    right: MatRef<'_, T>,
    factor: T,
    parallelism: Parallelism,
) {
    let n = target.nrows();
    if n <= TILE || parallelism == Parallelism::Alone {
        triangular::matmul(
            target,
            BlockStructure::TriangularLower,
            Accum::Add,
            left,
            BlockStructure::Rectangular,
            right.transpose(),
            BlockStructure::Rectangular,
            factor,
            Par::Seq,
        );
        return;
    }
    let half = n / 2;
    let (top, _, corner, bottom) = target.split_at_mut(half, half);
    let (left_top, left_bottom) = left.split_at_row(half);
    let (right_top, right_bottom) = right.split_at_row(half);
    rayon::join(
        || {
            rayon::join(
                || add_lower_product(top, left_top, right_top, factor, parallelism),
                || add_lower_product(bottom, left_bottom, right_bottom, factor, parallelism),
            )
        },
        || add_product(corner, left_bottom, right_top, factor, parallelism),
    );
}

/// C += a·L·Rᵀ, halving the longer side of C until the tiles are small.
pub(super) fn add_product<T: Real>(
    target: MatMut<'_, T>,
    left: MatRef<'_, T>,
    right: MatRef<'_, T>,
    factor: T,
    parallelism: Parallelism,
) {
    let (rows, cols) = (target.nrows(), target.ncols());
    if rows.max(cols) <= TILE || parallelism == Parallelism::Alone {
        matmul(target, Accum::Add, left, right.transpose(), factor, Par::Seq);
    } else if rows >= cols {
        let (a, b) = target.split_at_row_mut(rows / 2);
        let (l, m) = left.split_at_row(rows / 2);
        rayon::join(
            || add_product(a, l, right, factor, parallelism),
            || add_product(b, m, right, factor, parallelism),
        );
    } else {
        let (a, b) = target.split_at_col_mut(cols / 2);
        let (r, s) = right.split_at_row(cols / 2);
        rayon::join(
            || add_product(a, left, r, factor, parallelism),
            || add_product(b, left, s, factor, parallelism),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                assert_eq!((g.rows, g.cols), (n, n));
                for (i, j) in (0..n).flat_map(|j| (j..n).map(move |i| (i, j))).step_by(7) {
                    let exact: f64 = if rows > cols {
                        (0..rows).map(|r| at(r, i) * at(r, j)).sum()
                    } else {
                        (0..cols).map(|c| at(i, c) * at(j, c)).sum()
                    };
                    assert_eq!(g.data[i + j * n], exact, "({i}, {j}) of {rows}x{cols}");
                }
            }
        }
    }
}
