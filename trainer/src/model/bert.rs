//! BERT with a head: the first token's state through the pooler and tanh, dropout, and a matrix.

use tch::{Kind, Tensor};

use super::config::Config;
use super::encoder::Linear;
use super::stack::Stack;
use super::weights::Weights;
use super::{Batch, Model, Settings, Task};
use crate::error::Result;
use crate::training::{Mode, Parameter};

/// `BertForSequenceClassification` of transformers.
#[derive(Debug)]
pub(super) struct Bert {
    stack: Stack,
    pooler: Linear,
    classifier: Linear,
    dropout: f64,
    parameters: Vec<Parameter>,
}

impl Bert {
    pub fn new(mut weights: Weights, config: &Config, task: &Task, settings: Settings) -> Result<Bert> {
        let stack = Stack::new(&mut weights, config, settings)?;
        let pooler = weights.new_in_encoder("pooler.dense", config.hidden, config.hidden)?;
        let classifier = weights.head("classifier", config.hidden, task.outputs())?;
        let dropout = config.classifier_dropout;
        Ok(Bert { stack, pooler, classifier, dropout, parameters: weights.into_parameters() })
    }
}

impl Model for Bert {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn logits(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.stack.run(batch, mode, |first, train| {
            let pooled = self.pooler.forward(first)?.f_tanh()?.f_dropout(self.dropout, train)?;
            self.classifier.forward(&pooled)?.f_to_kind(Kind::Float)
        })
    }

    fn max_length(&self) -> usize {
        self.stack.max_length()
    }
}
