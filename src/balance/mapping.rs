//! From the metrics of the units to factors of the base learning rate.
//!
//! Every [`Mapping`] gives a unit with a larger metric a larger factor. The default is the paper's
//! sigmoid (arXiv 2410.12178, eq. 3 and 4).

use serde::{Deserialize, Serialize};

/// How metrics become factors. m is the metric of a unit, n the number of units.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mapping {
    /// TB_Sigmoid: 10^(s·(1/(1 + exp(−τ(m − mean))) − 1/2)), which lies between 10^(−s/2) and 10^(s/2).
    /// The gain s may be another one above the mean than below.
    Sigmoid {
        /// τ: how soon the sigmoid saturates, per unit of the metric.
        tau: f64,
    },
    /// TB_Linear_Map: from [min m, max m] to [low, high].
    Linear {
        /// The factor of the smallest metric.
        low: f64,
        /// The factor of the largest metric.
        high: f64,
    },
    /// n·√m / Σ√m.
    Sqrt,
    /// n·log₂m / Σlog₂m.
    Log2,
    /// low + (high − low)·r/n of the rank r = 0..n−1; equal metrics share their mean rank.
    Rank {
        /// The factor of the smallest metric.
        low: f64,
        /// What the factors stay below.
        high: f64,
    },
    /// 1: plain fine-tuning.
    Uniform,
}

/// The gain s of [`Mapping::Sigmoid`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gain {
    /// The same all the time; the paper's pair (s1, s2) is (below, above).
    Fixed {
        /// For metrics below the mean.
        below: f64,
        /// For metrics above the mean.
        above: f64,
    },
    /// Controlled: see [`super::Controller`].
    Auto {
        /// What s is not raised above.
        cap: f64,
        /// What no factor goes above.
        max_factor: f64,
    },
}

/// A metric that a mapping has no factor for.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("the mapping `{mapping}` needs metrics above {bound}, and this one is {value}")]
pub struct OutOfRange {
    /// The mapping's name.
    pub mapping: &'static str,
    /// The position of the metric.
    pub position: usize,
    /// The metric.
    pub value: f64,
    /// What it has to be above.
    pub bound: f64,
}

impl Default for Mapping {
    fn default() -> Self {
        Mapping::Sigmoid { tau: 10.0 }
    }
}

impl Default for Gain {
    fn default() -> Self {
        Gain::Fixed { below: 1.25, above: 1.25 }
    }
}

impl Gain {
    /// [`Gain::Auto`] as it is without options: cap 8, no factor above 30.
    pub const AUTO: Gain = Gain::Auto { cap: 8.0, max_factor: 30.0 };
}

impl Mapping {
    /// The name on the command line.
    pub const fn name(&self) -> &'static str {
        match self {
            Mapping::Sigmoid { .. } => "sigmoid",
            Mapping::Linear { .. } => "linear",
            Mapping::Sqrt => "sqrt",
            Mapping::Log2 => "log2",
            Mapping::Rank { .. } => "rank",
            Mapping::Uniform => "uniform",
        }
    }

    /// The mapping of a name, with its usual parameters: τ = 10, and 0.5 to 1.5.
    pub fn named(name: &str) -> Option<Mapping> {
        let (low, high) = (0.5, 1.5);
        let all = [
            Mapping::default(),
            Mapping::Linear { low, high },
            Mapping::Sqrt,
            Mapping::Log2,
            Mapping::Rank { low, high },
            Mapping::Uniform,
        ];
        all.into_iter().find(|mapping| mapping.name() == name)
    }

    /// The factor of every unit, by its metric; 1 for all where the metrics are equal. `gain` is (s
    /// below the mean, s above it), which the sigmoid alone uses. No factor is above `max_factor`.
    ///
    /// # Errors
    /// [`OutOfRange`] with the first metric that is not finite, or not above 0 (`sqrt`) or 1 (`log2`).
    ///
    /// # Examples
    /// ```
    /// use evenkeel::balance::Mapping;
    ///
    /// let factors = Mapping::default().factors(&[2.9, 3.0, 3.2], (1.25, 1.25), None).unwrap();
    /// assert!((factors[2] - 2.6693997711476385).abs() < 1e-12);
    /// ```
    pub fn factors(
        &self,
        metrics: &[f64],
        gain: (f64, f64),
        max_factor: Option<f64>,
    ) -> Result<Vec<f64>, OutOfRange> {
        let bound = match self {
            Mapping::Sqrt => 0.0,
            Mapping::Log2 => 1.0,
            _ => f64::NEG_INFINITY,
        };
        if let Some(position) = metrics.iter().position(|m| !(m.is_finite() && *m > bound)) {
            let value = metrics.get(position).copied().unwrap_or(f64::NAN);
            return Err(OutOfRange { mapping: self.name(), position, value, bound });
        }
        let smallest = metrics.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = metrics.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // By formula some of them would miss 1 by rounding, or divide by zero.
        if smallest >= largest {
            return Ok(vec![1.0; metrics.len()]);
        }
        let factors: Vec<f64> = match *self {
            Mapping::Sigmoid { tau } => {
                let mean = metrics.iter().sum::<f64>() / metrics.len() as f64;
                metrics.iter().map(|m| sigmoid(m - mean, tau, gain)).collect()
            }
            Mapping::Linear { low, high } => {
                metrics.iter().map(|m| low + (high - low) * (m - smallest) / (largest - smallest)).collect()
            }
            Mapping::Sqrt => shares(metrics, f64::sqrt),
            Mapping::Log2 => shares(metrics, f64::log2),
            Mapping::Rank { low, high } => {
                let count = metrics.len() as f64;
                metrics.iter().map(|m| low + (high - low) * mean_rank(*m, metrics) / count).collect()
            }
            Mapping::Uniform => vec![1.0; metrics.len()],
        };
        let most = max_factor.unwrap_or(f64::INFINITY);
        Ok(factors.into_iter().map(|factor| factor.min(most)).collect())
    }
}

