//! The sizes of an operator: from options, from `config.json`, or read off the tensors of a file without one.

use std::path::Path;

use evenkeel::Checkpoint;
use evenkeel::rebalance::fields::Init;
use evenkeel::source::{ModelConfig, OperatorKind};
use evenkeel::text::{self, printable};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Numbers between the two matrices at the end of an FNO.
const HIDDEN: usize = 128;
/// Points of zeros behind each axis of an FNO's grid.
const PADDING: usize = 2;
/// Fourier layers of an FNO.
const LAYERS: usize = 4;

/// What is between input and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Fourier layers over the whole grid.
    Fno {
        /// Channels of a layer.
        width: usize,
        /// Frequencies that a layer keeps along each axis.
        modes: usize,
    },
    /// Convolutions over coarser and coarser grids, and back.
    UNet {
        /// Channels on the finest grid; they double from grid to grid.
        features: usize,
        /// How often the grid is halved.
        levels: usize,
    },
}

/// The sizes of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Axes of the grid: 1 or 2.
    pub axes: usize,
    /// Channels of the input: of all moments together.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// What is between them.
    pub architecture: Architecture,
}

impl Config {
    /// The sizes that options ask for, for fields of so many channels.
    pub fn new(init: &Init, inputs: usize, outputs: usize) -> Config {
        let architecture = match init.kind {
            OperatorKind::Fno1d | OperatorKind::Fno2d => {
                Architecture::Fno { width: init.width, modes: init.modes }
            }
            OperatorKind::Unet1d | OperatorKind::Unet2d => {
                Architecture::UNet { features: init.features, levels: init.levels }
            }
        };
        Config { axes: init.kind.axes(), inputs, outputs, architecture }
    }

    /// `model_type` of a configuration.
    pub fn kind(&self) -> OperatorKind {
        match (self.architecture, self.axes) {
            (Architecture::Fno { .. }, 1) => OperatorKind::Fno1d,
            (Architecture::Fno { .. }, _) => OperatorKind::Fno2d,
            (Architecture::UNet { .. }, 1) => OperatorKind::Unet1d,
            (Architecture::UNet { .. }, _) => OperatorKind::Unet2d,
        }
    }

    /// The numbers between the two last matrices of an FNO, the points that pad its grid, its layers.
    pub fn constants() -> (usize, usize, usize) {
        (HIDDEN, PADDING, LAYERS)
    }

    /// The content of `config.json`.
    pub fn json(&self) -> Value {
        let mut all = json!({
            "model_type": self.kind().name(),
            "in_channels": self.inputs,
            "out_channels": self.outputs,
        });
        let sizes = match self.architecture {
            Architecture::Fno { width, modes } => [("width", width), ("modes", modes)],
            Architecture::UNet { features, levels } => [("features", features), ("levels", levels)],
        };
        if let Some(entries) = all.as_object_mut() {
            entries.extend(sizes.map(|(key, size)| (key.to_owned(), json!(size))));
        }
        all
    }

    /// The sizes of a checkpoint at `path`: what its configuration says, or else what its tensors show, as those
    /// of PDEBench's files, which have no configuration.
    ///
    /// # Errors
    /// [`Error::Model`] where it is no operator, or says too little of itself.
    pub fn of(path: &Path, checkpoint: &Checkpoint) -> Result<Config> {
        let wrong = |reason: String| Error::Model { path: path.to_path_buf(), reason };
        match checkpoint.config().filter(|config| config.model_type().is_some()) {
            Some(config) => Config::read(config).map_err(wrong),
            None => Config::guessed(checkpoint).ok_or_else(|| {
                wrong(
                    "it is no neural operator: neither a config.json with the model_type fno1d, fno2d, unet1d or \
                     unet2d, nor PDEBench's names (`conv0.weights1`, `encoder1.enc1conv1.weight`)."
                        .to_owned(),
                )
            }),
        }
    }

