//! Tokens with their targets, and the batches that they are learned in.

use tch::{Device, Kind, Tensor};

use super::labels::Targets;
use super::tokenizer::Tokens;
use crate::error::{Error, Result};

/// A data set that is ready for a model.
#[derive(Clone, Debug)]
pub struct Examples {
    tokens: Tokens,
    targets: Targets,
    /// The token that fills up shorter rows.
    pad: u32,
    /// The length of a batch is a multiple of this.
    multiple: usize,
}

/// Some examples as tensors; B rows, as long as the longest of them (L).
#[derive(Debug)]
pub struct Batch {
    /// \[B, L\], i64: tokens, then the filling token.
    pub ids: Tensor,
    /// \[B, L\], i64: 1 for a token, 0 for filling.
    pub mask: Tensor,
    /// \[B, L\], i64: 1 for tokens of the second text. For models without token types to ignore.
    pub types: Tensor,
    /// \[B\]: classes as i64, or numbers as f32.
    pub labels: Tensor,
}

impl Examples {
    /// Puts tokens and targets together.
    ///
    /// # Errors
    /// They differ in number.
    pub fn new(tokens: Tokens, targets: Targets, pad: u32) -> Result<Examples> {
        if tokens.len() != targets.len() {
            let (rows, labels) = (tokens.len(), targets.len());
            return Err(Error::Option(format!("there are {rows} texts, but {labels} labels.")));
        }
        Ok(Examples { tokens, targets, pad, multiple: 1 })
    }

    /// Fills up every batch to a multiple of a length, which suits some GPUs.
    pub fn padded_to_multiple_of(mut self, multiple: usize) -> Examples {
        self.multiple = multiple.max(1);
        self
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The targets.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Batches for an evaluation: the longest examples first, so that little is filled up. Results belong
    /// to the numbers in the batch, whose order is not the data's.
    pub fn by_length(&self, batch: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|row| std::cmp::Reverse(self.tokens.length(*row)));
        order.chunks(batch.max(1)).map(<[usize]>::to_vec).collect()
    }

    /// The tensors of some examples.
    ///
    /// # Errors
    /// There is no example of such a number, or what libtorch says.
    pub fn batch(&self, examples: &[usize], device: Device) -> Result<Batch> {
        if let Some(beyond) = examples.iter().find(|example| **example >= self.len()) {
            let reason = format!("there is no example {beyond}: there are {}.", self.len());
            return Err(Error::Option(reason));
        }
        let longest = examples.iter().map(|example| self.tokens.length(*example)).max().unwrap_or_default();
        let length = longest.next_multiple_of(self.multiple);
        let room = examples.len() * length;
        let (mut ids, mut mask, mut types) =
            (Vec::with_capacity(room), Vec::with_capacity(room), Vec::with_capacity(room));
        for (index, example) in examples.iter().enumerate() {
            ids.extend(self.tokens.ids(*example).iter().map(|id| i64::from(*id)));
            types.extend(self.tokens.types(*example).iter().map(|kind| i64::from(*kind)));
            mask.resize(ids.len(), 1_i64);
            let end = (index + 1) * length;
            ids.resize(end, i64::from(self.pad));
            types.resize(end, 0);
            mask.resize(end, 0);
        }
        let shape = [examples.len() as i64, length as i64];
        let tensor = |values: &[i64]| Tensor::f_from_slice(values)?.f_reshape(shape)?.f_to(device);
        let labels = match self.targets.select(examples) {
            Targets::Classes(classes) => Tensor::f_from_slice(&classes)?,
            Targets::Values(values) => Tensor::f_from_slice(&values)?,
        };
        debug_assert!(matches!(labels.kind(), Kind::Int64 | Kind::Float));
        Ok(Batch {
            ids: tensor(&ids)?,
            mask: tensor(&mask)?,
            types: tensor(&types)?,
            labels: labels.f_to(device)?,
        })
    }
}
