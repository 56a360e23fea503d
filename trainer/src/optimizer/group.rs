//! Parameters that one call of a fused kernel can take together.

use tch::{Device, Kind, Tensor};

use super::memory::{Memory, Tensors};
use super::{check_rates, gradient, weight};
use crate::error::Result;
use crate::training::Parameter;

/// Parameters of one device and dtype that get the same step.
#[derive(Debug)]
pub struct Group {
    device: Device,
    kind: Kind,
    /// Their learning rate.
    pub rate: f64,
    /// Whether weight decay applies.
    pub decays: bool,
    /// Steps taken, this one included.
    pub steps: u64,
    /// Each one's place among the parameters, values and gradient (real, outside the graph).
    pub members: Vec<(usize, Tensor, Tensor)>,
}

impl Group {
    /// Weight decay of these parameters, of `decay` in general.
    pub fn decay(&self, decay: f64) -> f64 {
        if self.decays { decay } else { 0.0 }
    }
}

/// Counts a step of every parameter with a gradient, and puts together what can go together. Blocks that share
/// a rate are few hundred tensors in some dozens of groups, so that a search along the list will do.
pub fn groups(
    parameters: &[Parameter],
    rates: &[f64],
    memory: &mut Memory,
    fresh: impl Fn(&Parameter) -> Result<Tensors>,
) -> Result<Vec<Group>> {
    check_rates(parameters, rates)?;
    let mut groups: Vec<Group> = Vec::new();
    for (place, (parameter, &rate)) in parameters.iter().zip(rates).enumerate() {
        let Some(gradient) = gradient(parameter)? else { continue };
        let weight = weight(parameter)?;
        let steps = memory.advance(place, || fresh(parameter))?.steps;
        let (device, kind, decays) = (weight.device(), weight.f_kind()?, parameter.decays);
        let found = groups.iter_mut().find(|group| {
            group.rate == rate
                && group.decays == decays
                && group.steps == steps
                && group.device == device
                && group.kind == kind
        });
        let member = (place, weight, gradient);
        match found {
            Some(group) => group.members.push(member),
            None => groups.push(Group { device, kind, rate, decays, steps, members: vec![member] }),
        }
    }
    Ok(groups)
}
