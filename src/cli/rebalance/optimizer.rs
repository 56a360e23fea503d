//! The arguments about the optimizer and its rate.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use evenkeel::balance::Decay;
use evenkeel::rebalance::options::{Optimizer, OptimizerKind, Rate, Sam};
use evenkeel::rebalance::presets::Defaults;

use super::values::positive;

#[derive(Debug, Args)]
#[command(next_help_heading = "Optimizer")]
pub struct OptimizerArgs {
    /// The optimizer [default: adamw; adam for fields]
    #[arg(long, value_enum)]
    optimizer: Option<OptimizerName>,
    /// The highest base learning rate [default: the preset's, else 2e-5; with --lora 4e-4; 2.5e-3 for fields]
    #[arg(long, visible_alias = "lr", value_name = "X")]
    learning_rate: Option<f64>,
    /// How it falls after the warm-up [default: linear; step for fields]
    #[arg(long, value_enum)]
    decay: Option<DecayName>,
    /// Epochs between two steps of --decay step
    #[arg(long, value_name = "N", default_value_t = 100)]
    step_epochs: u64,
    /// What the rate is multiplied by at a step
    #[arg(long, value_name = "X", default_value_t = 0.5)]
    step_factor: f64,
    /// The part of all steps in which the rate rises from 0 [default: 0.06; 0 for fields]
    #[arg(long, value_name = "X")]
    warmup: Option<f64>,
    /// On everything but a text model's biases and norms; decoupled for adamw, else added to the gradient
    /// [default: 0.1; 1e-4 for fields]
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

impl OptimizerArgs {
    /// The base rate over the run, at its peak `peak` where none was given.
    pub fn rate(&self, defaults: &Defaults, peak: f64) -> Result<Rate> {
        let decay = match self.decay.unwrap_or(if defaults.of_fields {
            DecayName::Step
        } else {
            DecayName::Linear
        }) {
            DecayName::Linear => Decay::Linear,
            DecayName::Cosine => Decay::Cosine,
            DecayName::Step => Decay::Step { every_epochs: self.step_epochs, gamma: self.step_factor },
            DecayName::Constant => Decay::Constant,
        };
        let warmup = self.warmup.unwrap_or(defaults.warmup);
        if !(0.0..1.0).contains(&warmup) {
            bail!("--warmup is a part of all steps: at least 0 and below 1.");
        }
        let peak = positive("--learning-rate", self.learning_rate)?.unwrap_or(peak);
        Ok(Rate { peak, decay, warmup })
    }

    /// The optimizer.
    pub fn resolve(&self, defaults: &Defaults) -> Result<Optimizer> {
        let kind = match self.optimizer.unwrap_or(if defaults.of_fields {
            OptimizerName::Adam
        } else {
            OptimizerName::AdamW
        }) {
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
