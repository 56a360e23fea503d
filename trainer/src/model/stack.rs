//! An encoder: embeddings, layers and a head, and the circumstances of a pass through them.

use tch::{Tensor, no_grad_guard};

use super::config::{Config, EncoderConfig};
use super::embeddings::Embeddings;
use super::encoder::Encoder;
use super::heads::Head;
use super::padding::Padding;
use super::weights::{Trained, Weights};
use super::{Batch, Model, Settings, Task};
use crate::error::Result;
use crate::torch::Autocast;
use crate::training::Mode;

/// An encoder with a head.
#[derive(Debug)]
pub(super) struct Stack {
    embeddings: Embeddings,
    encoder: Encoder,
    head: Head,
    settings: Settings,
    max_length: usize,
    trained: Trained,
}

impl Stack {
    /// Takes all weights, in the order of transformers.
    ///
    /// # Errors
    /// Those of [`Weights`]; [`crate::Error::Option`] where encoders have no head for the task.
    pub fn new(
        mut weights: Weights,
        config: &Config,
        own: &EncoderConfig,
        task: &Task,
        settings: Settings,
    ) -> Result<Stack> {
        let embeddings = Embeddings::new(&mut weights, config, own)?;
        let encoder = Encoder::new(&mut weights, config, own)?;
        let head = Head::new(&mut weights, config, own, task)?;
        let max_length = config.max_length();
        Ok(Stack { embeddings, encoder, head, settings, max_length, trained: weights.finish()? })
    }
}

impl Model for Stack {
    fn trained(&self) -> &Trained {
        &self.trained
    }

    fn logits(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let train = mode == Mode::Train;
        let _no_graph = (!train).then(no_grad_guard);
        // For one pass only: a later one must not find weights that were cast before an update.
        let _autocast = self.settings.bf16.then(|| Autocast::bf16(self.settings.device)).transpose()?;
        let sparing = !self.head.reads_filling();
        let padding = batch.mask.as_ref().map(|mask| Padding::of(mask, sparing)).transpose()?;
        let embedded = self.embeddings.forward(batch, train)?;
        let states = self.encoder.forward(embedded, padding.as_ref(), train, self.settings.recompute)?;
        self.head.forward(&states, batch, train)
    }

    fn max_length(&self) -> usize {
        self.max_length
    }
}
