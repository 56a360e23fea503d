//! The arguments, and their resolution into the library's options: once, here, at the edge.

use std::path::PathBuf;

use super::rebalance::RebalanceOptions;
use anyhow::{Result, anyhow};
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use evenkeel::analysis::engines;
use evenkeel::matrices::Selection;
use evenkeel::metrics::Estimator;
use evenkeel::report::{EXPORTERS, Exporter, Per, Precision};
use evenkeel::{Checkpoint, Granularity, OpenOptions, Settings, Thresholds};

/// Audit neural-network checkpoints: how well, and how evenly, is each block trained?
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version,
    propagate_version = true,
    max_term_width = 100,
    args_override_self = true
)]
#[command(
    after_help = "Nothing in a checkpoint is ever executed, and nothing is downloaded.\n\nExit codes: 0 done; 1 a threshold does not hold or a target is missed; 2 the checkpoint or the command line is not usable."
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Analyze(Box<AnalyzeOptions>),
    Inspect(Box<InspectOptions>),
    Rebalance(Box<RebalanceOptions>),
}

const ANALYZE_EXAMPLES: &str = "\
Examples:
  # A file, a directory, or a model in the local Hugging Face cache
  evenkeel analyze model.safetensors
  evenkeel analyze checkpoints/step-2000
  evenkeel analyze org/model

  # Every matrix, for a spreadsheet
  evenkeel analyze model.safetensors --format csv --output alphas.csv

  # Fail a CI job when the blocks are out of balance
  evenkeel analyze model.safetensors --max-alpha-std 0.15 --max-alpha 2.4

  # A model of many gigabytes, in about half the time
  evenkeel analyze org/model --precision fast

  # The numbers of the paper authors' own code (GLUE: the top third of the eigenvalues)
  evenkeel analyze model.safetensors --estimator reference --xmin-pos 1.5

Exit codes: 0 done, and all thresholds hold; 1 a threshold does not hold; 2 the checkpoint or the
command line is not usable.";

/// Report alpha, norms and ranks per block, and how unevenly the blocks are trained
#[derive(Debug, Args)]
#[command(after_help = ANALYZE_EXAMPLES)]
pub struct AnalyzeOptions {
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub destination: Destination,
    /// Rows of table, csv and markdown [default: matrix for csv, else block]
    #[arg(long, value_enum, help_heading = "Output")]
    per: Option<Rows>,
    /// No progress bar
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    fit: Fit,
    #[command(flatten)]
    pub thresholds: ThresholdArgs,
    /// Worker threads [default: what the machine or its container allows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Computation")]
    threads: Option<u16>,
    /// fast: single precision wherever that shows alpha right to 0.0001 (a threshold that this leaves
    /// open is decided in double precision)
    #[arg(long, value_enum, default_value_t = PrecisionName::Exact, help_heading = "Computation")]
    precision: PrecisionName,
    /// Linear-algebra engine
    #[arg(long, value_name = "ENGINE", default_value = "faer", value_parser = engine_names(), help_heading = "Computation")]
    engine: String,
}

const INSPECT_EXAMPLES: &str = "\
Examples:
  evenkeel inspect model.safetensors
  evenkeel inspect org/model --format json
  evenkeel inspect model.safetensors --include '*.attn.*' --block-pattern 'tower\\.\\d+'";

/// List the tensors of a checkpoint, their blocks, and what analyze would do with each
#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub struct InspectOptions {
    #[command(flatten)]
    pub input: Input,
    #[command(flatten)]
    pub destination: Destination,
    #[command(flatten)]
    pub selection: SelectionArgs,
}