    fn read(config: &ModelConfig) -> Result<Config, String> {
        let name = config.model_type().unwrap_or_default();
        let kind = OperatorKind::named(name).ok_or_else(|| {
            format!("its model_type is `{}`, not fno1d, fno2d, unet1d or unet2d.", printable(name))
        })?;
        let size = |key: &str| {
            config
                .count(&[key])
                .ok_or_else(|| format!("config.json has no `{key}` that is a whole number above 0."))
        };
        let architecture = match kind {
            OperatorKind::Fno1d | OperatorKind::Fno2d => {
                Architecture::Fno { width: size("width")?, modes: size("modes")? }
            }
            OperatorKind::Unet1d | OperatorKind::Unet2d => {
                Architecture::UNet { features: size("features")?, levels: size("levels")? }
            }
        };
        let (inputs, outputs) = (size("in_channels")?, size("out_channels")?);
        let sizes = Config { axes: kind.axes(), inputs, outputs, architecture };
        sizes.check()?;
        Ok(sizes)
    }

    /// Reads the sizes off the shapes; whether all tensors have theirs is found out when they are taken.
    fn guessed(checkpoint: &Checkpoint) -> Option<Config> {
        let shape = |name: &str| {
            let tensor = checkpoint.tensors().iter().find(|tensor| tensor.name == name)?;
            Some(tensor.shape.as_slice())
        };
        if let Some(&[width, _, ref modes @ ..]) = shape("conv0.weights1") {
            let [_, inputs] = *shape("fc0.weight")? else { return None };
            let [outputs, _] = *shape("fc2.weight")? else { return None };
            let architecture = Architecture::Fno { width, modes: *modes.last()? };
            let (axes, inputs) = (modes.len(), inputs.checked_sub(modes.len())?);
            let config = Config { axes, inputs, outputs, architecture };
            return config.check().ok().map(|()| config);
        }
        let &[features, inputs, ref kernel @ ..] = shape("encoder1.enc1conv1.weight")? else { return None };
        let &[outputs, ..] = shape("conv.weight")? else { return None };
        let has_level = |level: &usize| shape(&format!("encoder{level}.enc{level}conv1.weight")).is_some();
        let levels = (1..).take_while(has_level).count();
        let config = Config {
            axes: kernel.len(),
            inputs,
            outputs,
            architecture: Architecture::UNet { features, levels },
        };
        config.check().ok().map(|()| config)
    }

    /// Bounds what is multiplied later on.
    fn check(&self) -> Result<(), String> {
        const LARGEST: usize = 1 << 14;
        let sizes = match self.architecture {
            Architecture::Fno { width, modes } => [width, modes],
            Architecture::UNet { features, levels } if levels <= 10 => [features << levels, levels],
            Architecture::UNet { levels, .. } => return Err(format!("{levels} levels are more than 10.")),
        };
        let sizes = sizes.into_iter().chain([self.inputs, self.outputs]);
        match sizes.into_iter().find(|size| !(1..=LARGEST).contains(size)) {
            Some(size) => Err(format!("a size of {size} is not between 1 and {LARGEST}.")),
            None if !(1..=2).contains(&self.axes) => {
                Err(format!("a grid of {} axes is none of 1 or 2.", self.axes))
            }
            None => Ok(()),
        }
    }

    /// Checks that it can work on a grid: points of each axis.
    ///
    /// # Errors
    /// A sentence with the figures.
    pub fn suits(&self, grid: &[usize]) -> Result<(), String> {
        let kind = self.kind().name();
        if grid.len() != self.axes {
            return Err(format!(
                "the data has {} axes in space, and {kind} is for {}.",
                grid.len(),
                self.axes
            ));
        }
        let smallest = grid.iter().copied().min().unwrap_or(0);
        match self.architecture {
            // A grid of n points tells n/2 frequencies apart, of either sign; zeros behind it add none.
            Architecture::Fno { modes, .. } if modes > smallest / 2 => Err(format!(
                "{modes} modes are more than a grid of {} points has: at most {} (--modes).",
                text::shape(grid),
                smallest / 2
            )),
            Architecture::UNet { levels, .. } if grid.iter().any(|n| n % (1 << levels) != 0) => Err(format!(
                "a grid of {} points cannot be halved {levels} times, as {kind} with {levels} levels does: every \
                 axis needs a multiple of {} (--levels, --reduce-space).",
                text::shape(grid),
                1 << levels
            )),
            _ => Ok(()),
        }
    }
}
