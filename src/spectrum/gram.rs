//! The Gram matrix, n²·m operations: only the lower triangle, only a panel of W at a time.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};

use super::{Dense, Elements, Parallelism};

/// Elements in a panel: 2 MiB of f64, which stays in the second-level cache of a server core
/// while every tile of the product reads it, and bounds the memory beside the result.
const PANEL: usize = 1 << 18;
/// Tiles below this size are computed by one thread.
const TILE: usize = 256;

/// The lower triangle of the smaller of WᵀW and WWᵀ; the strict upper triangle stays zero.
pub fn gram(matrix: &dyn Elements, parallelism: Parallelism) -> Dense {
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let (n, m) = (rows.min(cols), rows.max(cols));
    let mut product = Dense::zeros(n, n);
    if n == 0 {
        return product;
    }
    let depth = (PANEL / n).max(256).min(m);
    let mut buffer = vec![0.0; n * depth];
    for start in (0..m).step_by(depth) {
        let count = depth.min(m - start);
        let Some(panel) = buffer.get_mut(..n * count) else {
            break;
        };
        // Both panels are n × count with G += P·Pᵀ; only the order of their elements differs.
        let panel = if rows > cols {
            fill(matrix, start, count, true, panel, parallelism);
            MatRef::from_column_major_slice(panel, n, count)
        } else {
            fill(matrix, start, count, false, panel, parallelism);
            MatRef::from_row_major_slice(panel, n, count)
        };
        let target = MatMut::from_column_major_slice_mut(&mut product.data, n, n);
        add_lower_product(target, panel, panel, 1.0, parallelism);
    }
    product
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
pub(super) fn add_lower_product(
    target: MatMut<'_, f64>,
    left: MatRef<'_, f64>,
    right: MatRef<'_, f64>,
    factor: f64,
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
        || add_product(corner, left_bottom, right_top, factor),
    );
}

/// C += a·L·Rᵀ, halving the longer side of C until the tiles are small.
fn add_product(target: MatMut<'_, f64>, left: MatRef<'_, f64>, right: MatRef<'_, f64>, factor: f64) {
    let (rows, cols) = (target.nrows(), target.ncols());
    if rows.max(cols) <= TILE {
        matmul(target, Accum::Add, left, right.transpose(), factor, Par::Seq);
    } else if rows >= cols {
        let (a, b) = target.split_at_row_mut(rows / 2);
        let (l, m) = left.split_at_row(rows / 2);
        rayon::join(|| add_product(a, l, right, factor), || add_product(b, m, right, factor));
    } else {
        let (a, b) = target.split_at_col_mut(cols / 2);
        let (r, s) = right.split_at_row(cols / 2);
        rayon::join(|| add_product(a, left, r, factor), || add_product(b, left, s, factor));
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
