//! What stands on the encoder: for each task a head with the names and the arithmetic of transformers' class.
//!
//! | head | from the last states | class |
//! |---|---|---|
//! | labels, a number (BERT) | first token, `pooler.dense`, tanh, dropout, `classifier` | `BertForSequenceClassification` |
//! | labels, a number (RoBERTa) | first token, dropout, `classifier.dense`, tanh, dropout, `classifier.out_proj` | `RobertaForSequenceClassification` |
//! | a choice | first token, `pooler.dense`, tanh, dropout, `classifier` with one output | `…ForMultipleChoice` |
//! | a span | every token, `qa_outputs` | `…ForQuestionAnswering` |
//! | words in context | first token ‖ mean of the first word's tokens ‖ mean of the second's, dropout, `classifier` | our own |
//!
//! The last one follows the baselines of SuperGLUE (Wang et al. 2019, section 4), which put the states of the
//! marked words beside the first token's; of a word in several pieces it takes the mean.

use tch::{Kind, Tensor};

use super::config::{Config, EncoderConfig, Family};
use super::linear::Linear;
use super::task::HeadKind;
use super::weights::Weights;
use super::{Batch, Task};
use crate::error::{Error, Result};

/// A head.
#[derive(Debug)]
pub(super) enum Head {
    /// One matrix on the pooled first token.
    Pooled { pooler: Linear, classifier: Linear, dropout: f64 },
    /// RoBERTa's two matrices on the first token.
    Dense { dense: Linear, out: Linear, dropout: f64 },
    /// One matrix on every token.
    Span { outputs: Linear },
    /// One matrix on the first token and two words.
    Words { classifier: Linear, dropout: f64 },
}

/// What the names of heads begin with; that of the pooler belongs to the encoder.
const NAMES: [&str; 3] = ["classifier.", "qa_outputs.", "score."];

impl Head {
    /// Takes the weights for a task.
    pub fn new(weights: &mut Weights, config: &Config, own: &EncoderConfig, task: &Task) -> Result<Head> {
        let (hidden, outputs) = (config.hidden, task.outputs());
        let mut pooled = |dropout| -> Result<Head> {
            let pooler = weights.new_in_encoder("pooler.dense", hidden, hidden)?;
            Ok(Head::Pooled {
                pooler,
                classifier: weights.head("classifier", hidden, outputs, true)?,
                dropout,
            })
        };
        let dropout = own.classifier_dropout;
        let Some(kind) = task.head() else {
            return Err(Error::Option("an encoder does not predict the next token.".to_owned()));
        };
        match (kind, config.family.is_roberta()) {
            (HeadKind::Labels, false) | (HeadKind::Choice, false) => pooled(dropout),
            // This class of RoBERTa takes no notice of `classifier_dropout`.
            (HeadKind::Choice, true) => pooled(own.hidden_dropout),
            (HeadKind::Labels, true) => {
                let dense = weights.head("classifier.dense", hidden, hidden, true)?;
                Ok(Head::Dense {
                    dense,
                    out: weights.head("classifier.out_proj", hidden, outputs, true)?,
                    dropout,
                })
            }
            (HeadKind::Span, _) => {
                Ok(Head::Span { outputs: weights.head("qa_outputs", hidden, outputs, true)? })
            }
            (HeadKind::Words, _) => Ok(Head::Words {
                classifier: weights.head("classifier", 3 * hidden, outputs, true)?,
                dropout,
            }),
        }
    }

    /// Whether it says something of filling, too: in transformers the loss of a span is one over all places.
    pub fn reads_filling(&self) -> bool {
        matches!(self, Head::Span { .. })
    }

    /// From the last states, examples × length × hidden, to the logits in F32. `train` turns dropout on.
    pub fn forward(&self, states: &Tensor, batch: &Batch, train: bool) -> Result<Tensor> {
        let first = || states.f_select(1, 0);
        let logits = match self {
            Head::Pooled { pooler, classifier, dropout } => {
                let pooled = pooler.forward(&first()?, train)?.f_tanh()?;
                classifier.forward(&pooled.f_dropout(*dropout, train)?, train)?
            }
            Head::Dense { dense, out, dropout } => {
                let inner = dense.forward(&first()?.f_dropout(*dropout, train)?, train)?.f_tanh()?;
                out.forward(&inner.f_dropout(*dropout, train)?, train)?
            }
            Head::Span { outputs } => outputs.forward(states, train)?,
            Head::Words { classifier, dropout } => {
                let Some(words) = &batch.words else {
                    return Err(Error::Option("the batch does not say where its words are.".to_owned()));
                };
                let (examples, _, hidden) = states.size3()?;
                let means = words.f_to_kind(states.kind())?.f_bmm(states)?.f_to_kind(states.kind())?;
                let three = Tensor::f_cat(&[states.f_narrow(1, 0, 1)?, means], 1)?;
                let three = three.f_reshape([examples, 3 * hidden])?;
                classifier.forward(&three.f_dropout(*dropout, train)?, train)?
            }
        };
        Ok(logits.f_to_kind(Kind::Float)?)
    }
}

/// Whether a tensor of this name belongs to a head.
pub(super) fn is_of_head(name: &str) -> bool {
    NAMES.iter().any(|start| name.starts_with(start))
}

/// The tensor that tells whether a checkpoint of a family has a head of a kind.
pub(super) fn mark(kind: HeadKind, family: &Family) -> &'static str {
    match kind {
        HeadKind::Labels => family.output(),
        HeadKind::Words | HeadKind::Choice => "classifier.weight",
        HeadKind::Span => "qa_outputs.weight",
    }
}
