//! The UNet of PDEBench: pairs of convolutions on coarser and coarser grids, and back, with what was there on the
//! way down beside what comes up.

use tch::{TchError, Tensor};

use super::config::Config;
use super::convolution::{Convolution, Doubling};
use super::weights::Weights;
use crate::error::Result;
use crate::training::Mode;

/// All of it.
#[derive(Debug)]
pub(super) struct UNet {
    /// From the finest grid on.
    down: Vec<Pair>,
    bottleneck: Pair,
    /// From the coarsest grid on.
    up: Vec<(Doubling, Pair)>,
    output: Convolution,
}

impl UNet {
    pub fn new(weights: &mut Weights, config: &Config, features: usize, levels: usize) -> Result<UNet> {
        let axes = config.axes;
        let channels = |level: usize| features << level;
        let mut down = Vec::with_capacity(levels);
        let mut inputs = config.inputs;
        for level in 0..levels {
            let number = level + 1;
            let names = (format!("encoder{number}"), format!("enc{number}"));
            down.push(Pair::new(weights, &names, axes, inputs, channels(level))?);
            inputs = channels(level);
        }
        let names = ("bottleneck".to_owned(), "bottleneck".to_owned());
        let bottleneck = Pair::new(weights, &names, axes, inputs, channels(levels))?;
        let mut up = Vec::with_capacity(levels);
        for level in (0..levels).rev() {
            let number = level + 1;
            let doubling =
                weights.doubling(&format!("upconv{number}"), axes, channels(level + 1), channels(level))?;
            let names = (format!("decoder{number}"), format!("dec{number}"));
            up.push((doubling, Pair::new(weights, &names, axes, 2 * channels(level), channels(level))?));
        }
        let output = weights.convolution("conv", axes, features, config.outputs, 1, true)?;
        Ok(UNet { down, bottleneck, up, output })
    }

    /// [examples, points…, inputs] → [examples, points…, outputs]. In training the norms' running means move.
    pub fn forward(&self, states: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let mut x = states.f_movedim_int(-1, 1)?;
        let mut skipped = Vec::with_capacity(self.down.len());
        for pair in &self.down {
            let found = pair.forward(&x, mode)?;
            x = match found.dim() {
                3 => found.f_max_pool1d(2, 2, 0, 1, false)?,
                _ => found.f_max_pool2d(2, 2, 0, 1, false)?,
            };
            skipped.push(found);
        }
        x = self.bottleneck.forward(&x, mode)?;
        for ((doubling, pair), beside) in self.up.iter().zip(skipped.iter().rev()) {
            let raised = doubling.forward(&x)?;
            x = pair.forward(&Tensor::f_cat(&[&raised, beside], 1)?, mode)?;
        }
        self.output.forward(&x)?.f_movedim_int(1, -1)
    }
}

/// Two convolutions of three points an axis, each followed by a norm and tanh.
#[derive(Debug)]
struct Pair {
    halves: [(Convolution, BatchNorm); 2],
}

impl Pair {
    /// The module's name, and how its own begin: `encoder1`, `enc1`.
    fn new(
        weights: &mut Weights,
        (module, short): &(String, String),
        axes: usize,
        inputs: usize,
        outputs: usize,
    ) -> Result<Pair> {
        let mut half = |number: usize, inputs: usize| -> Result<(Convolution, BatchNorm)> {
            let convolution = weights.convolution(
                &format!("{module}.{short}conv{number}"),
                axes,
                inputs,
                outputs,
                3,
                false,
            )?;
            Ok((convolution, BatchNorm::new(weights, &format!("{module}.{short}norm{number}"), outputs)?))
        };
        Ok(Pair { halves: [half(1, inputs)?, half(2, outputs)?] })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let [first, second] = &self.halves;
        let half = |(convolution, norm): &(Convolution, BatchNorm), x: &Tensor| {
            norm.forward(&convolution.forward(x)?, mode)?.f_tanh()
        };
        half(second, &half(first, x)?)
    }
}

/// Normalisation of each channel over examples and points; without training, by the running means.
#[derive(Debug)]
struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    /// How many batches the means are of. PyTorch counts them, and uses the count for nothing here.
    batches: Tensor,
}

impl BatchNorm {
    /// PyTorch's.
    const EPSILON: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    fn new(weights: &mut Weights, name: &str, channels: usize) -> Result<BatchNorm> {
        Ok(BatchNorm {
            weight: weights.constant(&format!("{name}.weight"), channels, 1.0)?,
            bias: weights.constant(&format!("{name}.bias"), channels, 0.0)?,
            mean: weights.buffer(&format!("{name}.running_mean"), channels, 0.0)?,
            variance: weights.buffer(&format!("{name}.running_var"), channels, 1.0)?,
            batches: weights.counter(&format!("{name}.num_batches_tracked"))?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let train = mode == Mode::Train;
        if train {
            let _ = self.batches.shallow_clone().f_add_scalar_(1)?;
        }
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        let (mean, variance) = (Some(&self.mean), Some(&self.variance));
        x.f_batch_norm(weight, bias, mean, variance, train, Self::MOMENTUM, Self::EPSILON, true)
    }
}