/// 10^(s·(σ(τ·difference) − 1/2)), σ the logistic function.
fn sigmoid(difference: f64, tau: f64, (below, above): (f64, f64)) -> f64 {
    let gain = if difference > 0.0 { above } else { below };
    10f64.powf(gain * (1.0 / (1.0 + (-tau * difference).exp()) - 0.5))
}

/// n·f(m) / Σf(m): the mean of the factors is 1.
fn shares(metrics: &[f64], of: fn(f64) -> f64) -> Vec<f64> {
    let values: Vec<f64> = metrics.iter().map(|m| of(*m)).collect();
    let sum: f64 = values.iter().sum();
    values.iter().map(|value| metrics.len() as f64 * value / sum).collect()
}

/// The rank of a metric from 0, the mean of those of all metrics equal to it.
fn mean_rank(metric: f64, metrics: &[f64]) -> f64 {
    let below = metrics.iter().filter(|m| **m < metric).count();
    let equal = metrics.iter().filter(|m| **m == metric).count();
    below as f64 + (equal as f64 - 1.0) / 2.0
}

/// The number of a matrix that decides its rate (paper, Tables 3 and 24).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// PL_Alpha_Hill.
    #[default]
    Alpha,
    /// σ_max², which the paper's authors ran as "Spectral Norm".
    LambdaMax,
    /// σ_max.
    SpectralNorm,
    /// ‖W‖_F²/σ_max².
    StableRank,
}

