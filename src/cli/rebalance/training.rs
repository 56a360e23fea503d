//! The arguments about the loop.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use evenkeel::rebalance::options::{Keep, Training};
use evenkeel::rebalance::presets::Defaults;

#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub struct TrainingArgs {
    /// Passes over the training examples [default: 10; 500 for fields]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    epochs: Option<u64>,
    /// Examples in a batch [default: 16; 20 for fields]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// Batches whose gradients are added up for one step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    accumulate: u32,
    /// Scale gradients down to this norm; 0 leaves them [default: 1; 0 for fields]
    #[arg(long, value_name = "X")]
    clip: Option<f64>,
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
        let clip = self.clip.unwrap_or(defaults.clip);
        if !(0.0..f64::INFINITY).contains(&clip) {
            bail!("--clip is a norm of at least 0.");
        }
        Ok(Training {
            epochs: self.epochs.unwrap_or(defaults.epochs),
            batch: self.batch.map_or(defaults.batch, |n| n as usize),
            accumulation: self.accumulate as usize,
            clip,
            checkpointing: self.gradient_checkpointing,
            bf16: self.bf16,
            seed: self.seed,
            device: self.device.clone(),
            threads: self.threads.map_or(0, usize::from),
            save_steps: self.save_steps,
        })
    }
}
