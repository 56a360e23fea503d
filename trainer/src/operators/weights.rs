//! Takes an operator's weights one after another, from a checkpoint or from a seed, and remembers them.

use std::path::Path;

use evenkeel::Checkpoint;
use evenkeel::tensors::Dtype;
use evenkeel::text::printable;
use tch::{Device, Kind, Tensor};

use super::convolution::{Convolution, Doubling};
use crate::error::{Error, Result};
use crate::model::{ByName, Linear, kind_of, lengths};
use crate::random::{Draws, Purpose};
use crate::training::Parameter;

/// Where weights come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    /// A checkpoint: where it lies, and its tensors by their names.
    Stored(&'a Path, &'a Checkpoint, &'a ByName<'a>),
    /// A seed.
    Seed(u64),
}

/// The weights that were taken so far.
#[derive(Debug)]
pub(super) struct Weights<'a> {
    origin: Origin<'a>,
    device: Device,
    parameters: Vec<Parameter>,
    buffers: Vec<(String, Tensor)>,
}

impl<'a> Weights<'a> {
    pub fn new(origin: Origin<'a>, device: Device) -> Weights<'a> {
        Weights { origin, device, parameters: Vec::new(), buffers: Vec::new() }
    }

    /// Parameters and buffers, in the order in which they were taken.
    pub fn finish(self) -> (Vec<Parameter>, Vec<(String, Tensor)>) {
        (self.parameters, self.buffers)
    }

    /// A matrix with a bias.
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
        let weight = self.uniform(&format!("{name}.weight"), &[outputs, inputs], inputs)?;
        let bias = self.uniform(&format!("{name}.bias"), &[outputs], inputs)?;
        Ok(Linear::plain(weight, bias))
    }

    /// A convolution of `points` along each axis, which must be odd, with zeros around the grid.
    pub fn convolution(
        &mut self,
        name: &str,
        axes: usize,
        inputs: usize,
        outputs: usize,
        points: usize,
        has_bias: bool,
    ) -> Result<Convolution> {
        let shape = [vec![outputs, inputs], vec![points; axes]].concat();
        let summed = inputs * points.pow(axes as u32);
        let weight = self.uniform(&format!("{name}.weight"), &shape, summed)?;
        let bias = has_bias.then(|| self.uniform(&format!("{name}.bias"), &[outputs], summed)).transpose()?;
        Ok(Convolution { weight, bias, padding: (points / 2) as i64 })
    }

    /// A convolution that doubles the grid.
    pub fn doubling(&mut self, name: &str, axes: usize, inputs: usize, outputs: usize) -> Result<Doubling> {
        let shape = [vec![inputs, outputs], vec![2; axes]].concat();
        // As PyTorch counts for transposed kernels, too: by their second dimension.
        let summed = outputs << axes;
        let weight = self.uniform(&format!("{name}.weight"), &shape, summed)?;
        Ok(Doubling { weight, bias: self.uniform(&format!("{name}.bias"), &[outputs], summed)? })
    }

    /// A parameter that begins as PyTorch's linear layers and convolutions do: even in ±1/√summed, `summed`
    /// being the products that are added up for a number of the output.
    fn uniform(&mut self, name: &str, shape: &[usize], summed: usize) -> Result<Tensor> {
        let bound = 1.0 / (summed as f64).sqrt();
        self.parameter(name, shape, |draws| (2.0 * draws.unit() - 1.0) * bound)
    }

    /// Complex weights of some shape, as pairs: the real and the imaginary part begin even in [0, `bound`).
    pub fn complex(&mut self, name: &str, shape: &[usize], bound: f64) -> Result<Tensor> {
        let values = match self.origin {
            Origin::Stored(..) => self.stored(name, shape, Some(Dtype::C64))?,
            Origin::Seed(_) => self.drawn(&[shape, &[2]].concat(), |draws| draws.unit() * bound)?,
        };
        self.keep(name, values, true)
    }

    /// A parameter of one number for each channel, which begins as `value` everywhere.
    pub fn constant(&mut self, name: &str, channels: usize, value: f64) -> Result<Tensor> {
        self.parameter(name, &[channels], |_| value)
    }

