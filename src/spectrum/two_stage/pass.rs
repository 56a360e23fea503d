//! One pass over a symmetric matrix: a transformation that was still waiting, and the product with
//! the next block of vectors, tile by tile while the tile is in the cache.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::reborrow::{Reborrow, ReborrowMut};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::band::Update;
use crate::spectrum::Real;

/// Side of a tile: half a megabyte of `f64`, for the second-level cache of one core.
const TILE: usize = 256;

/// A ← A − L·Rᵀ on the lower triangle, and Y = A·V with the new A.
///
/// Each task has a block of columns. What its tiles add to the rows of other tasks goes into a
/// matrix of its own; these are summed in the order of the blocks, so that the result does not
/// depend on the threads.
pub(super) fn transform_and_multiply<T: Real>(
    a: MatMut<'_, T>,
    update: Option<&Update<T>>,
    v: MatRef<'_, T>,
) -> Mat<T> {
    let (rows, count) = (v.nrows(), v.ncols());
    let factors = update.map(Update::factors);
    let mut y = Mat::<T>::zeros(rows, count);
    let blocks = blocks(a, y.as_mut());
    let below: Vec<Mat<T>> = blocks.into_par_iter().with_max_len(1).map(|b| b.run(factors, v)).collect();
    row_tiles(y.as_mut()).into_par_iter().with_max_len(1).for_each(|(start, mut tile)| {
        for (block, added) in below.iter().enumerate().take(start / TILE) {
            let from = start - (block + 1) * TILE;
            tile += added.subrows(from, tile.nrows());
        }
    });
    y
}

/// A block of columns, from the diagonal down, and the rows of Y that belong to its diagonal tile.
struct Block<'a, T> {
    start: usize,
    a: MatMut<'a, T>,
    y: MatMut<'a, T>,
}

fn blocks<'a, T: Real>(a: MatMut<'a, T>, y: MatMut<'a, T>) -> Vec<Block<'a, T>> {
    let mut rest = a;
    let mut blocks = Vec::new();
    for (start, y) in row_tiles(y) {
        let (block, others) = rest.split_at_col_mut(y.nrows());
        let size = block.nrows() - start;
        blocks.push(Block { start, a: block.subrows_mut(start, size), y });
        rest = others;
    }
    blocks
}

/// The rows of Y, tile by tile.
fn row_tiles<T: Real>(y: MatMut<'_, T>) -> Vec<(usize, MatMut<'_, T>)> {
    let mut rest = y;
    let (mut tiles, mut start) = (Vec::new(), 0);
    while rest.nrows() > 0 {
        let (tile, others) = {
            let count = TILE.min(rest.nrows());
            rest.split_at_row_mut(count)
        };
        let count = tile.nrows();
        tiles.push((start, tile));
        start += count;
        rest = others;
    }
    tiles
}

impl<T: Real> Block<'_, T> {
    /// Does its tiles; returns what they add to the rows of Y below its own.
    fn run(mut self, factors: Option<(MatRef<'_, T>, MatRef<'_, T>)>, v: MatRef<'_, T>) -> Mat<T> {
        let (rows, width) = (self.a.nrows(), self.a.ncols());
        let here = v.subrows(self.start, width);
        let mut below = Mat::<T>::zeros(rows - width, v.ncols());
        self.diagonal(factors, here);
        for start in (width..rows).step_by(TILE) {
            let height = TILE.min(rows - start);
            let mut tile = self.a.rb_mut().subrows_mut(start, height);
            if let Some((left, right)) = factors {
                let (left, right) =
                    (left.subrows(self.start + start, height), right.subrows(self.start, width));
                matmul(tile.rb_mut(), Accum::Add, left, right.transpose(), -T::one(), Par::Seq);
            }
            let added = below.as_mut().subrows_mut(start - width, height);
            matmul(added, Accum::Replace, tile.rb(), here, T::one(), Par::Seq);
            let there = v.subrows(self.start + start, height);
            matmul(self.y.rb_mut(), Accum::Add, tile.rb().transpose(), there, T::one(), Par::Seq);
        }
        below
    }

    /// The tile on the diagonal, of which only the lower triangle is filled.
    fn diagonal(&mut self, factors: Option<(MatRef<'_, T>, MatRef<'_, T>)>, v: MatRef<'_, T>) {
        use BlockStructure::{Rectangular, StrictTriangularUpper, TriangularLower};
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
        let mut add = |triangle: MatRef<'_, T>, structure: BlockStructure| {
            let y = self.y.rb_mut();
            let one = T::one();
            triangular::matmul(
                y,
                Rectangular,
                Accum::Add,
                triangle,
                structure,
                v,
                Rectangular,
                one,
                Par::Seq,
            );
        };
        add(tile.rb(), TriangularLower);
        add(tile.rb().transpose(), StrictTriangularUpper);
    }
}
