//! Adafactor with the semantics of the transformers library and a learning rate from outside
//! (`relative_step=False`).

use tch::Tensor;

use super::memory::{Memory, Slot, Tensors};
use super::{Optimizer, check_rates, gradient, weight};
use crate::error::Result;
use crate::training::Parameter;

/// The numbers of Adafactor; the defaults of transformers, but with `scale_parameter` off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdafactorSettings {
    /// Added to squared gradients.
    pub epsilon: f64,
    /// Where rates are scaled with a parameter's size, that size is at least this.
    pub epsilon_scale: f64,
    /// Updates with a larger root mean square are scaled down to it.
    pub clip_threshold: f64,
    /// The decay of the second moment is 1 − tᵞ at step t, with this γ.
    pub decay_rate: f64,
    /// Decay of a first moment, if there is to be one.
    pub beta1: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Multiply rates by the root mean square of the parameter.
    pub scale_parameter: bool,
}

impl Default for AdafactorSettings {
    fn default() -> Self {
        AdafactorSettings {
            epsilon: 1e-30,
            epsilon_scale: 1e-3,
            clip_threshold: 1.0,
            decay_rate: -0.8,
            beta1: None,
            weight_decay: 0.0,
            scale_parameter: false,
        }
    }
}

/// Keeps the second moment of matrices only as averages R of rows and C of columns, over the last two dimensions:
///
/// u = g · (R Cᵀ / mean R)^(−1/2), u ← u / max(1, RMS(u)/d), w ← w − ηλw − ηu
///
/// A complex matrix has one second moment for a number's two parts, the mean of their squares.
#[derive(Debug)]
pub struct Adafactor {
    settings: AdafactorSettings,
    memory: Memory,
}

/// A parameter's tensors in their order in memory.
struct Moments {
    first: Option<Tensor>,
    second: Second,
}

enum Second {
    /// Means over the last dimension (`rows`: shape without it) and over the one before (`columns`).
    Factored {
        rows: Tensor,
        columns: Tensor,
    },
    Whole(Tensor),
}

impl Adafactor {
    /// Before its first step.
    pub fn new(settings: AdafactorSettings) -> Adafactor {
        Adafactor { settings, memory: Memory::default() }
    }

    /// The step of one parameter.
    fn update(&self, parameter: &Parameter, gradient: &Tensor, slot: &Slot, rate: f64) -> Result<()> {
        let AdafactorSettings { epsilon, epsilon_scale, clip_threshold, decay_rate, .. } = self.settings;
        let mut weight = weight(parameter)?;
        let Some(Moments { first, second }) = Moments::of(slot)? else { return Ok(()) };
        // The weight of what is new: all at the first step.
        let fresh = (slot.steps as f64).powf(decay_rate);
        let square = gradient.f_square()?.f_add_scalar(epsilon)?;
        let mut update = second.rsqrt(&square, fresh, parameter)?.f_mul(gradient)?;
        let _ = update.f_div_(&rms(&update)?.f_div_scalar(clip_threshold)?.f_clamp_min(1.0)?)?;
        // A tensor, so that a GPU need not be waited for.
        let rate = if self.settings.scale_parameter {
            rms(&weight)?.f_clamp_min(epsilon_scale)?.f_mul_scalar(rate)?
        } else {
            Tensor::f_full([0i64; 0], rate, (weight.f_kind()?, weight.device()))?
        };
        let _ = update.f_mul_(&rate)?;
        if let (Some(mut first), Some(beta1)) = (first, self.settings.beta1) {
            let _ = first.f_lerp_(&update, 1.0 - beta1)?;
            update = first;
        }
        if parameter.decays && self.settings.weight_decay != 0.0 {
            let shrink = weight.f_mul(&rate.f_mul_scalar(self.settings.weight_decay)?)?;
            let _ = weight.f_sub_(&shrink)?;
        }
        let _ = weight.f_sub_(&update)?;
        Ok(())
    }
}

impl Second {
    /// Lets a share `fresh` of the squared gradient in, and returns 1/√ of the second moment.
    fn rsqrt(self, square: &Tensor, fresh: f64, parameter: &Parameter) -> Result<Tensor> {
        match self {
            Second::Whole(mut whole) => {
                let _ = whole.f_lerp_(square, fresh)?;
                Ok(whole.f_rsqrt()?)
            }
            Second::Factored { mut rows, mut columns } => {
                let complex = parameter.tensor.f_is_complex()?;
                let pooled = if complex { mean(square, -1, false)? } else { square.f_detach()? };
                let _ = rows.f_lerp_(&mean(&pooled, -1, false)?, fresh)?;
                let _ = columns.f_lerp_(&mean(&pooled, -2, false)?, fresh)?;
                let rows = rows.f_div(&mean(&rows, -1, true)?)?.f_rsqrt()?.f_unsqueeze(-1)?;
                let scale = rows.f_mul(&columns.f_rsqrt()?.f_unsqueeze(-2)?)?;
                Ok(if complex { scale.f_unsqueeze(-1)? } else { scale })
            }
        }
    }
}

fn mean(tensor: &Tensor, dimension: i64, keep: bool) -> Result<Tensor> {
    Ok(tensor.f_mean_dim(dimension, keep, None)?)
}

/// The root mean square, a scalar.
fn rms(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.f_norm()?.f_div_scalar((tensor.numel() as f64).sqrt())?)
}

const FIRST: &str = "exp_avg";
const ROWS: &str = "exp_avg_sq_row";
const COLUMNS: &str = "exp_avg_sq_col";
const WHOLE: &str = "exp_avg_sq";

impl Moments {
    fn of(slot: &Slot) -> Result<Option<Moments>> {
        let find = |name| -> Result<Option<Tensor>> {
            let found = slot.tensors.iter().find(|(other, _)| *other == name);
            Ok(found.map(|(_, tensor)| tensor.f_detach()).transpose()?)
        };
        let second = match (find(ROWS)?, find(COLUMNS)?, find(WHOLE)?) {
            (Some(rows), Some(columns), _) => Second::Factored { rows, columns },
            (_, _, Some(whole)) => Second::Whole(whole),
            _ => return Ok(None),
        };
        Ok(Some(Moments { first: find(FIRST)?, second }))
    }
}

fn fresh(settings: AdafactorSettings) -> impl Fn(&Parameter) -> Result<Tensors> {
    move |parameter| {
        let weight = weight(parameter)?;
        let options = (weight.f_kind()?, weight.device());
        let zeros = |sizes: &[i64]| Tensor::f_zeros(sizes, options);
        let mut tensors = match parameter.tensor.size().as_slice() {
            [outer @ .., rows, columns] => vec![
                (ROWS, zeros(&[outer, &[*rows]].concat())?),
                (COLUMNS, zeros(&[outer, &[*columns]].concat())?),
            ],
            _ => vec![(WHOLE, weight.f_zeros_like()?)],
        };
        if settings.beta1.is_some() {
            tensors.push((FIRST, weight.f_zeros_like()?));
        }
        Ok(tensors)
    }
}

impl Optimizer for Adafactor {
    fn step(&mut self, parameters: &[Parameter], rates: &[f64]) -> Result<()> {
        check_rates(parameters, rates)?;
        for (place, (parameter, &rate)) in parameters.iter().zip(rates).enumerate() {
            let Some(gradient) = gradient(parameter)? else { continue };
            self.memory.advance(place, || fresh(self.settings)(parameter))?;
            if let Some(slot) = self.memory.get(place) {
                self.update(parameter, &gradient, slot, rate)?;
            }
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
