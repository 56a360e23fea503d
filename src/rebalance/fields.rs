//! The options of a run on fields: what a neural operator is, and what it learns from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::options::Subsample;
use crate::source::OperatorKind;

/// Trajectories of fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fields {
    /// The training file: HDF5 in PDEBench's layout, or a torch file.
    pub train: PathBuf,
    /// The evaluation file; `None` holds back the first samples of the training file.
    pub eval: Option<PathBuf>,
    /// How many are held back; `None`: min(1000, N/5).
    pub test_samples: Option<usize>,
    /// The operator to begin with at random; `None` takes the model's.
    pub init: Option<Init>,
    /// Frames that the operator is given; `None`: what the model was made for, else 10, or 1 of two frames.
    pub initial_steps: Option<usize>,
    /// Every so many points along each axis.
    pub reduce_space: usize,
    /// Every so many frames.
    pub reduce_time: usize,
    /// Take only a part of the training samples.
    pub subsample: Subsample,
    /// Evaluation samples that are drawn at the end.
    pub pictures: usize,
}

/// An operator that begins at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// Its kind.
    pub kind: OperatorKind,
    /// Channels of an FNO's layers.
    pub width: usize,
    /// Frequencies that an FNO keeps along each axis.
    pub modes: usize,
    /// Channels of a UNet on the finest grid.
    pub features: usize,
    /// How often a UNet halves the grid.
    pub levels: usize,
}
