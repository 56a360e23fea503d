//! Data in chunks: pieces of one size that a B-tree finds, each through the filters.

use std::ops::Range;

use super::filters::{self, Filter};
use super::image::{Fields, Image};
use crate::source::problem::{Checked, Problem, rule};
use crate::tensors::Dtype;
use crate::text;

/// The largest chunk that is read, in bytes: one is in memory as a whole. (h5py's own choice is
/// below 1 MiB; the format ends at 4 GiB.)
const LARGEST: u64 = 1 << 28;

/// DEFLATE makes nothing smaller than this part of itself: 258 bytes out of 2 bits.
const SMALLEST_PART: u64 = 1032;

/// How a dataset is cut.
#[derive(Debug)]
pub(in crate::source) struct Chunks {
    /// The size of a chunk, in elements.
    pub dims: Vec<usize>,
    /// A chunk's bytes before the filters.
    pub size: usize,
    pub filters: Vec<Filter>,
    /// The address of the tree.
    tree: u64,
}

/// A chunk as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// Where it lies in the whole file.
    pub bytes: Range<u64>,
    /// Bit n: the n-th filter was left out.
    pub mask: u32,
}

impl Chunks {
    /// What a layout says, checked against the dataset's shape: its sizes end with that of an element.
    pub(super) fn new(
        tree: u64,
        dims: &[u32],
        shape: &[usize],
        dtype: Dtype,
        filters: Vec<Filter>,
    ) -> Checked<Chunks> {
        let width = dtype.bits() / 8;
        let Some((element, dims)) = dims.split_last() else {
            return rule("its chunks have no size");
        };
        if dims.len() != shape.len() || *element as usize != width || dims.contains(&0) {
            return rule(format!(
                "its chunks of {dims:?} elements of {element} bytes do not fit a dataset of shape {} and type {}",
                text::shape(shape),
                dtype.name()
            ));
        }
        let size = dims.iter().try_fold(width as u64, |n, d| n.checked_mul(u64::from(*d)));
        match size {
            Some(size) if size <= LARGEST => Ok(Chunks {
                dims: dims.iter().map(|d| *d as usize).collect(),
                size: size as usize,
                filters,
                tree,
            }),
            _ => rule(format!("its chunks of {dims:?} elements are larger than {LARGEST} bytes")),
        }
    }

    /// How many chunks there are along each dimension of a shape.
    pub(super) fn grid(&self, shape: &[usize]) -> Vec<usize> {
        shape.iter().zip(&self.dims).map(|(length, chunk)| length.div_ceil(*chunk)).collect()
    }

    /// All chunks of a dataset of this shape, in row-major order. None may be missing (its elements would
    /// be made up), overlap another one, or be too short for what it should hold: so the dataset is no larger
    /// than its file can make it.
    pub(super) fn index(&self, image: &Image, shape: &[usize]) -> Checked<Vec<Chunk>> {
        let grid = self.grid(shape);
        let overflow = || Problem::Rule("it has a shape whose size overflows".to_owned());
        let wanted = grid.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(overflow)?;
        let mut found = self.walk(image, &grid)?;
        found.sort_unstable_by_key(|(number, _)| *number);
        let dense = found.iter().enumerate().all(|(position, (number, _))| position == *number);
        if found.len() != wanted || !dense {
            return rule(format!(
                "it should have {wanted} chunks, but its index has {} (others were never written, or are there \
                 twice)",
                found.len()
            ));
        }
        let chunks: Vec<Chunk> = found.into_iter().map(|(_, chunk)| chunk).collect();
        self.check(&chunks)?;
        Ok(chunks)
    }

    /// Walks the tree; gives the chunks with their numbers in the grid.
    fn walk(&self, image: &Image, grid: &[usize]) -> Checked<Vec<(usize, Chunk)>> {
        const WHAT: &str = "a node of the index of its chunks";
        let key = 8 + 8 * (grid.len() as u64 + 1);
        let mut found = Vec::new();
        let mut nodes = vec![(self.tree, None)];
        while let Some((address, wanted)) = nodes.pop() {
            let head = image.read(address, 24, WHAT)?;
            let mut fields = Fields::new(&head, WHAT);
            fields.signature(b"TREE")?;
            let (of, level, count) = (fields.u8()?, fields.u8()?, fields.u16()?);
            if of != 1 || wanted.is_some_and(|wanted| wanted != level) {
                return rule(format!("{WHAT} at address {address} belongs elsewhere"));
            }
            let size = u64::from(count) * (key + 8);
            let bytes = image.read(address.saturating_add(24), size, WHAT)?;
            let mut fields = Fields::new(&bytes, WHAT);
            for _ in 0..count {
                let (size, mask) = (fields.u32()?, fields.u32()?);
                let number = self.number(&mut fields, grid)?;
                let child = fields.u64()?;
                match level.checked_sub(1) {
                    Some(below) => nodes.push((child, Some(below))),
                    None => {
                        let number = number.ok_or_else(|| {
                            Problem::Rule("the index of its chunks has one that lies outside".to_owned())
                        })?;
                        let bytes = image.range(child, u64::from(size), "a chunk")?;
                        found.push((number, Chunk { bytes, mask }));
                    }
                }
            }
        }
        Ok(found)
    }

    /// The place in the grid of the chunk that a key names, or of the first one below it.
    fn number(&self, fields: &mut Fields, grid: &[usize]) -> Checked<Option<usize>> {
        let mut number = Some(0usize);
        for (chunks, size) in grid.iter().zip(&self.dims) {
            let (offset, size) = (fields.u64()?, *size as u64);
            let place = usize::try_from(offset / size).ok().filter(|p| p < chunks && offset % size == 0);
            number = number.zip(place).and_then(|(n, p)| n.checked_mul(*chunks)?.checked_add(p));
        }
        fields.u64()?; // within the element
        Ok(number)
    }

    fn check(&self, chunks: &[Chunk]) -> Checked<()> {
        for chunk in chunks {
            let length = chunk.bytes.end - chunk.bytes.start;
            let most = match filters::may_deflate(&self.filters, chunk.mask) {
                true => length.saturating_mul(SMALLEST_PART),
                false => length,
            };
            if most < self.size as u64 {
                return rule(format!("a chunk of {} bytes is stored in {length}", self.size));
            }
        }
        let mut places: Vec<&Range<u64>> = chunks.iter().map(|chunk| &chunk.bytes).collect();
        places.sort_unstable_by_key(|bytes| bytes.start);
        for (before, after) in places.iter().zip(places.iter().skip(1)) {
            if after.start < before.end {
                return rule(format!("two of its chunks share the bytes at {}", after.start));
            }
        }
        Ok(())
    }
}