#[derive(Debug, Args)]
pub struct Input {
    /// A checkpoint file or directory, or org/model in the local Hugging Face cache
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The directory of a PEFT LoRA adapter (or its name in the cache), to be added to the weights:
    /// W + scale·B·A (may be given several times; an adapter as PATH is analysed without its base)
    #[arg(long = "adapter", value_name = "DIR", help_heading = "Input")]
    adapters: Vec<PathBuf>,
    /// Take this for the scale of every adapter [default: what the adapter says, alpha/r]
    #[arg(long, value_name = "X", requires = "adapters", help_heading = "Input")]
    adapter_scale: Option<f64>,
    /// Branch, tag or commit of a model in the Hugging Face cache [default: main]
    #[arg(long, value_name = "REVISION", help_heading = "Input")]
    revision: Option<String>,
    /// Read the weights instead of mapping them into memory (for files that another program may
    /// shorten, or disks that may fail; either way such a file is an error)
    #[arg(long, help_heading = "Input")]
    no_mmap: bool,
    /// Let a torch file name this Python global, as an inert placeholder: nothing is imported or run
    /// (may be given several times)
    #[arg(long, value_name = "NAME", help_heading = "Input")]
    ignore_global: Vec<String>,
}

impl Input {
    pub fn open(&self) -> Result<Checkpoint> {
        let options = OpenOptions {
            mmap: !self.no_mmap,
            #[cfg(unix)]
            opened: super::sigbus::watch,
            revision: self.revision.clone(),
            adapters: self.adapters.clone(),
            adapter_scale: self.adapter_scale,
            ignored_globals: self.ignore_global.clone(),
            ..OpenOptions::default()
        };
        Ok(Checkpoint::open(&self.path, &options)?)
    }
}

#[derive(Debug, Args)]
pub struct Destination {
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = format_names(), help_heading = "Output")]
    format: String,
    /// Write to a file instead of stdout (- is stdout)
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
}

impl Destination {
    pub fn exporter(&self) -> Result<&'static dyn Exporter> {
        let exporter = EXPORTERS.iter().find(|e| e.name() == self.format);
        exporter.copied().ok_or_else(|| anyhow!("there is no format {}.", self.format))
    }
}

fn format_names() -> PossibleValuesParser {
    PossibleValuesParser::new(EXPORTERS.iter().map(|e| e.name()))
}

