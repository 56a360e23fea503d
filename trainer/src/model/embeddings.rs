//! What a token is before the first layer: the sum of its own vector, its position's and its kind's.

use tch::{Kind, TchError, Tensor};

use super::Batch;
use super::config::Config;
use super::encoder::Norm;
use super::weights::Weights;
use crate::error::{Error, Result};

/// The three tables and a norm.
#[derive(Debug)]
pub(super) struct Embeddings {
    words: Tensor,
    positions: Tensor,
    token_types: Tensor,
    norm: Norm,
    dropout: f64,
    /// The row that never learns, −1 for none.
    padding: i64,
    /// Positions are counted from the padding's, over tokens that are not padding.
    counts_tokens: bool,
    max_length: usize,
}

impl Embeddings {
    pub fn new(weights: &mut Weights, config: &Config) -> Result<Embeddings> {
        Ok(Embeddings {
            words: weights.table("embeddings.word_embeddings.weight", config.vocabulary, config.hidden)?,
            positions: weights.table(
                "embeddings.position_embeddings.weight",
                config.positions,
                config.hidden,
            )?,
            token_types: weights.table(
                "embeddings.token_type_embeddings.weight",
                config.token_types,
                config.hidden,
            )?,
            norm: weights.norm("embeddings.LayerNorm", config)?,
            dropout: config.hidden_dropout,
            padding: config.padding.and_then(|padding| i64::try_from(padding).ok()).unwrap_or(-1),
            counts_tokens: config.family.is_roberta,
            max_length: config.max_length(),
        })
    }

    /// Examples × length × hidden.
    pub fn forward(&self, batch: &Batch, train: bool) -> Result<Tensor> {
        let length = self.check(batch)?;
        let words = Tensor::f_embedding(&self.words, &batch.ids, self.padding, false, false)?;
        let token_types = match &batch.token_types {
            Some(kinds) => Tensor::f_embedding(&self.token_types, kinds, -1, false, false)?,
            None => self.token_types.f_narrow(0, 0, 1)?,
        };
        let positions = if self.counts_tokens {
            let ids = self.counted(&batch.ids)?;
            Tensor::f_embedding(&self.positions, &ids, self.padding, false, false)?
        } else {
            self.positions.f_narrow(0, 0, length)?
        };
        let sum = words.f_add(&token_types)?.f_add(&positions)?;
        Ok(self.norm.forward(&sum)?.f_dropout(self.dropout, train)?)
    }

    /// The positions of tokens: the padding's stays its own number, the others count from there.
    fn counted(&self, ids: &Tensor) -> Result<Tensor, TchError> {
        let tokens = ids.f_ne(self.padding)?.f_to_kind(Kind::Int64)?;
        tokens.f_cumsum(1, Kind::Int64)?.f_mul(&tokens)?.f_add_scalar(self.padding)
    }

    /// The length of a batch that fits. On a GPU, a position out of range would end the process.
    fn check(&self, batch: &Batch) -> Result<i64> {
        let shape = batch.ids.size();
        let wrong =
            |reason: String| Err(Error::Option(format!("the batch does not fit the model: {reason}.")));
        let [_, length] = *shape.as_slice() else {
            return wrong(format!("its tokens have the shape {shape:?}, not examples × length"));
        };
        for (what, tensor) in [("mask", &batch.mask), ("token types", &batch.token_types)] {
            if let Some(other) = tensor.as_ref().map(Tensor::size).filter(|other| *other != shape) {
                return wrong(format!("its tokens have the shape {shape:?}, its {what} {other:?}"));
            }
        }
        if length < 1 || usize::try_from(length).unwrap_or(usize::MAX) > self.max_length {
            return wrong(format!("its length is {length}, the model takes 1 to {} tokens", self.max_length));
        }
        Ok(length)
    }
}
