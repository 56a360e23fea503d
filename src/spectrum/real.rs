//! The two precisions that the dense kernels are written for.

use std::ops::Range;

use pulp::Simd;

use super::Elements;

/// `f64`, or `f32` where half the bits at twice the speed are enough.
pub trait Real: num_traits::Float + faer::traits::RealField + Send + Sync {
    /// The unit roundoff u: half the distance from 1 to the next number.
    const ROUNDOFF: f64;
    /// As many numbers as fit into a vector of the processor.
    type Lanes<S: Simd>: Copy;
    /// The same number in double precision.
    fn widen(self) -> f64;
    /// The nearest number of this precision.
    fn narrow(value: f64) -> Self;
    /// As [`Elements::copy_block`], in this precision.
    fn copy_block(from: &dyn Elements, rows: Range<usize>, cols: Range<usize>, out: &mut [Self]);
    /// A slice as vectors, without a rest that does not fill one.
    fn lanes<S: Simd>(x: &[Self]) -> &[Self::Lanes<S>];
    /// The same, to be changed.
    fn lanes_mut<S: Simd>(x: &mut [Self]) -> &mut [Self::Lanes<S>];
    /// One number in every place.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Lanes<S>;
    /// x + y.
    fn plus<S: Simd>(simd: S, x: Self::Lanes<S>, y: Self::Lanes<S>) -> Self::Lanes<S>;
    /// x·y.
    fn times<S: Simd>(simd: S, x: Self::Lanes<S>, y: Self::Lanes<S>) -> Self::Lanes<S>;
    /// x·y + z, rounded once where the processor can.
    fn fused<S: Simd>(simd: S, x: Self::Lanes<S>, y: Self::Lanes<S>, z: Self::Lanes<S>) -> Self::Lanes<S>;
    /// The sum of a vector's numbers.
    fn total<S: Simd>(simd: S, x: Self::Lanes<S>) -> Self;
}

macro_rules! real {
    ($real:ty, $lanes:ident, $slice:ident, $slice_mut:ident, $splat:ident, $plus:ident, $times:ident, $fused:ident, $total:ident, $copy:ident) => {
        impl Real for $real {
            const ROUNDOFF: f64 = <$real>::EPSILON as f64 / 2.0;
            type Lanes<S: Simd> = S::$lanes;

            #[inline(always)]
            fn widen(self) -> f64 {
                self.into()
            }

            #[inline(always)]
            fn narrow(value: f64) -> $real {
                value as $real
            }

            fn copy_block(from: &dyn Elements, rows: Range<usize>, cols: Range<usize>, out: &mut [$real]) {
                $copy(from, rows, cols, out);
            }

            #[inline(always)]
            fn lanes<S: Simd>(x: &[$real]) -> &[S::$lanes] {
                S::$slice(x).0
            }

            #[inline(always)]
            fn lanes_mut<S: Simd>(x: &mut [$real]) -> &mut [S::$lanes] {
                S::$slice_mut(x).0
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: $real) -> S::$lanes {
                simd.$splat(value)
            }

            #[inline(always)]
            fn plus<S: Simd>(simd: S, x: S::$lanes, y: S::$lanes) -> S::$lanes {
                simd.$plus(x, y)
            }

            #[inline(always)]
            fn times<S: Simd>(simd: S, x: S::$lanes, y: S::$lanes) -> S::$lanes {
                simd.$times(x, y)
            }

            #[inline(always)]
            fn fused<S: Simd>(simd: S, x: S::$lanes, y: S::$lanes, z: S::$lanes) -> S::$lanes {
                simd.$fused(x, y, z)
            }

            #[inline(always)]
            fn total<S: Simd>(simd: S, x: S::$lanes) -> $real {
                simd.$total(x)
            }
        }
    };
}

#[rustfmt::skip]
real!(f64, f64s, as_simd_f64s, as_mut_simd_f64s, splat_f64s, add_f64s, mul_f64s, mul_add_e_f64s, reduce_sum_f64s, copy_block);
#[rustfmt::skip]
real!(f32, f32s, as_simd_f32s, as_mut_simd_f32s, splat_f32s, add_f32s, mul_f32s, mul_add_e_f32s, reduce_sum_f32s, copy_narrowed);

fn copy_block(from: &dyn Elements, rows: Range<usize>, cols: Range<usize>, out: &mut [f64]) {
    from.copy_block(rows, cols, out);
}

/// A few rows at a time, so that they are still in the cache when they are rounded.
fn copy_narrowed(from: &dyn Elements, rows: Range<usize>, cols: Range<usize>, out: &mut [f32]) {
    const TOGETHER: usize = 1 << 15;
    let width = cols.len().max(1);
    let count = (TOGETHER / width).clamp(1, rows.len().max(1));
    let mut buffer = vec![0.0; count * width];
    for (i, part) in out.chunks_mut(count * width).enumerate() {
        let start = rows.start + i * count;
        let Some(wide) = buffer.get_mut(..part.len()) else { break };
        from.copy_block(start..start + part.len() / width, cols.clone(), wide);
        part.iter_mut().zip(wide).for_each(|(to, from)| *to = *from as f32);
    }
}
