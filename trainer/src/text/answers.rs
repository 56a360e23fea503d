//! Which words of a context a model takes for the answer: the post-processing of transformers' example of
//! question answering, after that of BERT's authors.

use std::ops::Range;

use crate::data::{Part, Question, Questions, Windows};

/// So many of the likeliest first tokens are combined with as many of the likeliest last ones.
const N_BEST: usize = 20;

/// No answer has more tokens.
const MAX_ANSWER: usize = 30;

/// The best answers to some questions, as far as their windows have been looked at, in any order.
#[derive(Debug)]
pub struct Answers<'a> {
    questions: &'a Questions,
    windows: &'a Windows,
    /// For each question.
    best: Vec<Option<Found>>,
}

/// A possible answer.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    /// The sum of its first and its last token's logits.
    score: f32,
    /// The window that shows it; of equal scores the first window's counts.
    window: usize,
    /// The bytes of the context.
    bytes: Range<usize>,
}

impl<'a> Answers<'a> {
    /// None yet.
    pub fn new(questions: &'a Questions, windows: &'a Windows) -> Answers<'a> {
        Answers { questions, windows, best: vec![None; questions.questions.len()] }
    }

    /// Looks at what a model says of a window: two numbers for each token, that it is an answer's first and that
    /// it is its last. What stands behind the window's tokens is filling.
    pub fn add(&mut self, window: usize, logits: &[f32]) {
        let Some(part) = self.windows.parts.get(window) else { return };
        let (tokens, _) = logits.as_chunks::<2>();
        let tokens = tokens.get(..self.windows.examples.length(window)).unwrap_or(tokens);
        let Some((score, bytes)) = best_span(part, tokens) else { return };
        let Some(best) = self.best.get_mut(part.question) else { return };
        let is_worse = |than: &Found| (than.score, window) < (score, than.window);
        if best.as_ref().is_none_or(is_worse) {
            *best = Some(Found { score, window, bytes });
        }
    }

    /// The words of the context that answer each question; none where no window has an answer.
    pub fn texts(&self) -> Vec<String> {
        let text = |(question, best): (&Question, &Option<Found>)| {
            let context = self.questions.contexts.get(question.context)?;
            context.get(best.as_ref()?.bytes.clone()).map(str::to_owned)
        };
        self.questions.questions.iter().zip(&self.best).map(|both| text(both).unwrap_or_default()).collect()
    }
}

/// The best answer that a part of a context holds, if any can be one, and its score: of the [`N_BEST`] likeliest
/// first and last tokens those that are of the context, in this order, and no more than [`MAX_ANSWER`].
fn best_span(part: &Part, logits: &[[f32; 2]]) -> Option<(f32, Range<usize>)> {
    // Where a token of the input stands in the context.
    let bytes = |token: usize| token.checked_sub(part.start).and_then(|place| part.offsets.get(place));
    let (firsts, lasts) = (likeliest(logits, |[first, _]| *first), likeliest(logits, |[_, last]| *last));
    let mut best: Option<(f32, Range<usize>)> = None;
    for (first, first_logit) in &firsts {
        for (last, last_logit) in &lasts {
            let (Some(from), Some(to)) = (bytes(*first), bytes(*last)) else { continue };
            if last < first || last - first >= MAX_ANSWER {
                continue;
            }
            let score = first_logit + last_logit;
            if best.as_ref().is_none_or(|(than, _)| score > *than) {
                best = Some((score, from.0..to.1));
            }
        }
    }
    best
}

/// The tokens with the largest of one of their logits, the largest first.
fn likeliest(logits: &[[f32; 2]], which: impl Fn(&[f32; 2]) -> f32) -> Vec<(usize, f32)> {
    let mut tokens: Vec<(usize, f32)> = logits.iter().map(which).enumerate().collect();
    // NaN, which nothing follows from, would stand anywhere.
    tokens.retain(|(_, logit)| !logit.is_nan());
    tokens.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    tokens.truncate(N_BEST);
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tokens of a question, a mark, and `count` tokens of three bytes.
    fn part(count: usize) -> Part {
        Part { question: 0, start: 3, offsets: (0..count).map(|token| (3 * token, 3 * token + 2)).collect() }
    }

    #[test]
    fn what_is_no_answer_is_passed_over() {
        let mut logits = vec![[0f32; 2]; 50];
        // The likeliest tokens are of the question, or the wrong way round.
        (logits[1], logits[8][0], logits[6][1], logits[9][1]) = ([9.0, 9.0], 5.0, 8.0, 3.0);
        assert_eq!(best_span(&part(40), &logits), Some((8.0, 15..20)));
        // 30 tokens are an answer, 31 are none.
        let mut logits = vec![[-1f32; 2]; 50];
        (logits[4][0], logits[33][1], logits[34][1]) = (5.0, 4.0, 6.0);
        assert_eq!(best_span(&part(40), &logits), Some((9.0, 3..3 * 30 + 2)));
        assert_eq!(best_span(&part(0), &logits), None);
        assert_eq!(best_span(&part(40), &[[f32::NAN; 2]; 50]), None);
    }
}
