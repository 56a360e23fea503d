//! Where weights were when their spectra were taken, and how far they have moved since.

use tch::{Device, Kind, Tensor};

use super::problem::Parameter;
use crate::error::{Error, Result};

/// Every so many rows of a weight are looked at: the others move alike, and a step stays cheap.
const ROWS: i64 = 8;

/// Some rows of every tensor of every unit.
#[derive(Debug)]
pub struct Anchors {
    units: Vec<Vec<Anchor>>,
}

#[derive(Debug)]
struct Anchor {
    parameter: usize,
    rows: Tensor,
}

fn rows(parameter: &Parameter) -> Result<Tensor> {
    Ok(parameter.tensor.f_detach()?.f_slice(0, 0, None, ROWS)?)
}

impl Anchors {
    /// Takes the weights of all units as they are: the positions of each unit's parameters.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn new(units: &[Vec<usize>], parameters: &[Parameter]) -> Result<Anchors> {
        let mut all = Vec::with_capacity(units.len());
        for unit in units {
            let mut anchors = Vec::with_capacity(unit.len());
            for position in unit {
                let Some(parameter) = parameters.get(*position) else { continue };
                anchors.push(Anchor { parameter: *position, rows: rows(parameter)?.f_detach_copy()? });
            }
            all.push(anchors);
        }
        Ok(Anchors { units: all })
    }

    /// Takes some units' weights anew.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn renew(&mut self, units: &[usize], parameters: &[Parameter]) -> Result<()> {
        for unit in units {
            for anchor in self.units.get_mut(*unit).into_iter().flatten() {
                if let Some(parameter) = parameters.get(anchor.parameter) {
                    anchor.rows.f_copy_(&rows(parameter)?)?;
                }
            }
        }
        Ok(())
    }

    /// Takes some units over from others of the same model.
    pub fn adopt(&mut self, units: &[usize], mut from: Anchors) {
        for unit in units {
            if let (Some(to), Some(from)) = (self.units.get_mut(*unit), from.units.get_mut(*unit)) {
                std::mem::swap(to, from);
            }
        }
    }

    /// ‖W − W₀‖_F/‖W₀‖_F of every unit, over the rows that are looked at.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn displacements(&self, parameters: &[Parameter]) -> Result<Vec<f64>> {
        let mut norms = Vec::new();
        for anchor in self.units.iter().flatten() {
            let Some(parameter) = parameters.get(anchor.parameter) else { continue };
            norms.push(rows(parameter)?.f_sub(&anchor.rows)?.f_norm()?);
            norms.push(anchor.rows.f_norm()?);
        }
        if norms.is_empty() {
            return Ok(vec![0.0; self.units.len()]);
        }
        // One transfer, however many tensors there are.
        let norms = Tensor::f_stack(&norms, 0)?.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?;
        let norms = Vec::<f64>::try_from(norms)?;
        let mut pairs = norms.chunks_exact(2);
        let mut unit = |anchors: &Vec<Anchor>| {
            let (mut moved, mut whole) = (0.0, 0.0);
            for pair in pairs.by_ref().take(anchors.len()) {
                if let [difference, norm] = pair {
                    moved += difference * difference;
                    whole += norm * norm;
                }
            }
            if whole > 0.0 { (moved / whole).sqrt() } else { moved.sqrt() }
        };
        Ok(self.units.iter().map(&mut unit).collect())
    }

    /// The tensors with names of their own, for a state on the disk.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let unit = |(i, anchors): (usize, &Vec<Anchor>)| {
            let one =
                move |(j, anchor): (usize, &Anchor)| (format!("anchor.{i}.{j}"), anchor.rows.shallow_clone());
            anchors.iter().enumerate().map(one).collect::<Vec<_>>()
        };
        self.units.iter().enumerate().flat_map(unit).collect()
    }

    /// Takes them back.
    ///
    /// # Errors
    /// [`Error::Option`] where one is missing: the state is of another model.
    pub fn restore(&self, saved: &[(String, Tensor)]) -> Result<()> {
        for (name, mut tensor) in self.tensors() {
            let found = saved.iter().find(|(n, t)| *n == name && t.size() == tensor.size());
            let (_, from) = found.ok_or_else(|| {
                Error::Option(format!("the state to resume from has no {name} of this shape."))
            })?;
            tensor.f_copy_(from)?;
        }
        Ok(())
    }
}
