//! What a language model learns from: a prompt and the answer that is to follow it, as texts and as tokens.
//!
//! ```text
//! columns of a file, or a preset ── PromptedExample ── TextTokenizer ── Query (asked of the model together:
//!                                                                              what is learned, and every candidate)
//! ```

use rayon::prelude::*;

use super::in_order;
use super::table::{Cell, Table};
use super::tokenizer::TextTokenizer;
use crate::error::{Error, Result};

/// One example of a language model: it learns the answer alone, given the prompt, and where there are candidates
/// it is asked which of them is the likeliest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptedExample {
    /// What the model is given. Special tokens that begin a text are put before it by the tokenizer.
    pub prompt: String,
    /// What it is to say, as it follows the prompt: with its space in front, if the prompt ends without one.
    /// Empty only where nothing is learned from the example.
    pub answer: String,
    /// The answers to choose from in an evaluation, written like `answer`; none where there is no choice, and the
    /// loss is what is reported.
    pub candidates: Vec<String>,
    /// Which of the candidates is right; of no meaning where there are none.
    pub right: usize,
}

impl PromptedExample {
    /// The examples of a table whose texts are prompts and whose labels are answers. With `candidates` every
    /// answer must be one of them.
    ///
    /// # Errors
    /// The row of an answer that is empty, or none of the candidates.
    pub fn of(table: &Table, candidates: &[String]) -> Result<Vec<PromptedExample>> {
        let rows = table.texts.iter().zip(&table.labels).enumerate();
        let example = |(index, (prompt, answer)): (usize, (&String, &Cell))| {
            let answer = match answer {
                Cell::Null => String::new(),
                cell => cell.to_string(),
            };
            let wrong = |what: String| {
                let reason = format!("row {}, column {}: {what}", index + 1, table.label);
                Error::Data { path: table.path.clone(), reason }
            };
            if answer.is_empty() {
                return Err(wrong("the answer is missing.".to_owned()));
            }
            let right = candidates.iter().position(|candidate| *candidate == answer);
            if right.is_none() && !candidates.is_empty() {
                let answer = evenkeel::text::printable(&answer).into_owned();
                return Err(wrong(format!(
                    "`{answer}` is none of the candidates {}.",
                    candidates.join(", ")
                )));
            }
            Ok(PromptedExample {
                prompt: prompt.clone(),
                answer,
                candidates: candidates.to_vec(),
                right: right.unwrap_or(0),
            })
        };
        rows.map(example).collect()
    }
}

/// A prompt with something that may follow it, as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Continued {
    ids: Vec<u32>,
    /// The tokens at the end that are no prompt.
    answer: usize,
    /// Tokens of the prompt that were cut off.
    cut: usize,
}

/// A sequence that is given to the model once, and the tokens whose probability is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The tokens that the model is given.
    pub input: Vec<u32>,
    /// What is asked about it.
    pub asked: Vec<Asked>,
}

/// One token whose probability is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The place in the input behind which it would come.
    pub place: usize,
    /// The token.
    pub token: u32,
    /// What it is a part of: 0 for the answer, n for candidate n − 1.
    pub part: usize,
}

/// An example as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompted {
    /// What the answer's loss takes.
    pub learned: Query,
    /// What an evaluation takes: the answer's query and those of the candidates, where their inputs are the same
    /// as one.
    pub evaluated: Vec<Query>,
    /// The number of candidates.
    pub candidates: usize,
    /// The right one.
    pub right: usize,
}

/// Tokenised examples, and what became of the others.
#[derive(Clone, Debug, Default)]
pub struct Dialogues {
    /// Those that fit.
    pub examples: Vec<Prompted>,
    /// How many had to lose the beginning of their prompt.
    pub cut: usize,
    /// How many are left out, because their answer alone is too long.
    pub left_out: usize,
}

