//! The arguments about fields and neural operators.

use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use evenkeel::rebalance::fields::{Fields, Init};
use evenkeel::rebalance::options::Subsample;
use evenkeel::source::OperatorKind;

use super::args::DataArgs;

/// The endings of files that hold fields.
const ENDINGS: [&str; 5] = ["h5", "hdf5", "hdf", "pt", "pth"];

#[derive(Debug, Args)]
#[command(next_help_heading = "Fields (neural operators)")]
pub struct FieldArgs {
    /// Begin with a neural operator whose weights are random, in place of MODEL
    #[arg(long, value_name = "KIND", conflicts_with = "model", value_parser = PossibleValuesParser::new(OperatorKind::ALL.map(OperatorKind::name)))]
    init: Option<String>,
    /// Channels of an FNO's layers [default: 20]
    #[arg(long, value_name = "N", requires = "init", value_parser = clap::value_parser!(u32).range(1..=4096))]
    width: Option<u32>,
    /// Frequencies that an FNO keeps along each axis, at most half of the grid's points [default: 12]
    #[arg(long, value_name = "N", requires = "init", value_parser = clap::value_parser!(u32).range(1..=4096))]
    modes: Option<u32>,
    /// Channels of a UNet on the finest grid; they double from grid to grid [default: 32]
    #[arg(long, value_name = "N", requires = "init", value_parser = clap::value_parser!(u32).range(1..=4096))]
    features: Option<u32>,
    /// How often a UNet halves the grid [default: 4]
    #[arg(long, value_name = "N", requires = "init", value_parser = clap::value_parser!(u32).range(1..=10))]
    levels: Option<u32>,
    /// Frames that the operator is given; all later ones are predicted, one after another [default: what MODEL
    /// was made for, else 10, or 1 of two frames]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    initial_steps: Option<u32>,
    /// Take every N-th point along each axis [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    reduce_space: Option<u32>,
    /// Take every N-th frame [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    reduce_time: Option<u32>,
    /// Hold back the first N samples for evaluation, without --eval [default: a fifth of them, at most 1000]
    #[arg(long, value_name = "N", conflicts_with = "eval", value_parser = clap::value_parser!(u32).range(1..))]
    test_samples: Option<u32>,
    /// Draw truth, prediction and error of so many evaluation samples at the end [default: 3]
    #[arg(long, value_name = "N")]
    pictures: Option<u32>,
}

impl FieldArgs {
    /// Whether a run is about fields: by what it starts from, or by its training file's name.
    pub fn are_meant(&self, train: &Path) -> bool {
        let ending = train.extension().map(|ending| ending.to_ascii_lowercase());
        let ending = ending.as_deref().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
        self.init.is_some() || ENDINGS.contains(&ending)
    }

    /// The options, with what the arguments about data say of fields, too.
    pub fn resolve(&self, data: &DataArgs, subsample: Subsample) -> Result<Fields> {
        data.refuse_for_fields()?;
        let size = |given: Option<u32>, default: usize| given.map_or(default, |n| n as usize);
        Ok(Fields {
            train: data.train.clone(),
            eval: data.eval.clone(),
            test_samples: self.test_samples.map(|n| n as usize),
            init: self.init()?,
            initial_steps: self.initial_steps.map(|n| n as usize),
            reduce_space: size(self.reduce_space, 1),
            reduce_time: size(self.reduce_time, 1),
            subsample,
            pictures: size(self.pictures, 3),
        })
    }

    fn init(&self) -> Result<Option<Init>> {
        let Some(kind) = self.init.as_deref().and_then(OperatorKind::named) else { return Ok(None) };
        let (own, other, family) = match kind.is_fourier() {
            true => ("an FNO", [("--features", self.features), ("--levels", self.levels)], "a UNet"),
            false => ("a UNet", [("--width", self.width), ("--modes", self.modes)], "an FNO"),
        };
        if let Some((name, _)) = other.iter().find(|(_, given)| given.is_some()) {
            bail!("{name} is a size of {family}, and {} is {own}.", kind.name());
        }
        let size = |given: Option<u32>, default: usize| given.map_or(default, |n| n as usize);
        Ok(Some(Init {
            kind,
            width: size(self.width, 20),
            modes: size(self.modes, 12),
            features: size(self.features, 32),
            levels: size(self.levels, 4),
        }))
    }

    /// Refuses what only fields have, for texts.
    pub fn refuse_for_texts(&self) -> Result<()> {
        let given = [
            ("--initial-steps", self.initial_steps),
            ("--reduce-space", self.reduce_space),
            ("--reduce-time", self.reduce_time),
            ("--test-samples", self.test_samples),
            ("--pictures", self.pictures),
        ];
        match given.iter().find(|(_, given)| given.is_some()) {
            Some((name, _)) => bail!("{name} is for fields (HDF5, .pt), not for texts."),
            None => Ok(()),
        }
    }
}
