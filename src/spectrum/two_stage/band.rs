//! First stage, dense to band: panel by panel a block Householder transformation Q = I − V·T·Vᵀ
//! eliminates what lies below the band, and is applied from both sides to the rest of the matrix,
//! all as matrix products (T as in Schreiber and Van Loan 1989).

// Offsets run inside the panel whose size is computed here; no input reaches them.
#![allow(clippy::indexing_slicing)]

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatMut, MatRef, Par};

use super::kernels::{Work, axpy, dot, reflector, vectorised};
use crate::spectrum::gram::add_lower_product;
use crate::spectrum::{Dense, Parallelism, Real};

/// Rows of the symmetric product that one task computes.
const TILE: usize = 256;

/// Reduces the lower triangle of `matrix` to a band of `bandwidth` subdiagonals, in place. What
/// lies below the band afterwards is left over and means nothing.
pub(super) fn reduce<T: Real>(matrix: &mut Dense<T>, bandwidth: usize) {
    let n = matrix.rows;
    let mut first = 0;
    while first + bandwidth + 1 < n {
        let below = first + bandwidth;
        let panel = Panel::factor(matrix, first, below, bandwidth);
        panel.store(matrix, first, below);
        let whole = MatMut::from_column_major_slice_mut(&mut matrix.data, n, n);
        let rest = whole.submatrix_mut(below, below, n - below, n - below);
        transform(rest, panel.vectors());
        first += bandwidth;
    }
}

/// The part of some columns below the band, as a QR decomposition: the reflectors' vectors on and
/// below the diagonal, R above it, and R's diagonal.
struct Panel<T> {
    rows: usize,
    data: Vec<T>,
    diagonal: Vec<T>,
    taus: Vec<T>,
}

impl<T: Real> Panel<T> {
    fn factor(matrix: &Dense<T>, first: usize, below: usize, columns: usize) -> Panel<T> {
        let n = matrix.rows;
        let rows = n - below;
        let mut data = Vec::with_capacity(rows * columns);
        for j in first..first + columns {
            data.extend_from_slice(&matrix.data[below + j * n..(j + 1) * n]);
        }
        let count = columns.min(rows);
        let (mut diagonal, mut taus) = (vec![T::zero(); count], vec![T::zero(); count]);
        vectorised(Factor { rows, data: &mut data, diagonal: &mut diagonal, taus: &mut taus });
        Panel { rows, data, diagonal, taus }
    }

    /// Writes R where the panel was: it lies inside the band.
    fn store(&self, matrix: &mut Dense<T>, first: usize, below: usize) {
        let n = matrix.rows;
        for (j, column) in self.data.chunks_exact(self.rows).enumerate() {
            let target = &mut matrix.data[below + (first + j) * n..];
            let above = j.min(self.rows);
            target[..above].copy_from_slice(&column[..above]);
            if let Some(diagonal) = self.diagonal.get(j) {
                target[j] = *diagonal;
            }
        }
    }

    /// V: unit lower trapezoidal; a zero column stands for a reflector that is the identity.
    fn vectors(&self) -> Mat<T> {
        let vector = |i: usize, j: usize| {
            if i >= j && self.taus[j] != T::zero() { self.data[i + j * self.rows] } else { T::zero() }
        };
        Mat::from_fn(self.rows, self.taus.len(), vector)
    }
}

/// Householder QR, column by column.
struct Factor<'a, T> {
    rows: usize,
    data: &'a mut [T],
    diagonal: &'a mut [T],
    taus: &'a mut [T],
}

impl<T: Real> Work for Factor<'_, T> {
    #[inline(always)]
    fn run(self) {
        for (j, (tau, diagonal)) in self.taus.iter_mut().zip(self.diagonal).enumerate() {
            let (done, rest) = self.data.split_at_mut((j + 1) * self.rows);
            let vector = &mut done[j * self.rows + j..];
            (*tau, *diagonal) = reflector(vector);
            for column in rest.chunks_exact_mut(self.rows) {
                let column = &mut column[j..];
                axpy(-*tau * dot(vector, column), vector, column);
            }
        }
    }
}

