//! What the head is for, and the loss that goes with it.

use tch::{Kind, Reduction, TchError, Tensor};

/// What a model predicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// One of several labels: their names, in the order of their numbers.
    Classes(Vec<String>),
    /// A number.
    Regression,
    /// The next token.
    Language,
}

impl Task {
    /// How many numbers a head of its own gives for an example; none where it has no such head.
    pub fn outputs(&self) -> usize {
        match self {
            Task::Classes(labels) => labels.len(),
            Task::Regression => 1,
            Task::Language => 0,
        }
    }

    /// The mean loss over a batch, a scalar: cross entropy, or the mean square error. `targets` has one
    /// entry for each row of `logits`: `Kind::Int64` labels or tokens, or `Kind::Float` numbers.
    ///
    /// # Errors
    /// What libtorch says, for instance of a label that is out of range.
    pub fn loss(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Task::Classes(_) | Task::Language => {
                logits.f_cross_entropy_loss(targets, None::<Tensor>, Reduction::Mean, -100, 0.0)
            }
            Task::Regression => {
                let predicted = logits.f_squeeze_dim(-1)?;
                predicted.f_mse_loss(&targets.f_to_kind(Kind::Float)?, Reduction::Mean)
            }
        }
    }

    /// The entry `problem_type` of a configuration; none where transformers has no name for it.
    pub(super) fn problem_type(&self) -> Option<&'static str> {
        match self {
            Task::Classes(_) => Some("single_label_classification"),
            Task::Regression => Some("regression"),
            Task::Language => None,
        }
    }

    /// PEFT's name for the kind of task.
    pub(super) fn peft_type(&self) -> &'static str {
        match self {
            Task::Classes(_) | Task::Regression => "SEQ_CLS",
            Task::Language => "CAUSAL_LM",
        }
    }

    /// The modules that PEFT trains whole for this kind of task, by any model's name for them.
    pub(super) fn heads(&self) -> &'static [&'static str] {
        match self {
            Task::Classes(_) | Task::Regression => &["classifier", "score"],
            Task::Language => &[],
        }
    }

    /// The names of the outputs, as transformers calls those of a regression.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Task::Classes(labels) => labels.clone(),
            Task::Regression => vec!["LABEL_0".to_owned()],
            Task::Language => Vec::new(),
        }
    }
}
