//! A step of the chase where its blocks are complete, as nearly all are: loops of fixed length over
//! vectors. Left to itself the compiler makes code of such loops that takes three times as long.

// Offsets run inside blocks of constant size; no input reaches them.
#![allow(clippy::indexing_slicing)]

use pulp::Simd;

use crate::spectrum::Real;

/// Side of the blocks: the bandwidth.
pub(super) const BLOCK: usize = 32;
/// From a column of a block to the next, in band storage of height 2·BLOCK.
const STRIDE: usize = 2 * BLOCK - 1;
/// Columns that are handled together; BLOCK is a multiple of it.
const TOGETHER: usize = 4;

/// Zeros, then ones: a piece of it, multiplied with a column, leaves what is below the diagonal.
pub(super) fn masks<T: Real>() -> [T; 2 * BLOCK] {
    let mut masks = [T::zero(); 2 * BLOCK];
    masks[BLOCK..].fill(T::one());
    masks
}

/// What all functions here need.
#[derive(Clone, Copy)]
pub(super) struct Context<'a, T, S> {
    pub simd: S,
    pub masks: &'a [T; 2 * BLOCK],
}

impl<T: Real, S: Simd> Context<'_, T, S> {
    /// Applies the reflector I − tau·v·vᵀ of the step before from the right to the block B between
    /// the two, eliminates that block's first column, and applies the new reflector from the left to
    /// B and from both sides to the diagonal block D beside it. `state` holds v and, last, tau; it
    /// is replaced by the new reflector. `data` begins with B; D is its columns from BLOCK on.
    #[inline(always)]
    pub fn step(self, data: &mut [T], state: &mut [T]) {
        let mut v = [T::zero(); BLOCK];
        v.copy_from_slice(&state[..BLOCK]);
        let (v, tau) = self.between(data, &v, state[BLOCK]);
        state[..BLOCK].copy_from_slice(&v);
        state[BLOCK] = tau;
        if tau != T::zero() {
            self.two_sided(&mut data[BLOCK * STRIDE..], &v, tau);
        }
    }

    /// The block B; returns the new reflector.
    #[inline(always)]
    fn between(self, data: &mut [T], v: &[T; BLOCK], tau: T) -> ([T; BLOCK], T) {
        let simd = self.simd;
        // w = tau·B·v.
        let mut w = [T::zero(); BLOCK];
        for (four, factors) in v.chunks_exact(TOGETHER).enumerate() {
            let [a, b, c, d] = four_columns::<T, S>(&mut data[four * TOGETHER * STRIDE..]);
            let [fa, fb, fc, fd] = self.splats(tau, factors);
            for (k, w) in T::lanes_mut::<S>(&mut w).iter_mut().enumerate() {
                let sum = T::fused(simd, b[k], fb, T::fused(simd, a[k], fa, *w));
                *w = T::fused(simd, d[k], fd, T::fused(simd, c[k], fc, sum));
            }
        }
        // B − w·vᵀ: its first column at once, because the reflector is made of it; the others
        // together with the reflector, xᵀ·(b − v·w) being xᵀ·b − v·xᵀ·w.
        let first = &mut data[..BLOCK];
        let mut x = [T::zero(); BLOCK];
        x.copy_from_slice(first);
        self.add(-v[0], &w, &mut x);
        let (new_tau, beta) = self.reflector(&mut x);
        first.fill(T::zero());
        first[0] = beta;
        let along = self.dot(&x, &w);
        for (column, factor) in data.chunks_mut(STRIDE).zip(v).skip(1) {
            let column = &mut column[..BLOCK];
            let share = new_tau * (self.dot(&x, column) - *factor * along);
            let (share, factor) = (T::splat(simd, -share), T::splat(simd, -*factor));
            let (x, w) = (T::lanes::<S>(&x), T::lanes::<S>(&w));
            for (k, b) in T::lanes_mut::<S>(column).iter_mut().enumerate() {
                *b = T::fused(simd, x[k], share, T::fused(simd, w[k], factor, *b));
            }
        }
        (x, new_tau)
    }

    /// D ← H·D·H for H = I − tau·v·vᵀ on the lower triangle of the block that `data` begins with:
    /// D − v·wᵀ − w·vᵀ with w = p − ½·tau·(pᵀv)·v and p = tau·D·v.
    ///
    /// What lies above the diagonal belongs to others. It is read and written with the rest of its
    /// vector, but not changed.
    #[inline(always)]
    fn two_sided(self, data: &mut [T], v: &[T; BLOCK], tau: T) {
        let simd = self.simd;
        let width = BLOCK / T::lanes::<S>(v).len();
        // p is first D's strict lower triangle times v, `rows` the rest.
        let mut p = [T::zero(); BLOCK];
        let mut rows = [T::zero(); BLOCK];
        for first in (0..BLOCK).step_by(TOGETHER) {
            let (start, full) = (first / width, (first + TOGETHER).div_ceil(width));
            for j in first..first + TOGETHER {
                rows[j] = data[j * STRIDE + j] * v[j];
            }
            let d = four_columns::<T, S>(&mut data[first * STRIDE..]);
            let factors = self.splats(T::one(), &v[first..]);
            let mut sums = [T::splat(simd, T::zero()); TOGETHER];
            let (p, v) = (T::lanes_mut::<S>(&mut p), T::lanes::<S>(v));
            for k in start..full {
                for i in 0..TOGETHER {
                    let below = T::times(simd, d[i][k], self.below(k * width, first + i + 1));
                    p[k] = T::fused(simd, below, factors[i], p[k]);
                    sums[i] = T::fused(simd, below, v[k], sums[i]);
                }
            }
            for k in full..v.len() {
                for i in 0..TOGETHER {
                    p[k] = T::fused(simd, d[i][k], factors[i], p[k]);
                    sums[i] = T::fused(simd, d[i][k], v[k], sums[i]);
                }
            }
            for i in 0..TOGETHER {
                rows[first + i] += T::total(simd, sums[i]);
            }
        }
        let mut w = [T::zero(); BLOCK];
        self.add(tau, &p, &mut w);
        self.add(tau, &rows, &mut w);
        let half = T::narrow(0.5) * tau * self.dot(&w, v);
        self.add(-half, v, &mut w);
        for first in (0..BLOCK).step_by(TOGETHER) {
            let (start, full) = (first / width, (first + TOGETHER).div_ceil(width));
            let d = four_columns::<T, S>(&mut data[first * STRIDE..]);
            let (vs, ws) = (self.splats(-T::one(), &v[first..]), self.splats(-T::one(), &w[first..]));
            let (v, w) = (T::lanes::<S>(v), T::lanes::<S>(&w));
            for k in start..full {
                for i in 0..TOGETHER {
                    let change = T::fused(simd, v[k], ws[i], T::times(simd, w[k], vs[i]));
                    d[i][k] = T::fused(simd, change, self.below(k * width, first + i), d[i][k]);
                }
            }
            for k in full..v.len() {
                for i in 0..TOGETHER {
                    d[i][k] = T::fused(simd, v[k], ws[i], T::fused(simd, w[k], vs[i], d[i][k]));
                }
            }
        }
    }

    /// The first four numbers times a factor, each in every place of a vector. (In this module no
    /// array's `map`: it is not always inlined, and costs a third of the time then.)
    #[inline(always)]
    fn splats(self, factor: T, x: &[T]) -> [T::Lanes<S>; TOGETHER] {
        let splat = |i: usize| T::splat(self.simd, factor * x[i]);
        [splat(0), splat(1), splat(2), splat(3)]
    }

    /// Ones for the rows of a vector, which begins with row `start`, from row `first` on.
    #[inline(always)]
    fn below(self, start: usize, first: usize) -> T::Lanes<S> {
        T::lanes::<S>(&self.masks[BLOCK + start - first..])[0]
    }

    /// As [`reflector`](super::kernels::reflector).
    #[inline(always)]
    fn reflector(self, x: &mut [T; BLOCK]) -> (T, T) {
        let alpha = x[0];
        x[0] = T::zero();
        let squares = self.dot(x, x);
        let (mut tau, mut beta) = (T::zero(), alpha);
        if squares != T::zero() {
            beta = -(alpha * alpha + squares).sqrt().copysign(alpha);
            tau = (beta - alpha) / beta;
            let scale = T::splat(self.simd, T::one() / (alpha - beta));
            T::lanes_mut::<S>(x).iter_mut().for_each(|x| *x = T::times(self.simd, *x, scale));
        }
        x[0] = T::one();
        (tau, beta)
    }

    #[inline(always)]
    fn dot(self, x: &[T; BLOCK], y: &[T]) -> T {
        let (x, y) = (T::lanes::<S>(x), T::lanes::<S>(&y[..BLOCK]));
        let zero = T::splat(self.simd, T::zero());
        let (mut even, mut odd) = (zero, zero);
        for (x, y) in x.chunks_exact(2).zip(y.chunks_exact(2)) {
            even = T::fused(self.simd, x[0], y[0], even);
            odd = T::fused(self.simd, x[1], y[1], odd);
        }
        T::total(self.simd, T::plus(self.simd, even, odd))
    }

    /// y += a·x.
    #[inline(always)]
    fn add(self, a: T, x: &[T; BLOCK], y: &mut [T; BLOCK]) {
        let a = T::splat(self.simd, a);
        let pairs = T::lanes_mut::<S>(y).iter_mut().zip(T::lanes::<S>(x));
        pairs.for_each(|(y, x)| *y = T::fused(self.simd, *x, a, *y));
    }
}

/// The next four columns.
#[inline(always)]
fn four_columns<T: Real, S: Simd>(data: &mut [T]) -> [&mut [T::Lanes<S>]; TOGETHER] {
    let (a, rest) = data.split_at_mut(STRIDE);
    let (b, rest) = rest.split_at_mut(STRIDE);
    let (c, d) = rest.split_at_mut(STRIDE);
    [
        T::lanes_mut::<S>(&mut a[..BLOCK]),
        T::lanes_mut::<S>(&mut b[..BLOCK]),
        T::lanes_mut::<S>(&mut c[..BLOCK]),
        T::lanes_mut::<S>(&mut d[..BLOCK]),
    ]
}