    /// What is no parameter, and belongs to the model's state all the same.
    pub fn buffer(&mut self, name: &str, channels: usize, value: f64) -> Result<Tensor> {
        let values = match self.origin {
            Origin::Stored(..) => self.stored(name, &[channels], None)?,
            Origin::Seed(_) => Tensor::f_full([channels as i64], value, (Kind::Float, Device::Cpu))?,
        };
        self.remember(name, values, Kind::Float)
    }

    /// A whole number of the state; files from before PyTorch counted have none.
    pub fn counter(&mut self, name: &str) -> Result<Tensor> {
        let values = match self.origin {
            Origin::Stored(_, _, tensors) if tensors.contains_key(name) => {
                self.stored(name, &[], Some(Dtype::I64))?
            }
            _ => Tensor::f_zeros([0; 0], (Kind::Int64, Device::Cpu))?,
        };
        self.remember(name, values, Kind::Int64)
    }

    fn parameter(
        &mut self,
        name: &str,
        shape: &[usize],
        value: impl Fn(&mut Draws) -> f64,
    ) -> Result<Tensor> {
        let values = match self.origin {
            Origin::Stored(..) => self.stored(name, shape, None)?,
            Origin::Seed(_) => self.drawn(shape, value)?,
        };
        self.keep(name, values, false)
    }

    /// Numbers of a stream of their own: other tensors' sizes do not matter to them.
    fn drawn(&self, shape: &[usize], value: impl Fn(&mut Draws) -> f64) -> Result<Tensor> {
        let seed = if let Origin::Seed(seed) = self.origin { seed } else { 0 };
        let mut draws = Draws::new(seed, Purpose::Weights, self.parameters.len() as u64);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| value(&mut draws) as f32).collect();
        Ok(Tensor::f_from_slice(&values)?.f_view(lengths(shape).as_slice())?)
    }

    /// A tensor of the checkpoint, of just this shape, and of this type or else of real numbers.
    fn stored(&self, name: &str, shape: &[usize], dtype: Option<Dtype>) -> Result<Tensor> {
        let Origin::Stored(path, checkpoint, tensors) = self.origin else {
            return Err(Error::Option(format!("there is no checkpoint to take `{name}` from.")));
        };
        let wrong = |reason: String| Error::Model { path: path.to_path_buf(), reason };
        let Some(tensor) = tensors.get(name) else {
            return Err(wrong(format!("the tensor `{}` is missing.", printable(name))));
        };
        if tensor.shape != shape {
            return Err(wrong(format!(
                "the tensor `{}` has the shape {:?}, and the model's sizes make it {shape:?}.",
                printable(name),
                tensor.shape
            )));
        }
        let kind = match dtype {
            Some(dtype) if dtype != tensor.dtype => None,
            Some(Dtype::C64) => Some(Kind::Float),
            Some(Dtype::I64) => Some(Kind::Int64),
            _ => kind_of(tensor.dtype),
        };
        let kind = kind.ok_or_else(|| {
            let wanted = dtype.map_or("a real number", Dtype::name);
            wrong(format!(
                "the tensor `{}` is of type {}, not {wanted}.",
                printable(name),
                tensor.dtype.name()
            ))
        })?;
        let bytes = checkpoint.read(tensor, 0..tensor.elements)?;
        let pair: &[usize] = if dtype == Some(Dtype::C64) { &[2] } else { &[] };
        Ok(Tensor::f_from_data_size(&bytes, &lengths(&[shape, pair].concat()), kind)?)
    }

    /// Makes a parameter of numbers that nobody else holds. As with the authors, weight decay spares none.
    fn keep(&mut self, name: &str, values: Tensor, is_complex: bool) -> Result<Tensor> {
        let tensor = values.f_to_device_(self.device, Kind::Float, false, false)?;
        let tensor = tensor.f_set_requires_grad(true)?;
        let (name, copy) = (name.to_owned(), tensor.shallow_clone());
        self.parameters.push(Parameter { name, tensor: copy, decays: true, is_complex });
        Ok(tensor)
    }

    fn remember(&mut self, name: &str, values: Tensor, kind: Kind) -> Result<Tensor> {
        let tensor = values.f_to_device_(self.device, kind, false, false)?;
        self.buffers.push((name.to_owned(), tensor.shallow_clone()));
        Ok(tensor)
    }
}
