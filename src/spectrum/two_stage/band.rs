//! First stage, dense to band: panel by panel a block Householder transformation Q = I − V·T·Vᵀ
//! eliminates what lies below the band, and is applied from both sides to the rest of the matrix,
//! all as matrix products (T as in Schreiber and Van Loan 1989).

// Offsets run inside the panel whose size is computed here; no input reaches them.
#![allow(clippy::indexing_slicing)]

use faer::linalg::matmul::matmul;
use faer::reborrow::{Reborrow, ReborrowMut};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use pulp::Simd;

use super::kernels::{Work, reflect, reflector, vectorised};
use super::pass;
use crate::spectrum::gram::{add_lower_product, add_product};
use crate::spectrum::{Parallelism, Real, Symmetric};

/// Reduces `matrix` to a band of `bandwidth` subdiagonals, in place. What
/// lies below the band afterwards is left over and means nothing.
///
/// The matrix is too large for any cache, so that each pass over it costs. The transformation of a
/// panel needs A·V first and changes A afterwards: two passes. Here the change waits until the next
/// panel's V is known (only that panel's own columns are changed at once), and both are done in one.
pub(super) fn reduce<T: Real>(matrix: &mut Symmetric<T>, bandwidth: usize) {
    let n = matrix.n();
    let mut whole = matrix.as_mut();
    let mut waiting: Option<Update<T>> = None;
    let mut scratch = Vec::new();
    let mut first = 0;
    while first + bandwidth + 1 < n {
        let below = first + bandwidth;
        let panel = Columns::copy(whole.rb(), first, below, bandwidth).factor();
        panel.store(whole.rb_mut(), first, below);
        let mut rest = whole.rb_mut().submatrix_mut(below, below, n - below, n - below);
        let product = pass::transform_and_multiply(
            rest.rb_mut(),
            waiting.as_ref(),
            panel.vectors.as_ref(),
            &mut scratch,
        );
        let update = Update::of(product.transpose(), &panel);
        let columns = bandwidth.min(n - below);
        update.apply_to_columns(rest.subcols_mut(0, columns));
        waiting = Some(update.without_first(columns));
        first = below;
    }
    if let Some(update) = waiting {
        let start = first + bandwidth.min(n - first);
        let size = n - start;
        update.apply(whole.submatrix_mut(start, start, size, size));
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
    fn copy(matrix: MatRef<'_, T>, first: usize, below: usize, count: usize) -> Columns<T> {
        let rows = matrix.nrows() - below;
        let part = matrix.submatrix(below, first, rows, count);
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
    fn run<S: Simd>(self, simd: S) {
        for (j, (tau, diagonal)) in self.taus.iter_mut().zip(self.diagonal).enumerate() {
            let (done, rest) = self.data.split_at_mut((j + 1) * self.rows);
            let vector = &mut done[j * self.rows + j..];
            (*tau, *diagonal) = reflector(vector);
            reflect(simd, *tau, vector, rest, self.rows);
        }
    }
}

/// The transformation A ← Qᵀ·A·Q of one panel: A − L·Rᵀ with L = [V W], R = [W V], where
/// X = A·V·T and W = X − ½·V·(Tᵀ·Vᵀ·X).
pub(super) struct Update<T: Real> {
    pub left: Mat<T>,
    pub right: Mat<T>,
    /// The rows of L and R that belong to the first row and column of what is to be transformed.
    pub skip: usize,
}

impl<T: Real> Update<T> {
    /// From A·V.
    fn of(product: MatRef<'_, T>, panel: &Panel<T>) -> Update<T> {
        let (v, t) = (panel.vectors.as_ref(), panel.block.as_ref());
        let (rows, count) = (v.nrows(), v.ncols());
        let (mut left, mut right) = (Mat::<T>::zeros(rows, 2 * count), Mat::<T>::zeros(rows, 2 * count));
        let mut w = right.as_mut().subcols_mut(0, count);
        add_product(w.rb_mut(), product, t.transpose(), T::one(), Parallelism::Within);
        let mut inner = Mat::<T>::zeros(count, count);
        matmul(inner.as_mut(), Accum::Replace, v.transpose(), w.rb(), T::one(), Par::Seq);
        let mut outer = Mat::<T>::zeros(count, count);
        matmul(outer.as_mut(), Accum::Replace, t.transpose(), inner.as_ref(), T::one(), Par::Seq);
        add_product(w.rb_mut(), v, outer.transpose(), T::narrow(-0.5), Parallelism::Within);
        left.as_mut().subcols_mut(count, count).copy_from(w.rb());
        left.as_mut().subcols_mut(0, count).copy_from(v);
        right.as_mut().subcols_mut(count, count).copy_from(v);
        Update { left, right, skip: 0 }
    }

    /// What is left of it once the first columns are transformed.
    fn without_first(self, columns: usize) -> Update<T> {
        Update { skip: self.skip + columns, ..self }
    }

    /// L and R of the rows and columns that are to be transformed.
    pub fn factors(&self) -> (MatRef<'_, T>, MatRef<'_, T>) {
        let rows = self.left.nrows() - self.skip;
        (self.left.as_ref().subrows(self.skip, rows), self.right.as_ref().subrows(self.skip, rows))
    }

    /// Transforms the first columns, all of their rows: above the diagonal they mean nothing.
    fn apply_to_columns(&self, columns: MatMut<'_, T>) {
        let (left, right) = self.factors();
        let right = right.subrows(0, columns.ncols());
        add_product(columns, left, right, -T::one(), Parallelism::Within);
    }

    /// Transforms the lower triangle of all that is to be transformed.
    fn apply(&self, a: MatMut<'_, T>) {
        let (left, right) = self.factors();
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
