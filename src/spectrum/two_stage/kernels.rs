//! Vector kernels, written so that the compiler turns them into SIMD code of whatever processor
//! they are inlined for; see [`vectorised`].

use crate::spectrum::Real;

/// Work that is compiled several times, for processors with different vectors. Everything that it
/// calls has to be inlined into it, so that it is compiled with it.
pub trait Work {
    /// Does it; to be marked `#[inline(always)]`.
    fn run(self);
}

/// Runs work compiled for the widest vectors that the processor has (chosen at run time).
pub fn vectorised(work: impl Work) {
    struct Op<W>(W);

    impl<W: Work> pulp::WithSimd for Op<W> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _: S) {
            self.0.run();
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
