//! The four 8-bit floats, widened through tables that are computed at build time.
//!
//! E4M3 and E5M2 as in Micikevicius et al. 2022 (arXiv 2209.05433), the FNUZ variants as in Noune
//! et al. 2022 (arXiv 2206.02915): no infinities, no negative zero, `0x80` is NaN, bias one higher.

/// Values of E4M3: bias 7, no infinities, `S.1111.111` is NaN.
pub static E4M3: [f64; 256] = table(3, 7, Special::NanAtOnes);
/// Values of E5M2: bias 15, infinities and NaNs as in IEEE 754.
pub static E5M2: [f64; 256] = table(2, 15, Special::Ieee);
/// Values of E4M3 FNUZ: bias 8.
pub static E4M3_FNUZ: [f64; 256] = table(3, 8, Special::NanAtNegativeZero);
/// Values of E5M2 FNUZ: bias 16.
pub static E5M2_FNUZ: [f64; 256] = table(2, 16, Special::NanAtNegativeZero);

#[derive(Clone, Copy)]
enum Special {
    Ieee,
    NanAtOnes,
    NanAtNegativeZero,
}

#[allow(clippy::indexing_slicing)] // the loop ends at the array's length
const fn table(mantissa_bits: u32, bias: i32, special: Special) -> [f64; 256] {
    let mut values = [0.0; 256];
    let mut code = 0;
    while code < 256 {
        values[code] = value(code as u32, mantissa_bits, bias, special);
        code += 1;
    }
    values
}

const fn value(code: u32, mantissa_bits: u32, bias: i32, special: Special) -> f64 {
    let magnitude = code & 0x7f;
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    let mantissa = magnitude & ((1 << mantissa_bits) - 1);
    let exponent = (magnitude >> mantissa_bits) as i32;
    let all_ones = (1 << (7 - mantissa_bits)) - 1;
    match special {
        Special::Ieee if exponent == all_ones => {
            return if mantissa == 0 { sign * f64::INFINITY } else { f64::NAN };
        }
        Special::NanAtOnes if magnitude == 0x7f => return f64::NAN,
        Special::NanAtNegativeZero if code == 0x80 => return f64::NAN,
        _ => {}
    }
    let steps = (1 << mantissa_bits) as f64;
    if exponent == 0 {
        sign * (mantissa as f64 / steps) * power_of_two(1 - bias)
    } else {
        sign * (1.0 + mantissa as f64 / steps) * power_of_two(exponent - bias)
    }
}

const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The extreme values that the two papers print in their tables of formats.
    #[test]
    fn published_extremes() {
        assert_eq!(E4M3[0x7e], 448.0);
        assert_eq!(E4M3[0x01], 2f64.powi(-9));
        assert!(E4M3[0xff].is_nan() && E4M3[0x7f].is_nan());
        assert_eq!(E5M2[0x7b], 57344.0);
        assert_eq!(E5M2[0x01], 2f64.powi(-16));
        assert_eq!(E5M2[0xfc], f64::NEG_INFINITY);
        assert!(E5M2[0x7d].is_nan());
        assert_eq!(E4M3_FNUZ[0x7f], 240.0);
        assert_eq!(E5M2_FNUZ[0x7f], 57344.0);
        assert!(E4M3_FNUZ[0x80].is_nan() && E5M2_FNUZ[0x80].is_nan());
    }

    /// Every finite value is monotone in its code, in every format.
    #[test]
    fn codes_are_ordered() {
        for values in [&E4M3, &E5M2, &E4M3_FNUZ, &E5M2_FNUZ] {
            for pair in values[..128].windows(2) {
                let ordered = pair[0] < pair[1] || pair[1].is_nan();
                assert!(ordered, "{pair:?}");
            }
        }
    }
}
