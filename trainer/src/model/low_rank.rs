//! LoRA (Hu et al. 2021): a frozen matrix with a trained update scale·B·A of low rank beside it.
//!
//! The scale is α/r, or α/√r for rsLoRA (Kalajdzievski 2023). Begun as PEFT does: A uniform in ±1/√in
//! (Kaiming's bound with a = √5), B zero, so that the model begins as it was.

use std::collections::BTreeSet;

use evenkeel::rebalance::options::Lora;
use evenkeel::text::printable;
use tch::{TchError, Tensor};

use super::config::Family;
use crate::error::{Error, Result};

/// The update of one matrix.
#[derive(Debug)]
pub(super) struct LowRank {
    /// r × in.
    pub a: Tensor,
    /// out × r.
    pub b: Tensor,
    pub scale: f64,
    pub dropout: f64,
}

impl LowRank {
    /// scale·B·A·x for the last dimension, with dropout on x alone.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, TchError> {
        let down = match train && self.dropout > 0.0 {
            true => x.f_dropout(self.dropout, true)?.f_linear(&self.a, None::<&Tensor>)?,
            false => x.f_linear(&self.a, None::<&Tensor>)?,
        };
        down.f_linear(&self.b, None::<&Tensor>)?.f_mul_scalar(self.scale)
    }

    /// The same tensors once more.
    pub fn shallow_clone(&self) -> LowRank {
        LowRank { a: self.a.shallow_clone(), b: self.b.shallow_clone(), ..*self }
    }
}

/// Decides which matrices of a model get an adapter, and which modules are trained whole.
#[derive(Debug)]
pub(super) struct Choice {
    pub lora: Lora,
    /// Names of targets, where they are named.
    targets: Option<Vec<String>>,
    /// Ends of the names of modules that are trained whole.
    pub saved: Vec<String>,
    /// The last parts of the names of all matrices that could get one.
    offered: BTreeSet<String>,
    /// The targets that some matrix matched.
    matched: BTreeSet<String>,
    /// The ends that some module matched.
    kept: BTreeSet<String>,
}

impl Choice {
    /// `heads`: what is trained whole without being asked for, as PEFT lists it.
    pub fn new(lora: &Lora, family: &Family, heads: &[&str]) -> Choice {
        let mut saved: Vec<String> = heads.iter().map(|name| (*name).to_owned()).collect();
        saved.extend(lora.save.iter().filter(|name| !heads.contains(&name.as_str())).cloned());
        Choice {
            lora: lora.clone(),
            targets: lora.targets.named(family.adapted()),
            saved,
            offered: BTreeSet::new(),
            matched: BTreeSet::new(),
            kept: BTreeSet::new(),
        }
    }

    /// Whether a matrix gets an adapter, by the name of its module: as PEFT, the whole name or its end
    /// behind a dot.
    pub fn adapts(&mut self, module: &str) -> bool {
        if self.saves(module) {
            return false;
        }
        self.offered.insert(module.rsplit('.').next().unwrap_or(module).to_owned());
        let Some(targets) = &self.targets else { return true };
        let fits = |target: &&String| {
            module.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let found: Vec<String> = targets.iter().filter(fits).cloned().collect();
        let adapts = !found.is_empty();
        self.matched.extend(found);
        adapts
    }

    /// Whether a module is trained whole: it or one around it has a name that ends as one of those to be saved.
    pub fn saves(&mut self, module: &str) -> bool {
        let ends = module.match_indices('.').map(|(at, _)| at).chain([module.len()]);
        let around: Vec<&str> = ends.filter_map(|end| module.get(..end)).collect();
        let fits = |end: &&String| around.iter().any(|name| name.ends_with(end.as_str()));
        let found: Vec<String> = self.saved.iter().filter(fits).cloned().collect();
        let saves = !found.is_empty();
        self.kept.extend(found);
        saves
    }

    /// Trains a module whole that the checkpoint did not hold: nobody else could know its numbers.
    pub fn save(&mut self, module: &str) {
        self.saved.push(module.to_owned());
    }

    /// Checks, when all of the model has been offered, that every name meant something.
    ///
    /// # Errors
    /// [`Error::Option`] with the names that there are.
    pub fn check(&self) -> Result<()> {
        let offered: Vec<&str> = self.offered.iter().map(String::as_str).collect();
        let targets = self.targets.iter().flatten();
        if let Some(target) = targets.clone().find(|target| !self.matched.contains(*target)) {
            return Err(Error::Option(format!(
                "--lora-targets {}: no matrix of this model is called that; there are {} (or all-linear).",
                printable(target),
                offered.join(", ")
            )));
        }
        match self.lora.save.iter().find(|name| !self.kept.contains(*name)) {
            Some(name) => Err(Error::Option(format!(
                "--lora-save {}: no module of this model has a name that ends so; matrices are {}.",
                printable(name),
                offered.join(", ")
            ))),
            None => Ok(()),
        }
    }
}
