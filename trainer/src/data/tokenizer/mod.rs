//! From texts to the numbers of tokens, as transformers' fast tokenizers give them.

mod files;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tokenizers::{Encoding, PostProcessor, PostProcessorWrapper, Tokenizer};

use super::table::Table;
use crate::error::{Error, Result};

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

    fn push(&mut self, row: &Row) {
        self.ids.extend_from_slice(&row.ids);
        self.types.extend_from_slice(&row.types);
        self.ends.push(self.ids.len());
        self.cut += usize::from(row.needed > row.ids.len());
        self.needed = self.needed.max(row.needed);
    }
}

/// One row's tokens.
struct Row {
    ids: Vec<u32>,
    types: Vec<u8>,
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

    /// Tokenises all rows of a table on all threads. Rows of more than `max_length` tokens are cut: token by
    /// token from the longer text, as transformers' `longest_first`.
    ///
    /// # Errors
    /// `max_length` leaves no room for text.
    pub fn tokenise(&self, table: &Table, max_length: usize) -> Result<Tokens> {
        let specials = self.specials(table.pairs.is_some());
        let Some(room) = max_length.checked_sub(specials).filter(|room| *room > 0) else {
            return Err(Error::Option(format!(
                "a length of {max_length} leaves no room for text beside {specials} special tokens."
            )));
        };
        let mut tokens = Tokens::default();
        for (number, texts) in table.texts.chunks(CHUNK).enumerate() {
            let pairs = table.pairs.as_ref().and_then(|pairs| pairs.chunks(CHUNK).nth(number));
            let rows: Vec<Row> = texts
                .par_iter()
                .enumerate()
                .map(|(index, text)| {
                    let pair = pairs.and_then(|pairs| pairs.get(index)).map(String::as_str);
                    self.row(text, pair, room).map_err(|reason| {
                        let row = number * CHUNK + index + 1;
                        let reason = format!("row {row} of {}: {reason}.", table.path.display());
                        Error::Model { path: self.path.clone(), reason }
                    })
                })
                .collect::<Result<_>>()?;
            rows.iter().for_each(|row| tokens.push(row));
        }
        Ok(tokens)
    }

    /// One row: the texts' own tokens are cut before the special ones are put around them. (The crate's
    /// truncation would keep everything that it cuts off, for a pair in all combinations.)
    fn row(&self, text: &str, pair: Option<&str>, room: usize) -> tokenizers::Result<Row> {
        let first = self.tokenizer.encode_fast(text, false)?;
        let second = pair.map(|pair| self.tokenizer.encode_fast(pair, false)).transpose()?;
        let (first, second) = (first.get_ids(), second.as_ref().map(Encoding::get_ids));
        let (n1, n2) = longest_first(first.len(), second.map_or(0, <[u32]>::len), room);
        let removed = first.len() + second.map_or(0, <[u32]>::len) - n1 - n2;
        let (first, second) = (self.side.cut(first, n1), second.map(|ids| self.side.cut(ids, n2)));
        let joined = join(self.tokenizer.get_post_processor(), first, second)?;
        let types = joined.get_type_ids().iter().map(|kind| u8::try_from(*kind).unwrap_or(u8::MAX)).collect();
        Ok(Row { ids: joined.get_ids().to_vec(), types, needed: joined.len() + removed })
    }
}

impl Side {
    fn cut(self, ids: &[u32], count: usize) -> &[u32] {
        let part = match self {
            Side::Left => ids.get(ids.len().saturating_sub(count)..),
            Side::Right => ids.get(..count.min(ids.len())),
        };
        part.unwrap_or_default()
    }
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
fn encoding(ids: &[u32], kind: u32) -> Encoding {
    let n = ids.len();
    Encoding::new(
        ids.to_vec(),
        vec![kind; n],
        vec![String::new(); n],
        vec![None; n],
        vec![(0, 0); n],
        vec![0; n],
        vec![1; n],
        Vec::new(),
        Default::default(),
    )
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
