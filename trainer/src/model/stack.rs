//! A model: embeddings, layers and a head, and the circumstances of a pass through them.

use tch::{Tensor, no_grad_guard};

use super::config::Config;
use super::embeddings::Embeddings;
use super::encoder::{Encoder, additive_mask};
use super::heads::Head;
use super::weights::Weights;
use super::{Batch, Model, Settings, Task};
use crate::error::Result;
use crate::torch::Autocast;
use crate::training::{Mode, Parameter};

/// An encoder with a head.
#[derive(Debug)]
pub(super) struct Stack {
    embeddings: Embeddings,
    encoder: Encoder,
    head: Head,
    settings: Settings,
    max_length: usize,
    parameters: Vec<Parameter>,
}

impl Stack {
    /// Takes all weights, in the order of transformers.
    pub fn new(mut weights: Weights, config: &Config, task: &Task, settings: Settings) -> Result<Stack> {
        let embeddings = Embeddings::new(&mut weights, config)?;
        let encoder = Encoder::new(&mut weights, config)?;
        let head = Head::new(&mut weights, config, task)?;
        let parameters = weights.into_parameters();
        Ok(Stack { embeddings, encoder, head, settings, max_length: config.max_length(), parameters })
    }
}

impl Model for Stack {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn logits(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let train = mode == Mode::Train;
        let _no_graph = (!train).then(no_grad_guard);
        // For one pass only: a later one must not find weights that were cast before an update.
        let _autocast = self.settings.bf16.then(|| Autocast::bf16(self.settings.device)).transpose()?;
        let mask = batch.mask.as_ref().map(additive_mask).transpose()?;
        let embedded = self.embeddings.forward(batch, train)?;
        let states = self.encoder.forward(embedded, mask.as_ref(), train, self.settings.recompute)?;
        self.head.forward(&states, batch, train)
    }

    fn max_length(&self) -> usize {
        self.max_length
    }
}
