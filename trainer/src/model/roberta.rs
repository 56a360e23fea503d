//! RoBERTa with a head: the first token's state through dropout, a matrix, tanh, dropout, and another
//! matrix. Its positions are counted from the padding's (embeddings.rs); the layers are BERT's.

use tch::{Kind, Tensor};

use super::config::{Config, EncoderConfig};
use super::linear::Linear;
use super::stack::Stack;
use super::weights::{Trained, Weights};
use super::{Batch, Model, Settings, Task};
use crate::error::Result;
use crate::training::Mode;

/// `RobertaForSequenceClassification` of transformers, and those of its relatives.
#[derive(Debug)]
pub(super) struct Roberta {
    stack: Stack,
    dense: Linear,
    out: Linear,
    dropout: f64,
    trained: Trained,
}

impl Roberta {
    pub fn new(
        mut weights: Weights,
        config: &Config,
        own: &EncoderConfig,
        task: &Task,
        settings: Settings,
    ) -> Result<Roberta> {
        let stack = Stack::new(&mut weights, config, own, settings)?;
        let dense = weights.head("classifier.dense", config.hidden, config.hidden, true)?;
        let out = weights.head("classifier.out_proj", config.hidden, task.outputs(), true)?;
        let dropout = own.classifier_dropout;
        Ok(Roberta { stack, dense, out, dropout, trained: weights.finish()? })
    }
}

impl Model for Roberta {
    fn trained(&self) -> &Trained {
        &self.trained
    }

    fn logits(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.stack.run(batch, mode, |first, train| {
            let inner = self.dense.forward(&first.f_dropout(self.dropout, train)?, train)?.f_tanh()?;
            self.out.forward(&inner.f_dropout(self.dropout, train)?, train)?.f_to_kind(Kind::Float)
        })
    }

    fn max_length(&self) -> usize {
        self.stack.max_length()
    }
}