/// A ← Qᵀ·A·Q on the lower triangle: A − V·Wᵀ − W·Vᵀ with X = A·V·T and W = X − ½·V·(Tᵀ·Vᵀ·X).
fn transform<T: Real>(mut a: MatMut<'_, T>, vectors: Mat<T>) {
    let (rows, count) = (vectors.nrows(), vectors.ncols());
    let v = vectors.as_ref();
    let t = block_factor(v);
    let mut product = Mat::<T>::zeros(rows, count);
    symmetric_product(product.as_mut(), 0, a.as_ref(), v);
    let mut w = Mat::<T>::zeros(rows, count);
    matmul(w.as_mut(), Accum::Replace, product.as_ref(), t.as_ref(), T::one(), Par::Seq);
    let mut inner = Mat::<T>::zeros(count, count);
    matmul(inner.as_mut(), Accum::Replace, v.transpose(), w.as_ref(), T::one(), Par::Seq);
    let mut outer = Mat::<T>::zeros(count, count);
    matmul(outer.as_mut(), Accum::Replace, t.transpose(), inner.as_ref(), T::one(), Par::Seq);
    matmul(w.as_mut(), Accum::Add, v, outer.as_ref(), T::narrow(-0.5), Par::Seq);
    let pair = |first: MatRef<'_, T>, second: MatRef<'_, T>| {
        let mut both = Mat::<T>::zeros(rows, 2 * count);
        both.as_mut().subcols_mut(0, count).copy_from(first);
        both.as_mut().subcols_mut(count, count).copy_from(second);
        both
    };
    let (left, right) = (pair(v, w.as_ref()), pair(w.as_ref(), v));
    add_lower_product(a.as_mut(), left.as_ref(), right.as_ref(), -T::one(), Parallelism::Within);
}

/// T of H₁·…·H_k = I − V·T·Vᵀ: the inverse of the upper triangle of VᵀV with its diagonal halved.
fn block_factor<T: Real>(v: MatRef<'_, T>) -> Mat<T> {
    let count = v.ncols();
    let mut gram = Mat::<T>::zeros(count, count);
    matmul(gram.as_mut(), Accum::Replace, v.transpose(), v, T::one(), Par::Seq);
    let mut t = Mat::<T>::zeros(count, count);
    for j in 0..count {
        // The identity's zero column takes part in no sum; its own entry may be anything but 1/0.
        let half = if gram[(j, j)] > T::zero() { T::narrow(0.5) * gram[(j, j)] } else { T::one() };
        t[(j, j)] = T::one() / half;
        for i in 0..j {
            let sum = (i..j).fold(T::zero(), |sum, k| sum + t[(i, k)] * gram[(k, j)]);
            t[(i, j)] = -sum / half;
        }
    }
    t
}

/// Y = A·V for a symmetric A of which the lower triangle is filled; rows from `first` on. Each tile
/// of rows is one task, and no two write to the same place.
fn symmetric_product<T: Real>(y: MatMut<'_, T>, first: usize, a: MatRef<'_, T>, v: MatRef<'_, T>) {
    let rows = y.nrows();
    if rows > TILE {
        // At a multiple of the tile, so that the tiles do not depend on the splitting.
        let half = (rows / 2).next_multiple_of(TILE).min(rows - 1);
        let (top, bottom) = y.split_at_row_mut(half);
        rayon::join(|| symmetric_product(top, first, a, v), || symmetric_product(bottom, first + half, a, v));
        return;
    }
    let mut y = y;
    let end = first + rows;
    let (above, here, below) = (v.subrows(0, first), v.subrows(first, rows), v.subrows(end, v.nrows() - end));
    matmul(y.as_mut(), Accum::Replace, a.submatrix(first, 0, rows, first), above, T::one(), Par::Seq);
    let column = a.submatrix(end, first, a.nrows() - end, rows);
    matmul(y.as_mut(), Accum::Add, column.transpose(), below, T::one(), Par::Seq);
    let corner = a.submatrix(first, first, rows, rows);
    let mut add = |triangle: MatRef<'_, T>, structure: BlockStructure| {
        triangular::matmul(
            y.as_mut(),
            BlockStructure::Rectangular,
            Accum::Add,
            triangle,
            structure,
            here,
            BlockStructure::Rectangular,
            T::one(),
            Par::Seq,
        );
    };
    add(corner, BlockStructure::TriangularLower);
    add(corner.transpose(), BlockStructure::StrictTriangularUpper);
}
