//! The base learning rate: what a unit's factor multiplies.
//!
//! Warm-up and decay are those of transformers' `get_linear_schedule_with_warmup`,
//! `get_cosine_schedule_with_warmup` (half a period) and `get_constant_schedule_with_warmup`; steps
//! are those of PyTorch's `StepLR`, counted in epochs.

use serde::{Deserialize, Serialize};

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// (T − k)/(T − w): to 0 at the end.
    #[default]
    Linear,
    /// (1 + cos(π·(k − w)/(T − w)))/2: to 0 at the end.
    Cosine,
    /// γ^⌊e/E⌋ in epoch e, counted from the run's first step.
    Step {
        /// E.
        every_epochs: u64,
        /// γ.
        gamma: f64,
    },
    /// 1.
    Constant,
}

/// w: the steps of a warm-up that takes this part of a run, rounded up.
pub fn warmup_steps(ratio: f64, steps: u64) -> u64 {
    (ratio * steps as f64).ceil() as u64
}

/// The base rate over a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaseRate {
    /// η at its highest.
    pub peak: f64,
    /// How it falls.
    pub decay: Decay,
    /// w.
    pub warmup_steps: u64,
    /// T: the optimizer steps of the whole run.
    pub steps: u64,
    /// The optimizer steps of an epoch, at least 1.
    pub steps_per_epoch: u64,
}

impl BaseRate {
    /// The rate of the optimizer step k = 0..T−1. It rises by η/w a step, from 0, so that the very first
    /// step of a run with a warm-up changes nothing.
    pub fn at(&self, step: u64) -> f64 {
        self.peak * self.share(step)
    }

    /// The part of the peak.
    fn share(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return step as f64 / self.warmup_steps as f64;
        }
        let after = step - self.warmup_steps;
        let all = self.steps.saturating_sub(self.warmup_steps).max(1) as f64;
        match self.decay {
            Decay::Linear => self.steps.saturating_sub(step) as f64 / all,
            Decay::Cosine => {
                let progress = after as f64 / all;
                // Python multiplies in this order.
                (0.5 * (1.0 + (std::f64::consts::PI * 0.5 * 2.0 * progress).cos())).max(0.0)
            }
            Decay::Step { every_epochs, gamma } => {
                let epoch = step / self.steps_per_epoch.max(1);
                let times = epoch / every_epochs.max(1);
                gamma.powi(i32::try_from(times).unwrap_or(i32::MAX))
            }
            Decay::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A schedule of `fixtures/balance.py`, made by transformers and PyTorch.
    #[derive(Deserialize)]
    struct Golden {
        decay: Decay,
        warmup_ratio: f64,
        warmup_steps: u64,
        steps: u64,
        steps_per_epoch: u64,
        peak: f64,
        rates: Vec<f64>,
    }

    #[test]
    fn rates_are_those_of_transformers_and_pytorch() {
        let text = include_str!("../../fixtures/balance/rates.json");
        let golden: Vec<Golden> = serde_json::from_str(text).unwrap();
        assert!(golden.len() > 10);
        for case in golden {
            assert_eq!(warmup_steps(case.warmup_ratio, case.steps), case.warmup_steps);
            let rate = BaseRate {
                peak: case.peak,
                decay: case.decay,
                warmup_steps: case.warmup_steps,
                steps: case.steps,
                steps_per_epoch: case.steps_per_epoch,
            };
            assert_eq!(case.rates.len() as u64, case.steps + 1);
            for (step, expected) in case.rates.iter().enumerate() {
                let found = rate.at(step as u64);
                let close = (found - expected).abs() <= 1e-15 * case.peak + 1e-14 * expected;
                assert!(close, "{:?} step {step}: {found} against {expected}", case.decay);
            }
        }
    }

    #[test]
    fn a_run_of_nothing_has_a_rate() {
        for decay in
            [Decay::Linear, Decay::Cosine, Decay::Constant, Decay::Step { every_epochs: 0, gamma: 0.5 }]
        {
            let rate = BaseRate { peak: 1.0, decay, warmup_steps: 0, steps: 0, steps_per_epoch: 0 };
            assert!(rate.at(0).is_finite() && rate.at(9).is_finite());
        }
        assert_eq!(warmup_steps(0.0, 100), 0);
        assert_eq!(warmup_steps(1e-9, 100), 1);
    }
}
