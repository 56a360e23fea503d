//! The arguments about the optimizer and the loop.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use evenkeel::balance::Decay;
use evenkeel::rebalance::options::{Keep, Optimizer, OptimizerKind, Rate, Sam, Training};
use evenkeel::rebalance::presets::Defaults;

use super::values::positive;

#[derive(Debug, Args)]
#[command(next_help_heading = "Optimizer")]
pub struct OptimizerArgs {
    /// The optimizer
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: OptimizerName,
    /// The highest base learning rate [default: the preset's, else 2e-5; with --lora 4e-4]
    #[arg(long, visible_alias = "lr", value_name = "X")]
    learning_rate: Option<f64>,
    /// How it falls after the warm-up
    #[arg(long, value_enum, default_value = "linear")]
    decay: DecayName,
    /// Epochs between two steps of --decay step
    #[arg(long, value_name = "N", default_value_t = 100)]
    step_epochs: u64,
    /// What the rate is multiplied by at a step
    #[arg(long, value_name = "X", default_value_t = 0.5)]
    step_factor: f64,
    /// The part of all steps in which the rate rises from 0
    #[arg(long, value_name = "X", default_value_t = 0.06)]
    warmup: f64,
    /// On everything but biases and norms [default: 0.1]
    #[arg(long, value_name = "X")]
    weight_decay: Option<f64>,
    /// Decay of the first moment; momentum of sgd
    #[arg(long, value_name = "X", default_value_t = 0.9)]
    beta1: f64,
    /// Decay of the second moment
    #[arg(long, value_name = "X", default_value_t = 0.999)]
    beta2: f64,
    /// Added to the denominator
    #[arg(long, value_name = "X", default_value_t = 1e-8)]
    epsilon: f64,
    /// Sharpness-aware minimisation with this radius
    #[arg(long, value_name = "RHO")]
    sam: Option<f64>,
    /// The radius of --sam is relative to each weight
    #[arg(long, requires = "sam")]
    adaptive_sam: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OptimizerName {
    #[value(name = "adamw")]
    AdamW,
    Adam,
    Adafactor,
    Sgd,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DecayName {
    Linear,
    Cosine,
    Step,
    Constant,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// Passes over the training examples [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,
    /// Examples in a batch [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Batches whose gradients are added up for one step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    accumulate: u32,
    /// Scale gradients down to this norm; 0 leaves them
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    clip: f64,
    /// Keep only the inputs of blocks for the backward pass: less memory, a third more time
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Matrix products in bfloat16
    #[arg(long)]
    bf16: bool,
    /// Everything random follows from it
    #[arg(long, value_name = "N", default_value_t = 13)]
    seed: u64,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// Threads of the CPU [default: what the machine or its container allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Steps between two states on the disk [default: once an epoch]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    save_steps: Option<u64>,
    /// Which state is the result
    #[arg(long, value_enum, default_value = "best")]
    keep: KeepName,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeepName {
    Best,
    Last,
}

impl OptimizerArgs {
    /// The base learning rate, at its peak the usual one where none was given.
    pub fn rate(&self, usual: f64) -> Result<Rate> {
        let decay = match self.decay {
            DecayName::Linear => Decay::Linear,
            DecayName::Cosine => Decay::Cosine,
            DecayName::Step => Decay::Step { every_epochs: self.step_epochs, gamma: self.step_factor },
            DecayName::Constant => Decay::Constant,
        };
        if !(0.0..1.0).contains(&self.warmup) {
            bail!("--warmup is a part of all steps: at least 0 and below 1.");
        }
        let peak = positive("--learning-rate", self.learning_rate)?.unwrap_or(usual);
        Ok(Rate { peak, decay, warmup: self.warmup })
    }

    /// The optimizer and its numbers.
    pub fn resolve(&self, defaults: &Defaults) -> Result<Optimizer> {
        let kind = match self.optimizer {
            OptimizerName::AdamW => OptimizerKind::AdamW,
            OptimizerName::Adam => OptimizerKind::Adam,
            OptimizerName::Adafactor => OptimizerKind::Adafactor,
            OptimizerName::Sgd => OptimizerKind::Sgd,
        };
        for (name, value) in [("--beta1", self.beta1), ("--beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                bail!("{name} is at least 0 and below 1.");
            }
        }
        let weight_decay = self.weight_decay.unwrap_or(defaults.weight_decay);
        if !(0.0..f64::INFINITY).contains(&weight_decay) {
            bail!("--weight-decay is a number of at least 0.");
        }
        positive("--epsilon", Some(self.epsilon))?;
        let sam = positive("--sam", self.sam)?.map(|rho| Sam { rho, adaptive: self.adaptive_sam });
        Ok(Optimizer { kind, beta1: self.beta1, beta2: self.beta2, epsilon: self.epsilon, weight_decay, sam })
    }
}

impl TrainingArgs {
    /// Which state becomes the result.
    pub fn keep(&self) -> Keep {
        match self.keep {
            KeepName::Best => Keep::Best,
            KeepName::Last => Keep::Last,
        }
    }

    /// The loop's numbers.
    pub fn resolve(&self, defaults: &Defaults) -> Result<Training> {
        if !(0.0..f64::INFINITY).contains(&self.clip) {
            bail!("--clip is a norm of at least 0.");
        }
        Ok(Training {
            epochs: self.epochs.unwrap_or(defaults.epochs),
            batch: self.batch.map_or(defaults.batch, |n| n as usize),
            accumulation: self.accumulate as usize,
            clip: self.clip,
            checkpointing: self.gradient_checkpointing,
            bf16: self.bf16,
            seed: self.seed,
            device: self.device.clone(),
            threads: self.threads.map_or(0, usize::from),
            save_steps: self.save_steps,
        })
    }
}
