//! A neural operator and the trajectories that it learns from as a [`Problem`].
//!
//! The operator is given some frames and predicts the next one, which takes the place of the oldest, and so on to the
//! end of the trajectory. The loss is the sum of the mean squared errors of all predicted frames, and gradients
//! go back through all of them. A problem of one step, such as Darcy flow, is a trajectory of two frames.

mod errors;
mod open;
mod rollout;
mod samples;

use std::path::Path;

use evenkeel::rebalance::options::Options;
use evenkeel::source::ModelConfig;
use serde_json::{Value, json};
use tch::{Device, Tensor};

use crate::error::Result;
use crate::fields::Trajectories;
use crate::memory::{self, Need, Parts};
use crate::operators::{Architecture, Config, Network, Source};
use crate::training::{Mode, Parameter, Problem, Score};
use errors::Errors;

pub use rollout::Rollout;

/// An operator and its trajectories.
pub struct Pde {
    network: Network,
    train: Trajectories,
    eval: Trajectories,
    rollout: Rollout,
    /// Evaluation samples that are drawn at the end.
    pictures: usize,
    device: Device,
    /// Samples of an evaluation batch.
    evaluated: usize,
}

impl Pde {
    /// The errors of a network on all evaluation samples.
    fn errors(&self, network: &Network, done: &mut dyn FnMut(usize, usize)) -> Result<Errors> {
        let shape = self.eval.shape();
        let mut errors = Errors::new(self.rollout.initial(), shape.times, &shape.channels);
        let all: Vec<usize> = (0..self.eval.len()).collect();
        let mut passed = 0;
        for places in all.chunks(self.evaluated) {
            let frames = self.eval.batch(places)?;
            self.rollout.run(network, &frames, Mode::Evaluate, |time, next| {
                errors.add(time, next, &frames.f_select(1, time as i64)?)
            })?;
            passed += places.len();
            done(passed, self.eval.len());
        }
        Ok(errors)
    }

    /// Bytes that a batch takes of which this many frames are kept: for the backward pass all that are predicted.
    fn batch_bytes(&self, batch: usize, kept: usize) -> u64 {
        let shape = self.train.shape();
        let points: usize = shape.grid.iter().product();
        // And the trajectories themselves.
        let frames = (shape.times * shape.channels.len() * points) as u64;
        4 * batch as u64 * (kept as u64 * values_kept(self.network.config(), points) + frames)
    }
}

/// Numbers that the backward pass of one frame wants, of one sample on a grid of so many points.
fn values_kept(config: &Config, points: usize) -> u64 {
    let points = points as u64;
    match config.architecture {
        // The input, two tensors of each layer, the projection before and after its nonlinearity, and the
        // frequencies that were kept, of the field and of its gradient.
        Architecture::Fno { width, modes } => {
            let (hidden, _, layers) = Config::constants();
            let (width, layers) = (width as u64, layers as u64);
            let frequencies = 2 * config.axes as u64 * (modes as u64).pow(config.axes as u32);
            let of_point =
                config.inputs as u64 + config.axes as u64 + (2 * layers + 2) * width + 2 * hidden as u64;
            points * of_point + 2 * layers * width * frequencies
        }
        // Of each convolution the input and what its norm is of: four tensors of a pair, and two that are
        // joined on the way up.
        Architecture::UNet { features, levels } => {
            let of_level = |level: usize| {
                let points = points >> (level * config.axes);
                points * (features << level) as u64
            };
            let way: u64 = (0..levels).map(|level| 10 * of_level(level)).sum();
            points * config.inputs as u64 + way + 4 * of_level(levels)
        }
    }
}

impl Problem for Pde {
    fn parameters(&self) -> &[Parameter] {
        self.network.parameters()
    }

    fn buffers(&self) -> &[(String, Tensor)] {
        self.network.buffers()
    }

    fn config(&self) -> Option<ModelConfig> {
        Some(ModelConfig::from_value(self.network.config().json()))
    }

    fn examples(&self) -> usize {
        self.train.len()
    }

    fn evaluation_examples(&self) -> usize {
        self.eval.len()
    }

    fn memory(&self, options: &Options) -> Need {
        let parameters: u64 = self.parameters().iter().map(|p| p.tensor.numel() as u64).sum();
        let batch = self.batch_bytes(options.training.batch.min(self.train.len()), self.rollout.predicted());
        // Less than what training keeps of one frame is there at a time.
        let evaluation = self.batch_bytes(self.evaluated.min(self.eval.len()), 1);
        let parts = Parts {
            learning: 4 * parameters,
            frozen: 0,
            batch,
            evaluation,
            program: memory::PROGRAM,
            is_repeated: self.rollout.predicted() > 1,
        };
        memory::need_for(&options.optimizer, &options.training, parts)
    }

    fn loss(&self, examples: &[usize]) -> Result<Tensor> {
        self.rollout.loss(&self.network, &self.train.batch(examples)?)
    }

    fn evaluate(&self, done: &mut dyn FnMut(usize, usize)) -> Result<Vec<Score>> {
        Ok(self.errors(&self.network, done)?.scores())
    }

    fn write(&self, directory: &Path) -> Result<()> {
        self.network.write(directory)
    }

    /// The errors of each channel and of each frame, and pictures of the first evaluation samples.
    fn examine(&self, result: &Path, pictures: &Path) -> Result<Option<Value>> {
        let network = Source::open(result)?.load(self.device)?;
        let errors = self.errors(&network, &mut |_, _| {})?;
        let drawn = samples::draw(self, &network, pictures)?;
        Ok(Some(json!({ "errors": errors.report(), "samples": drawn })))
    }
}