impl Dialogues {
    /// Tokenises examples on all threads: of those longer than `max_length` the prompt loses its beginning,
    /// behind the tokens that begin every text.
    ///
    /// # Errors
    /// A prompt that is no token, so that nothing could follow it; what the tokenizer says.
    pub fn new(
        examples: &[PromptedExample],
        tokenizer: &TextTokenizer,
        max_length: usize,
    ) -> Result<Dialogues> {
        let rows = in_order(examples.par_iter().enumerate().map(|(number, example)| {
            prompted(example, tokenizer, max_length)
                .map_err(|reason| Error::Option(format!("example {}: {reason}.", number + 1)))
        }))?;
        let mut all = Dialogues::default();
        for row in rows {
            match row {
                Some((example, cut)) => {
                    all.examples.push(example);
                    all.cut += usize::from(cut);
                }
                None => all.left_out += 1,
            }
        }
        Ok(all)
    }

    /// The largest token.
    pub fn largest_id(&self) -> u32 {
        let queries = self.examples.iter().flat_map(|example| &example.evaluated);
        let tokens =
            queries.flat_map(|query| query.input.iter().copied().chain(query.asked.iter().map(|a| a.token)));
        tokens.max().unwrap_or_default()
    }

    /// What a user should know of them.
    pub fn notes(&self, what: &str, max_length: usize) -> Vec<String> {
        let mut notes = Vec::new();
        let all = self.examples.len() + self.left_out;
        if self.cut > 0 {
            notes.push(format!(
                "{} of {all} {what} prompts lose their beginning, to fit into {max_length} tokens.",
                self.cut
            ));
        }
        if self.left_out > 0 {
            notes.push(format!(
                "{} of {all} {what} examples are left out: their answers alone fill {max_length} tokens.",
                self.left_out
            ));
        }
        notes
    }
}

/// One example as tokens, and whether it was cut; `None` where it does not fit.
fn prompted(
    example: &PromptedExample,
    tokenizer: &TextTokenizer,
    max_length: usize,
) -> std::result::Result<Option<(Prompted, bool)>, String> {
    let continued = |text: &String| continued(tokenizer, &example.prompt, text, max_length);
    let Some(answer) = continued(&example.answer)? else { return Ok(None) };
    let mut cut = answer.cut > 0;
    let learned = answer.query(0);
    let mut evaluated = vec![learned.clone()];
    for (number, candidate) in example.candidates.iter().enumerate() {
        let Some(candidate) = continued(candidate)? else { return Ok(None) };
        cut |= candidate.cut > 0;
        let query = candidate.query(number + 1);
        match evaluated.iter_mut().find(|other| other.input == query.input) {
            Some(same) => same.asked.extend(query.asked),
            None => evaluated.push(query),
        }
    }
    let (candidates, right) = (example.candidates.len(), example.right);
    if candidates > 0 && right >= candidates {
        return Err(format!("the right answer is number {right} of {candidates}, counted from 0"));
    }
    Ok(Some((Prompted { learned, evaluated, candidates, right }, cut)))
}

/// A prompt and what follows it: tokenised as one text, because a token may reach over the border; such a token
/// belongs to the answer.
fn continued(
    tokenizer: &TextTokenizer,
    prompt: &str,
    answer: &str,
    max_length: usize,
) -> std::result::Result<Option<Continued>, String> {
    let tokens = tokenizer.with_ends(&format!("{prompt}{answer}")).map_err(|error| error.to_string())?;
    // Special tokens lie nowhere in the text; those at its end are no answer.
    let last = tokens.iter().rposition(|(_, end)| *end > prompt.len()).map_or(0, |last| last + 1);
    let tokens = tokens.get(..last).unwrap_or_default();
    let length = tokens.iter().position(|(_, end)| *end > prompt.len()).unwrap_or(tokens.len());
    let (before, after) = tokens.split_at_checked(length).unwrap_or_default();
    if after.is_empty() {
        return Err("its answer is no token".to_owned());
    }
    if before.is_empty() {
        return Err("its prompt is no token, so that nothing can follow it".to_owned());
    }
    let special = before.iter().take_while(|(_, end)| *end == 0).count();
    let Some(room) = max_length.checked_sub(after.len()).filter(|room| *room > 0 && *room >= special) else {
        return Ok(None);
    };
    let cut = before.len().saturating_sub(room);
    let kept = before.iter().take(special).chain(before.iter().skip(special + cut));
    let ids = kept.chain(after).map(|(id, _)| *id).collect();
    Ok(Some(Continued { ids, answer: after.len(), cut }))
}

