//! Second stage, band to tridiagonal: sweep by sweep a column loses all but one element below its
//! diagonal, and the bulge that this makes further down is chased off the end of the band
//! (Schwarz 1968; in this form, a reflector and three blocks at a step, Murata and Horikoshi 1975).
//!
//! A sweep's steps march down the band, and the next sweep may follow three steps behind without
//! touching the same columns. So at any time many sweeps are under way, each at a place of its own:
//! a wavefront, whose members are independent.

// Offsets run inside blocks whose sizes are computed here; no input reaches them.
#![allow(clippy::indexing_slicing)]

use super::kernels::{Work, axpy, dot, reflector, vectorised};
use crate::spectrum::{Dense, Real};

/// Steps between a sweep and the next: 3·b − 1 columns, more than the 2·b that a step touches.
const LAG: usize = 3;
/// Steps that one thread takes before it is worth while to share them.
const LEAF: usize = 6;

/// The lower triangle of a symmetric band matrix, column by column from the diagonal down, with
/// room for the bulges: element (i, j) is `data[(i − j) + j·height]`, 0 ≤ i − j < height = 2·b.
pub(super) struct Banded<T> {
    data: Vec<T>,
    n: usize,
    bandwidth: usize,
}

impl<T: Real> Banded<T> {
    /// Copies the band out of a matrix whose lower triangle is filled.
    pub fn from_lower(matrix: &Dense<T>, bandwidth: usize) -> Banded<T> {
        let n = matrix.rows;
        let height = 2 * bandwidth;
        let mut data = vec![T::zero(); height * n];
        for (j, column) in data.chunks_exact_mut(height.max(1)).enumerate() {
            let count = (bandwidth + 1).min(n - j);
            column[..count].copy_from_slice(&matrix.data[j + j * n..j + j * n + count]);
        }
        Banded { data, n, bandwidth }
    }

    /// Runs all sweeps; returns the diagonal, and what is left beside it.
    pub fn tridiagonalise(mut self) -> (Vec<f64>, Vec<f64>) {
        let (n, b) = (self.n, self.bandwidth);
        // A band of one subdiagonal is tridiagonal, and the last two columns have nothing to eliminate.
        let sweeps = if b > 1 { n.saturating_sub(2) } else { 0 };
        let shape = Shape { n, b };
        let mut reflectors = vec![T::zero(); sweeps * (b + 1)];
        // A later sweep starts LAG steps later and is hardly shorter: the last one ends last.
        let times = sweeps.checked_sub(1).map_or(0, |last| LAG * last + shape.steps(last));
        for time in 0..times {
            // Sweep s is at step time − LAG·s, and is over after its last step.
            let newest = (time / LAG).min(sweeps - 1);
            let under_way = (0..=newest).rev().take_while(|s| time - LAG * s < shape.steps(*s));
            let oldest = newest + 1 - under_way.count();
            let front = Front { shape, time, first: oldest };
            let states = &mut reflectors[oldest * (b + 1)..(newest + 1) * (b + 1)];
            front.advance(&mut self.data, 0, states);
        }
        let height = 2 * b;
        let diagonal = self.data.iter().step_by(height).map(|v| v.widen()).collect();
        let below = self.data.iter().skip(1).step_by(height).take(n.saturating_sub(1));
        let below = below.map(|v| v.widen()).collect();
        (diagonal, below)
    }
}

/// The size of the problem.
#[derive(Clone, Copy)]
struct Shape {
    n: usize,
    b: usize,
}

impl Shape {
    /// Where the block of a step begins: the rows that its reflector acts on.
    fn start(self, sweep: usize, step: usize) -> usize {
        sweep + 1 + step * self.b
    }

    /// How many steps a sweep has.
    fn steps(self, sweep: usize) -> usize {
        (self.n - sweep - 1).div_ceil(self.b)
    }

    /// The first column that a step touches.
    fn first_column(self, sweep: usize, step: usize) -> usize {
        if step == 0 { sweep } else { self.start(sweep, step - 1) }
    }
}

/// The sweeps that are under way at one time; a later sweep is further up in the matrix.
#[derive(Clone, Copy)]
struct Front {
    shape: Shape,
    time: usize,
    /// The sweep of the first state.
    first: usize,
}