fn engine_names() -> PossibleValuesParser {
    PossibleValuesParser::new(engines().iter().map(|e| e.name()))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PrecisionName {
    Exact,
    Fast,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rows {
    Block,
    Matrix,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Matrices and blocks")]
pub struct SelectionArgs {
    /// Only tensors whose names match, such as '*.attention.*' (may be given several times)
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave out tensors whose names match (may be given several times)
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// A regular expression that finds a tensor's block in its name: its group `block`, its first
    /// group, or the whole match; a group `stack` names the tower
    #[arg(long, value_name = "REGEX")]
    pub block_pattern: Option<String>,
    /// Read 8-bit floats that have no scales as they are stored
    #[arg(long)]
    assume_unscaled: bool,
    /// Keep fused projections and expert stacks in one piece
    #[arg(long)]
    no_split: bool,
    /// Analyse embedding tables, too
    #[arg(long)]
    embeddings: bool,
    /// Matrices with fewer eigenvalues get no alpha and take no part in the statistics
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub min_eigenvalues: usize,
    /// What the eigenvalues of convolutions are multiplied by
    #[arg(long, value_name = "X", default_value_t = 0.5, allow_negative_numbers = true)]
    conv_norm: f64,
}

impl SelectionArgs {
    pub fn resolve(&self) -> Selection {
        Selection {
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            assume_unscaled: self.assume_unscaled,
            split: !self.no_split,
            embeddings: self.embeddings,
            conv_norm: self.conv_norm,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EstimatorName {
    /// The paper's formula, tail of floor(n/2) eigenvalues
    Hill,
    /// The formula of the paper authors' code
    Reference,
    /// The tail with the smallest Kolmogorov-Smirnov distance
    Ks,
    /// As ks, near the peak of the histogram
    Peak,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum GranularityName {
    Block,
    Layer,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Statistics")]
pub struct Fit {
    /// How the tail is chosen and alpha estimated
    #[arg(long, value_enum, default_value = "hill")]
    estimator: EstimatorName,
    /// Fraction of the eigenvalues in the tail, for hill [default: 0.5]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    tail_fraction: Option<f64>,
    /// The tail starts at eigenvalue n/X, for reference [default: 2]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    xmin_pos: Option<f64>,
    /// Leave eigenvalues up to X out of the fit
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    drop_below: Option<f64>,
    /// What the statistics are taken over [default: block for transformers, else layer]
    #[arg(long, value_enum)]
    granularity: Option<GranularityName>,
    /// Take complex spectral weights (Fourier layers) into the statistics
    #[arg(long)]
    spectral_weights: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Thresholds (exit code 1 where one does not hold)")]
pub struct ThresholdArgs {
    /// On the STD of alpha across the blocks of every stack
    #[arg(long, value_name = "X", value_parser = bound, allow_negative_numbers = true)]
    max_alpha_std: Option<f64>,
    /// On every block's alpha
    #[arg(long, value_name = "X", value_parser = bound, allow_negative_numbers = true)]
    min_alpha: Option<f64>,
    /// On every block's alpha
    #[arg(long, value_name = "X", value_parser = bound, allow_negative_numbers = true)]
    max_alpha: Option<f64>,
    /// On every scheduled matrix
    #[arg(long, value_name = "X", value_parser = bound, allow_negative_numbers = true)]
    max_spectral_norm: Option<f64>,
    /// On every scheduled matrix
    #[arg(long, value_name = "X", value_parser = bound, allow_negative_numbers = true)]
    min_stable_rank: Option<f64>,
}

/// A bound must be a number: NaN would compare as false with everything, and pass or fail at random.
fn bound(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err("a bound is a finite number".to_owned()),
    }
}

impl ThresholdArgs {
    pub fn resolve(&self) -> Thresholds {
        Thresholds {
            max_alpha_std: self.max_alpha_std,
            min_alpha: self.min_alpha,
            max_alpha: self.max_alpha,
            max_spectral_norm: self.max_spectral_norm,
            min_stable_rank: self.min_stable_rank,
        }
    }
}

impl AnalyzeOptions {
    pub fn settings(&self) -> Result<Settings> {
        let mut settings = Settings {
            min_eigenvalues: self.selection.min_eigenvalues,
            block_pattern: self.selection.block_pattern.clone(),
            selection: self.selection.resolve(),
            engine: self.engine.clone(),
            precision: match self.precision {
                PrecisionName::Exact => Precision::Exact,
                PrecisionName::Fast => Precision::Fast,
            },
            threads: self.threads.map_or(0, usize::from),
            ..Settings::default()
        };
        self.fit.apply(&mut settings)?;
        settings.check()?;
        Ok(settings)
    }

    pub fn per(&self) -> Option<Per> {
        self.per.map(|rows| match rows {
            Rows::Block => Per::Block,
            Rows::Matrix => Per::Matrix,
        })
    }
}

impl Fit {
    /// Sets what these arguments are about.
    pub fn apply(&self, settings: &mut Settings) -> Result<()> {
        settings.estimator = self.estimator()?;
        settings.drop_below = self.drop_below;
        settings.granularity = self.granularity.map(|name| match name {
            GranularityName::Block => Granularity::Block,
            GranularityName::Layer => Granularity::Layer,
        });
        settings.spectral_weights = self.spectral_weights;
        Ok(())
    }

    fn estimator(&self) -> Result<Estimator> {
        if self.tail_fraction.is_some() && self.estimator != EstimatorName::Hill {
            return Err(anyhow!("--tail-fraction belongs to --estimator hill."));
        }
        if self.xmin_pos.is_some() && self.estimator != EstimatorName::Reference {
            return Err(anyhow!("--xmin-pos belongs to --estimator reference."));
        }
        Ok(match self.estimator {
            EstimatorName::Hill => Estimator::Hill { tail_fraction: self.tail_fraction.unwrap_or(0.5) },
            EstimatorName::Reference => Estimator::Reference { xmin_pos: self.xmin_pos.unwrap_or(2.0) },
            EstimatorName::Ks => Estimator::Ks,
            EstimatorName::Peak => Estimator::Peak,
        })
    }
}
