//! Sharpness-aware minimisation around another optimizer, plain (Foret et al. 2021) and adaptive (Kwon et
//! al. 2021).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tch::Tensor;

use super::{Optimizer, gradient, weight};
use crate::error::Result;
use crate::torch;
use crate::training::Parameter;

/// The numbers of SAM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamSettings {
    /// The radius.
    pub rho: f64,
    /// The radius is relative to each weight.
    pub adaptive: bool,
}

/// Steps along the gradient at w + e, where e leads uphill:
///
/// e = ρ g / (‖g‖ + 10⁻¹²), or, adaptive, e = ρ w² g / (‖ |w| g ‖ + 10⁻¹²), norms over all parameters.
#[derive(Debug)]
pub struct Sam {
    inner: Box<dyn Optimizer>,
    settings: SamSettings,
    /// Copies of the weights, by place; w + e − e is not w. Kept, since they are needed at each step.
    copies: BTreeMap<usize, Tensor>,
    /// The places whose weights are perturbed now.
    perturbed: Vec<usize>,
}

impl Sam {
    /// Around an optimizer.
    pub fn new(inner: Box<dyn Optimizer>, settings: SamSettings) -> Sam {
        Sam { inner, settings, copies: BTreeMap::new(), perturbed: Vec::new() }
    }

    /// Keeps the weight's values.
    fn keep(&mut self, place: usize, weight: &Tensor) -> Result<()> {
        let copy = match self.copies.entry(place) {
            Entry::Occupied(copy) => copy.into_mut(),
            Entry::Vacant(empty) => empty.insert(weight.f_empty_like()?),
        };
        copy.f_copy_(weight)?;
        Ok(())
    }
}

impl Optimizer for Sam {
    fn step(&mut self, parameters: &[Parameter], rates: &[f64]) -> Result<()> {
        self.unperturb(parameters)?;
        self.inner.step(parameters, rates)
    }

    fn state(&self, parameters: &[Parameter]) -> Result<Vec<(String, Tensor)>> {
        self.inner.state(parameters)
    }

    fn restore(&mut self, parameters: &[Parameter], state: &[(String, Tensor)]) -> Result<()> {
        self.inner.restore(parameters, state)
    }

    fn perturbs(&self) -> bool {
        true
    }

    fn perturb(&mut self, parameters: &[Parameter]) -> Result<f64> {
        self.unperturb(parameters)?;
        let SamSettings { rho, adaptive } = self.settings;
        let (mut members, mut directions) = (Vec::new(), Vec::new());
        for (place, parameter) in parameters.iter().enumerate() {
            let Some(gradient) = gradient(parameter)? else { continue };
            let weight = weight(parameter)?;
            // g, or w g: its norm is that of |w| g, and w times it is w² g.
            directions.push(if adaptive { weight.f_mul(&gradient)? } else { gradient });
            members.push((place, weight));
        }
        let norm = torch::norm(&directions)?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        let scale = rho / (norm + 1e-12);
        for ((place, mut weight), direction) in members.into_iter().zip(directions) {
            self.keep(place, &weight)?;
            self.perturbed.push(place);
            let mut shift = direction.f_mul_scalar(scale)?;
            if adaptive {
                let _ = shift.f_mul_(&weight)?;
            }
            let _ = weight.f_add_(&shift)?;
        }
        Ok(norm)
    }

    fn unperturb(&mut self, parameters: &[Parameter]) -> Result<()> {
        for place in std::mem::take(&mut self.perturbed) {
            if let (Some(parameter), Some(copy)) = (parameters.get(place), self.copies.get(&place)) {
                weight(parameter)?.f_copy_(copy)?;
            }
        }
        Ok(())
    }
}
