//! Where weights were when their spectra were taken, and how far they have moved since.

use tch::{Device, Kind, Tensor};

use super::problem::{Parameter, Problem, Update};
use crate::error::{Error, Result};

/// Every so many rows of a weight are looked at: the others move alike, and a step stays cheap.
const ROWS: i64 = 8;

/// A weight that is followed, by its position.
#[derive(Clone, Copy, Debug)]
pub enum Member {
    /// Among the parameters.
    Parameter(usize),
    /// Among the updates of frozen weights.
    Update(usize),
}

impl Member {
    /// The weight's name in the checkpoint.
    pub fn name(self, problem: &dyn Problem) -> Option<&str> {
        match self {
            Member::Parameter(position) => problem.parameters().get(position).map(|p| p.name.as_str()),
            Member::Update(position) => problem.updates().get(position).map(|u| u.weight.as_str()),
        }
    }
}

/// Some rows of every weight of every unit.
#[derive(Debug)]
pub struct Anchors {
    units: Vec<Vec<Anchor>>,
}

#[derive(Debug)]
struct Anchor {
    member: Member,
    then: Then,
}

/// What a weight was.
#[derive(Debug)]
enum Then {
    Rows(Tensor),
    /// Of W + scale·B·A: A, rows of B, and the norm of the sum's rows, which is large and would be kept for
    /// nothing else.
    Factors {
        a: Tensor,
        b: Tensor,
        norm: Tensor,
    },
}

/// The rows that are looked at.
fn rows(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.f_detach()?.f_slice(0, 0, None, ROWS)?)
}

/// A, and the rows of B that are looked at.
fn factors(update: &Update, parameters: &[Parameter]) -> Result<(Tensor, Tensor)> {
    let (Some(a), Some(b)) = (parameters.get(update.a), parameters.get(update.b)) else {
        return Err(Error::Option(format!("the update of {} has no factors.", update.weight)));
    };
    Ok((a.tensor.f_detach()?, rows(&b.tensor)?))
}

impl Then {
    fn now(member: Member, problem: &dyn Problem) -> Result<Option<Then>> {
        let parameters = problem.parameters();
        Ok(match member {
            Member::Parameter(position) => match parameters.get(position) {
                Some(parameter) => Some(Then::Rows(rows(&parameter.tensor)?.f_detach_copy()?)),
                None => None,
            },
            Member::Update(position) => match problem.updates().get(position) {
                Some(update) => {
                    let (a, b) = factors(update, parameters)?;
                    let product = b.f_matmul(&a)?.f_mul_scalar(update.scale)?;
                    let norm = rows(&update.frozen)?.f_to_kind(Kind::Float)?.f_add(&product)?.f_norm()?;
                    Some(Then::Factors { a: a.f_detach_copy()?, b: b.f_detach_copy()?, norm })
                }
                None => None,
            },
        })
    }

    /// The norms of the difference to now, and of what it was.
    fn norms(&self, member: Member, problem: &dyn Problem) -> Result<Option<(Tensor, Tensor)>> {
        let parameters = problem.parameters();
        Ok(match (self, member) {
            (Then::Rows(then), Member::Parameter(position)) => match parameters.get(position) {
                Some(now) => Some((rows(&now.tensor)?.f_sub(then)?.f_norm()?, then.f_norm()?)),
                None => None,
            },
            (Then::Factors { a, b, norm }, Member::Update(position)) => {
                match problem.updates().get(position) {
                    Some(update) => {
                        let (a_now, b_now) = factors(update, parameters)?;
                        let left = Tensor::f_cat(&[&b_now, &b.f_neg()?], 1)?;
                        let right = Tensor::f_cat(&[&a_now, a], 0)?;
                        let moved = product_norm(&left, &right)?.f_mul_scalar(update.scale.abs())?;
                        Some((moved.f_to_kind(Kind::Float)?, norm.shallow_clone()))
                    }
                    None => None,
                }
            }
            _ => None,
        })
    }

    /// Its tensors, with what sets their names apart.
    fn tensors(&self) -> Vec<(&'static str, Tensor)> {
        match self {
            Then::Rows(rows) => vec![("", rows.shallow_clone())],
            Then::Factors { a, b, norm } => {
                vec![(".a", a.shallow_clone()), (".b", b.shallow_clone()), (".norm", norm.shallow_clone())]
            }
        }
    }
}

/// ‖PQ‖_F by ‖PQ‖² = Σ (PᵀP)∘(QQᵀ), without the product; in double precision, because most of it cancels.
fn product_norm(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let (left, right) = (left.f_to_kind(Kind::Double)?, right.f_to_kind(Kind::Double)?);
    let (inner, outer) = (left.f_tr()?.f_matmul(&left)?, right.f_matmul(&right.f_tr()?)?);
    Ok(inner.f_mul(&outer)?.f_sum(Kind::Double)?.f_clamp_min(0.0)?.f_sqrt()?)
}

impl Anchors {
    /// Takes the weights of all units as they are.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn new(units: &[Vec<Member>], problem: &dyn Problem) -> Result<Anchors> {
        let mut all = Vec::with_capacity(units.len());
        for unit in units {
            let mut anchors = Vec::with_capacity(unit.len());
            for member in unit {
                if let Some(then) = Then::now(*member, problem)? {
                    anchors.push(Anchor { member: *member, then });
                }
            }
            all.push(anchors);
        }
        Ok(Anchors { units: all })
    }

    /// Takes some units' weights anew.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn renew(&mut self, units: &[usize], problem: &dyn Problem) -> Result<()> {
        for unit in units {
            for anchor in self.units.get_mut(*unit).into_iter().flatten() {
                if let Some(now) = Then::now(anchor.member, problem)? {
                    anchor.then = now;
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
    pub fn displacements(&self, problem: &dyn Problem) -> Result<Vec<f64>> {
        let mut norms = Vec::new();
        for anchor in self.units.iter().flatten() {
            if let Some((moved, whole)) = anchor.then.norms(anchor.member, problem)? {
                norms.extend([moved, whole]);
            }
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
        let mut named = Vec::new();
        for (i, anchors) in self.units.iter().enumerate() {
            for (j, anchor) in anchors.iter().enumerate() {
                let tensors = anchor.then.tensors().into_iter();
                named.extend(tensors.map(|(what, tensor)| (format!("anchor.{i}.{j}{what}"), tensor)));
            }
        }
        named
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_of_a_product_needs_no_product() {
        tch::manual_seed(3);
        let (left, right) = (
            Tensor::randn([9, 4], (Kind::Float, Device::Cpu)),
            Tensor::randn([4, 7], (Kind::Float, Device::Cpu)),
        );
        let (found, wanted) = (product_norm(&left, &right).unwrap(), left.matmul(&right).norm());
        assert!((found.double_value(&[]) - wanted.double_value(&[])).abs() < 1e-5);
    }
}
