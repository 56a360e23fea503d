//! The first types of ggml: 32 elements that share a scale, and in some a minimum.
//!
//! With four or five bits, byte i holds the low nibbles of elements i (low half) and i + 16.

use super::scale;

/// Q4_0: d·(q − 8).
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let [d0, d1, quants @ ..] = block;
    let d = scale([*d0, *d1]);
    nibbles(quants, out, |q| d * (f32::from(q) - 8.0));
}

/// Q4_1: d·q + m.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let [d0, d1, m0, m1, quants @ ..] = block;
    let (d, m) = (scale([*d0, *d1]), scale([*m0, *m1]));
    nibbles(quants, out, |q| d * f32::from(q) + m);
}

/// Q5_0: d·(q − 16), the fifth bits in an integer of their own, element 0 in its lowest bit.
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let [d0, d1, h0, h1, h2, h3, quants @ ..] = block;
    let d = scale([*d0, *d1]);
    let mut values = [0.0; 32];
    five_bits(quants, u32::from_le_bytes([*h0, *h1, *h2, *h3]), &mut values);
    for (out, q) in out.iter_mut().zip(values) {
        *out = d * (q - 16.0);
    }
}

/// Q5_1: d·q + m, with the fifth bits of [`q5_0`].
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let [d0, d1, m0, m1, h0, h1, h2, h3, quants @ ..] = block;
    let (d, m) = (scale([*d0, *d1]), scale([*m0, *m1]));
    let mut values = [0.0; 32];
    five_bits(quants, u32::from_le_bytes([*h0, *h1, *h2, *h3]), &mut values);
    for (out, q) in out.iter_mut().zip(values) {
        *out = d * q + m;
    }
}

/// Q8_0: d·q with signed bytes.
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let [d0, d1, quants @ ..] = block;
    let d = scale([*d0, *d1]);
    for (out, q) in out.iter_mut().zip(quants) {
        *out = d * f32::from(q.cast_signed());
    }
}

/// Sixteen bytes to 32 numbers: the low nibbles first, then the high ones.
pub(super) fn nibbles(quants: &[u8; 16], out: &mut [f32; 32], value: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(16);
    for ((low, high), q) in low.iter_mut().zip(high).zip(quants) {
        *low = value(q & 15);
        *high = value(q >> 4);
    }
}

fn five_bits(quants: &[u8; 16], high: u32, out: &mut [f32; 32]) {
    nibbles(quants, out, f32::from);
    for (bit, out) in out.iter_mut().enumerate() {
        *out += ((high >> bit & 1) << 4) as f32;
    }
}
