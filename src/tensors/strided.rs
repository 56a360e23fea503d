//! Views: elements of a plain type that lie at regular distances in a file, not row by row.

use std::borrow::Cow;
use std::ops::Range;

use super::{Bytes, Dtype, Encoding};
use crate::error::Result;

/// A span that holds at most this many times the bytes that are wanted is read as a whole.
const WASTE: u64 = 4;
/// So is a span of up to this many bytes.
const SMALL: u64 = 1 << 16;

/// A view with strides: element (i, j, …) lies at i·s₀ + j·s₁ + … elements behind the first one.
/// Strides may be zero, or such that elements overlap.
#[derive(Debug)]
pub struct Strided {
    file: usize,
    /// From the first element to the end of what the view may reach.
    bytes: Range<u64>,
    dtype: Dtype,
    /// Sizes and strides, in elements, outermost first. Dimensions of one are left out, and those
    /// that continue each other are one.
    dims: Vec<Dim>,
    elements: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Dim {
    size: u64,
    stride: u64,
}

impl Strided {
    /// A view of `shape` with `strides` in elements, whose first element is the first of `bytes`.
    /// `None` where it does not lie within `bytes`, has no elements, or its type is not of whole
    /// bytes.
    pub fn new(
        file: usize,
        bytes: Range<u64>,
        dtype: Dtype,
        shape: &[usize],
        strides: &[u64],
    ) -> Option<Strided> {
        let width = (dtype.bits() / 8) as u64;
        let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        let last = shape.iter().zip(strides).try_fold(0u64, |sum, (size, stride)| {
            sum.checked_add(u64::try_from(*size).ok()?.checked_sub(1)?.checked_mul(*stride)?)
        })?;
        let span = last.checked_add(1)?.checked_mul(width)?;
        let fits = span <= bytes.end.checked_sub(bytes.start)?;
        if shape.len() != strides.len() || width == 0 || !dtype.bits().is_multiple_of(8) || !fits {
            return None;
        }
        let mut dims: Vec<Dim> = Vec::new();
        for (size, stride) in shape.iter().zip(strides).filter(|(size, _)| **size > 1) {
            let dim = Dim { size: *size as u64, stride: *stride };
            match dims.last_mut() {
                Some(outer) if outer.stride == dim.size * dim.stride => {
                    *outer = Dim { size: outer.size * dim.size, stride: dim.stride };
                }
                _ => dims.push(dim),
            }
        }
        Some(Strided { file, bytes: bytes.start..bytes.start + span, dtype, dims, elements })
    }

    fn width(&self) -> u64 {
        (self.dtype.bits() / 8) as u64
    }

    /// Adds the elements `wanted` of the view that `dims` makes, counted from its own first element,
    /// which lies `base` elements behind the whole view's. Reads them together where little else
    /// lies between them, otherwise one index of the outermost dimension after the other.
    fn collect(
        &self,
        files: &dyn Bytes,
        dims: &[Dim],
        base: u64,
        wanted: Range<u64>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let inner: u64 = dims.iter().skip(1).map(|dim| dim.size).product();
        let outer = dims.first().copied().unwrap_or(Dim { size: 1, stride: 0 });
        let indices = wanted.start / inner..wanted.end.div_ceil(inner);
        if indices.is_empty() {
            return Ok(());
        }
        let within: u64 = dims.iter().skip(1).map(|dim| (dim.size - 1) * dim.stride).sum();
        let first = base + indices.start * outer.stride;
        let span = ((indices.end - 1 - indices.start) * outer.stride + within + 1) * self.width();
        let bytes = (wanted.end - wanted.start) * self.width();
        if span <= SMALL || span <= bytes.saturating_mul(WASTE) {
            let start = self.bytes.start + first * self.width();
            let source = files.bytes(self.file, start..start + span)?;
            let skipped = indices.start * inner;
            let part = wanted.start - skipped..wanted.end - skipped;
            match self.width() {
                1 => gather::<1>(&source, dims, part, out),
                2 => gather::<2>(&source, dims, part, out),
                4 => gather::<4>(&source, dims, part, out),
                _ => gather::<8>(&source, dims, part, out),
            }
            return Ok(());
        }
        let rest = dims.get(1..).unwrap_or_default();
        for index in indices {
            let from = wanted.start.max(index * inner) - index * inner;
            let to = wanted.end.min((index + 1) * inner) - index * inner;
            self.collect(files, rest, base + index * outer.stride, from..to, out)?;
        }
        Ok(())
    }
}

impl Encoding for Strided {
    fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(self.dtype.name())
    }

    fn file(&self) -> usize {
        self.file
    }

    fn stored_bytes(&self) -> u64 {
        self.elements as u64 * self.width()
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(elements.len().saturating_mul(self.width() as usize));
        let wanted = elements.start as u64..elements.end.min(self.elements) as u64;
        self.collect(files, &self.dims, 0, wanted, &mut out)?;
        Ok(out)
    }
}

