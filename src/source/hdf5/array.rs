//! Arrays of numbers of an HDF5 file, of which a part is read at a time: a file may be larger than memory.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::chunks::{Chunk, Chunks};
use super::dataset::{Content, Dataset, Place};
use super::image::Image;
use super::{Objects, filters};
use crate::error::Result;
use crate::source::Storage;
use crate::source::problem::{Checked, Problem, unusable};
use crate::tensors::{Dtype, Kind, decode};
use crate::text::{self, printable};

/// What error messages call the format.
const FORMAT: &str = "HDF5";

/// Of data in one piece about so many bytes are read at once.
const PIECE: usize = 1 << 16;

/// An open HDF5 file.
#[derive(Debug)]
pub struct Hdf5 {
    storage: Arc<Storage>,
    objects: Objects,
}

impl Hdf5 {
    /// Opens a file and lists its datasets; none of their elements is read.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) or [`Error::Malformed`](crate::Error::Malformed).
    pub fn open(path: &Path) -> Result<Hdf5> {
        let storage = Storage::open(path, false)?;
        let part = 0..storage.len();
        let objects = super::read(&storage, &part).map_err(|problem| problem.of(path, FORMAT))?;
        Ok(Hdf5 { storage: Arc::new(storage), objects })
    }

    /// The names of its datasets, with those of the groups that they are in, and their shapes.
    pub fn names(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.objects.datasets.iter().map(|dataset| (dataset.path.as_str(), dataset.shape.as_slice()))
    }

    /// The array of this name, its chunks found and checked; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Malformed`](crate::Error::Malformed) where it breaks a rule, and
    /// [`Error::NoCheckpoint`](crate::Error::NoCheckpoint) where its elements are no real numbers.
    pub fn array(&self, name: &str) -> Result<Option<Array>> {
        let Some(dataset) = self.objects.datasets.iter().find(|dataset| dataset.path == name) else {
            return Ok(None);
        };
        let problem = |problem| within(name, problem).of(self.storage.path(), FORMAT);
        Array::new(self, dataset).map(Some).map_err(problem)
    }
}

fn within(name: &str, problem: Problem) -> Problem {
    let add = |reason| format!("`{}`: {reason}", printable(name));
    match problem {
        Problem::Rule(reason) => Problem::Rule(add(reason)),
        Problem::Unusable(reason) => Problem::Unusable(add(reason)),
        other => other,
    }
}

/// Indices along one dimension: `count` of them, from `start` on, every `step`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first one.
    pub start: usize,
    /// How many.
    pub count: usize,
    /// From one to the next; at least 1.
    pub step: usize,
}

impl Span {
    /// Every `step`-th index of a range, its first one included.
    pub fn every(step: usize, range: Range<usize>) -> Span {
        let step = step.max(1);
        Span { start: range.start, count: range.len().div_ceil(step), step }
    }

    /// The index with this number.
    fn index(&self, number: usize) -> usize {
        self.start + number * self.step
    }

    /// Whether all of them lie below a length.
    fn fits(&self, length: usize) -> bool {
        let last = self.count.checked_sub(1).map(|n| n.checked_mul(self.step)?.checked_add(self.start));
        self.step > 0 && last.is_none_or(|last| last.is_some_and(|last| last < length))
    }

    /// Which of them lie in which block of `size` indices.
    fn cut(&self, size: usize) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut from = 0;
        while from < self.count {
            let first = self.index(from);
            let block = first / size;
            let inside = ((block + 1) * size - first).div_ceil(self.step);
            let count = inside.min(self.count - from);
            parts.push(Part { block, from, count });
            from += count;
        }
        parts
    }
}

/// The indices of a span that lie in one block.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// The block's place along the dimension.
    block: usize,
    /// The number of the first of them in the span.
    from: usize,
    count: usize,
}

/// An array of real numbers in a file.
#[derive(Debug)]
pub struct Array {
    storage: Arc<Storage>,
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    /// The array is cut into blocks of this size; each is read as a whole.
    block: Vec<usize>,
    data: Data,
}

#[derive(Debug)]
enum Data {
    /// In one piece, of the whole file.
    Piece(Range<u64>),
    /// Each block is a chunk.
    Chunks { chunks: Vec<Chunk>, grid: Vec<usize>, filters: Vec<filters::Filter>, size: usize },
}

