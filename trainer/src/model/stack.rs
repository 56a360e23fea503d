//! What all encoders share: embeddings and layers, and the circumstances of a pass through them.

use tch::{TchError, Tensor, no_grad_guard};

use super::config::{Config, EncoderConfig};
use super::embeddings::Embeddings;
use super::encoder::{Encoder, additive_mask};
use super::weights::Weights;
use super::{Batch, Settings};
use crate::error::Result;
use crate::torch::Autocast;
use crate::training::Mode;

/// A model without its head.
#[derive(Debug)]
pub(super) struct Stack {
    embeddings: Embeddings,
    encoder: Encoder,
    settings: Settings,
    max_length: usize,
}

impl Stack {
    pub fn new(
        weights: &mut Weights,
        config: &Config,
        own: &EncoderConfig,
        settings: Settings,
    ) -> Result<Stack> {
        let embeddings = Embeddings::new(weights, config, own)?;
        let encoder = Encoder::new(weights, config, own)?;
        Ok(Stack { embeddings, encoder, settings, max_length: config.max_length() })
    }

    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Runs everything up to the first token's last state, examples × hidden, and a head on it. The head
    /// is told whether dropout is on.
    pub fn run(
        &self,
        batch: &Batch,
        mode: Mode,
        head: impl FnOnce(&Tensor, bool) -> Result<Tensor, TchError>,
    ) -> Result<Tensor> {
        let train = mode == Mode::Train;
        let _no_graph = (!train).then(no_grad_guard);
        // For one pass only: a later one must not find weights that were cast before an update.
        let _autocast = self.settings.bf16.then(|| Autocast::bf16(self.settings.device)).transpose()?;
        let mask = batch.mask.as_ref().map(additive_mask).transpose()?;
        let embedded = self.embeddings.forward(batch, train)?;
        let states = self.encoder.forward(embedded, mask.as_ref(), train, self.settings.recompute)?;
        Ok(head(&states.f_select(1, 0)?, train)?)
    }
}
