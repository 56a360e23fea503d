//! RoBERTa with a head: the first token's state through dropout, a matrix, tanh, dropout, and another
//! matrix. Its positions are counted from the padding's (embeddings.rs); the layers are BERT's.

use tch::{Kind, Tensor};

use super::config::Config;
use super::encoder::Linear;
use super::stack::Stack;
use super::weights::Weights;
use super::{Batch, Model, Settings, Task};
use crate::error::Result;
use crate::training::{Mode, Parameter};

/// `RobertaForSequenceClassification` of transformers, and those of its relatives.
#[derive(Debug)]
pub(super) struct Roberta {
    stack: Stack,
    dense: Linear,
    out: Linear,
    dropout: f64,
    parameters: Vec<Parameter>,
}

impl Roberta {
    pub fn new(mut weights: Weights, config: &Config, task: &Task, settings: Settings) -> Result<Roberta> {
        let stack = Stack::new(&mut weights, config, settings)?;
        let dense = weights.head("classifier.dense", config.hidden, config.hidden)?;
        let out = weights.head("classifier.out_proj", config.hidden, task.outputs())?;
        let dropout = config.classifier_dropout;
        Ok(Roberta { stack, dense, out, dropout, parameters: weights.into_parameters() })
    }
}

impl Model for Roberta {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn logits(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.stack.run(batch, mode, |first, train| {
            let inner = self.dense.forward(&first.f_dropout(self.dropout, train)?)?.f_tanh()?;
            self.out.forward(&inner.f_dropout(self.dropout, train)?)?.f_to_kind(Kind::Float)
        })
    }

    fn max_length(&self) -> usize {
        self.stack.max_length()
    }
}
