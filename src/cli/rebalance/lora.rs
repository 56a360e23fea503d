//! The arguments about adapters of low rank.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use evenkeel::rebalance::options::{Lora, LoraSpectra, Targets};

use super::values::positive;

/// What `--lora-targets` says for all matrices.
const ALL: &str = "all-linear";

#[derive(Debug, Args)]
#[command(next_help_heading = "Adapters (LoRA)")]
pub struct LoraArgs {
    /// Leave the weights as they are, and learn an update of this rank beside them (the paper: 8); the
    /// result is a PEFT adapter
    #[arg(long, value_name = "RANK", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    lora: Option<u32>,
    /// The update's scale is this over the rank [default: twice the rank, as in the paper]
    #[arg(long, value_name = "X", requires = "lora")]
    lora_alpha: Option<f64>,
    /// Dropout on what enters an adapter
    #[arg(long, value_name = "X", default_value_t = 0.05, requires = "lora")]
    lora_dropout: f64,
    /// The matrices that get an adapter, by names as q_proj, or all-linear [default: queries and values]
    #[arg(long, value_name = "A,B,…|all-linear", value_delimiter = ',', requires = "lora")]
    lora_targets: Vec<String>,
    /// Modules to train whole beside the head, by the ends of their names
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', requires = "lora")]
    lora_save: Vec<String>,
    /// The scale is alpha over the root of the rank (rsLoRA)
    #[arg(long, requires = "lora")]
    rslora: bool,
    /// Spectra are of W + scale·B·A, or of W + B·A, as in the code of the paper's authors
    #[arg(long, value_enum, default_value = "scaled", requires = "lora")]
    lora_spectra: SpectraName,
    /// Write the whole model with the updates in its weights, and no adapter
    #[arg(long, requires = "lora")]
    merge: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SpectraName {
    Scaled,
    Unscaled,
}

impl LoraArgs {
    /// What adapters were asked for.
    pub fn resolve(&self) -> Result<Option<Lora>> {
        let Some(rank) = self.lora else { return Ok(None) };
        if !(0.0..1.0).contains(&self.lora_dropout) {
            bail!("--lora-dropout is a probability: at least 0 and below 1.");
        }
        if self.merge && matches!(self.lora_spectra, SpectraName::Unscaled) {
            bail!("--merge writes W + scale·B·A: its spectra are not those of --lora-spectra unscaled.");
        }
        let targets = match self.lora_targets.as_slice() {
            [] => Targets::Usual,
            [only] if only == ALL => Targets::AllLinear,
            names if names.iter().any(|name| name == ALL) => {
                bail!("--lora-targets {ALL} takes all matrices: no other name goes with it.");
            }
            names => Targets::Named(named("--lora-targets", names)?),
        };
        let usual = 2.0 * f64::from(rank);
        Ok(Some(Lora {
            rank: rank as usize,
            alpha: positive("--lora-alpha", self.lora_alpha)?.unwrap_or(usual),
            rank_stabilised: self.rslora,
            dropout: self.lora_dropout,
            targets,
            save: named("--lora-save", &self.lora_save)?,
            spectra: match self.lora_spectra {
                SpectraName::Scaled => LoraSpectra::Scaled,
                SpectraName::Unscaled => LoraSpectra::Unscaled,
            },
            merge: self.merge,
        }))
    }
}

/// Names of modules; an empty one would mean all of them.
fn named(option: &str, names: &[String]) -> Result<Vec<String>> {
    if names.iter().any(|name| name.is_empty()) {
        bail!("{option} has an empty name.");
    }
    Ok(names.to_vec())
}
