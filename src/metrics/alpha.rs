//! PL_Alpha_Hill and the start of the tail that it was fitted to.

use super::{Measured, Metric};

/// The exponent of the power law fitted to the tail of the ESD (paper, eq. 2).
pub struct Alpha;

impl Metric for Alpha {
    fn name(&self) -> &'static str {
        "alpha"
    }

    fn description(&self) -> &'static str {
        "exponent of the power law fitted to the tail of the eigenvalues by the chosen estimator (PL_Alpha_Hill)"
    }

    fn value(&self, of: &Measured) -> Option<f64> {
        of.fit.alpha
    }

    fn relative_error(&self, of: &Measured) -> f64 {
        of.fit.alpha.map_or(0.0, |alpha| of.fit.alpha_error / alpha)
    }
}

/// λ_{n−k}, where the fitted tail starts.
pub struct LambdaMin;

impl Metric for LambdaMin {
    fn name(&self) -> &'static str {
        "lambda_min"
    }

    fn description(&self) -> &'static str {
        "the eigenvalue at which the fitted tail starts, λ_{n−k}"
    }

    fn value(&self, of: &Measured) -> Option<f64> {
        of.fit.alpha?;
        let start = of.spectrum.eigenvalues.get(of.fit.start?)?;
        of.eigenvalue(*start)
    }

    fn relative_error(&self, of: &Measured) -> f64 {
        let start = of.fit.start.and_then(|start| of.spectrum.eigenvalues.get(start));
        start.map_or(0.0, |start| of.spectrum.error / start)
    }
}