impl Front {
    /// Takes one step in every sweep that has a state. `data` begins at column `base`.
    fn advance<T: Real>(self, data: &mut [T], base: usize, states: &mut [T]) {
        let (size, height) = (self.shape.b + 1, 2 * self.shape.b);
        let count = states.len() / size;
        if count <= LEAF {
            vectorised(Steps { front: self, data, base, states });
            return;
        }
        let half = count / 2;
        let last = self.first + half - 1;
        let column = self.shape.first_column(last, self.time - LAG * last);
        let (early, late) = states.split_at_mut(half * size);
        let (above, below) = data.split_at_mut((column - base) * height);
        let later = Front { first: self.first + half, ..self };
        rayon::join(|| self.advance(below, column, early), || later.advance(above, base, late));
    }
}

/// The steps of one thread.
struct Steps<'a, T> {
    front: Front,
    data: &'a mut [T],
    base: usize,
    states: &'a mut [T],
}

impl<T: Real> Work for Steps<'_, T> {
    #[inline(always)]
    fn run(self) {
        let shape = self.front.shape;
        for (i, state) in self.states.chunks_exact_mut(shape.b + 1).enumerate() {
            let sweep = self.front.first + i;
            step(shape, self.data, self.base, sweep, self.front.time - LAG * sweep, state);
        }
    }
}

/// One step of a sweep: applies the reflector of the step before to the block between the two,
/// eliminates that block's first column, and applies the new reflector from both sides to the
/// diagonal block. The first step eliminates in the sweep's own column instead.
#[inline(always)]
fn step<T: Real>(shape: Shape, data: &mut [T], base: usize, sweep: usize, step: usize, state: &mut [T]) {
    let (n, b) = (shape.n, shape.b);
    let start = shape.start(sweep, step);
    let rows = b.min(n - start);
    // Within the band storage a block is a column-major matrix whose columns are this far apart.
    let at = |i: usize, j: usize| (j - base) * 2 * b + (i - j);
    let Some((tau, vector)) = state.split_last_mut() else { return };
    if step == 0 {
        let column = &mut data[at(start, sweep)..][..rows];
        vector[..rows].copy_from_slice(column);
        let (new_tau, beta) = reflector(&mut vector[..rows]);
        column.fill(T::zero());
        column[0] = beta;
        *tau = new_tau;
    } else {
        let before = start - b;
        // w = tau·B·v; then B ← (B − w·vᵀ), and the new reflector from the left, column by column.
        let mut product = [T::zero(); MAX_BANDWIDTH];
        let product = &mut product[..rows];
        for (j, v) in vector.iter().enumerate() {
            axpy(*tau * *v, &data[at(start, before + j)..][..rows], product);
        }
        let mut next = [T::zero(); MAX_BANDWIDTH];
        let next = &mut next[..rows];
        let column = &mut data[at(start, before)..][..rows];
        axpy(-vector[0], product, column);
        next.copy_from_slice(column);
        let (new_tau, beta) = reflector(next);
        column.fill(T::zero());
        column[0] = beta;
        for (j, v) in vector.iter().enumerate().skip(1) {
            let column = &mut data[at(start, before + j)..][..rows];
            axpy(-*v, product, column);
            let share = new_tau * dot(next, column);
            axpy(-share, next, column);
        }
        vector[..rows].copy_from_slice(next);
        *tau = new_tau;
    }
    two_sided(data, at(start, start), 2 * b - 1, &vector[..rows], *tau);
}

/// The widest band that the fixed buffers hold.
const MAX_BANDWIDTH: usize = 64;

/// D ← H·D·H for H = I − tau·v·vᵀ on the lower triangle of the block at `offset`:
/// D − v·wᵀ − w·vᵀ with w = p − ½·tau·(pᵀv)·v and p = tau·D·v.
#[inline(always)]
fn two_sided<T: Real>(data: &mut [T], offset: usize, stride: usize, v: &[T], tau: T) {
    if tau == T::zero() {
        return;
    }
    let rows = v.len();
    let mut product = [T::zero(); MAX_BANDWIDTH];
    let product = &mut product[..rows];
    for j in 0..rows {
        let column = &data[offset + j * stride + j..][..rows - j];
        product[j] += column[0] * v[j] + dot(&column[1..], &v[j + 1..]);
        axpy(v[j], &column[1..], &mut product[j + 1..]);
    }
    product.iter_mut().for_each(|p| *p *= tau);
    let half = T::narrow(0.5) * tau * dot(product, v);
    axpy(-half, v, product);
    for j in 0..rows {
        let column = &mut data[offset + j * stride + j..][..rows - j];
        let (vj, wj) = (v[j], product[j]);
        let pairs = v[j..].iter().zip(&product[j..]);
        column.iter_mut().zip(pairs).for_each(|(d, (v, w))| *d -= v.mul_add(wj, *w * vj));
    }
}
