//! The tensor types of ggml, as GGUF files hold them: rows of blocks, each block a fixed number of
//! elements in a fixed number of bytes.
//!
//! A block is decoded to `f32` with the operations of ggml's own reference, in their order, so that
//! the numbers are those that its tools compute, bit for bit. Layouts and constants are those of
//! ggml (ggml-common.h, MIT licence).

mod four_bit;
mod k_quants;
mod simple;

use std::borrow::Cow;
use std::ops::Range;

use half::f16;

use crate::error::{Error, Result};
use crate::tensors::{Bytes, Dtype, Encoding};

/// One type of ggml.
#[derive(Debug)]
pub struct Type {
    /// Its number in files.
    pub id: u32,
    /// What ggml's tools call it: `Q4_K`.
    pub name: &'static str,
    /// Elements in a block; 0 where this version does not know the type's layout.
    pub elements: usize,
    /// Bytes in a block.
    pub bytes: usize,
    /// What is to be done with it.
    pub form: Form,
}

/// How the elements of a [`Type`] are had.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// They stand there as plain numbers.
    Plain(Dtype),
    /// They are computed from whole blocks, as little-endian F32.
    Blocks(fn(&[u8], &mut [u8])),
    /// They cannot be had: this version has no decoder.
    Unread,
}

const fn plain(id: u32, name: &'static str, dtype: Dtype) -> Type {
    Type { id, name, elements: 1, bytes: dtype.bits() / 8, form: Form::Plain(dtype) }
}

const fn blocks(
    id: u32,
    name: &'static str,
    elements: usize,
    bytes: usize,
    decode: fn(&[u8], &mut [u8]),
) -> Type {
    Type { id, name, elements, bytes, form: Form::Blocks(decode) }
}

const fn unread(id: u32, name: &'static str, elements: usize, bytes: usize) -> Type {
    Type { id, name, elements, bytes, form: Form::Unread }
}

/// Every type that has a number in files, those that ggml has given up included.
pub static TYPES: &[Type] = &[
    plain(0, "F32", Dtype::F32),
    plain(1, "F16", Dtype::F16),
    blocks(2, "Q4_0", 32, 18, |b, o| each(b, o, simple::q4_0)),
    blocks(3, "Q4_1", 32, 20, |b, o| each(b, o, simple::q4_1)),
    unread(4, "Q4_2", 0, 0),
    unread(5, "Q4_3", 0, 0),
    blocks(6, "Q5_0", 32, 22, |b, o| each(b, o, simple::q5_0)),
    blocks(7, "Q5_1", 32, 24, |b, o| each(b, o, simple::q5_1)),
    blocks(8, "Q8_0", 32, 34, |b, o| each(b, o, simple::q8_0)),
    // Two layouts of this name were in use, 36 and 40 bytes; neither is stored in files.
    unread(9, "Q8_1", 0, 0),
    blocks(10, "Q2_K", 256, 84, |b, o| each(b, o, k_quants::q2_k)),
    blocks(11, "Q3_K", 256, 110, |b, o| each(b, o, k_quants::q3_k)),
    blocks(12, "Q4_K", 256, 144, |b, o| each(b, o, k_quants::q4_k)),
    blocks(13, "Q5_K", 256, 176, |b, o| each(b, o, k_quants::q5_k)),
    blocks(14, "Q6_K", 256, 210, |b, o| each(b, o, k_quants::q6_k)),
    blocks(15, "Q8_K", 256, 292, |b, o| each(b, o, k_quants::q8_k)),
    unread(16, "IQ2_XXS", 256, 66),
    unread(17, "IQ2_XS", 256, 74),
    unread(18, "IQ3_XXS", 256, 98),
    unread(19, "IQ1_S", 256, 50),
    blocks(20, "IQ4_NL", 32, 18, |b, o| each(b, o, four_bit::iq4_nl)),
    unread(21, "IQ3_S", 256, 110),
    unread(22, "IQ2_S", 256, 82),
    blocks(23, "IQ4_XS", 256, 136, |b, o| each(b, o, four_bit::iq4_xs)),
    plain(24, "I8", Dtype::I8),
    plain(25, "I16", Dtype::I16),
    plain(26, "I32", Dtype::I32),
    plain(27, "I64", Dtype::I64),
    plain(28, "F64", Dtype::F64),
    unread(29, "IQ1_M", 256, 56),
    plain(30, "BF16", Dtype::BF16),
    unread(31, "Q4_0_4_4", 0, 0),
    unread(32, "Q4_0_4_8", 0, 0),
    unread(33, "Q4_0_8_8", 0, 0),
    unread(34, "TQ1_0", 256, 54),
    unread(35, "TQ2_0", 256, 66),
    unread(36, "IQ4_NL_4_4", 0, 0),
    unread(37, "IQ4_NL_4_8", 0, 0),
    unread(38, "IQ4_NL_8_8", 0, 0),
    blocks(39, "MXFP4", 32, 17, |b, o| each(b, o, four_bit::mxfp4)),
    unread(40, "NVFP4", 64, 36),
    unread(41, "Q1_0", 128, 18),
];

/// The type of this number, if there is one.
pub fn by_id(id: u32) -> Option<&'static Type> {
    TYPES.iter().find(|kind| kind.id == id)
}

/// A tensor in blocks: its row-major elements are those of its blocks, one after the other.
#[derive(Debug)]
pub struct Blocks {
    /// The type of the blocks.
    pub kind: &'static Type,
    /// Which of the checkpoint's files.
    pub file: usize,
    /// Where in that file, already checked: a whole number of blocks.
    pub bytes: Range<u64>,
}

