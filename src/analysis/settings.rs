//! Everything a user can choose about an analysis, resolved and checked once.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::matrices::Selection;
use crate::metrics::Estimator;
use crate::report::{self, Precision};
use crate::source::{Checkpoint, ModelConfig, OperatorKind};
use crate::spectrum::{Engine, FaerEngine};
use crate::tensors::Kind;

/// What the across-block statistics are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Granularity {
    /// Blocks: each is the mean of its matrices.
    Block,
    /// Every scheduled matrix is a unit of its own.
    Layer,
}

impl Granularity {
    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Granularity::Block => "block",
            Granularity::Layer => "layer",
        }
    }
}

/// The settings of an analysis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How the tail is chosen and alpha estimated.
    pub estimator: Estimator,
    /// Leave out eigenvalues up to this before the fit.
    pub drop_below: Option<f64>,
    /// Matrices with fewer eigenvalues have no alpha and are not scheduled. `None`: 50, but 12 where the model
    /// is a neural operator, whose layers are narrow.
    pub min_eigenvalues: Option<usize>,
    /// `None`: blocks where the model has transformer blocks, else layers.
    pub granularity: Option<Granularity>,
    /// A regular expression that finds the block in a tensor's name.
    pub block_pattern: Option<String>,
    /// Take complex spectral weights into the statistics.
    pub spectral_weights: bool,
    /// Which tensors become matrices, and how.
    pub selection: Selection,
    /// The engine's name; see [`engines`].
    pub engine: String,
    /// Whether single precision may be used where its bound says that alpha is right to 1e-4.
    pub precision: Precision,
    /// Worker threads; 0 takes what the machine (or its container) allows.
    pub threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            estimator: Estimator::default(),
            drop_below: None,
            min_eigenvalues: None,
            granularity: None,
            block_pattern: None,
            spectral_weights: false,
            selection: Selection::default(),
            engine: FaerEngine.name().to_owned(),
            precision: Precision::Exact,
            threads: 0,
        }
    }
}

/// The eigenvalues that a matrix needs for an alpha: the paper's, and its authors' for neural operators.
const LEAST: usize = 50;
const OPERATORS_LEAST: usize = 12;

/// Whether a model is a neural operator: by its configuration, or by names and types of tensors as in PDEBench's
/// files, which have none.
fn is_operator(checkpoint: &Checkpoint) -> bool {
    match checkpoint.config().and_then(ModelConfig::model_type) {
        Some(name) => OperatorKind::named(name).is_some(),
        None => checkpoint.tensors().iter().any(|tensor| {
            tensor.dtype.kind() == Kind::Complex || tensor.name.ends_with("encoder1.enc1conv1.weight")
        }),
    }
}

/// The engines that this build has, the default first.
pub fn engines() -> Vec<Box<dyn Engine>> {
    vec![
        Box::new(FaerEngine),
        #[cfg(feature = "lapack")]
        Box::new(crate::spectrum::LapackEngine::new()),
    ]
}

impl Settings {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`Error::Setting`] with the option and what it accepts.
    pub fn check(&self) -> Result<()> {
        let wrong = |sentence: &str| Err(Error::Setting(sentence.to_owned()));
        match self.estimator {
            Estimator::Hill { tail_fraction } if !(tail_fraction > 0.0 && tail_fraction < 1.0) => {
                return wrong("--tail-fraction takes a number above 0 and below 1.");
            }
            Estimator::Reference { xmin_pos } if !(xmin_pos > 1.0 && xmin_pos.is_finite()) => {
                return wrong("--xmin-pos takes a number above 1.");
            }
            _ => {}
        }
        if self.drop_below.is_some_and(|bound| !(bound >= 0.0 && bound.is_finite())) {
            return wrong("--drop-below takes an eigenvalue, zero or larger.");
        }
        let conv_norm = self.selection.conv_norm;
        if !(1e-6..=1e6).contains(&conv_norm) {
            return wrong("--conv-norm takes a number from 0.000001 to 1000000.");
        }
        if self.min_eigenvalues.is_some_and(|least| least < 2) {
            return wrong("--min-eigenvalues takes 2 or more: a tail needs a start.");
        }
        Ok(())
    }

    /// These settings with what depends on the model filled in.
    pub(super) fn for_model(&self, checkpoint: &Checkpoint) -> Settings {
        let least = if is_operator(checkpoint) { OPERATORS_LEAST } else { LEAST };
        Settings { min_eigenvalues: Some(self.min_eigenvalues.unwrap_or(least)), ..self.clone() }
    }

    /// The eigenvalues that a matrix needs for an alpha.
    pub(super) fn least(&self) -> usize {
        self.min_eigenvalues.unwrap_or(LEAST)
    }

    /// The engine by its name.
    ///
    /// # Errors
    /// [`Error::Setting`] where this build does not have it.
    pub fn engine(&self) -> Result<Box<dyn Engine>> {
        let mut engines = engines();
        match engines.iter().position(|engine| engine.name() == self.engine) {
            Some(position) => Ok(engines.swap_remove(position)),
            None => Err(Error::Setting(format!(
                "this build has no engine `{}`; build with `--features lapack` for the second one.",
                self.engine
            ))),
        }
    }

    /// As the report shows them.
    pub(super) fn describe(&self, granularity: Granularity) -> report::Settings {
        let (estimator, tail_fraction, xmin_pos) = match self.estimator {
            Estimator::Hill { tail_fraction } => ("hill", Some(tail_fraction), None),
            Estimator::Reference { xmin_pos } => ("reference", None, Some(xmin_pos)),
            Estimator::Ks => ("ks", None, None),
            Estimator::Peak => ("peak", None, None),
        };
        report::Settings {
            estimator,
            tail_fraction,
            xmin_pos,
            drop_below: self.drop_below,
            granularity: granularity.name(),
            min_eigenvalues: self.least(),
            conv_norm: self.selection.conv_norm,
            split: self.selection.split,
            embeddings: self.selection.embeddings,
            spectral_weights: self.spectral_weights,
            assume_unscaled: self.selection.assume_unscaled,
            include: self.selection.include.clone(),
            exclude: self.selection.exclude.clone(),
            block_pattern: self.block_pattern.clone(),
            engine: self.engine.clone(),
            precision: self.precision,
        }
    }
}
