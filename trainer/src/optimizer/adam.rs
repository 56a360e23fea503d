//! Adam, with weight decay as an L2 penalty or decoupled (AdamW), by libtorch's fused kernels.

use tch::Tensor;

use super::memory::{Memory, Tensors};
use super::{Optimizer, group, weight};
use crate::error::Result;
use crate::torch::{AdamRow, AdamStep};
use crate::training::Parameter;

/// The numbers of Adam; PyTorch's defaults, but for weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSettings {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

impl Default for AdamSettings {
    fn default() -> Self {
        AdamSettings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// At step t with gradient g and learning rate η:
///
/// m ← β₁m + (1 − β₁)g,  v ← β₂v + (1 − β₂)g²,
/// w ← w − η · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)
///
/// Weight decay λ adds λw to g, or, decoupled, first takes ηλw from w.
#[derive(Debug)]
pub struct Adam {
    settings: AdamSettings,
    decoupled: bool,
    memory: Memory,
}

impl Adam {
    /// Adam (Kingma and Ba 2015).
    pub fn new(settings: AdamSettings) -> Adam {
        Adam { settings, decoupled: false, memory: Memory::default() }
    }

    /// AdamW (Loshchilov and Hutter 2019).
    pub fn decoupled(settings: AdamSettings) -> Adam {
        Adam { settings, decoupled: true, memory: Memory::default() }
    }
}

fn fresh(parameter: &Parameter) -> Result<Tensors> {
    let weight = weight(parameter)?;
    Ok(vec![("exp_avg", weight.f_zeros_like()?), ("exp_avg_sq", weight.f_zeros_like()?)])
}

impl Optimizer for Adam {
    fn step(&mut self, parameters: &[Parameter], rates: &[f64]) -> Result<()> {
        let AdamSettings { beta1, beta2, epsilon, weight_decay } = self.settings;
        for group in group::groups(parameters, rates, &mut self.memory, fresh)? {
            let step = AdamStep {
                decoupled: self.decoupled,
                number: group.steps,
                rate: group.rate,
                beta1,
                beta2,
                decay: group.decay(weight_decay),
                epsilon,
            };
            let rows = group.members.iter().filter_map(|(place, weight, gradient)| {
                let slot = self.memory.get(*place)?;
                Some(AdamRow { weight, gradient, first: slot.tensor(0)?, second: slot.tensor(1)? })
            });
            step.take(&rows.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn state(&self, parameters: &[Parameter]) -> Result<Vec<(String, Tensor)>> {
        self.memory.state(parameters)
    }

    fn restore(&mut self, parameters: &[Parameter], state: &[(String, Tensor)]) -> Result<()> {
        self.memory = Memory::restored(parameters, state, fresh)?;
        Ok(())
    }
}
