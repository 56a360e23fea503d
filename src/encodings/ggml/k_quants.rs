//! The "k-quants" of ggml: blocks of 256 elements, in groups of 16 or 32 whose scales (and minima)
//! are small integers times a scale of the whole block.
//!
//! The bits of the elements lie in planes. A plane of one bit is 32 bytes: bit b of byte i belongs
//! to element 32·b + i. Planes of two and of four bits are pieces of 32 bytes, each for the next 128
//! or 64 elements in the same manner. [`plane`] gives 32 consecutive elements of any of them.

use super::{field, scale};

/// Elements in a block.
const SIZE: usize = 256;

/// Q2_K: d·s·q − m·t, with q of two bits; s and t are the nibbles of a byte for 16 elements each.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; SIZE]) {
    let rest = &mut block.as_slice();
    let (scales, quants) = (field::<16>(rest), field::<64>(rest));
    let (d, m) = (scale(*field(rest)), scale(*field(rest)));
    let (pairs, _) = scales.as_chunks::<2>();
    for (row, (out, pair)) in out.as_chunks_mut::<32>().0.iter_mut().zip(pairs).enumerate() {
        let values = plane::<2>(quants, row);
        let halves = out.as_chunks_mut::<16>().0.iter_mut().zip(values.as_chunks::<16>().0);
        for ((out, values), scales) in halves.zip(pair) {
            scaled(out, values, (d * f32::from(scales & 15), m * f32::from(scales >> 4)));
        }
    }
}

/// Q3_K: d·(s − 32)·q, with q of two bits, less 4 where the bit in the mask is clear.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; SIZE]) {
    let rest = &mut block.as_slice();
    let (mask, quants) = (field::<32>(rest), field::<64>(rest));
    let steps = q3_k_scales(field(rest), scale(*field(rest)));
    let (pairs, _) = steps.as_chunks::<2>();
    for (row, (out, pair)) in out.as_chunks_mut::<32>().0.iter_mut().zip(pairs).enumerate() {
        let (mut values, high) = (plane::<2>(quants, row), plane::<1>(mask, row));
        for (q, high) in values.iter_mut().zip(high) {
            *q |= high << 2;
        }
        by_halves(out, &values, 4.0, pair);
    }
}

/// The 16 scales of six bits: scale j has its low four bits in byte j modulo 8, and its high two in
/// byte 8 + j modulo 4.
fn q3_k_scales(packed: &[u8; 12], d: f32) -> [f32; 16] {
    let rest = &mut packed.as_slice();
    let (low, high) = (field::<8>(rest), field::<4>(rest));
    let mut steps = [0.0; 16];
    for (j, (step, (low, high))) in
        steps.iter_mut().zip(low.iter().cycle().zip(high.iter().cycle())).enumerate()
    {
        let q = low >> (j / 8 * 4) & 15 | (high >> (j / 4 * 2) & 3) << 4;
        *step = d * (f32::from(q) - 32.0);
    }
    steps
}

/// Q4_K: d·s·q − m·t, with q of four bits, s and t of six bits for 32 elements each.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; SIZE]) {
    let rest = &mut block.as_slice();
    let (d, m) = (scale(*field(rest)), scale(*field(rest)));
    let (scales, quants) = (scales_and_minima(field(rest), d, m), field::<128>(rest));
    for (row, (out, scales)) in out.as_chunks_mut::<32>().0.iter_mut().zip(scales).enumerate() {
        scaled(out, &plane::<4>(quants, row), scales);
    }
}

/// Q5_K: as [`q4_k`], with the fifth bits in a plane of their own.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; SIZE]) {
    let rest = &mut block.as_slice();
    let (d, m) = (scale(*field(rest)), scale(*field(rest)));
    let scales = scales_and_minima(field(rest), d, m);
    let (high, quants) = (field::<32>(rest), field::<128>(rest));
    for (row, (out, scales)) in out.as_chunks_mut::<32>().0.iter_mut().zip(scales).enumerate() {
        let (mut values, high) = (plane::<4>(quants, row), plane::<1>(high, row));
        for (q, high) in values.iter_mut().zip(high) {
            *q |= high << 4;
        }
        scaled(out, &values, scales);
    }
}

