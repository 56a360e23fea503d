//! One pass over a symmetric matrix: a transformation that was still waiting, and the product with
//! the next block of vectors, tile by tile while the tile is in the cache.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::reborrow::{IntoConst, Reborrow, ReborrowMut};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::band::Update;
use crate::spectrum::Real;

/// Side of a tile: half a megabyte of `f64`, for the second-level cache of one core.
const TILE: usize = 256;
/// Diagonal tiles are halved down to this side.
const LEAF: usize = 32;

/// A ← A − L·Rᵀ on the lower triangle, and Yᵀ = (A·V)ᵀ with the new A.
///
/// V and Y are small beside A. They are passed transposed, because then the products pack and
/// rearrange them, and take the elements of A from where they are.
///
/// Each task has a block of columns. What its tiles add to the rows of other tasks goes into a
/// matrix of its own in `scratch`; these are summed in the order of the blocks, so that the result
/// does not depend on the threads.
pub(super) fn transform_and_multiply<T: Real>(
    a: MatMut<'_, T>,
    update: Option<&Update<T>>,
    v: MatRef<'_, T>,
    scratch: &mut Vec<T>,
) -> Mat<T> {
    let (rows, count) = (v.nrows(), v.ncols());
    let factors = update.map(Update::factors);
    let mut transposed = Mat::<T>::zeros(count, rows);
    tiles(transposed.as_mut()).into_par_iter().with_max_len(1).for_each(|(start, mut tile)| {
        let width = tile.ncols();
        tile.copy_from(v.subrows(start, width).transpose());
    });
    let v = transposed.as_ref();
    let mut y = Mat::<T>::zeros(count, rows);
    let blocks = blocks(a, y.as_mut(), scratch);
    let beside: Vec<MatRef<'_, T>> =
        blocks.into_par_iter().with_max_len(1).map(|b| b.run(factors, v)).collect();
    tiles(y.as_mut()).into_par_iter().with_max_len(1).for_each(|(start, mut tile)| {
        for (block, added) in beside.iter().enumerate().take(start / TILE) {
            let from = start - (block + 1) * TILE;
            tile += added.subcols(from, tile.ncols());
        }
    });
    y
}

/// A block of columns, from the diagonal down, and the columns of Yᵀ that belong to its diagonal tile.
struct Block<'a, 's, T> {
    start: usize,
    a: MatMut<'a, T>,
    y: MatMut<'a, T>,
    /// For what its tiles add to the columns of Yᵀ after its own.
    beside: MatMut<'s, T>,
}

fn blocks<'a, 's, T: Real>(
    a: MatMut<'a, T>,
    y: MatMut<'a, T>,
    scratch: &'s mut Vec<T>,
) -> Vec<Block<'a, 's, T>> {
    let (rows, count) = (y.ncols(), y.nrows());
    let after = |start: usize| rows - (start + TILE).min(rows);
    let size = (0..rows).step_by(TILE).map(|start| count * after(start)).sum();
    if scratch.len() < size {
        scratch.resize(size, T::zero());
    }
    let (mut rest, mut scratch) = (a, scratch.as_mut_slice());
    let mut blocks = Vec::new();
    for (start, y) in tiles(y) {
        let (block, others) = rest.split_at_col_mut(y.ncols());
        let (beside, unused) = scratch.split_at_mut(count * after(start));
        let beside = MatMut::from_column_major_slice_mut(beside, count, after(start));
        let size = block.nrows() - start;
        blocks.push(Block { start, a: block.subrows_mut(start, size), y, beside });
        (rest, scratch) = (others, unused);
    }
    blocks
}

/// The columns of Yᵀ, tile by tile.
fn tiles<T: Real>(y: MatMut<'_, T>) -> Vec<(usize, MatMut<'_, T>)> {
    let mut rest = y;
    let (mut tiles, mut start) = (Vec::new(), 0);
    while rest.ncols() > 0 {
        let count = TILE.min(rest.ncols());
        let (tile, others) = rest.split_at_col_mut(count);
        tiles.push((start, tile));
        start += count;
        rest = others;
    }
    tiles
}

impl<'s, T: Real> Block<'_, 's, T> {
    /// Does its tiles; returns what they add to the columns of Yᵀ after its own.
    fn run(mut self, factors: Option<(MatRef<'_, T>, MatRef<'_, T>)>, v: MatRef<'_, T>) -> MatRef<'s, T> {
        let (rows, width) = (self.a.nrows(), self.a.ncols());
        let here = v.subcols(self.start, width);
        self.diagonal(factors, here);
        for start in (width..rows).step_by(TILE) {
            let height = TILE.min(rows - start);
            let mut tile = self.a.rb_mut().subrows_mut(start, height);
            if let Some((left, right)) = factors {
                let (left, right) =
                    (left.subrows(self.start + start, height), right.subrows(self.start, width));
                matmul(tile.rb_mut(), Accum::Add, left, right.transpose(), -T::one(), Par::Seq);
            }
            let there = v.subcols(self.start + start, height);
            let mut added = self.beside.rb_mut().subcols_mut(start - width, height);
            added.fill(T::zero());
            multiply(tile.rb(), (here, there), added, self.y.rb_mut());
        }
        self.beside.into_const()
    }

    /// The tile on the diagonal.
    fn diagonal(&mut self, factors: Option<(MatRef<'_, T>, MatRef<'_, T>)>, v: MatRef<'_, T>) {
        use BlockStructure::{Rectangular, TriangularLower};
        let width = self.a.ncols();
        let mut tile = self.a.rb_mut().subrows_mut(0, width);
        if let Some((left, right)) = factors {
            let (left, right) = (left.subrows(self.start, width), right.subrows(self.start, width));
            triangular::matmul(
                tile.rb_mut(),
                TriangularLower,
                Accum::Add,
                left,
                Rectangular,
                right.transpose(),
                Rectangular,
                -T::one(),
                Par::Seq,
            );
        }
        multiply_diagonal(tile.rb(), v, self.y.rb_mut());
    }
}

/// What a tile B below the diagonal contributes: B·V₁ to the rows where it is, Bᵀ·V₂ to those of its
/// columns; all transposed.
fn multiply<T: Real>(
    tile: MatRef<'_, T>,
    (here, there): (MatRef<'_, T>, MatRef<'_, T>),
    rows: MatMut<'_, T>,
    columns: MatMut<'_, T>,
) {
    matmul(rows, Accum::Add, here, tile.transpose(), T::one(), Par::Seq);
    matmul(columns, Accum::Add, there, tile, T::one(), Par::Seq);
}

/// Yᵀ += Vᵀ·A for a symmetric A of which the lower triangle is filled.
fn multiply_diagonal<T: Real>(a: MatRef<'_, T>, v: MatRef<'_, T>, y: MatMut<'_, T>) {
    let n = a.ncols();
    if n <= LEAF {
        let full = Mat::from_fn(n, n, |i, j| if i >= j { a[(i, j)] } else { a[(j, i)] });
        matmul(y, Accum::Add, v, full.as_ref(), T::one(), Par::Seq);
        return;
    }
    let half = n / 2;
    let (top, _, corner, bottom) = a.split_at(half, half);
    let (v_top, v_bottom) = v.split_at_col(half);
    let (mut y_top, mut y_bottom) = y.split_at_col_mut(half);
    multiply_diagonal(top, v_top, y_top.rb_mut());
    multiply_diagonal(bottom, v_bottom, y_bottom.rb_mut());
    multiply(corner, (v_top, v_bottom), y_bottom, y_top);
}
