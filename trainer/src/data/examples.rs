//! Tokens with their targets, and the batches that they are learned in.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::labels::Targets;
use super::table::About;
use super::tokenizer::Tokens;
use crate::error::{Error, Result};

/// A data set that is ready for a model.
#[derive(Clone, Debug)]
pub struct Examples {
    tokens: Tokens,
    targets: Targets,
    /// How many rows of tokens an example has.
    choices: usize,
    /// What each example is about, where several are about the same; else none.
    about: Vec<About>,
    /// The token that fills up shorter rows.
    pad: u32,
}

/// Some examples as tensors; B rows, as long as the longest of them (L). An example that is a choice has
/// as many rows as there are texts to choose from.
#[derive(Debug)]
pub struct Batch {
    /// \[B, L\], i64: tokens, then the filling token.
    pub ids: Tensor,
    /// \[B, L\], i64: 1 for a token, 0 for filling; `None` where nothing is filled up.
    pub mask: Option<Tensor>,
    /// \[B, L\], i64: 1 for tokens of the second text. For models without token types to ignore.
    pub types: Tensor,
    /// \[B, 2, L\], f32: what makes the mean of each marked word's states, where words are marked.
    pub words: Option<Tensor>,
    /// For each example a class as i64 or a number as f32; or \[B, 2\], i64: first and last token of a span.
    pub labels: Tensor,
}

impl Examples {
    /// Puts tokens and targets together.
    ///
    /// # Errors
    /// They differ in number.
    pub fn new(tokens: Tokens, targets: Targets, pad: u32) -> Result<Examples> {
        Examples::with_choices(tokens, 1, targets, pad)
    }

    /// Puts tokens and targets together, where so many rows of tokens are one example.
    ///
    /// # Errors
    /// They differ in number.
    pub fn with_choices(tokens: Tokens, choices: usize, targets: Targets, pad: u32) -> Result<Examples> {
        if tokens.len() != targets.len() * choices {
            let (rows, labels) = (tokens.len(), targets.len());
            return Err(Error::Option(format!("there are {rows} texts, but {labels} labels.")));
        }
        Ok(Examples { tokens, targets, choices, about: Vec::new(), pad })
    }

    /// Says which examples are about the same; none, or as many as there are examples.
    pub fn about(mut self, about: Vec<About>) -> Examples {
        self.about = about;
        self
    }

    /// The question that each example answers, where several answer the same.
    pub fn questions(&self) -> Option<Vec<usize>> {
        let questions = || self.about.iter().map(|about| about.question).collect();
        (!self.about.is_empty()).then(questions)
    }

    /// How many rows of tokens an example has.
    pub fn choices(&self) -> usize {
        self.choices
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// The rows of tokens of an example.
    fn rows(&self, example: usize) -> Range<usize> {
        example * self.choices..(example + 1) * self.choices
    }

    /// The number of tokens of an example's longest row.
    pub fn length(&self, example: usize) -> usize {
        self.rows(example).map(|row| self.tokens.length(row)).max().unwrap_or_default()
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
        order.sort_by_key(|example| std::cmp::Reverse(self.length(*example)));
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
        let length = examples.iter().map(|example| self.length(*example)).max().unwrap_or_default();
        let rows: Vec<usize> = examples.iter().flat_map(|example| self.rows(*example)).collect();
        let room = rows.len() * length;
        let (mut ids, mut mask, mut types) =
            (Vec::with_capacity(room), Vec::with_capacity(room), Vec::with_capacity(room));
        for (index, row) in rows.iter().enumerate() {
            ids.extend(self.tokens.ids(*row).iter().map(|id| i64::from(*id)));
            types.extend(self.tokens.types(*row).iter().map(|kind| i64::from(*kind)));
            mask.resize(ids.len(), 1_i64);
            let end = (index + 1) * length;
            ids.resize(end, i64::from(self.pad));
            types.resize(end, 0);
            mask.resize(end, 0);
        }
        let shape = [rows.len() as i64, length as i64];
        let tensor = |values: &[i64]| Tensor::f_from_slice(values)?.f_reshape(shape)?.f_to(device);
        let labels = match self.targets.select(examples) {
            Targets::Classes(classes) => Tensor::f_from_slice(&classes)?,
            Targets::Values(values) => Tensor::f_from_slice(&values)?,
            Targets::Spans(spans) => Tensor::f_from_slice(spans.as_flattened())?.f_view([-1, 2])?,
        };
        debug_assert!(matches!(labels.kind(), Kind::Int64 | Kind::Float));
        Ok(Batch {
            ids: tensor(&ids)?,
            mask: mask.contains(&0).then(|| tensor(&mask)).transpose()?,
            types: tensor(&types)?,
            words: self.means(&rows, length)?.map(|means| means.f_to(device)).transpose()?,
            labels: labels.f_to(device)?,
        })
    }

    /// What makes the means of marked words, rows × 2 × length.
    fn means(&self, rows: &[usize], length: usize) -> Result<Option<Tensor>> {
        let words: Option<Vec<_>> = rows.iter().map(|row| self.tokens.words(*row)).collect();
        let Some(words) = words else { return Ok(None) };
        let mut weights = vec![0f32; 2 * rows.len() * length];
        for (word, weights) in words.into_iter().flatten().zip(weights.chunks_mut(length.max(1))) {
            if let Some(marked) = weights.get_mut(word.clone()) {
                marked.fill(1.0 / word.len() as f32);
            }
        }
        Ok(Some(Tensor::f_from_slice(&weights)?.f_view([rows.len() as i64, 2, length as i64])?))
    }
}