/// Copies the elements `wanted` of a view whose first element is the first of `source`, row by row.
fn gather<const N: usize>(source: &[u8], dims: &[Dim], wanted: Range<u64>, out: &mut Vec<u8>) {
    let (chunks, _) = source.as_chunks::<N>();
    let row = dims.last().copied().unwrap_or(Dim { size: 1, stride: 1 });
    let outer = dims.get(..dims.len().saturating_sub(1)).unwrap_or_default();
    let mut at = wanted.start;
    while at < wanted.end {
        let (mut index, column) = (at / row.size, at % row.size);
        let count = (row.size - column).min(wanted.end - at);
        let mut position = column * row.stride;
        for dim in outer.iter().rev() {
            position += index % dim.size * dim.stride;
            index /= dim.size;
        }
        let elements = chunks.get(position as usize..).unwrap_or_default();
        if row.stride == 1 {
            out.extend(elements.iter().take(count as usize).flatten());
        } else if row.stride == 0 {
            let element = elements.first().copied().unwrap_or([0; N]);
            (0..count).for_each(|_| out.extend_from_slice(&element));
        } else {
            let every = elements.iter().step_by(row.stride as usize).take(count as usize);
            every.for_each(|element| out.extend_from_slice(element));
        }
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One file that counts how much is asked of it at most.
    struct File {
        bytes: Vec<u8>,
        most: std::sync::atomic::AtomicUsize,
    }

    impl Bytes for File {
        fn bytes(&self, _: usize, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
            self.most.fetch_max((range.end - range.start) as usize, std::sync::atomic::Ordering::Relaxed);
            Ok(Cow::Borrowed(&self.bytes[range.start as usize..range.end as usize]))
        }
    }

    fn file(elements: u32) -> File {
        File { bytes: (0..elements).flat_map(u32::to_le_bytes).collect(), most: 0.into() }
    }

    /// What the definition says, element by element.
    fn expected(shape: &[usize], strides: &[u64], offset: u64) -> Vec<u32> {
        let count: usize = shape.iter().product();
        let at = |mut index: usize| {
            let mut position = offset;
            for (size, stride) in shape.iter().zip(strides).rev() {
                position += (index % size) as u64 * stride;
                index /= size;
            }
            position as u32
        };
        (0..count).map(at).collect()
    }

    #[test]
    fn every_range_of_a_view_is_what_the_definition_says() {
        let cases: [(&[usize], &[u64], u64); 8] = [
            (&[5, 7], &[1, 5], 0),
            (&[4, 3], &[9, 2], 5),
            (&[3, 4, 5], &[1, 15, 3], 2),
            (&[2, 3, 2, 2], &[1, 8, 4, 2], 0),
            (&[3, 4], &[0, 1], 1),
            (&[4, 3], &[1, 0], 0),
            (&[6, 4], &[2, 1], 0),
            (&[1, 5, 1], &[99, 3, 77], 4),
        ];
        let file = file(128);
        for (shape, strides, offset) in cases {
            let view = Strided::new(0, 4 * offset..512, Dtype::F32, shape, strides).unwrap();
            let whole = expected(shape, strides, offset);
            for start in 0..whole.len() {
                for end in start..=whole.len() {
                    let bytes = view.decode(&file, start..end).unwrap();
                    let found: Vec<u32> =
                        bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
                    assert_eq!(found, whole[start..end], "{shape:?} {strides:?} {start}..{end}");
                }
            }
        }
    }

    /// One column of a wide storage: what lies between its elements is not read with it.
    #[test]
    fn little_more_is_read_than_is_wanted() {
        let file = file(1 << 20);
        let view = Strided::new(0, 0..4 << 20, Dtype::F32, &[16, 2], &[1 << 16, 3]).unwrap();
        let bytes = view.decode(&file, 0..32).unwrap();
        assert_eq!(bytes.len(), 128);
        assert!(file.most.into_inner() <= SMALL as usize);
    }

    #[test]
    fn views_that_reach_too_far_are_none() {
        let new = |shape: &[usize], strides: &[u64]| Strided::new(0, 0..48, Dtype::F32, shape, strides);
        assert!(new(&[3, 4], &[1, 3]).is_some());
        assert!(new(&[3, 4], &[1, 4]).is_none());
        assert!(new(&[3, 4], &[1]).is_none());
        assert!(new(&[2, 2], &[u64::MAX, 1]).is_none());
        assert!(new(&[usize::MAX, 2], &[0, 0]).is_none());
        assert!(new(&[0, 2], &[1, 1]).is_none());
        assert!(Strided::new(0, 0..48, Dtype::F4, &[2, 2], &[1, 2]).is_none());
    }
}
