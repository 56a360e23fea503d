//! What the head is for, and the loss that goes with it.

use tch::{Kind, Reduction, TchError, Tensor};

/// What a model predicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// One of several labels: their names, in the order of their numbers.
    Classes(Vec<String>),
    /// A number.
    Regression,
}

impl Task {
    /// How many numbers the model gives for an example.
    pub fn outputs(&self) -> usize {
        match self {
            Task::Classes(labels) => labels.len(),
            Task::Regression => 1,
        }
    }

    /// The mean loss over a batch, a scalar: cross entropy, or the mean square error. `targets` has one
    /// entry for each row of `logits`: `Kind::Int64` labels, or `Kind::Float` numbers.
    ///
    /// # Errors
    /// What libtorch says, for instance of a label that is out of range.
    pub fn loss(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Task::Classes(_) => {
                logits.f_cross_entropy_loss(targets, None::<Tensor>, Reduction::Mean, -100, 0.0)
            }
            Task::Regression => {
                let predicted = logits.f_squeeze_dim(-1)?;
                predicted.f_mse_loss(&targets.f_to_kind(Kind::Float)?, Reduction::Mean)
            }
        }
    }

    /// The entry `problem_type` of a configuration.
    pub(super) fn problem_type(&self) -> &'static str {
        match self {
            Task::Classes(_) => "single_label_classification",
            Task::Regression => "regression",
        }
    }

    /// The names of the outputs, as transformers calls those of a regression.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Task::Classes(labels) => labels.clone(),
            Task::Regression => vec!["LABEL_0".to_owned()],
        }
    }
}
