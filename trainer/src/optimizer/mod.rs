//! Optimizers with a learning rate per parameter and a state that can be saved.
//!
//! ```text
//! zero_grad → loss, backward → [perturb → zero_grad → loss, backward → unperturb] → clip → step
//! ```
//!
//! Gradients are read from the parameters. A parameter without one is passed over, as in PyTorch, and its
//! count of steps stands still. A complex parameter is taken as pairs of real numbers: the square in a second
//! moment is not that of a complex number.

mod adafactor;
mod adam;
mod group;
mod memory;
mod sam;
mod sgd;

use std::fmt;

use tch::Tensor;

use crate::error::{Error, Result};
use crate::torch;
use crate::training::Parameter;

pub use adafactor::{Adafactor, AdafactorSettings};
pub use adam::{Adam, AdamSettings};
pub use sam::{Sam, SamSettings};
pub use sgd::{Sgd, SgdSettings};

/// Changes parameters along their gradients.
///
/// All methods are to be given the same parameters in the same order.
pub trait Optimizer: fmt::Debug {
    /// One step, with a learning rate for each parameter. Weight decay applies to those that
    /// [decay](Parameter::decays).
    ///
    /// # Errors
    /// Rates that are not one finite number for each parameter, and what libtorch says.
    fn step(&mut self, parameters: &[Parameter], rates: &[f64]) -> Result<()>;

    /// All that the next steps depend on, as `<parameter>.<what>` with PyTorch's names for it, on the
    /// device of training. The tensors share memory with the optimizer: they are to be written, or
    /// copied, before the next step.
    ///
    /// # Errors
    /// What libtorch says.
    fn state(&self, parameters: &[Parameter]) -> Result<Vec<(String, Tensor)>>;

    /// Replaces the state by a copy of a saved one, so that the next steps are, bit for bit on a CPU,
    /// those of the optimizer that was saved. Unchanged where this fails.
    ///
    /// # Errors
    /// A state of another optimizer or of other parameters, and what libtorch says.
    fn restore(&mut self, parameters: &[Parameter], state: &[(String, Tensor)]) -> Result<()>;

    /// Whether each step needs the gradients of perturbed weights, and so two passes.
    fn perturbs(&self) -> bool {
        false
    }

    /// Moves the weights to where the gradients for the step are wanted; the gradients now are read, and
    /// are the caller's to clear. Returns their norm, as SAM measures it. Where it is not finite, the
    /// weights are left alone, and the caller should stop.
    ///
    /// # Errors
    /// What libtorch says.
    fn perturb(&mut self, parameters: &[Parameter]) -> Result<f64> {
        let _ = parameters;
        Ok(0.0)
    }

    /// Moves the weights back, to the bit. A step does so, too, where it was forgotten.
    ///
    /// # Errors
    /// What libtorch says.
    fn unperturb(&mut self, parameters: &[Parameter]) -> Result<()> {
        let _ = parameters;
        Ok(())
    }
}

/// An optimizer and its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Settings {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    AdamW(AdamSettings),
    /// Adam (Kingma and Ba 2015), weight decay as an L2 penalty.
    Adam(AdamSettings),
    /// Adafactor (Shazeer and Stern 2018).
    Adafactor(AdafactorSettings),
    /// Gradient descent with momentum.
    Sgd(SgdSettings),
}

impl Settings {
    /// The optimizer, before its first step, with SAM around it if given.
    pub fn build(self, sam: Option<SamSettings>) -> Box<dyn Optimizer> {
        let optimizer: Box<dyn Optimizer> = match self {
            Settings::AdamW(settings) => Box::new(Adam::decoupled(settings)),
            Settings::Adam(settings) => Box::new(Adam::new(settings)),
            Settings::Adafactor(settings) => Box::new(Adafactor::new(settings)),
            Settings::Sgd(settings) => Box::new(Sgd::new(settings)),
        };
        match sam {
            Some(settings) => Box::new(Sam::new(optimizer, settings)),
            None => optimizer,
        }
    }
}

/// Scales all gradients down so that their common norm is at most `max_norm`, as PyTorch's
/// `clip_grad_norm_` does: by max_norm / (norm + 10⁻⁶) where that is below 1. Returns the norm before.
/// With `max_norm` 0, or where the norm is not finite, the gradients stay as they are; in the latter case
/// the caller should stop.
///
/// # Errors
/// What libtorch says.
pub fn clip(parameters: &[Parameter], max_norm: f64) -> Result<f64> {
    let mut gradients = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        // The gradient itself, not its view as real numbers: it is changed.
        let gradient = parameter.tensor.f_grad()?;
        if gradient.defined() {
            gradients.push(gradient);
        }
    }
    let norm = torch::norm(&gradients)?;
    let factor = max_norm / (norm + 1e-6);
    if max_norm > 0.0 && norm.is_finite() && factor < 1.0 {
        torch::scale(&gradients, factor)?;
    }
    Ok(norm)
}

/// Takes the gradients away, as PyTorch's `zero_grad(set_to_none=True)`: what the next loss does not depend
/// on then has none.
///
/// # Errors
/// What libtorch says.
pub fn zero_grad(parameters: &[Parameter]) -> Result<()> {
    Ok(torch::clear_gradients(parameters.iter().map(|parameter| &parameter.tensor))?)
}

/// The parameter's own memory as real numbers, outside the graph: complex ones get a last dimension of 2.
fn weight(parameter: &Parameter) -> Result<Tensor> {
    real(parameter.tensor.f_detach()?)
}

/// The gradient as real numbers, if there is one.
fn gradient(parameter: &Parameter) -> Result<Option<Tensor>> {
    let gradient = parameter.tensor.f_grad()?;
    if !gradient.defined() {
        return Ok(None);
    }
    Ok(Some(real(gradient.f_detach()?.f_resolve_conj()?)?))
}

fn real(tensor: Tensor) -> Result<Tensor> {
    Ok(if tensor.f_is_complex()? { tensor.f_view_as_real()? } else { tensor })
}

/// One finite rate for each parameter.
fn check_rates(parameters: &[Parameter], rates: &[f64]) -> Result<()> {
    if parameters.len() != rates.len() {
        return Err(Error::Option(format!(
            "{} learning rates were given for {} parameters.",
            rates.len(),
            parameters.len()
        )));
    }
    match parameters.iter().zip(rates).find(|(_, rate)| !rate.is_finite()) {
        Some((parameter, rate)) => {
            Err(Error::Option(format!("the learning rate of {} is {rate}.", parameter.name)))
        }
        None => Ok(()),
    }
}
