//! Types whose four bits choose from a table of 16 values.

use super::simple::nibbles;
use super::{field, scale};

/// The values of IQ4_NL and IQ4_XS: denser around zero, as weights are.
const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The values of MXFP4, floats of one sign, two exponent and one mantissa bit, doubled.
const FLOATS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// IQ4_NL: 32 elements, d·v(q).
pub(super) fn iq4_nl(block: &[u8; 18], out: &mut [f32; 32]) {
    let rest = &mut block.as_slice();
    let d = scale(*field(rest));
    nibbles(field(rest), out, |q| d * look_up(&NON_LINEAR, q));
}

/// IQ4_XS: 256 elements, d·(s − 32)·v(q), with s of six bits for 32 elements: the low nibbles two to
/// a byte, the high two bits all in an integer of 16.
pub(super) fn iq4_xs(block: &[u8; 136], out: &mut [f32; 256]) {
    let rest = &mut block.as_slice();
    let (d, high) = (scale(*field(rest)), u16::from_le_bytes(*field(rest)));
    let low = u32::from_le_bytes(*field(rest));
    for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let s = low >> (4 * group) & 15 | (u32::from(high) >> (2 * group) & 3) << 4;
        let step = d * (s as f32 - 32.0);
        nibbles(field(rest), out, |q| step * look_up(&NON_LINEAR, q));
    }
}

/// MXFP4: 32 elements, 2^(e − 128)·v(q). An exponent is never NaN here, as in ggml.
pub(super) fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    let [exponent, quants @ ..] = block;
    // The two smallest powers of two are subnormal.
    let bits = match u32::from(*exponent) {
        small @ 0..2 => 0x0020_0000 << small,
        exponent => (exponent - 1) << 23,
    };
    let d = f32::from_bits(bits);
    nibbles(quants, out, |q| d * look_up(&FLOATS, q));
}

#[allow(clippy::indexing_slicing)] // four bits are below 16
fn look_up(table: &[i8; 16], q: u8) -> f32 {
    f32::from(table[usize::from(q & 15)])
}
