//! The two precisions that the dense kernels are written for.

/// `f64`, or `f32` where half the bits at twice the speed are enough.
pub trait Real: num_traits::Float + faer::traits::RealField + Send + Sync {
    /// The unit roundoff u: half the distance from 1 to the next number.
    const ROUNDOFF: f64;
    /// The same number in double precision.
    fn widen(self) -> f64;
    /// The nearest number of this precision.
    fn narrow(value: f64) -> Self;
}

impl Real for f64 {
    const ROUNDOFF: f64 = f64::EPSILON / 2.0;

    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }

    #[inline(always)]
    fn narrow(value: f64) -> f64 {
        value
    }
}

impl Real for f32 {
    const ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;

    #[inline(always)]
    fn widen(self) -> f64 {
        self.into()
    }

    #[inline(always)]
    fn narrow(value: f64) -> f32 {
        value as f32
    }
}
