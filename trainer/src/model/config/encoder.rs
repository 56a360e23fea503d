//! What BERT's configuration has of its own, and RoBERTa's.

use evenkeel::text::printable;
use serde_json::Value;

use super::entries::Entries;
use super::{Activation, Config, Family, Kind};
use crate::error::Result;

/// The numbers of an encoder.
#[derive(Clone, Debug)]
pub(crate) struct EncoderConfig {
    /// Kinds of tokens: the first and the second text. Some models know only one.
    pub token_types: usize,
    /// Rows of the table of positions.
    pub positions: usize,
    pub hidden_dropout: f64,
    pub classifier_dropout: f64,
}

impl EncoderConfig {
    /// The longest input, in tokens: RoBERTa's positions begin behind that of the padding.
    pub(super) fn max_length(&self, config: &Config) -> usize {
        let skipped =
            if config.family.is_roberta() { config.padding.map_or(0, |padding| padding + 1) } else { 0 };
        self.positions.saturating_sub(skipped)
    }
}

/// Reads an encoder's configuration.
pub(super) fn read(from: &Entries, family: &'static Family) -> Result<Config> {
    refuse_variants(from)?;
    let hidden_dropout = from.probability("hidden_dropout_prob")?.unwrap_or(0.1);
    let padding = match from.entries.contains_key("pad_token_id") {
        // What transformers takes when nothing is said; null says that there is none.
        false => Some(usize::from(family.is_roberta())),
        true => from.whole("pad_token_id")?,
    };
    let head_kind = from.head(family)?;
    let config = Config {
        family,
        vocabulary: from.size("vocab_size")?,
        hidden: from.size("hidden_size")?,
        layers: from.size("num_hidden_layers")?,
        heads: from.size("num_attention_heads")?,
        padding,
        intermediate: from.size("intermediate_size")?,
        activation: from.activation(Activation::Gelu)?,
        epsilon: from.number("layer_norm_eps")?.unwrap_or(1e-12),
        attention_dropout: from.probability("attention_probs_dropout_prob")?.unwrap_or(0.1),
        initial: from.number("initializer_range")?.unwrap_or(0.02),
        task: head_kind.map_or(Ok(None), |kind| from.task(kind))?,
        head_kind,
        kind: Kind::Encoder(EncoderConfig {
            token_types: from.whole("type_vocab_size")?.unwrap_or(2),
            positions: from.size("max_position_embeddings")?,
            hidden_dropout,
            classifier_dropout: from.probability("classifier_dropout")?.unwrap_or(hidden_dropout),
        }),
    };
    if !config.hidden.is_multiple_of(config.heads) {
        return Err(from.wrong(format!(
            "`hidden_size` {} is not a multiple of `num_attention_heads` {}.",
            config.hidden, config.heads
        )));
    }
    if family.is_roberta() && config.padding.is_none() {
        return Err(from.wrong("`pad_token_id` is missing: the positions are counted from it.".to_owned()));
    }
    Ok(config)
}

/// Settings under which the weights mean something else.
fn refuse_variants(from: &Entries) -> Result<()> {
    if let Some(kind) = from.get("position_embedding_type").filter(|kind| *kind != "absolute") {
        return Err(from.wrong(format!(
            "`position_embedding_type` {} is not supported; this version trains models with \"absolute\".",
            printable(&kind.to_string())
        )));
    }
    for key in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
        if from.get(key).is_some_and(|value| value != &Value::Bool(false)) {
            return Err(from.wrong(format!("`{key}` is set; of this family encoders are trained.")));
        }
    }
    Ok(())
}
