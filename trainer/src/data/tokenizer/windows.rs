//! Long texts in pieces: a question with one stretch of its context after another, as many as it takes.

use std::ops::Range;

use tokenizers::Encoding;

use super::{Row, TextTokenizer, join, part, types_of};
use crate::error::{Error, Result};

/// The tokens of a text, and which bytes of it each one comes from.
#[derive(Clone, Debug)]
pub struct Stretch {
    ids: Vec<u32>,
    offsets: Vec<(usize, usize)>,
}

/// An input of a model: a question and a part of a context.
#[derive(Debug)]
pub struct Window {
    pub(in crate::data) row: Row,
    /// Where the context's tokens begin in it.
    pub start: usize,
    /// The bytes of the context that each of these comes from.
    pub offsets: Vec<(usize, usize)>,
}

impl Window {
    /// The first and the last token of a range of bytes; `None` where it does not lie in this window as a
    /// whole.
    pub fn tokens_of(&self, bytes: &Range<usize>) -> Option<[usize; 2]> {
        let (first, last) = (self.offsets.first()?, self.offsets.last()?);
        if first.0 > bytes.start || last.1 < bytes.end {
            return None;
        }
        let first = self.offsets.iter().rposition(|(start, _)| *start <= bytes.start)?;
        let last = self.offsets.iter().position(|(_, end)| *end >= bytes.end)?;
        Some([self.start + first, self.start + last])
    }
}

impl TextTokenizer {
    /// Tokenises a text that windows are to be cut out of.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn stretch(&self, text: &str) -> Result<Stretch> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| self.failed(error))?;
        Ok(Stretch { ids: encoding.get_ids().to_vec(), offsets: encoding.get_offsets().to_vec() })
    }

    /// A question with every part of a context, such that no input has more than `max_length` tokens and
    /// neighbouring parts have `overlap` tokens in common: what transformers makes with `only_second` and that
    /// `stride`. The question is never cut: there is no window where it leaves no room for more than the
    /// overlap.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn windows(
        &self,
        question: &str,
        context: &Stretch,
        max_length: usize,
        overlap: usize,
    ) -> Result<Vec<Window>> {
        let question = self.tokenizer.encode_fast(question, false).map_err(|error| self.failed(error))?;
        let room = max_length.saturating_sub(self.specials(true) + question.len());
        let mut windows = Vec::new();
        if room <= overlap {
            return Ok(windows);
        }
        let mut start = 0;
        loop {
            let end = context.ids.len().min(start + room);
            windows.push(self.window(&question, context, &(start..end))?);
            if end == context.ids.len() {
                return Ok(windows);
            }
            start += room - overlap;
        }
    }

    fn window(&self, question: &Encoding, context: &Stretch, tokens: &Range<usize>) -> Result<Window> {
        let ids = part(&context.ids, tokens);
        let joined = join(self.tokenizer.get_post_processor(), question.get_ids(), Some(ids))
            .map_err(|error| self.failed(error))?;
        let start = joined.get_sequence_ids().iter().position(|sequence| *sequence == Some(1));
        let types = types_of(&joined);
        let row = Row { ids: joined.get_ids().to_vec(), types, words: None, needed: joined.len() };
        let start = start.unwrap_or(joined.len());
        Ok(Window { row, start, offsets: part(&context.offsets, tokens).to_vec() })
    }

    fn failed(&self, error: tokenizers::Error) -> Error {
        Error::Model { path: self.path.clone(), reason: format!("{error}.") }
    }
}
