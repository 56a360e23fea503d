//! Questions made ready for a model: what it is given of each context, and where the answer is in it.

use std::ops::Range;

use rayon::prelude::*;

use super::examples::Examples;
use super::in_order;
use super::labels::Targets;
use super::questions::{Answer, Question, Questions};
use super::tokenizer::{TextTokenizer, Tokens, Window};
use crate::error::{Error, Result};

/// Inputs of a model, each a question and a part of its context.
#[derive(Clone, Debug)]
pub struct Windows {
    /// Their tokens, and the first and last token of the answer (for those that are learned from).
    pub examples: Examples,
    /// For each the question and the part.
    pub parts: Vec<Part>,
    /// Questions without an input: they leave no room for the context.
    pub too_long: usize,
    /// Questions that are not learned from, because their answer does not stand where it is said to.
    pub misplaced: usize,
}

/// What an input shows of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The place of the question.
    pub question: usize,
    /// Where the context's tokens begin in the input.
    pub start: usize,
    /// The bytes of the context that each of these comes from; empty for what is learned from.
    pub offsets: Vec<(usize, usize)>,
}

/// How contexts are divided.
#[derive(Clone, Copy, Debug)]
pub struct Division {
    /// Tokens of an input, at most.
    pub max_length: usize,
    /// Tokens that neighbouring parts of a context have in common.
    pub overlap: usize,
}

/// What becomes of a question.
enum Made {
    Windows(Vec<(Window, [i64; 2])>),
    TooLong,
    Misplaced,
}

impl Windows {
    /// Divides the contexts of all questions. To learn from, the target is the first answer, or the first
    /// token twice in a part that does not hold all of it.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn new(
        questions: &Questions,
        tokenizer: &TextTokenizer,
        division: Division,
        learned: bool,
    ) -> Result<Windows> {
        let contexts = in_order(questions.contexts.par_iter().map(|context| tokenizer.stretch(context)))?;
        let make = |question: &Question| {
            let place = question.context;
            let Some((stretch, text)) = contexts.get(place).zip(questions.contexts.get(place)) else {
                return Err(Error::Option(format!("there is no context {place} for a question.")));
            };
            let answer = question.answers.first().and_then(|answer| answer.bytes_in(text));
            if learned && answer.is_none() {
                return Ok(Made::Misplaced);
            }
            let windows =
                tokenizer.windows(&question.text, stretch, division.max_length, division.overlap)?;
            if windows.is_empty() {
                return Ok(Made::TooLong);
            }
            let target = |window: &Window| {
                let tokens = answer.as_ref().and_then(|bytes| window.tokens_of(bytes));
                tokens.map_or([0, 0], |tokens| tokens.map(|token| token as i64))
            };
            let targets: Vec<[i64; 2]> = windows.iter().map(target).collect();
            Ok(Made::Windows(windows.into_iter().zip(targets).collect()))
        };
        let made = in_order(questions.questions.par_iter().map(make))?;
        let (mut tokens, mut targets, mut parts) = (Tokens::default(), Vec::new(), Vec::new());
        let (mut too_long, mut misplaced) = (0, 0);
        for (question, made) in made.into_iter().enumerate() {
            let windows = match made {
                Made::Windows(windows) => windows,
                Made::TooLong => {
                    too_long += 1;
                    continue;
                }
                Made::Misplaced => {
                    misplaced += 1;
                    continue;
                }
            };
            for (window, target) in windows {
                tokens.push(&window.row);
                targets.push(target);
                let offsets = if learned { Vec::new() } else { window.offsets };
                parts.push(Part { question, start: window.start, offsets });
            }
        }
        let examples = Examples::new(tokens, Targets::Spans(targets), tokenizer.pad())?;
        Ok(Windows { examples, parts, too_long, misplaced })
    }
}

impl Answer {
    /// Which bytes of a context it is, if its words stand where it is said to begin.
    fn bytes_in(&self, context: &str) -> Option<Range<usize>> {
        let start = context.char_indices().map(|(byte, _)| byte).nth(self.start)?;
        let stands = !self.text.is_empty() && context.get(start..)?.starts_with(&self.text);
        stands.then_some(start..start + self.text.len())
    }
}
