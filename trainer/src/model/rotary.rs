//! Rotary positions (Su et al. 2021): pairs of a head's numbers are turned by an angle that grows with the
//! position, each pair with a wavelength of its own. Wavelengths and their scalings are transformers'.

use std::f64::consts::TAU;

use tch::{Device, Kind, TchError, Tensor};

use super::config::{DecoderConfig, Scaling};

/// The angles of a model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotary {
    head: usize,
    base: f64,
    scaling: Scaling,
}

/// Cosine and sine of every position, length × head.
#[derive(Debug)]
pub(super) struct Angles {
    cosine: Tensor,
    sine: Tensor,
}

impl Rotary {
    pub fn new(config: &DecoderConfig) -> Rotary {
        Rotary { head: config.head, base: config.rotary.base, scaling: config.rotary.scaling }
    }

    /// The angles for inputs of a length.
    pub fn angles(&self, length: i64, device: Device) -> Result<Angles, TchError> {
        let (turns, factor) = self.turns(length as f64);
        let turns = Tensor::f_from_slice(&turns)?.f_to(device)?;
        let positions = Tensor::f_arange(length, (Kind::Float, device))?;
        let half = positions.f_outer(&turns)?;
        let angles = Tensor::f_cat(&[&half, &half], 1)?;
        Ok(Angles {
            cosine: angles.f_cos()?.f_mul_scalar(factor)?,
            sine: angles.f_sin()?.f_mul_scalar(factor)?,
        })
    }

    /// The angle from one position to the next, for each pair, and the factor of cosine and sine.
    fn turns(&self, length: f64) -> (Vec<f32>, f64) {
        let width = self.head as f64;
        let base = match self.scaling {
            Scaling::Dynamic { factor, original } if length > original => {
                let stretch = factor * length / original - (factor - 1.0);
                self.base * stretch.powf(width / (width - 2.0))
            }
            _ => self.base,
        };
        let of = |pair: usize| {
            let plain = base.powf(-2.0 * pair as f64 / width);
            match self.scaling {
                Scaling::None | Scaling::Dynamic { .. } => plain,
                Scaling::Linear { factor } => plain / factor,
                Scaling::Llama3 { factor, low, high, original } => {
                    // How often the wave fits into the original length: 0 of it below `low`, all above `high`.
                    let kept = ((original * plain / TAU - low) / (high - low)).clamp(0.0, 1.0);
                    (1.0 - kept) * plain / factor + kept * plain
                }
                Scaling::Yarn { factor, from, to, .. } => {
                    let divided = ((pair as f64 - from) / (to - from)).clamp(0.0, 1.0);
                    divided * plain / factor + (1.0 - divided) * plain
                }
            }
        };
        let attention = match self.scaling {
            Scaling::Yarn { attention, .. } => attention,
            _ => 1.0,
        };
        ((0..self.head / 2).map(|pair| of(pair) as f32).collect(), attention)
    }
}

impl Angles {
    /// Turns what has the shape examples × heads × length × head.
    pub fn turn(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let kind = x.f_kind()?;
        let (cosine, sine) = (self.cosine.f_to_kind(kind)?, self.sine.f_to_kind(kind)?);
        let half = x.size().last().copied().unwrap_or(0) / 2;
        let turned = Tensor::f_cat(&[&x.f_narrow(-1, half, half)?.f_neg()?, &x.f_narrow(-1, 0, half)?], -1)?;
        x.f_mul(&cosine)?.f_add(&turned.f_mul(&sine)?)
    }

    /// The same tensors once more.
    pub fn shallow_clone(&self) -> Angles {
        Angles { cosine: self.cosine.shallow_clone(), sine: self.sine.shallow_clone() }
    }
}