impl Array {
    fn new(file: &Hdf5, dataset: &Dataset) -> Checked<Array> {
        let Content { dtype, place } = match &dataset.content {
            Ok(content) => content,
            Err(reason) => return unusable(reason.clone()),
        };
        if dtype.kind() != Kind::Real || dataset.shape.is_empty() {
            let (shape, name) = (text::shape(&dataset.shape), dtype.name());
            return unusable(format!(
                "an array of real numbers is needed, not shape {shape} and type {name}"
            ));
        }
        let (block, data) = match place {
            Place::Piece(bytes) => (pieces(&dataset.shape, dtype.bits() / 8), Data::Piece(bytes.clone())),
            Place::Chunks(cut) => (cut.dims.clone(), Data::chunks(file, cut, &dataset.shape)?),
        };
        Ok(Array {
            storage: file.storage.clone(),
            name: dataset.path.clone(),
            shape: dataset.shape.clone(),
            dtype: *dtype,
            block,
            data,
        })
    }

    /// Its name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its shape; at least one dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements that are in all spans, one span for each dimension, in row-major order. Only what they
    /// ask for is read, in whole chunks, one after the other.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) where the spans do not fit the shape;
    /// [`Error::Malformed`](crate::Error::Malformed) for a chunk that cannot be decompressed;
    /// [`Error::Changed`](crate::Error::Changed) where the file was shortened.
    pub fn read(&self, spans: &[Span]) -> Result<Vec<f32>> {
        let fits = spans.len() == self.shape.len()
            && spans.iter().zip(&self.shape).all(|(span, length)| span.fits(*length));
        let counts: Vec<usize> = spans.iter().map(|span| span.count).collect();
        if !fits {
            return Err(crate::Error::Setting(format!(
                "the part {spans:?} lies outside `{}` of shape {}.",
                printable(&self.name),
                text::shape(&self.shape)
            )));
        }
        // Beside a length of zero another one costs the file nothing, and so bounds nothing here.
        if counts.contains(&0) {
            return Ok(Vec::new());
        }
        // No larger than the shape's product, which was checked.
        let mut out = vec![0.0; counts.iter().product()];
        let parts: Vec<Vec<Part>> =
            spans.iter().zip(&self.block).map(|(span, size)| span.cut(*size)).collect();
        let mut numbers = Numbers::new(&parts.iter().map(Vec::len).collect::<Vec<_>>());
        while let Some(chosen) = numbers.next() {
            let chosen: Vec<Part> =
                parts.iter().zip(chosen).filter_map(|(parts, n)| parts.get(*n).copied()).collect();
            let place: Vec<usize> = chosen.iter().map(|part| part.block).collect();
            let (bytes, dims) =
                self.block(&place).map_err(|p| within(&self.name, p).of(self.storage.path(), FORMAT))?;
            self.gather(&bytes, &dims, spans, &chosen, &counts, &mut out);
        }
        Ok(out)
    }

    /// The bytes of the block at a place, and its size in elements.
    fn block(&self, place: &[usize]) -> Checked<(Vec<u8>, Vec<usize>)> {
        match &self.data {
            Data::Piece(bytes) => {
                let width = (self.dtype.bits() / 8) as u64;
                let dims: Vec<usize> = (self.shape.iter().zip(&self.block).zip(place))
                    .map(|((length, size), block)| (*size).min(length - block * size))
                    .collect();
                let first: u64 = (place.iter().zip(&self.block).zip(steps(&self.shape)))
                    .map(|((block, size), step)| (block * size * step) as u64)
                    .sum();
                let count = dims.iter().product::<usize>() as u64;
                let start = bytes.start + first * width;
                Ok((self.storage.copy(start..start + count * width)?, dims))
            }
            Data::Chunks { chunks, grid, filters, size } => {
                let number = place.iter().zip(grid).fold(0, |n, (place, chunks)| n * chunks + place);
                let Some(chunk) = chunks.get(number) else {
                    return unusable(format!("it has no chunk {number}"));
                };
                let stored = self.storage.copy(chunk.bytes.clone())?;
                Ok((filters::undo(filters, chunk.mask, stored, *size)?, self.block.clone()))
            }
        }
    }

