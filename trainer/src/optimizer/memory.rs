//! What an optimizer remembers of each parameter between steps, and how that is saved and restored.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use tch::Tensor;

use crate::error::{Error, Result};
use crate::training::Parameter;

/// The name under which a parameter's count of steps is saved.
const STEP: &str = "step";

/// The tensors that belong to one parameter, with their names.
pub type Tensors = Vec<(&'static str, Tensor)>;

/// One parameter's part.
#[derive(Debug)]
pub struct Slot {
    /// Steps taken, the one in progress included.
    pub steps: u64,
    /// In the order in which the optimizer made them.
    pub tensors: Tensors,
}

impl Slot {
    /// One of its tensors, by its place.
    pub fn tensor(&self, place: usize) -> Option<&Tensor> {
        self.tensors.get(place).map(|(_, tensor)| tensor)
    }
}

/// All parameters' parts, by the parameters' places; none before a parameter's first step.
#[derive(Debug, Default)]
pub struct Memory {
    slots: BTreeMap<usize, Slot>,
}

impl Memory {
    /// Counts one more step of the parameter at `place`; before the first one, `fresh` makes its tensors.
    pub fn advance(&mut self, place: usize, fresh: impl FnOnce() -> Result<Tensors>) -> Result<&mut Slot> {
        let slot = match self.slots.entry(place) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(empty) => empty.insert(Slot { steps: 0, tensors: fresh()? }),
        };
        slot.steps += 1;
        Ok(slot)
    }

    /// The part of the parameter at `place`, after its first step.
    pub fn get(&self, place: usize) -> Option<&Slot> {
        self.slots.get(&place)
    }

    /// `<parameter>.step`, and the other tensors likewise.
    pub fn state(&self, parameters: &[Parameter]) -> Result<Vec<(String, Tensor)>> {
        let mut state = Vec::new();
        for (place, parameter) in parameters.iter().enumerate() {
            let Some(slot) = self.get(place) else { continue };
            let steps = i64::try_from(slot.steps).unwrap_or(i64::MAX);
            state.push((format!("{}.{STEP}", parameter.name), Tensor::f_from_slice(&[steps])?));
            for (what, tensor) in &slot.tensors {
                state.push((format!("{}.{what}", parameter.name), tensor.f_detach()?));
            }
        }
        Ok(state)
    }

    /// The reverse; `fresh` makes the tensors of a parameter that are to be filled.
    pub fn restored(
        parameters: &[Parameter],
        state: &[(String, Tensor)],
        fresh: impl Fn(&Parameter) -> Result<Tensors>,
    ) -> Result<Memory> {
        let mut saved: HashMap<&str, &Tensor> =
            state.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut slots = BTreeMap::new();
        for (place, parameter) in parameters.iter().enumerate() {
            let name = format!("{}.{STEP}", parameter.name);
            let Some(steps) = saved.remove(name.as_str()) else { continue };
            let steps = count(&name, steps)?;
            let mut tensors = fresh(parameter)?;
            for (what, tensor) in &mut tensors {
                let name = format!("{}.{what}", parameter.name);
                let values = saved.remove(name.as_str()).ok_or_else(|| mismatch(&name, "is missing"))?;
                if values.size() != tensor.size() || values.f_kind()? != tensor.f_kind()? {
                    return Err(mismatch(&name, "has another shape or type"));
                }
                tensor.f_copy_(values)?;
            }
            slots.insert(place, Slot { steps, tensors });
        }
        match saved.keys().min() {
            Some(name) => Err(mismatch(name, "belongs to nothing here")),
            None => Ok(Memory { slots }),
        }
    }
}

fn count(name: &str, tensor: &Tensor) -> Result<u64> {
    if tensor.numel() != 1 {
        return Err(mismatch(name, "is not one number"));
    }
    let count = tensor.f_reshape([1i64])?.f_int64_value(&[0])?;
    u64::try_from(count).map_err(|_| mismatch(name, "is negative"))
}

fn mismatch(name: &str, what: &str) -> Error {
    Error::Option(format!(
        "the saved state of the optimizer is of another optimizer or model: {} {what}.",
        evenkeel::text::printable(name)
    ))
}
