//! LLaMA and its relatives with a head: the last token's state through a matrix, or the states of some tokens
//! against the whole vocabulary.

use tch::{Kind, TchError, Tensor, no_grad_guard};

use super::config::{Config, DecoderConfig};
use super::decoder::Decoder;
use super::linear::{Linear, RmsNorm};
use super::weights::{Trained, Weights};
use super::{Batch, Model, Settings, Task};
use crate::error::{Error, Result};
use crate::torch::Autocast;
use crate::training::Mode;

/// `LlamaForSequenceClassification` and `LlamaForCausalLM` of transformers, and those of its relatives.
#[derive(Debug)]
pub(super) struct Llama {
    words: Tensor,
    decoder: Decoder,
    norm: RmsNorm,
    head: Head,
    /// The token that fills up batches.
    padding: Option<i64>,
    settings: Settings,
    max_length: usize,
    trained: Trained,
}

#[derive(Debug)]
enum Head {
    /// On the last token of each example.
    Score(Linear),
    /// vocabulary × hidden, on the places that are asked for.
    Vocabulary(Tensor),
}

impl Llama {
    pub fn new(
        mut weights: Weights,
        config: &Config,
        own: &DecoderConfig,
        task: &Task,
        settings: Settings,
    ) -> Result<Llama> {
        let words = weights.table(config.family.words(), config.vocabulary, config.hidden)?;
        if *task == Task::Language && own.tied && weights.has_adapters() && words.requires_grad() {
            return Err(Error::Option(
                "--lora-save: the embedding is the output matrix as well (`tie_word_embeddings`), and PEFT would \
                 take only one of the two from an adapter."
                    .to_owned(),
            ));
        }
        let decoder = Decoder::new(&mut weights, config, own)?;
        let norm = weights.rms_norm("norm", config.hidden, config)?;
        let head = match task {
            Task::Language if own.tied => Head::Vocabulary(words.shallow_clone()),
            Task::Language => {
                Head::Vocabulary(weights.vocabulary("lm_head.weight", config.vocabulary, config.hidden)?)
            }
            _ => Head::Score(weights.head("score", config.hidden, task.outputs(), false)?),
        };
        Ok(Llama {
            words,
            decoder,
            norm,
            head,
            padding: config.padding.and_then(|padding| i64::try_from(padding).ok()),
            settings,
            max_length: config.max_length(),
            trained: weights.finish()?,
        })
    }

    /// The last states of tokens, places × hidden, as numbers of the head.
    fn outputs(&self, states: &Tensor, train: bool) -> Result<Tensor, TchError> {
        let states = self.norm.forward(states)?;
        match &self.head {
            Head::Score(score) => score.forward(&states, train),
            Head::Vocabulary(matrix) => states.f_linear(matrix, None::<&Tensor>),
        }?
        .f_to_kind(Kind::Float)
    }

    /// The place of each example's last token, counted row by row: as transformers finds it, the last that is
    /// not the filling token; and one under the mask, should a tokenizer fill up with another token than the
    /// configuration names.
    fn last(&self, batch: &Batch) -> Result<Tensor, TchError> {
        let (examples, length) = batch.ids.size2()?;
        let device = batch.ids.device();
        let mut kept = batch.ids.f_ones_like()?.f_to_kind(Kind::Bool)?;
        if let Some(padding) = self.padding {
            kept = batch.ids.f_ne(padding)?;
        }
        if let Some(mask) = &batch.mask {
            kept = kept.f_logical_and(&mask.f_ne(0)?)?;
        }
        let numbers = Tensor::f_arange(length, (Kind::Int64, device))?;
        let last = kept.f_to_kind(Kind::Int64)?.f_mul(&numbers)?.f_amax(1, false)?;
        last.f_add(&Tensor::f_arange(examples, (Kind::Int64, device))?.f_mul_scalar(length)?)
    }
}

impl Model for Llama {
    fn trained(&self) -> &Trained {
        &self.trained
    }

    fn logits(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let train = mode == Mode::Train;
        let _no_graph = (!train).then(no_grad_guard);
        // For one pass only: a later one must not find weights that were cast before an update.
        let _autocast = self.settings.bf16.then(|| Autocast::bf16(self.settings.device)).transpose()?;
        batch.fits(self.max_length)?;
        let places = match (&self.head, &batch.places) {
            (Head::Score(_), _) => self.last(batch)?,
            (Head::Vocabulary(_), Some(places)) => places.shallow_clone(),
            (Head::Vocabulary(_), None) => {
                return Err(Error::Option("the batch does not say which places it asks for.".to_owned()));
            }
        };
        let padding = self.padding.unwrap_or(-1);
        // Frozen tables may be in BF16; the sums over the layers are not.
        let embedded = Tensor::f_embedding(&self.words, &batch.ids, padding, false, false)?;
        let embedded = embedded.f_to_kind(Kind::Float)?;
        let states = self.decoder.forward(embedded, batch.mask.as_ref(), train, self.settings.recompute)?;
        let states = states.f_flatten(0, 1)?.f_index_select(0, &places)?;
        Ok(self.outputs(&states, train)?)
    }

    fn max_length(&self) -> usize {
        self.max_length
    }
}
