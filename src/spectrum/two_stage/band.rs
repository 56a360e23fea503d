//! First stage, dense to band: panel by panel a block Householder transformation Q = I − V·T·Vᵀ
//! eliminates what lies below the band, and is applied from both sides to the rest of the matrix,
//! all as matrix products (T as in Schreiber and Van Loan 1989).

// Offsets run inside the panel whose size is computed here; no input reaches them.
#![allow(clippy::indexing_slicing)]

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::reborrow::{Reborrow, ReborrowMut};
use faer::{Accum, Mat, MatMut, MatRef, Par};

use super::kernels::{Work, axpy, dot, reflector, vectorised};
use crate::spectrum::gram::{add_lower_product, add_product};
use crate::spectrum::{Dense, Parallelism, Real};

/// Rows of the symmetric product that one task computes.
const TILE: usize = 256;

/// Reduces the lower triangle of `matrix` to a band of `bandwidth` subdiagonals, in place. What
/// lies below the band afterwards is left over and means nothing.
///
/// The QR decomposition of a panel is the one part that a single thread does, column by column. So
/// the next panel's columns are transformed before the rest, and it is factored meanwhile.
pub(super) fn reduce<T: Real>(matrix: &mut Dense<T>, bandwidth: usize) {
    let n = matrix.rows;
    // A panel: its first column, and the first row below the band.
    let panel_at = |first: usize| (first + bandwidth + 1 < n).then_some((first, first + bandwidth));
    let mut current = panel_at(0).map(|(first, below)| {
        let panel = Columns::copy(matrix.as_mut(), first, below, bandwidth).factor();
        (panel, first, below)
    });
    while let Some((panel, first, below)) = current {
        let mut whole = matrix.as_mut();
        panel.store(whole.rb_mut(), first, below);
        let mut rest = whole.rb_mut().submatrix_mut(below, below, n - below, n - below);
        let update = Update::of(rest.rb(), &panel);
        let Some((next_first, next_below)) = panel_at(below) else {
            update.apply(rest, 0);
            return;
        };
        update.apply_to_columns(rest.rb_mut().subcols_mut(0, bandwidth));
        let next = Columns::copy(whole.rb_mut(), next_first, next_below, bandwidth);
        let size = n - next_below;
        let rest = whole.submatrix_mut(next_below, next_below, size, size);
        let (next, ()) = rayon::join(|| next.factor(), || update.apply(rest, bandwidth));
        current = Some((next, next_first, next_below));
    }
}

/// The part of some columns below the band, as a QR decomposition Q·R with Q = I − V·T·Vᵀ: the
/// reflectors' vectors on and below the diagonal, R above it, and R's diagonal.
struct Panel<T: Real> {
    rows: usize,
    data: Vec<T>,
    diagonal: Vec<T>,
    /// V, unit lower trapezoidal; a zero column stands for a reflector that is the identity.
    vectors: Mat<T>,
    /// T, upper triangular.
    block: Mat<T>,
}

/// The elements of a panel before its decomposition.
struct Columns<T> {
    rows: usize,
    data: Vec<T>,
}

impl<T: Real> Columns<T> {
    fn copy(matrix: MatMut<'_, T>, first: usize, below: usize, count: usize) -> Columns<T> {
        let rows = matrix.nrows() - below;
        let part = matrix.as_ref().submatrix(below, first, rows, count);
        let mut data = Vec::with_capacity(rows * count);
        part.col_iter().for_each(|column| data.extend(column.iter().copied()));
        Columns { rows, data }
    }

    fn factor(mut self) -> Panel<T> {
        let rows = self.rows;
        let count = (self.data.len() / rows).min(rows);
        let (mut diagonal, mut taus) = (vec![T::zero(); count], vec![T::zero(); count]);
        vectorised(Factor { rows, data: &mut self.data, diagonal: &mut diagonal, taus: &mut taus });
        let vector = |i: usize, j: usize| {
            if i >= j && taus[j] != T::zero() { self.data[i + j * rows] } else { T::zero() }
        };
        let vectors = Mat::from_fn(rows, count, vector);
        let block = block_factor(vectors.as_ref());
        Panel { rows, data: self.data, diagonal, vectors, block }
    }
}

impl<T: Real> Panel<T> {
    /// Writes R where the panel was: it lies inside the band.
    fn store(&self, matrix: MatMut<'_, T>, first: usize, below: usize) {
        let mut target = matrix.submatrix_mut(below, first, self.rows, self.data.len() / self.rows);
        for (j, column) in self.data.chunks_exact(self.rows).enumerate() {
            for (i, value) in column.iter().enumerate().take(j) {
                target[(i, j)] = *value;
            }
            if let Some(diagonal) = self.diagonal.get(j) {
                target[(j, j)] = *diagonal;
            }
        }
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

/// The transformation A ← Qᵀ·A·Q of one panel: A − L·Rᵀ with L = [V W], R = [W V], where
/// X = A·V·T and W = X − ½·V·(Tᵀ·Vᵀ·X).
struct Update<T: Real> {
    left: Mat<T>,
    right: Mat<T>,
}

impl<T: Real> Update<T> {
    fn of(a: MatRef<'_, T>, panel: &Panel<T>) -> Update<T> {
        let (v, t) = (panel.vectors.as_ref(), panel.block.as_ref());
        let (rows, count) = (v.nrows(), v.ncols());
        let mut product = Mat::<T>::zeros(rows, count);
        symmetric_product(product.as_mut(), 0, a, v);
        let (mut left, mut right) = (Mat::<T>::zeros(rows, 2 * count), Mat::<T>::zeros(rows, 2 * count));
        let mut w = right.as_mut().subcols_mut(0, count);
        add_product(w.rb_mut(), product.as_ref(), t.transpose(), T::one(), Parallelism::Within);
        let mut inner = Mat::<T>::zeros(count, count);
        matmul(inner.as_mut(), Accum::Replace, v.transpose(), w.rb(), T::one(), Par::Seq);
        let mut outer = Mat::<T>::zeros(count, count);
        matmul(outer.as_mut(), Accum::Replace, t.transpose(), inner.as_ref(), T::one(), Par::Seq);
        add_product(w.rb_mut(), v, outer.transpose(), T::narrow(-0.5), Parallelism::Within);
        left.as_mut().subcols_mut(count, count).copy_from(w.rb());
        left.as_mut().subcols_mut(0, count).copy_from(v);
        right.as_mut().subcols_mut(count, count).copy_from(v);
        Update { left, right }
    }

    /// Transforms the first columns, all of their rows: above the diagonal they mean nothing.
    fn apply_to_columns(&self, columns: MatMut<'_, T>) {
        let right = self.right.as_ref().subrows(0, columns.ncols());
        add_product(columns, self.left.as_ref(), right, -T::one(), Parallelism::Within);
    }

    /// Transforms the lower triangle of what lies from row and column `from` on.
    fn apply(&self, a: MatMut<'_, T>, from: usize) {
        let rows = self.left.nrows() - from;
        let (left, right) = (self.left.as_ref().subrows(from, rows), self.right.as_ref().subrows(from, rows));
        add_lower_product(a, left, right, -T::one(), Parallelism::Within);
    }
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