    /// Copies what is wanted of a block to its places.
    fn gather(
        &self,
        bytes: &[u8],
        dims: &[usize],
        spans: &[Span],
        chosen: &[Part],
        counts: &[usize],
        out: &mut [f32],
    ) {
        let (Some((row, outer)), Some(last)) = (chosen.split_last(), spans.last()) else { return };
        let (from, to) = (steps(dims), steps(counts));
        let offset =
            |span: &Span, part: &Part, size: usize, n: usize| span.index(part.from + n) - part.block * size;
        let row_size = self.block.last().copied().unwrap_or(1);
        let mut scratch = vec![0.0f64; row.count];
        let mut numbers = Numbers::new(&outer.iter().map(|part| part.count).collect::<Vec<_>>());
        while let Some(number) = numbers.next() {
            let (mut source, mut target) = (offset(last, row, row_size, 0), row.from);
            let dimensions = outer.iter().zip(number).zip(spans).zip(&self.block).zip(from.iter().zip(&to));
            for ((((part, n), span), size), (from, to)) in dimensions {
                source += offset(span, part, *size, *n) * from;
                target += (part.from + n) * to;
            }
            decode(self.dtype, bytes, source, last.step, &mut scratch);
            let target = out.get_mut(target..target + row.count).unwrap_or_default();
            for (out, number) in target.iter_mut().zip(&scratch) {
                *out = *number as f32;
            }
        }
    }
}

impl Data {
    fn chunks(file: &Hdf5, cut: &Chunks, shape: &[usize]) -> Checked<Data> {
        let part = &file.objects.image;
        let image = Image::new(&file.storage, part.start, part.end - part.start);
        Ok(Data::Chunks {
            chunks: cut.index(&image, shape)?,
            grid: cut.grid(shape),
            filters: cut.filters.clone(),
            size: cut.size,
        })
    }
}

/// Blocks of data in one piece: as many whole trailing dimensions as fit into [`PIECE`], and a part of the
/// next one, so that each lies in one piece itself.
fn pieces(shape: &[usize], width: usize) -> Vec<usize> {
    let mut room = (PIECE / width).max(1);
    let mut block: Vec<usize> = Vec::with_capacity(shape.len());
    for length in shape.iter().rev() {
        let size = room.min(*length).max(1);
        room = if size == *length { room / size } else { 1 };
        block.push(size);
    }
    block.reverse();
    block
}

/// From one index to the next of each dimension, in elements.
fn steps(shape: &[usize]) -> Vec<usize> {
    let mut steps: Vec<usize> = Vec::with_capacity(shape.len());
    let mut step = 1;
    for length in shape.iter().rev() {
        steps.push(step);
        step *= length;
    }
    steps.reverse();
    steps
}

/// All tuples of numbers below the given ones, the last number fastest.
struct Numbers {
    ends: Vec<usize>,
    next: Vec<usize>,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    First,
    Within,
    Over,
}

impl Numbers {
    fn new(ends: &[usize]) -> Numbers {
        let state = if ends.contains(&0) { State::Over } else { State::First };
        Numbers { ends: ends.to_vec(), next: vec![0; ends.len()], state }
    }

    fn next(&mut self) -> Option<&[usize]> {
        match self.state {
            State::First => self.state = State::Within,
            State::Over => return None,
            State::Within => {
                let mut advanced = false;
                for (number, end) in self.next.iter_mut().zip(&self.ends).rev() {
                    *number += 1;
                    if *number < *end {
                        advanced = true;
                        break;
                    }
                    *number = 0;
                }
                if !advanced {
                    self.state = State::Over;
                    return None;
                }
            }
        }
        Some(&self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_cut_at_blocks() {
        let span = Span::every(3, 1..12);
        assert_eq!(span, Span { start: 1, count: 4, step: 3 }); // 1 4 7 10
        let parts: Vec<_> = span.cut(5).iter().map(|part| (part.block, part.from, part.count)).collect();
        assert_eq!(parts, [(0, 0, 2), (1, 2, 1), (2, 3, 1)]);
        assert!(span.fits(11) && !span.fits(10));
        assert!(!Span { start: 1, count: 3, step: usize::MAX }.fits(usize::MAX));
        assert!(Span::every(4, 3..3).fits(0) && Span::every(4, 3..3).cut(2).is_empty());
    }

    #[test]
    fn blocks_of_a_piece_lie_in_one() {
        assert_eq!(pieces(&[9, 5, 100], 4), [9, 5, 100]);
        assert_eq!(pieces(&[900, 50, 1000], 4), [1, 16, 1000]);
        assert_eq!(pieces(&[2, 1 << 20], 8), [1, 1 << 13]);
    }

    #[test]
    fn numbers_count() {
        let mut numbers = Numbers::new(&[2, 3]);
        let mut all = Vec::new();
        while let Some(n) = numbers.next() {
            all.push(n.to_vec());
        }
        assert_eq!(all, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
        let mut none = Numbers::new(&[]);
        assert!(none.next().is_some() && none.next().is_none());
        assert!(Numbers::new(&[2, 0]).next().is_none());
    }
}