impl Measure {
    /// All of them, the default first.
    pub const ALL: [Measure; 4] =
        [Measure::Alpha, Measure::LambdaMax, Measure::SpectralNorm, Measure::StableRank];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Measure::Alpha => "alpha",
            Measure::LambdaMax => "lambda-max",
            Measure::SpectralNorm => "spectral-norm",
            Measure::StableRank => "stable-rank",
        }
    }

    /// The name among the metrics of a report's matrices.
    pub const fn metric(self) -> &'static str {
        match self {
            Measure::Alpha => "alpha",
            Measure::LambdaMax => "lambda_max",
            Measure::SpectralNorm => "spectral_norm",
            Measure::StableRank => "stable_rank",
        }
    }

    /// The measure of a name on the command line.
    pub fn named(name: &str) -> Option<Measure> {
        Measure::ALL.into_iter().find(|measure| measure.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: [f64; 3] = [2.9, 3.0, 3.2];
    const ALL: [Mapping; 6] = [
        Mapping::Sigmoid { tau: 10.0 },
        Mapping::Linear { low: 0.5, high: 1.5 },
        Mapping::Sqrt,
        Mapping::Log2,
        Mapping::Rank { low: 0.5, high: 1.5 },
        Mapping::Uniform,
    ];

    #[track_caller]
    fn assert_factors(mapping: Mapping, metrics: &[f64], gain: (f64, f64), expected: &[f64]) {
        let found = mapping.factors(metrics, gain, None).unwrap();
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= 1e-14 * e.abs(), "{mapping:?}: {found:?}");
        }
    }

    #[test]
    fn the_sigmoid_has_the_published_values() {
        let sigmoid = Mapping::default();
        let pair = [0.2613467204476106, 0.6836905656964852, 2.1934659401158325];
        assert_factors(sigmoid, &METRICS, (2.0, 1.0), &pair);
        let same = [0.43227553718220557, 0.7884737547586094, 2.6693997711476385];
        assert_factors(sigmoid, &METRICS, (1.25, 1.25), &same);
        // Far out it saturates at 10^(±s/2), and nothing overflows.
        let far = sigmoid.factors(&[-1e6, 0.0, 1e6], (2.0, 2.0), None).unwrap();
        assert_eq!((far[0], far[2]), (0.1, 10.0));
    }

    #[test]
    fn the_other_mappings_have_the_values_of_their_formulas() {
        let unused = (9.0, 9.0);
        let third = 0.5 + 1.0 / 3.0;
        assert_factors(Mapping::Linear { low: 0.5, high: 1.5 }, &METRICS, unused, &[0.5, third, 1.5]);
        let rank = Mapping::Rank { low: 0.5, high: 1.5 };
        assert_factors(rank, &[3.2, 2.9, 3.0], unused, &[0.5 + 2.0 / 3.0, 0.5, third]);
        assert_factors(rank, &[2.0, 1.0, 2.0, 3.0], unused, &[0.875, 0.5, 0.875, 1.25]);
        assert_factors(Mapping::Sqrt, &[1.0, 4.0, 9.0], unused, &[0.5, 1.0, 1.5]);
        assert_factors(Mapping::Log2, &[2.0, 4.0, 8.0], unused, &[0.5, 1.0, 1.5]);
        assert_factors(Mapping::Uniform, &METRICS, unused, &[1.0, 1.0, 1.0]);
    }

    #[test]
    fn equal_metrics_get_exactly_one() {
        for mapping in ALL {
            // The mean of three of these is not one of these, by rounding.
            for metric in [1.1, 2.9, 3.3] {
                assert_eq!(mapping.factors(&[metric; 3], (6.0, 6.0), None), Ok(vec![1.0; 3]));
            }
            assert_eq!(mapping.factors(&[2.5], (6.0, 6.0), None), Ok(vec![1.0]));
            assert_eq!(mapping.factors(&[], (6.0, 6.0), None), Ok(vec![]));
        }
    }

    #[test]
    fn metrics_out_of_range_are_refused() {
        let refused = |mapping: Mapping, metrics: &[f64]| {
            mapping.factors(metrics, (1.0, 1.0), None).unwrap_err().position
        };
        assert_eq!(refused(Mapping::Sqrt, &[1.0, 0.0]), 1);
        assert_eq!(refused(Mapping::Log2, &[2.0, 3.0, 1.0]), 2);
        // Even where all are equal.
        assert_eq!(refused(Mapping::Log2, &[1.0, 1.0]), 0);
        for mapping in ALL {
            assert_eq!(refused(mapping, &[2.0, f64::NAN, f64::INFINITY]), 1);
        }
        let error = Mapping::Log2.factors(&[0.5], (1.0, 1.0), None).unwrap_err();
        assert_eq!(error.to_string(), "the mapping `log2` needs metrics above 1, and this one is 0.5");
    }

    #[test]
    fn no_factor_is_above_the_largest() {
        let factors = Mapping::default().factors(&[2.0, 2.0, 3.0], (8.0, 8.0), Some(30.0)).unwrap();
        assert_eq!(factors[2], 30.0);
        assert!(factors[0] < 0.01);
    }

    #[test]
    fn names_are_those_of_the_command_line_and_of_the_report() {
        for mapping in ALL {
            assert_eq!(Mapping::named(mapping.name()), Some(mapping));
        }
        for measure in Measure::ALL {
            assert_eq!(Measure::named(measure.name()), Some(measure));
            assert!(crate::metrics::position(measure.metric()).is_some());
            let json = serde_json::to_string(&measure).unwrap();
            assert_eq!(json, format!("\"{}\"", measure.name()));
        }
    }
}