/// The eight pairs (d·s, m·t) of [`q4_k`]. The first four s and t are the low six bits of bytes 0 to
/// 3 and 4 to 7; the others have their high two bits there, and their low nibbles in bytes 8 to 11.
fn scales_and_minima(packed: &[u8; 12], d: f32, m: f32) -> [(f32, f32); 8] {
    let rest = &mut packed.as_slice();
    let (s, t, low) = (field::<4>(rest), field::<4>(rest), field::<4>(rest));
    let mut scales = [(0.0, 0.0); 8];
    let (first, last) = scales.split_at_mut(4);
    for ((((first, last), s), t), low) in first.iter_mut().zip(last).zip(s).zip(t).zip(low) {
        let pair = |s: u8, t: u8| (d * f32::from(s), m * f32::from(t));
        *first = pair(s & 63, t & 63);
        *last = pair(low & 15 | s >> 6 << 4, low >> 4 | t >> 6 << 4);
    }
    scales
}

/// Q6_K: d·s·(q − 32), with q of six bits in a plane of four and one of two, and s a signed byte for
/// 16 elements.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; SIZE]) {
    let rest = &mut block.as_slice();
    let (low, high) = (field::<128>(rest), field::<64>(rest));
    let (scales, d) = (field::<16>(rest), scale(*field(rest)));
    let steps = scales.map(|s| d * f32::from(s.cast_signed()));
    let (pairs, _) = steps.as_chunks::<2>();
    for (row, (out, pair)) in out.as_chunks_mut::<32>().0.iter_mut().zip(pairs).enumerate() {
        // Here the plane of four bits goes by pieces of 64 bytes: the low nibbles of both of its
        // halves come before the high ones.
        let piece = row / 4 * 4 + row % 2 * 2 + row / 2 % 2;
        let (mut values, high) = (plane::<4>(low, piece), plane::<2>(high, row));
        for (q, high) in values.iter_mut().zip(high) {
            *q |= high << 4;
        }
        by_halves(out, &values, 32.0, pair);
    }
}

/// Q8_K: d·q with signed bytes, d in single precision; the sums behind them are not needed.
pub(super) fn q8_k(block: &[u8; 292], out: &mut [f32; SIZE]) {
    let rest = &mut block.as_slice();
    let d = f32::from_le_bytes(*field(rest));
    for (out, q) in out.iter_mut().zip(field::<SIZE>(rest)) {
        *out = d * f32::from(q.cast_signed());
    }
}

/// Elements 32·row to 32·row + 31 of a plane of `BITS` bits.
fn plane<const BITS: usize>(plane: &[u8], row: usize) -> [u8; 32] {
    let in_piece = 8 / BITS;
    let (pieces, _) = plane.as_chunks::<32>();
    let piece = pieces.get(row / in_piece).copied().unwrap_or([0; 32]);
    let shift = row % in_piece * BITS;
    piece.map(|byte| byte >> shift & ((1 << BITS) - 1))
}

/// s·q − t for elements that share s and t.
fn scaled<const N: usize>(out: &mut [f32; N], values: &[u8; N], (step, minimum): (f32, f32)) {
    for (out, q) in out.iter_mut().zip(values) {
        *out = step * f32::from(*q) - minimum;
    }
}

/// s·(q − zero) for 32 elements, each half with its own s.
fn by_halves(out: &mut [f32; 32], values: &[u8; 32], zero: f32, steps: &[f32; 2]) {
    let (out, _) = out.as_chunks_mut::<16>();
    let (values, _) = values.as_chunks::<16>();
    for ((out, values), step) in out.iter_mut().zip(values).zip(steps) {
        for (out, q) in out.iter_mut().zip(values) {
            *out = step * (f32::from(*q) - zero);
        }
    }
}
