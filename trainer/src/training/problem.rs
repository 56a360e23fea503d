//! What the loop asks for: a model together with the data that it learns from.

use std::path::Path;

use evenkeel::Checkpoint;
use evenkeel::balance::Better;
use evenkeel::rebalance::options::Options;
use evenkeel::source::ModelConfig;
use evenkeel::tensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Tensor;

use crate::error::Result;
use crate::memory::Need;
use crate::torch::to_bytes;

/// A trained tensor of a model.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// The values; a leaf that requires a gradient, in the dtype of training (F32).
    pub tensor: Tensor,
    /// Whether weight decay applies: to a text model's biases and norms it does not.
    pub decays: bool,
    /// Its last dimension is of real and imaginary parts: checkpoints hold complex numbers.
    pub is_complex: bool,
}

impl Parameter {
    /// How many numbers it has, a complex one counted once.
    pub fn numbers(&self) -> usize {
        self.tensor.numel() / if self.is_complex { 2 } else { 1 }
    }

    /// Type and shape in a checkpoint.
    pub fn stored(&self) -> (Dtype, Vec<usize>) {
        let mut shape: Vec<usize> =
            self.tensor.size().iter().map(|length| usize::try_from(*length).unwrap_or(0)).collect();
        if self.is_complex {
            shape.pop();
        }
        (if self.is_complex { Dtype::C64 } else { Dtype::F32 }, shape)
    }
}

/// A frozen weight W with a trained update of low rank: as spectra see it, W + scale·B·A.
#[derive(Debug)]
pub struct Update {
    /// The weight's name in the checkpoint.
    pub weight: String,
    /// W.
    pub frozen: Tensor,
    /// The position of A (r × in) among the parameters.
    pub a: usize,
    /// The position of B (out × r).
    pub b: usize,
    /// The factor of B·A.
    pub scale: f64,
}

/// Whether dropout is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout as configured, gradients wanted.
    Train,
    /// Neither.
    Evaluate,
}

/// One number of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The metric's name, as in logs.
    pub name: String,
    /// Its value; NaN, in JSON `null`, where there is none.
    #[serde(deserialize_with = "evenkeel::balance::number_or_nan")]
    pub value: f64,
    /// Which way it is better.
    pub better: Better,
}

/// Examples of an evaluation batch, beside batches of training of so many: more, as no gradients are kept, but not
/// so many that somebody who made batches small for memory's sake runs out of it here.
pub fn evaluation_batch(batch: usize) -> usize {
    batch.saturating_mul(4).clamp(1, 64)
}

/// A model and its data.
pub trait Problem {
    /// What is trained, always in the same order.
    fn parameters(&self) -> &[Parameter];

    /// What belongs to the model's state and is not trained, such as running means, by their names in the
    /// checkpoint: the loop saves and restores it with the parameters.
    fn buffers(&self) -> &[(String, Tensor)] {
        &[]
    }

    /// The model's configuration, by which an analysis knows its blocks.
    fn config(&self) -> Option<ModelConfig>;

    /// The weights that are frozen but for an update.
    fn updates(&self) -> &[Update] {
        &[]
    }

    /// The weights as an analysis is to see them, of all tensors or of those with these names.
    ///
    /// # Errors
    /// What libtorch says, and those of reading.
    fn weights(&self, only: Option<&[&str]>) -> Result<Checkpoint> {
        in_memory(self.config(), self.parameters(), only)
    }

    /// The number of training examples.
    fn examples(&self) -> usize;

    /// How much some training examples count together: the loss of a batch is a mean over so many.
    fn weight(&self, examples: &[usize]) -> f64 {
        examples.len() as f64
    }

    /// The number of examples that an evaluation looks at.
    fn evaluation_examples(&self) -> usize;

    /// The memory that training with these options takes.
    fn memory(&self, options: &Options) -> Need;

    /// The mean loss over some training examples, a scalar with its graph.
    ///
    /// # Errors
    /// What libtorch says.
    fn loss(&self, examples: &[usize]) -> Result<Tensor>;

    /// The scores on the evaluation data, the one that decides first; `done` hears of the examples
    /// passed so far, and of all.
    ///
    /// # Errors
    /// What libtorch says.
    fn evaluate(&self, done: &mut dyn FnMut(usize, usize)) -> Result<Vec<Score>>;

    /// Writes the model as it is now, complete, into an empty directory.
    ///
    /// # Errors
    /// Those of writing.
    fn write(&self, directory: &Path) -> Result<()>;

    /// Looks at the result where it lies: what belongs in the report beside the scores. Pictures go into a
    /// directory of their own, which does not exist yet.
    ///
    /// # Errors
    /// Those of reading it, and of writing pictures.
    fn examine(&self, result: &Path, pictures: &Path) -> Result<Option<Value>> {
        let _ = (result, pictures);
        Ok(None)
    }
}

/// Parameters, all or those with these names, as a checkpoint in memory.
///
/// # Errors
/// What libtorch says.
pub fn in_memory(
    config: Option<ModelConfig>,
    parameters: &[Parameter],
    only: Option<&[&str]>,
) -> Result<Checkpoint> {
    let mut tensors = Vec::new();
    let wanted = |p: &&Parameter| only.is_none_or(|only| only.contains(&p.name.as_str()));
    for parameter in parameters.iter().filter(wanted) {
        let (dtype, shape) = parameter.stored();
        tensors.push((parameter.name.clone(), dtype, shape, to_bytes(&parameter.tensor)?));
    }
    Ok(Checkpoint::in_memory(config, tensors)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_does_not_exist_comes_back_from_a_state() {
        let score = Score { name: "pearson".to_owned(), value: f64::NAN, better: Better::More };
        let text = serde_json::to_string(&score).unwrap();
        assert!(text.contains("\"value\":null"), "{text}");
        let again: Score = serde_json::from_str(&text).unwrap();
        assert!(again.value.is_nan() && again.name == score.name);
        assert!(serde_json::from_str::<Score>(&text.replace("null", "\"x\"")).is_err());
    }
}