impl Continued {
    /// The question for its answer: the last token is asked for, and never given.
    fn query(&self, part: usize) -> Query {
        let input = self.ids.split_last().map(|(_, before)| before.to_vec()).unwrap_or_default();
        let first = self.ids.len() - self.answer;
        let asked = self.ids.iter().enumerate().skip(first);
        let asked = asked.map(|(at, token)| Asked { place: at - 1, token: *token, part }).collect();
        Query { input, asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "[PAD] [UNK] [CLS] [SEP] [MASK] the film is great poor very ##ly";

    /// A tokenizer of these words, whose numbers are their places.
    fn tokenizer() -> TextTokenizer {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("vocab.txt"), WORDS.replace(' ', "\n")).unwrap();
        TextTokenizer::open(directory.path()).unwrap()
    }

    fn example(prompt: &str, answer: &str, candidates: &[&str]) -> PromptedExample {
        PromptedExample {
            prompt: prompt.to_owned(),
            answer: answer.to_owned(),
            candidates: candidates.iter().map(|candidate| (*candidate).to_owned()).collect(),
            right: 0,
        }
    }

    fn asked(query: &Query) -> Vec<(usize, u32, usize)> {
        query.asked.iter().map(|asked| (asked.place, asked.token, asked.part)).collect()
    }

    #[test]
    fn candidates_of_one_token_are_asked_for_together() {
        let examples = [example("the film is", " great", &[" great", " poor", " very great"])];
        let found = Dialogues::new(&examples, &tokenizer(), 8).unwrap();
        let [one] = found.examples.as_slice() else { panic!("{found:?}") };
        // What ends a text is no part of the answer.
        assert_eq!((one.learned.input.as_slice(), asked(&one.learned)), (&[2, 5, 6, 7][..], vec![(3, 8, 0)]));
        let [together, alone] = one.evaluated.as_slice() else { panic!("{one:?}") };
        assert_eq!(asked(together), [(3, 8, 0), (3, 8, 1), (3, 9, 2)]);
        assert_eq!(
            (alone.input.as_slice(), asked(alone)),
            (&[2, 5, 6, 7, 10][..], vec![(3, 10, 3), (4, 8, 3)])
        );
        assert_eq!((found.largest_id(), found.cut, found.left_out), (10, 0, 0));
    }

    #[test]
    fn a_token_over_the_border_belongs_to_the_answer() {
        let found = Dialogues::new(&[example("the gre", "atly", &[])], &tokenizer(), 8).unwrap();
        let learned = &found.examples[0].learned;
        assert_eq!((learned.input.as_slice(), asked(learned)), (&[2, 5, 8][..], vec![(1, 8, 0), (2, 11, 0)]));
    }

    #[test]
    fn long_prompts_lose_their_beginning_and_long_answers_are_left_out() {
        let examples = [example("the film is", " great", &[]), example("film", " very very very very", &[])];
        let found = Dialogues::new(&examples, &tokenizer(), 4).unwrap();
        assert_eq!((found.examples.len(), found.cut, found.left_out), (1, 1, 1));
        assert_eq!(found.examples[0].learned.input, [2, 6, 7]);
        let notes = found.notes("training", 4);
        assert!(
            notes[0].starts_with("1 of 2 training prompts lose") && notes[1].contains("left out"),
            "{notes:?}"
        );
        let error = Dialogues::new(&[example("film", "", &[])], &tokenizer(), 4).unwrap_err().to_string();
        assert_eq!(error, "example 1: its answer is no token.");
    }

    #[test]
    fn of_several_wrong_examples_the_first_is_named() {
        let mut examples = vec![example("film", "", &[]); 1000];
        examples.splice(..6, vec![example("the film is", " great", &[]); 6]);
        let error = Dialogues::new(&examples, &tokenizer(), 8).unwrap_err().to_string();
        assert_eq!(error, "example 7: its answer is no token.");
    }
}
