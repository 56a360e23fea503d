//! Stochastic gradient descent with PyTorch's momentum, by libtorch's fused kernel.

use tch::Tensor;

use super::memory::{Memory, Tensors};
use super::{Optimizer, group, weight};
use crate::error::Result;
use crate::torch::{SgdRow, SgdStep};
use crate::training::Parameter;

/// The numbers of gradient descent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SgdSettings {
    /// Decay of the momentum; 0 has none.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// With gradient g, learning rate η, momentum μ and weight decay λ:
///
/// b ← μb + g + λw (at the first step g + λw),  w ← w − ηb
#[derive(Debug)]
pub struct Sgd {
    settings: SgdSettings,
    memory: Memory,
}

impl Sgd {
    /// Before its first step.
    pub fn new(settings: SgdSettings) -> Sgd {
        Sgd { settings, memory: Memory::default() }
    }
}

fn fresh(settings: SgdSettings) -> impl Fn(&Parameter) -> Result<Tensors> {
    move |parameter| {
        if settings.momentum == 0.0 {
            return Ok(Vec::new());
        }
        Ok(vec![("momentum_buffer", weight(parameter)?.f_zeros_like()?)])
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, parameters: &[Parameter], rates: &[f64]) -> Result<()> {
        let SgdSettings { momentum, weight_decay } = self.settings;
        for group in group::groups(parameters, rates, &mut self.memory, fresh(self.settings))? {
            let step = SgdStep {
                first: group.steps == 1,
                rate: group.rate,
                momentum,
                decay: group.decay(weight_decay),
            };
            let rows = group.members.iter().map(|(place, weight, gradient)| {
                let momentum = self.memory.get(*place).and_then(|slot| slot.tensor(0));
                SgdRow { weight, gradient, momentum }
            });
            step.take(&rows.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn state(&self, parameters: &[Parameter]) -> Result<Vec<(String, Tensor)>> {
        self.memory.state(parameters)
    }

    fn restore(&mut self, parameters: &[Parameter], state: &[(String, Tensor)]) -> Result<()> {
        self.memory = Memory::restored(parameters, state, fresh(self.settings))?;
        Ok(())
    }
}
