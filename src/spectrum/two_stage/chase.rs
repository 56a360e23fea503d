//! Second stage, band to tridiagonal: sweep by sweep a column loses all but one element below its
//! diagonal, and the bulge that this makes further down is chased off the end of the band
//! (Schwarz 1968; in this form, a reflector and three blocks at a step, Murata and Horikoshi 1975).
//!
//! A sweep's steps march down the band, and the next sweep may follow three steps behind without
//! touching the same columns. So at any time many sweeps are under way, each at a place of its own:
//! a wavefront, whose members are independent. A task takes several sweeps along, one close behind
//! the other, so that they find the same part of the band in the cache.

// Offsets run inside blocks whose sizes are computed here; no input reaches them.
#![allow(clippy::indexing_slicing)]

use pulp::Simd;

use super::block::{BLOCK, Context, masks};
use super::kernels::{Work, axpy, dot, reflector, vectorised};
use crate::spectrum::{Real, Symmetric};

/// Steps between a sweep and the next: 3·b − 1 columns, more than the 2·b that a step touches.
const LAG: usize = 3;
/// Sweeps that a task takes along.
const GROUP: usize = 4;
/// Steps of each of them that it takes: with so many, groups may be two such pieces apart.
const PIECE: usize = LAG * GROUP;

/// The lower triangle of a symmetric band matrix, column by column from the diagonal down, with
/// room for the bulges: element (i, j) is `data[(i − j) + j·height]`, 0 ≤ i − j < height = 2·b.
pub(super) struct Banded<T> {
    data: Vec<T>,
    n: usize,
    bandwidth: usize,
}

impl<T: Real> Banded<T> {
    /// Copies the band out of a matrix.
    pub fn of(matrix: &Symmetric<T>, bandwidth: usize) -> Banded<T> {
        let n = matrix.n();
        let height = 2 * bandwidth;
        let mut data = vec![T::zero(); height * n];
        for (j, column) in data.chunks_exact_mut(height.max(1)).enumerate() {
            let count = (bandwidth + 1).min(n - j);
            column[..count].copy_from_slice(&matrix.column(j)[..count]);
        }
        Banded { data, n, bandwidth }
    }

    /// Runs all sweeps; returns the diagonal, and what is left beside it.
    pub fn tridiagonalise(mut self) -> (Vec<f64>, Vec<f64>) {
        let (n, b) = (self.n, self.bandwidth);
        // A band of one subdiagonal is tridiagonal, and the last two columns have nothing to eliminate.
        let sweeps = if b > 1 { n.saturating_sub(2) } else { 0 };
        let shape = Shape { n, b, sweeps };
        let mut reflectors = vec![T::zero(); sweeps * (b + 1)];
        let groups = sweeps.div_ceil(GROUP);
        // A later group starts two pieces later and has at most two less: the last one ends last.
        let times = groups.checked_sub(1).map_or(0, |last| 2 * last + shape.pieces(last));
        for time in 0..times {
            // Group g is at piece time − 2·g, and is over after its last piece.
            let newest = (time / 2).min(groups - 1);
            let under_way = (0..=newest).rev().take_while(|g| time - 2 * g < shape.pieces(*g));
            let oldest = newest + 1 - under_way.count();
            let front = Front { shape, time, first: oldest };
            let end = ((newest + 1) * GROUP).min(sweeps);
            let states = &mut reflectors[oldest * GROUP * (b + 1)..end * (b + 1)];
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
    sweeps: usize,
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

    /// The steps of a group's sweep that belong to one of its pieces: each sweep is LAG steps
    /// behind the one before.
    fn piece(self, group: usize, member: usize, piece: usize) -> std::ops::Range<usize> {
        let step = |piece: usize| (piece * PIECE).saturating_sub(LAG * member);
        let end = self.steps(group * GROUP + member);
        step(piece).min(end)..step(piece + 1).min(end)
    }

    /// How many pieces a group has: its last sweep ends last.
    fn pieces(self, group: usize) -> usize {
        let member = GROUP.min(self.sweeps - group * GROUP) - 1;
        (self.steps(group * GROUP + member) + LAG * member).div_ceil(PIECE)
    }

    /// The first column that a group touches in a piece after the first: its last sweep's.
    fn first_column(self, group: usize, piece: usize) -> usize {
        let member = GROUP - 1;
        self.start(group * GROUP + member, piece * PIECE - LAG * member - 1)
    }
}

/// The groups of sweeps that are under way at one time; a later one is further up in the matrix.
///
/// Group g's first sweep needs, up to the end of piece c, the sweep before it to be two steps ahead
/// of that. It is: that sweep has done piece c + 1 of its own group, which ends LAG steps further.
/// And what the group before touches in piece c + 2 begins b columns after what this one touches.
#[derive(Clone, Copy)]
struct Front {
    shape: Shape,
    time: usize,
    /// The group of the first states.
    first: usize,
}

impl Front {
    /// Takes one piece in every group that has states. `data` begins at column `base`.
    fn advance<T: Real>(self, data: &mut [T], base: usize, states: &mut [T]) {
        let size = GROUP * (self.shape.b + 1);
        let count = states.len().div_ceil(size);
        if count <= 1 {
            vectorised(Piece { front: self, data, base, states });
            return;
        }
        let half = count / 2;
        let last = self.first + half - 1;
        let column = self.shape.first_column(last, self.time - 2 * last);
        let (early, late) = states.split_at_mut(half * size);
        let (above, below) = data.split_at_mut((column - base) * 2 * self.shape.b);
        let later = Front { first: self.first + half, ..self };
        rayon::join(|| self.advance(below, column, early), || later.advance(above, base, late));
    }
}

/// A piece of one group.
struct Piece<'a, T> {
    front: Front,
    data: &'a mut [T],
    base: usize,
    states: &'a mut [T],
}

impl<T: Real> Work for Piece<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let masks = masks();
        let context = Context { simd, masks: &masks };
        let Front { shape, time, first: group } = self.front;
        for (member, state) in self.states.chunks_exact_mut(shape.b + 1).enumerate() {
            let sweep = group * GROUP + member;
            for number in shape.piece(group, member, time - 2 * group) {
                step(context, shape, (self.data, self.base), sweep, number, state);
            }
        }
    }
}

/// One step of a sweep: applies the reflector of the step before to the block between the two,
/// eliminates that block's first column, and applies the new reflector from both sides to the
/// diagonal block. The first step eliminates in the sweep's own column instead.
#[inline(always)]
fn step<T: Real, S: Simd>(
    context: Context<'_, T, S>,
    shape: Shape,
    (data, base): (&mut [T], usize),
    sweep: usize,
    step: usize,
    state: &mut [T],
) {
    let (n, b) = (shape.n, shape.b);
    let start = shape.start(sweep, step);
    let rows = b.min(n - start);
    // Within the band storage a block is a column-major matrix whose columns are this far apart.
    let at = |i: usize, j: usize| (j - base) * 2 * b + (i - j);
    if step > 0 && b == BLOCK && rows == BLOCK {
        context.step(&mut data[at(start, start - b)..], state);
        return;
    }
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
