//! From texts to the numbers of tokens, as transformers' fast tokenizers give them.

mod files;
mod windows;

use std::ops::Range;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tokenizers::{Encoding, PostProcessor, PostProcessorWrapper, Tokenizer};

use super::in_order;
use super::table::Table;
use crate::error::{Error, Result};

pub use windows::{Stretch, Window};

/// Rows tokenised between two collections of what the threads made.
const CHUNK: usize = 4096;

/// A tokenizer, with all that a model's directory says of it.
#[derive(Debug)]
pub struct TextTokenizer {
    /// Without truncation and padding.
    tokenizer: Tokenizer,
    pad: u32,
    side: Side,
    /// The file that it was read from.
    path: PathBuf,
}

/// Where too long texts are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// The tokens of many rows, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<u32>,
    types: Vec<u8>,
    /// Where each row ends in the two above.
    ends: Vec<usize>,
    /// The tokens of each row's two marked words; empty where none are marked.
    words: Vec<[Range<usize>; 2]>,
    cut: usize,
    needed: usize,
}

impl Tokens {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        let end = self.ends.get(row).copied().unwrap_or_default();
        let start = row.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        start.min(end)..end
    }

    /// A row's tokens, special ones included.
    pub fn ids(&self, row: usize) -> &[u32] {
        self.ids.get(self.range(row)).unwrap_or_default()
    }

    /// For each token of a row 1 where it belongs to the second text, else 0. (RoBERTa: always 0.)
    pub fn types(&self, row: usize) -> &[u8] {
        self.types.get(self.range(row)).unwrap_or_default()
    }

    /// The number of tokens of a row.
    pub fn length(&self, row: usize) -> usize {
        self.range(row).len()
    }

    /// The tokens of a row's two marked words, if there are any.
    pub fn words(&self, row: usize) -> Option<&[Range<usize>; 2]> {
        self.words.get(row)
    }

    /// How many rows were too long, and were cut.
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// The length at which no row would have been cut.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// The largest number of a token: a model's vocabulary must be larger.
    pub fn largest_id(&self) -> u32 {
        self.ids.iter().copied().max().unwrap_or_default()
    }

    /// Appends a row; either all have marked words, or none has.
    pub(super) fn push(&mut self, row: &Row) {
        self.ids.extend_from_slice(&row.ids);
        self.types.extend_from_slice(&row.types);
        self.ends.push(self.ids.len());
        self.words.extend(row.words.clone());
        self.cut += usize::from(row.needed > row.ids.len());
        self.needed = self.needed.max(row.needed);
    }
}

/// One row's tokens.
#[derive(Debug)]
pub(super) struct Row {
    ids: Vec<u32>,
    types: Vec<u8>,
    /// Those of the marked words.
    words: Option<[Range<usize>; 2]>,
    /// Their number before the cut.
    needed: usize,
}

impl TextTokenizer {
    /// Reads the tokenizer of a model's directory: `tokenizer.json`, else `vocab.txt` (BERT), else
    /// `vocab.json` and `merges.txt` (RoBERTa), the latter two with what `tokenizer_config.json` says.
    ///
    /// # Errors
    /// There is none, it cannot be read, or a special token is not in its vocabulary.
    pub fn open(directory: &Path) -> Result<TextTokenizer> {
        files::open(directory)
    }

    /// The token that fills up shorter rows of a batch.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The number of tokens that it knows.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// How many special tokens it puts around a text, or around and between two.
    pub fn specials(&self, pair: bool) -> usize {
        self.tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(pair))
    }

    /// The tokens of one text, special ones included, each with the byte of the text at which it ends: 0 for
    /// special ones.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn with_ends(&self, text: &str) -> tokenizers::Result<Vec<(u32, usize)>> {
        let encoding = self.tokenizer.encode(text, true)?;
        let specials = encoding.get_special_tokens_mask();
        let ends = encoding.get_offsets().iter().zip(specials);
        let ends = ends.map(|((_, end), special)| if *special == 1 { 0 } else { *end });
        Ok(encoding.get_ids().iter().copied().zip(ends).collect())
    }

    /// Tokenises all rows of a table on all threads; a row with several second texts gives as many. Rows of more
    /// than `max_length` tokens are cut: token by token from the longer text, as transformers' `longest_first`.
    ///
    /// # Errors
    /// `max_length` leaves no room for text, or cuts off a marked word; a row without any token.
    pub fn tokenise(&self, table: &Table, max_length: usize) -> Result<Tokens> {
        let specials = self.specials(table.pairs.is_some());
        let Some(room) = max_length.checked_sub(specials).filter(|room| *room > 0) else {
            return Err(Error::Option(format!(
                "a length of {max_length} leaves no room for text beside {specials} special tokens."
            )));
        };
        let mut tokens = Tokens::default();
        let count = table.len() * table.choices;
        for start in (0..count).step_by(CHUNK) {
            let rows = in_order((start..count.min(start + CHUNK)).into_par_iter().map(|number| {
                let row = number / table.choices;
                let text = table.texts.get(row).map_or("", String::as_str);
                let pair = table.pairs.as_ref().and_then(|pairs| pairs.get(number)).map(String::as_str);
                self.row(text, pair, room, table.words.get(row)).map_err(|reason| {
                    let reason = format!("row {} of {}: {reason}.", row + 1, table.path.display());
                    Error::Model { path: self.path.clone(), reason }
                })
            }))?;
            rows.iter().for_each(|row| tokens.push(row));
        }
        Ok(tokens)
    }

    /// One row: the texts' own tokens are cut before the special ones are put around them. (The crate's
    /// truncation would keep everything that it cuts off, for a pair in all combinations.) `words` are bytes
    /// of the two texts.
    fn row(
        &self,
        text: &str,
        pair: Option<&str>,
        room: usize,
        words: Option<&[Range<usize>; 2]>,
    ) -> tokenizers::Result<Row> {
        // Where each token stands is worked out only for those who ask.
        let encode = |text: &str| match words {
            Some(_) => self.tokenizer.encode(text, false),
            None => self.tokenizer.encode_fast(text, false),
        };
        let (first, second) = (encode(text)?, pair.map(encode).transpose()?);
        let (n1, n2) = longest_first(first.len(), second.as_ref().map_or(0, Encoding::len), room);
        let first = Cut { range: self.side.kept(first.len(), n1), encoding: first };
        let second = second.map(|second| Cut { range: self.side.kept(second.len(), n2), encoding: second });
        let removed = first.removed() + second.as_ref().map_or(0, Cut::removed);
        let joined = join(self.tokenizer.get_post_processor(), first.ids(), second.as_ref().map(Cut::ids))?;
        let sequences = words.map(|_| joined.get_sequence_ids()).unwrap_or_default();
        let place = |which: usize, of: &Cut, word: &Range<usize>| {
            let start = sequences.iter().position(|sequence| *sequence == Some(which))?;
            let tokens = covering(part(of.encoding.get_offsets(), &of.range), word)?;
            Some(tokens.start + start..tokens.end + start)
        };
        let words = match words {
            None => None,
            Some([one, other]) => {
                let other = || place(1, second.as_ref()?, other);
                let found = place(0, &first, one).and_then(|one| Some([one, other()?]));
                let reason = "its marked words are not both among the tokens that are kept";
                Some(found.ok_or(reason)?)
            }
        };
        let (ids, types) = (joined.get_ids().to_vec(), types_of(&joined));
        if ids.is_empty() {
            return Err("it has no token at all, and the tokenizer puts none around it".into());
        }
        Ok(Row { ids, types, words, needed: joined.len() + removed })
    }
}