impl Encoding for Blocks {
    fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(self.kind.name)
    }

    fn file(&self) -> usize {
        self.file
    }

    fn stored_bytes(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    fn granule(&self) -> usize {
        self.kind.elements
    }

    fn unread(&self) -> Option<String> {
        let name = self.kind.name;
        matches!(self.kind.form, Form::Unread)
            .then(|| format!("{name}, a type that this version does not decode"))
    }

    fn decode(&self, files: &dyn Bytes, elements: Range<usize>) -> Result<Vec<u8>> {
        const WIDTH: usize = size_of::<f32>();
        let Form::Blocks(decode) = self.kind.form else {
            return Err(Error::Setting(format!("the ggml type {} has no decoder.", self.kind.name)));
        };
        let size = self.kind.elements.max(1);
        let (first, end) = (elements.start / size, elements.end.div_ceil(size));
        let at = |block: usize| {
            let offset = block as u128 * self.kind.bytes as u128;
            u64::try_from(offset).unwrap_or(u64::MAX).saturating_add(self.bytes.start)
        };
        let range = at(first)..at(end);
        // Beyond the tensor: an empty file range at an impossible place is refused there.
        let range = if range.end > self.bytes.end { u64::MAX..u64::MAX } else { range };
        let blocks = files.bytes(self.file, range)?;
        let mut out = vec![0; (end - first) * size * WIDTH];
        decode(&blocks, &mut out);
        out.truncate((elements.end - first * size) * WIDTH);
        out.drain(..(elements.start - first * size) * WIDTH);
        Ok(out)
    }
}

/// Decodes block after block, of `S` bytes and `N` elements each, into little-endian F32.
fn each<const S: usize, const N: usize>(
    blocks: &[u8],
    out: &mut [u8],
    decode: impl Fn(&[u8; S], &mut [f32; N]),
) {
    let mut numbers = [0.0; N];
    let (blocks, _) = blocks.as_chunks::<S>();
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(N * size_of::<f32>())) {
        decode(block, &mut numbers);
        let (out, _) = out.as_chunks_mut();
        for (out, number) in out.iter_mut().zip(&numbers) {
            *out = number.to_le_bytes();
        }
    }
}

/// The next `N` bytes of a block, which then begins behind them. Fields add up to the block's size,
/// so that there always are `N`.
fn field<'a, const N: usize>(rest: &mut &'a [u8]) -> &'a [u8; N] {
    let (field, behind) = rest.split_first_chunk().unwrap_or((const { &[0; N] }, &[]));
    *rest = behind;
    field
}

/// A scale: half precision, as two bytes.
fn scale(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in memory that count how many of them were asked for.
    struct Counted(Vec<u8>, std::sync::Mutex<u64>);

    impl Bytes for Counted {
        fn bytes(&self, _: usize, range: Range<u64>) -> Result<Cow<'_, [u8]>> {
            let found = self.0.get(range.start as usize..range.end as usize);
            *self.1.lock().unwrap() += range.end.saturating_sub(range.start);
            found.map(Cow::Borrowed).ok_or(Error::Changed { path: "memory".into() })
        }
    }

    #[test]
    fn types_are_ordered_and_whole() {
        assert!(TYPES.is_sorted_by_key(|kind| kind.id));
        for kind in TYPES {
            match kind.form {
                Form::Plain(dtype) => assert_eq!(kind.bytes * 8, dtype.bits()),
                // The decoder takes exactly one block of the size that the table states.
                Form::Blocks(decode) => {
                    let block = vec![0x55; kind.bytes];
                    let mut out = vec![0xff; 4 * kind.elements];
                    decode(&block, &mut out);
                    let (numbers, _) = out.as_chunks::<4>();
                    assert!(numbers.iter().all(|n| f32::from_le_bytes(*n).is_finite()), "{}", kind.name);
                    let mut short = vec![0xff; 4 * kind.elements];
                    decode(&block[1..], &mut short);
                    assert!(short.iter().all(|b| *b == 0xff), "{} takes less than a block", kind.name);
                }
                Form::Unread => {}
            }
        }
    }

    #[test]
    fn any_range_is_part_of_the_whole_and_reads_only_its_blocks() {
        let kind = by_id(8).unwrap();
        let stored: Vec<u8> = (0..5 * 34).map(|i| if i % 34 == 1 { 0x3c } else { i as u8 & 0x3f }).collect();
        let files = Counted([vec![0; 7], stored].concat(), Default::default());
        let tensor = Blocks { kind, file: 0, bytes: 7..7 + 5 * 34 };
        let whole = tensor.decode(&files, 0..160).unwrap();
        assert_eq!(whole.len(), 640);
        for (start, end) in [(0, 1), (31, 33), (32, 64), (40, 40), (5, 160), (159, 160), (160, 160)] {
            *files.1.lock().unwrap() = 0;
            assert_eq!(
                tensor.decode(&files, start..end).unwrap(),
                whole[4 * start..4 * end],
                "{start}..{end}"
            );
            let most = (end - start).div_ceil(32) + 1;
            assert!(*files.1.lock().unwrap() <= 34 * most as u64, "{start}..{end}");
        }
        assert!(tensor.decode(&files, 0..161).is_err());
        assert!(tensor.decode(&files, 1 << 60..(1 << 60) + 1).is_err());
    }
}
