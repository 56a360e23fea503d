//! What the loop asks for: a model together with the data that it learns from.

use std::path::Path;

use evenkeel::rebalance::options::Options;
use evenkeel::source::ModelConfig;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::error::Result;
use crate::memory::Need;

/// A trained tensor of a model.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// The values; a leaf that requires a gradient, in the dtype of training (F32).
    pub tensor: Tensor,
    /// Whether weight decay applies: not to biases and norms.
    pub decays: bool,
}

/// Whether dropout is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout as configured, gradients wanted.
    Train,
    /// Neither.
    Evaluate,
}

/// One number of an evaluation; larger is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The metric's name, as in logs.
    pub name: String,
    /// Its value.
    pub value: f64,
}

/// A model and its data.
pub trait Problem {
    /// What is trained, always in the same order.
    fn parameters(&self) -> &[Parameter];

    /// The model's configuration, by which an analysis knows its blocks.
    fn config(&self) -> Option<ModelConfig>;

    /// The number of training examples.
    fn examples(&self) -> usize;

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
}
