//! From options to a problem: files, split, operator; everything that does not fit is said before any training.

use std::sync::Arc;

use evenkeel::rebalance::fields::Fields;
use evenkeel::rebalance::options::{Options, Subsample};
use evenkeel::text;
use tch::Device;

use super::{Pde, Rollout};
use crate::data::subset::choose_of;
use crate::error::{Error, Result};
use crate::fields::{self, Shape, Strides, Trajectories};
use crate::operators::{Architecture, Config, Network, Source};
use crate::training::evaluation_batch;

/// Frames that an operator is given unless something else is asked for: PDEBench's.
const INITIAL: usize = 10;

impl Pde {
    /// Reads model and data, and checks that they belong together. Returns what a user should know, too.
    ///
    /// # Errors
    /// Whatever does not fit, before anything is trained.
    pub fn open(options: &Options, data: &Fields, device: Device) -> Result<(Pde, Vec<String>)> {
        for (name, asked) in
            [("--bf16", options.training.bf16), ("--gradient-checkpointing", options.training.checkpointing)]
        {
            if asked {
                return Err(Error::Option(format!("{name} is for text models, not for neural operators.")));
            }
        }
        let strides = Strides { space: data.reduce_space, time: data.reduce_time };
        let source = fields::open(&data.train)?;
        fields::check(source.as_ref(), strides, 2)?;
        let shape = fields::reduced(source.shape(), strides);
        let wrong = |reason: String| Error::Data { path: data.train.clone(), reason };

        let start = Start::new(options, data, &shape)?;
        let (config, initial) = (start.config, start.initial);
        config.suits(&shape.grid).map_err(wrong)?;
        fields::check(source.as_ref(), strides, initial + 1)?;

        let mut notes = Vec::new();
        let (train, eval) = match &data.eval {
            None => {
                let (train, held) = fields::split(source.as_ref(), data.test_samples)?;
                (train, (Arc::clone(&source), held))
            }
            Some(path) => {
                let other = fields::open(path)?;
                fields::check(other.as_ref(), strides, initial + 1)?;
                same(&shape, &fields::reduced(other.shape(), strides))
                    .map_err(|reason| Error::Data { path: path.clone(), reason })?;
                let all = (0..other.shape().samples).collect();
                ((0..shape.samples).collect(), (other, all))
            }
        };
        let train = subsample(train, data, options.training.seed)?;
        if let Some(sentence) = lone_example(&config, &shape, train.len(), options.training.batch) {
            return Err(Error::Option(sentence));
        }
        let train = Trajectories::new(source, train, strides, device)?;
        let eval = Trajectories::new(eval.0, eval.1, strides, device)?;
        if !(train.is_held() && eval.is_held()) {
            notes.push("The data does not fit into memory: each batch is read from the file.".to_owned());
        }
        let network = start.network(options.training.seed, device)?;
        notes.push(format!(
            "{}, {} parameters: {} of {} frames are given, {} are predicted, on a grid of {} points with {}.",
            config.kind().name(),
            network.size(),
            initial,
            shape.times,
            shape.times - initial,
            text::shape(&shape.grid),
            shape.channels.join(", ")
        ));
        let rollout = Rollout::new(initial, shape.times, shape.channels.len(), &train.coordinates(), device)?;
        let evaluated = evaluation_batch(options.training.batch);
        Ok((Pde { network, train, eval, rollout, pictures: data.pictures, device, evaluated }, notes))
    }
}

/// The operator to begin with.
struct Start {
    config: Config,
    /// Frames that it is given.
    initial: usize,
    /// Where its weights are; `None`: they begin at random.
    source: Option<Source>,
}

impl Start {
    fn new(options: &Options, data: &Fields, shape: &Shape) -> Result<Start> {
        let channels = shape.channels.len();
        if let Some(init) = &data.init {
            // Of two frames there is one to be given.
            let initial = data.initial_steps.unwrap_or(if shape.times == 2 { 1 } else { INITIAL });
            return Ok(Start {
                config: Config::new(init, initial * channels, channels),
                initial,
                source: None,
            });
        }
        let Some(path) = &options.model else {
            return Err(Error::Option(
                "there is neither a model nor --init, which names the operator to begin with.".to_owned(),
            ));
        };
        let source = Source::open(path)?;
        let config = *source.config();
        let wrong = |reason: String| Err(Error::Model { path: path.clone(), reason });
        if config.outputs != channels || config.inputs % channels != 0 {
            return wrong(format!(
                "the model takes {} channels and gives {}, and the data has {channels} ({}): it was made for other \
                 fields.",
                config.inputs,
                config.outputs,
                shape.channels.join(", ")
            ));
        }
        let initial = config.inputs / channels;
        match data.initial_steps {
            Some(asked) if asked != initial => wrong(format!(
                "the model takes {initial} frames of {channels} channels, and --initial-steps asks for {asked}."
            )),
            _ => Ok(Start { config, initial, source: Some(source) }),
        }
    }

    fn network(&self, seed: u64, device: Device) -> Result<Network> {
        match &self.source {
            Some(source) => source.load(device),
            None => Network::random(self.config, seed, device),
        }
    }
}

fn subsample(samples: Vec<usize>, data: &Fields, seed: u64) -> Result<Vec<usize>> {
    let Subsample { ratio, choice } = data.subsample;
    if ratio == 1.0 {
        return Ok(samples);
    }
    let chosen = choose_of(samples.len(), None, ratio, choice, seed)?;
    Ok(chosen.into_iter().filter_map(|place| samples.get(place).copied()).collect())
}

/// Why evaluation data does not go with the training data.
fn same(train: &Shape, eval: &Shape) -> Result<(), String> {
    let of = |shape: &Shape| (shape.times, shape.grid.clone(), shape.channels.clone());
    if of(train) == of(eval) {
        return Ok(());
    }
    let said = |shape: &Shape| {
        format!(
            "{} frames of {} points with {}",
            shape.times,
            text::shape(&shape.grid),
            shape.channels.join(", ")
        )
    };
    Err(format!("it has {}, and the training data has {}.", said(eval), said(train)))
}

/// A norm over a single number has no variance, and its running means would be NaN from then on.
fn lone_example(config: &Config, shape: &Shape, examples: usize, batch: usize) -> Option<String> {
    let Architecture::UNet { levels, .. } = config.architecture else { return None };
    let coarsest: usize = shape.grid.iter().map(|points| points >> levels).product();
    let last = examples.checked_rem(batch).filter(|rest| *rest > 0).unwrap_or(batch);
    (coarsest == 1 && last == 1).then(|| {
        format!(
            "the last batch of an epoch has one example ({examples} in batches of {batch}), and the UNet's coarsest grid \
             one point: its norms would be of a single number. Choose another --batch, or fewer --levels."
        )
    })
}
