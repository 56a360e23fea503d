//! BERT with a head: the first token's state through the pooler and tanh, dropout, and a matrix.

use tch::{Kind, Tensor};

use super::config::{Config, EncoderConfig};
use super::linear::Linear;
use super::stack::Stack;
use super::weights::{Trained, Weights};
use super::{Batch, Model, Settings, Task};
use crate::error::Result;
use crate::training::Mode;

/// `BertForSequenceClassification` of transformers.
#[derive(Debug)]
pub(super) struct Bert {
    stack: Stack,
    pooler: Linear,
    classifier: Linear,
    dropout: f64,
    trained: Trained,
}

impl Bert {
    pub fn new(
        mut weights: Weights,
        config: &Config,
        own: &EncoderConfig,
        task: &Task,
        settings: Settings,
    ) -> Result<Bert> {
        let stack = Stack::new(&mut weights, config, own, settings)?;
        let pooler = weights.new_in_encoder("pooler.dense", config.hidden, config.hidden)?;
        let classifier = weights.head("classifier", config.hidden, task.outputs(), true)?;
        let dropout = own.classifier_dropout;
        Ok(Bert { stack, pooler, classifier, dropout, trained: weights.finish()? })
    }
}

impl Model for Bert {
    fn trained(&self) -> &Trained {
        &self.trained
    }

    fn logits(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.stack.run(batch, mode, |first, train| {
            let pooled = self.pooler.forward(first, train)?.f_tanh()?.f_dropout(self.dropout, train)?;
            self.classifier.forward(&pooled, train)?.f_to_kind(Kind::Float)
        })
    }

    fn max_length(&self) -> usize {
        self.stack.max_length()
    }
}
