//! Vector kernels, written so that the compiler turns them into SIMD code of whatever processor
//! they are inlined for; see [`vectorised`].

// Columns are cut to lengths that are computed here; no input reaches the offsets.
#![allow(clippy::indexing_slicing)]

use pulp::Simd;

use crate::spectrum::Real;

/// Work that is compiled several times, for processors with different vectors. Everything that it
/// calls has to be inlined into it, so that it is compiled with it.
pub trait Work {
    /// Does it; to be marked `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S);
}

/// Runs work compiled for the widest vectors that the processor has (chosen at run time).
pub fn vectorised(work: impl Work) {
    struct Op<W>(W);

    impl<W: Work> pulp::WithSimd for Op<W> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            self.0.run(simd);
        }
    }

    pulp::Arch::new().dispatch(Op(work));
}

/// Lanes of the partial sums: a constant, so that the rounding does not depend on the vectors.
const LANES: usize = 16;

/// xᵀy.
#[inline(always)]
pub fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks::<LANES>();
    let mut sums = [T::zero(); LANES];
    for (x, y) in x.iter().zip(y) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum = x.mul_add(*y, *sum);
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = sums.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        half /= 2;
    }
    let rest = x_rest.iter().zip(y_rest).fold(T::zero(), |sum, (x, y)| sum + *x * *y);
    let [sum, ..] = sums;
    sum + rest
}

/// y += a·x.
#[inline(always)]
pub fn axpy<T: Real>(a: T, x: &[T], y: &mut [T]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y = x.mul_add(a, *y));
}

/// Applies the reflector I − tau·v·vᵀ to the last elements of columns of this height, four columns at
/// a time, so that v is loaded once for all four.
#[inline(always)]
pub fn reflect<T: Real, S: Simd>(simd: S, tau: T, v: &[T], columns: &mut [T], height: usize) {
    let skip = height - v.len();
    let mut fours = columns.chunks_exact_mut(4 * height);
    for four in fours.by_ref() {
        let (first, second) = four.split_at_mut(2 * height);
        let ((a, b), (c, d)) = (first.split_at_mut(height), second.split_at_mut(height));
        reflect_four(simd, tau, v, [&mut a[skip..], &mut b[skip..], &mut c[skip..], &mut d[skip..]]);
    }
    for column in fours.into_remainder().chunks_exact_mut(height) {
        let column = &mut column[skip..];
        axpy(-tau * dot(v, column), v, column);
    }
}

#[inline(always)]
fn reflect_four<T: Real, S: Simd>(simd: S, tau: T, v: &[T], columns: [&mut [T]; 4]) {
    let vectors = T::lanes::<S>(v);
    let done = size_of_val(vectors) / size_of::<T>();
    let [a, b, c, d] = columns;
    let ((a, a_rest), (b, b_rest)) = (a.split_at_mut(done), b.split_at_mut(done));
    let ((c, c_rest), (d, d_rest)) = (c.split_at_mut(done), d.split_at_mut(done));
    let (a, b) = (T::lanes_mut::<S>(a), T::lanes_mut::<S>(b));
    let (c, d) = (T::lanes_mut::<S>(c), T::lanes_mut::<S>(d));
    let zero = T::splat(simd, T::zero());
    let (mut sa, mut sb, mut sc, mut sd) = (zero, zero, zero, zero);
    for (k, v) in vectors.iter().enumerate() {
        sa = T::fused(simd, *v, a[k], sa);
        sb = T::fused(simd, *v, b[k], sb);
        sc = T::fused(simd, *v, c[k], sc);
        sd = T::fused(simd, *v, d[k], sd);
    }
    let rest = &v[done..];
    let factor = |sum: T::Lanes<S>, column: &[T]| -tau * (T::total(simd, sum) + dot(rest, column));
    let (fa, fb) = (factor(sa, a_rest), factor(sb, b_rest));
    let (fc, fd) = (factor(sc, c_rest), factor(sd, d_rest));
    axpy(fa, rest, a_rest);
    axpy(fb, rest, b_rest);
    axpy(fc, rest, c_rest);
    axpy(fd, rest, d_rest);
    let (fa, fb) = (T::splat(simd, fa), T::splat(simd, fb));
    let (fc, fd) = (T::splat(simd, fc), T::splat(simd, fd));
    for (k, v) in vectors.iter().enumerate() {
        a[k] = T::fused(simd, *v, fa, a[k]);
        b[k] = T::fused(simd, *v, fb, b[k]);
        c[k] = T::fused(simd, *v, fc, c[k]);
        d[k] = T::fused(simd, *v, fd, d[k]);
    }
}

/// A Householder reflector I − tau·v·vᵀ that turns x into a multiple of the first unit vector.
/// Overwrites x with v (v₁ = 1) and returns tau and that multiple. Where nothing is to be
/// eliminated tau is 0, and the reflector the identity.
#[inline(always)]
pub fn reflector<T: Real>(x: &mut [T]) -> (T, T) {
    let Some((first, rest)) = x.split_first_mut() else {
        return (T::zero(), T::zero());
    };
    let squares = dot(rest, rest);
    let alpha = *first;
    *first = T::one();
    if squares == T::zero() {
        return (T::zero(), alpha);
    }
    let beta = -(alpha * alpha + squares).sqrt().copysign(alpha);
    let scale = T::one() / (alpha - beta);
    rest.iter_mut().for_each(|value| *value *= scale);
    ((beta - alpha) / beta, beta)
}
