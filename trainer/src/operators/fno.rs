//! The Fourier neural operator (Li et al. 2021, arXiv 2010.08895) as PDEBench has it: no norm, no residual.

use tch::{TchError, Tensor};

use super::config::Config;
use super::convolution::Convolution;
use super::weights::Weights;
use crate::error::Result;
use crate::model::Linear;

/// Lifting, Fourier layers, projection.
#[derive(Debug)]
pub(super) struct Fno {
    lift: Linear,
    layers: Vec<Layer>,
    project: Linear,
    output: Linear,
    axes: usize,
    padding: i64,
}

/// Frequencies mixed with complex weights, beside a convolution of a single point.
#[derive(Debug)]
struct Layer {
    spectral: Spectral,
    point: Convolution,
}

impl Fno {
    pub fn new(weights: &mut Weights, config: &Config, width: usize, modes: usize) -> Result<Fno> {
        let (hidden, padding, layers) = Config::constants();
        let axes = config.axes;
        let lift = weights.linear("fc0", config.inputs + axes, width)?;
        let mut spectral = Vec::with_capacity(layers);
        for layer in 0..layers {
            spectral.push(Spectral::new(weights, layer, axes, width, modes)?);
        }
        let mut all = Vec::with_capacity(layers);
        for (layer, spectral) in spectral.into_iter().enumerate() {
            let point = weights.convolution(&format!("w{layer}"), axes, width, width, 1, true)?;
            all.push(Layer { spectral, point });
        }
        Ok(Fno {
            lift,
            layers: all,
            project: weights.linear("fc1", width, hidden)?,
            output: weights.linear("fc2", hidden, config.outputs)?,
            axes,
            padding: padding as i64,
        })
    }

    /// [examples, points…, inputs] and the places of the points [points…, axes] → [examples, points…, outputs].
    pub fn forward(&self, states: &Tensor, places: &Tensor) -> Result<Tensor, TchError> {
        let mut shape = states.size();
        if let Some(last) = shape.last_mut() {
            *last = self.axes as i64;
        }
        let places = places.f_unsqueeze(0)?.f_expand(&shape, false)?;
        let x = self.lift.forward(&Tensor::f_cat(&[states, &places], -1)?, false)?;
        let padded = [0, self.padding].repeat(self.axes);
        let mut x = x.f_movedim_int(-1, 1)?.f_constant_pad_nd(padded)?;
        for (number, layer) in self.layers.iter().enumerate() {
            x = layer.spectral.forward(&x)?.f_add(&layer.point.forward(&x)?)?;
            if number + 1 < self.layers.len() {
                x = x.f_gelu("none")?;
            }
        }
        for (axis, points) in (2..).zip(shape.iter().skip(1).take(self.axes)) {
            x = x.f_narrow(axis, 0, *points)?;
        }
        let x = self.project.forward(&x.f_movedim_int(1, -1)?, false)?.f_gelu("none")?;
        self.output.forward(&x, false)
    }
}

/// The lowest frequencies, each times a complex matrix of its own.
#[derive(Debug)]
struct Spectral {
    /// [inputs, outputs, modes…, 2]: of the positive frequencies of the first axis, and of the negative ones
    /// where there are two. The last axis has only positive ones, because fields are real.
    weights: Vec<Tensor>,
    modes: i64,
}

impl Spectral {
    fn new(weights: &mut Weights, layer: usize, axes: usize, width: usize, modes: usize) -> Result<Spectral> {
        let corner = |corner: usize| {
            let shape = [vec![width, width], vec![modes; axes]].concat();
            weights.complex(&format!("conv{layer}.weights{corner}"), &shape, 1.0 / (width * width) as f64)
        };
        Ok(Spectral { weights: (1..=axes).map(corner).collect::<Result<_>>()?, modes: modes as i64 })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let size = x.size();
        let points = size.get(2..).unwrap_or_default();
        let axes: Vec<i64> = (2..).take(points.len()).collect();
        let found = x.f_fft_rfftn(None::<i64>, axes.as_slice(), "backward")?;
        let mixed = found.f_zeros_like()?;
        let last = points.first().map_or(0, |points| points - self.modes);
        let is_line = points.len() == 1;
        let equation = if is_line { "bix,iox->box" } else { "bixy,ioxy->boxy" };
        for (first, weights) in [0, last].into_iter().zip(&self.weights) {
            let of = |spectrum: &Tensor| {
                let part = spectrum.f_narrow(2, first, self.modes)?;
                if is_line { Ok(part) } else { part.f_narrow(3, 0, self.modes) }
            };
            let product =
                Tensor::f_einsum(equation, &[of(&found)?, weights.f_view_as_complex()?], None::<i64>)?;
            of(&mixed)?.f_copy_(&product)?;
        }
        mixed.f_fft_irfftn(points, axes.as_slice(), "backward")
    }
}
