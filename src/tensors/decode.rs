//! From stored bytes to `f64`, exactly: every type read here is a subset of `f64`.

use half::{bf16, f16};

use super::{Dtype, float8};

/// Widens `out.len()` real numbers to `f64`, starting at element `first` of `bytes` and going on
/// in steps of `stride` elements. A [`Dtype::C64`] tensor is read as twice as many F32.
///
/// Elements that lie beyond the end of `bytes` are left as they are; the readers have checked the
/// ranges before, so that this never happens for a tensor of theirs.
///
/// # Panics
/// For types that are no real numbers: the stage of the matrices never passes one.
pub fn decode(dtype: Dtype, bytes: &[u8], first: usize, stride: usize, out: &mut [f64]) {
    match dtype {
        Dtype::F64 => widen::<8>(bytes, first, stride, out, f64::from_le_bytes),
        Dtype::F32 | Dtype::C64 => widen::<4>(bytes, first, stride, out, |b| f32::from_le_bytes(b).into()),
        Dtype::F16 => widen::<2>(bytes, first, stride, out, |b| f16::from_le_bytes(b).into()),
        Dtype::BF16 => widen::<2>(bytes, first, stride, out, |b| bf16::from_le_bytes(b).into()),
        Dtype::F8E4M3 => widen::<1>(bytes, first, stride, out, |[b]| look_up(&float8::E4M3, b)),
        Dtype::F8E5M2 => widen::<1>(bytes, first, stride, out, |[b]| look_up(&float8::E5M2, b)),
        Dtype::F8E4M3Fnuz => widen::<1>(bytes, first, stride, out, |[b]| look_up(&float8::E4M3_FNUZ, b)),
        Dtype::F8E5M2Fnuz => widen::<1>(bytes, first, stride, out, |[b]| look_up(&float8::E5M2_FNUZ, b)),
        _ => unreachable!("{} holds no real numbers", dtype.name()),
    }
}

#[allow(clippy::indexing_slicing)] // every byte is below 256
fn look_up(table: &[f64; 256], code: u8) -> f64 {
    table[usize::from(code)]
}

fn widen<const N: usize>(
    bytes: &[u8],
    first: usize,
    stride: usize,
    out: &mut [f64],
    value: impl Fn([u8; N]) -> f64,
) {
    let rest = bytes.get(first.saturating_mul(N)..).unwrap_or(&[]);
    let (elements, _) = rest.as_chunks::<N>();
    // The contiguous case is kept apart because only there the compiler can vectorise.
    if stride == 1 {
        for (out, element) in out.iter_mut().zip(elements) {
            *out = value(*element);
        }
    } else {
        for (out, element) in out.iter_mut().zip(elements.iter().step_by(stride.max(1))) {
            *out = value(*element);
        }
    }
}

/// What one pass over the numbers of a tensor finds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Survey {
    /// How many are NaN.
    pub nan: u64,
    /// How many are infinite.
    pub infinite: u64,
    /// The largest absolute value among the finite ones; 0 where there is none.
    pub max_abs: f64,
}

impl Survey {
    /// Adds what another part of the same matrix held.
    pub fn merge(self, other: Survey) -> Survey {
        Survey {
            nan: self.nan.saturating_add(other.nan),
            infinite: self.infinite.saturating_add(other.infinite),
            max_abs: self.max_abs.max(other.max_abs),
        }
    }

    /// Says what is not finite; `None` where everything is.
    pub fn describe(&self) -> Option<String> {
        (!self.is_finite()).then(|| format!("{} NaN and {} infinite elements", self.nan, self.infinite))
    }

    /// Whether every number is finite.
    pub fn is_finite(&self) -> bool {
        self.nan == 0 && self.infinite == 0
    }
}

/// Looks over numbers that [`decode`] has widened.
pub fn survey(values: &[f64]) -> Survey {
    // `max` ignores NaN, and an infinity stays: one vectorisable pass for the usual, finite case.
    let max_abs = values.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
    let any_nan = values.iter().any(|v| v.is_nan());
    if max_abs.is_finite() && !any_nan {
        return Survey { max_abs, ..Survey::default() };
    }
    let mut found = Survey::default();
    for value in values {
        if value.is_nan() {
            found.nan += 1;
        } else if value.is_infinite() {
            found.infinite += 1;
        } else {
            found.max_abs = found.max_abs.max(value.abs());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_real_type_is_widened_exactly() {
        let values = [0.0, -1.5, 0.15625, 2.0];
        let mut out = [0.0; 4];
        let f32s: Vec<u8> = values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect();
        decode(Dtype::F32, &f32s, 0, 1, &mut out);
        assert_eq!(out, values);
        let f16s: Vec<u8> = values.iter().flat_map(|v| f16::from_f64(*v).to_le_bytes()).collect();
        decode(Dtype::F16, &f16s, 0, 1, &mut out);
        assert_eq!(out, values);
        let bf16s: Vec<u8> = values.iter().flat_map(|v| bf16::from_f64(*v).to_le_bytes()).collect();
        decode(Dtype::BF16, &bf16s, 0, 1, &mut out);
        assert_eq!(out, values);
        let f64s: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut strided = [0.0; 2];
        decode(Dtype::F64, &f64s, 1, 2, &mut strided);
        assert_eq!(strided, [-1.5, 2.0]);
    }

    #[test]
    fn a_survey_counts_what_is_not_finite() {
        let found = survey(&[1.0, f64::NAN, -3.0, f64::INFINITY, f64::NEG_INFINITY]);
        assert_eq!((found.nan, found.infinite, found.max_abs), (1, 2, 3.0));
        assert!(!found.is_finite());
        assert!(survey(&[-2.0]).is_finite());
    }
}
