//! What a token is before the first layer: the sum of its own vector, its position's and its kind's.

use tch::{Kind, TchError, Tensor};

use super::Batch;
use super::config::{Config, EncoderConfig};
use super::linear::Norm;
use super::weights::Weights;
use crate::error::Result;

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
    pub fn new(weights: &mut Weights, config: &Config, own: &EncoderConfig) -> Result<Embeddings> {
        Ok(Embeddings {
            words: weights.table("embeddings.word_embeddings.weight", config.vocabulary, config.hidden)?,
            positions: weights.table(
                "embeddings.position_embeddings.weight",
                own.positions,
                config.hidden,
            )?,
            token_types: weights.table(
                "embeddings.token_type_embeddings.weight",
                own.token_types,
                config.hidden,
            )?,
            norm: weights.norm("embeddings.LayerNorm", config)?,
            dropout: own.hidden_dropout,
            padding: config.padding.and_then(|padding| i64::try_from(padding).ok()).unwrap_or(-1),
            counts_tokens: config.family.is_roberta(),
            max_length: config.max_length(),
        })
    }

    /// Examples × length × hidden.
    pub fn forward(&self, batch: &Batch, train: bool) -> Result<Tensor> {
        let length = batch.fits(self.max_length)?;
        // Frozen tables may be in BF16, their sum is not.
        let rows = |table: &Tensor, ids: &Tensor, padding: i64| {
            Tensor::f_embedding(table, ids, padding, false, false)?.f_to_kind(Kind::Float)
        };
        let first = |table: &Tensor, count: i64| table.f_narrow(0, 0, count)?.f_to_kind(Kind::Float);
        let words = rows(&self.words, &batch.ids, self.padding)?;
        let token_types = match &batch.token_types {
            Some(kinds) => rows(&self.token_types, kinds, -1)?,
            None => first(&self.token_types, 1)?,
        };
        let positions = match self.counts_tokens {
            true => rows(&self.positions, &self.counted(&batch.ids)?, self.padding)?,
            false => first(&self.positions, length)?,
        };
        let sum = words.f_add(&token_types)?.f_add(&positions)?;
        Ok(self.norm.forward(&sum)?.f_dropout(self.dropout, train)?)
    }

    /// The positions of tokens: the padding's stays its own number, the others count from there.
    fn counted(&self, ids: &Tensor) -> Result<Tensor, TchError> {
        let tokens = ids.f_ne(self.padding)?.f_to_kind(Kind::Int64)?;
        tokens.f_cumsum(1, Kind::Int64)?.f_mul(&tokens)?.f_add_scalar(self.padding)
    }
}