/// A text's tokens, and which of them are kept.
struct Cut {
    encoding: Encoding,
    range: Range<usize>,
}

impl Cut {
    fn ids(&self) -> &[u32] {
        part(self.encoding.get_ids(), &self.range)
    }

    fn removed(&self) -> usize {
        self.encoding.len() - self.range.len()
    }
}

impl Side {
    /// Which of some tokens are kept.
    fn kept(self, of: usize, count: usize) -> Range<usize> {
        match self {
            Side::Left => of.saturating_sub(count)..of,
            Side::Right => 0..count.min(of),
        }
    }
}

fn part<'a, T>(all: &'a [T], range: &Range<usize>) -> &'a [T] {
    all.get(range.clone()).unwrap_or_default()
}

/// The tokens that share a byte with a word.
fn covering(offsets: &[(usize, usize)], word: &Range<usize>) -> Option<Range<usize>> {
    let touches = |token: &(usize, usize)| token.0 < word.end && token.1 > word.start;
    let (first, last) = (offsets.iter().position(touches)?, offsets.iter().rposition(touches)?);
    Some(first..last + 1)
}

/// Which text each token belongs to.
fn types_of(joined: &Encoding) -> Vec<u8> {
    joined.get_type_ids().iter().map(|kind| u8::try_from(*kind).unwrap_or(u8::MAX)).collect()
}

/// The special tokens put around, as the tokenizer's post-processor does.
fn join(
    processor: Option<&PostProcessorWrapper>,
    first: &[u32],
    second: Option<&[u32]>,
) -> tokenizers::Result<Encoding> {
    let (first, second) = (encoding(first, 0), second.map(|ids| encoding(ids, 1)));
    match processor {
        Some(processor) => processor.process(first, second, true),
        None => Ok(Encoding::merge(std::iter::once(first).chain(second), false)),
    }
}

/// An encoding of which only tokens and types matter.
fn encoding(ids: &[u32], kind: u8) -> Encoding {
    let n = ids.len();
    let mut encoding = Encoding::new(
        ids.to_vec(),
        vec![u32::from(kind); n],
        vec![String::new(); n],
        vec![None; n],
        vec![(0, 0); n],
        vec![0; n],
        vec![1; n],
        Vec::new(),
        Default::default(),
    );
    encoding.set_sequence_id(usize::from(kind));
    encoding
}

/// How many tokens of two texts are kept where `room` is what there is for both: the longer one is cut down
/// to the shorter one's length, then both to half of the room, the second one getting the odd token; if the
/// first was the longer one, the first gets it.
fn longest_first(first: usize, second: usize, room: usize) -> (usize, usize) {
    if first + second <= room {
        return (first, second);
    }
    let (shorter, half) = (first.min(second), room / 2);
    // What the longer one gets beside the whole of the shorter one, if that is more than half.
    let (shorter, longer) = if shorter <= half { (shorter, room - shorter) } else { (half, room - half) };
    if first > second { (longer, shorter) } else { (shorter, longer) }
}

#[cfg(test)]
mod tests {
    use super::longest_first;

    #[test]
    fn the_longer_text_is_cut_first() {
        assert_eq!(longest_first(5, 6, 11), (5, 6));
        assert_eq!(longest_first(9, 3, 10), (7, 3));
        assert_eq!(longest_first(3, 9, 10), (3, 7));
        assert_eq!(longest_first(9, 9, 11), (5, 6));
        assert_eq!(longest_first(10, 9, 11), (6, 5));
        assert_eq!(longest_first(20, 0, 7), (7, 0));
        assert_eq!(longest_first(0, 20, 7), (0, 7));
        assert_eq!(longest_first(4, 4, 1), (0, 1));
    }
}
