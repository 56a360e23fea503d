//! Everything a user can choose about a rebalancing run, resolved and checked once.
//!
//! The command line makes these; the trainer gets them as JSON ([`Request`]) and asks nobody else.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fields::Fields;
use super::presets::MetricName;
use crate::Settings;
use crate::balance::{Decay, Gain, Mapping, Measure, Target};

/// The version of [`Request`]: a trainer of another one refuses it.
pub const PROTOCOL: u32 = 3;

/// What the trainer is started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// [`PROTOCOL`] of the program that asks.
    pub protocol: u32,
    /// Its version, for messages.
    pub version: String,
    /// What is to be done.
    pub options: Options,
}

/// The options of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// The model to start from; `None` begins at random with what the data's options ask for.
    pub model: Option<PathBuf>,
    /// The directory to write; it must not exist, unless the run is resumed.
    pub output: PathBuf,
    /// What is learned from.
    pub data: Data,
    /// How rates follow from spectra.
    pub balance: Balance,
    /// The base learning rate over time.
    pub rate: Rate,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Train adapters of low rank in place of the weights.
    #[serde(default)]
    pub lora: Option<Lora>,
    /// The loop.
    pub training: Training,
    /// When it ends.
    pub stop: Stop,
    /// Which state is written as the result.
    pub result: Keep,
    /// Continue the run that stands in `output`.
    pub resume: bool,
    /// Show the plan, and train nothing.
    pub dry_run: bool,
    /// No progress bar.
    pub quiet: bool,
}

/// What is learned from: each kind of data has a problem of its own in the trainer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// Text with labels.
    Text(TextData),
    /// Prompts with answers, for language models.
    Language(LanguageData),
    /// Trajectories of fields, for neural operators.
    Fields(Fields),
}

impl Data {
    /// The training file.
    pub fn train(&self) -> &Path {
        match self {
            Data::Text(data) => &data.train,
            Data::Language(data) => &data.train,
            Data::Fields(data) => &data.train,
        }
    }
}

/// Text with labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextData {
    /// The training file: JSONL, CSV, TSV or Parquet.
    pub train: PathBuf,
    /// The evaluation file; `None` holds back `eval_fraction` of the training examples, stratified.
    pub eval: Option<PathBuf>,
    /// The part that is held back.
    pub eval_fraction: f64,
    /// The known task whose columns are looked for where none are named.
    pub preset: Option<String>,
    /// The column of the text, by name or by number from 0.
    pub text: Option<String>,
    /// The column of the second text, for tasks on pairs.
    pub text_pair: Option<String>,
    /// The column of the label.
    pub label: Option<String>,
    /// The names of the labels in the order of their numbers; empty takes those of the model's
    /// configuration, or else those that occur, sorted.
    pub labels: Vec<String>,
    /// The labels are numbers to be predicted.
    pub regression: bool,
    /// The head begins at random even where the model has one of this kind.
    pub new_head: bool,
    /// The metrics of an evaluation; the first one decides which state is best.
    pub metrics: Vec<MetricName>,
    /// Take only a part of the training examples.
    pub subsample: Subsample,
    /// Longer inputs are cut to this many tokens, or divided into parts that long.
    pub max_length: usize,
    /// Tokens that neighbouring parts of a long context have in common.
    pub doc_stride: usize,
    /// The part of a file with several that is evaluated on.
    pub eval_split: String,
}

/// Prompts with answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LanguageData {
    /// The training file: JSONL, CSV, TSV or Parquet.
    pub train: PathBuf,
    /// The evaluation file; `None` holds back `eval_fraction` of the training examples.
    pub eval: Option<PathBuf>,
    /// The part that is held back.
    pub eval_fraction: f64,
    /// The column of the prompt, by name or by number from 0.
    pub prompt: String,
    /// The column of the answer.
    pub answer: String,
    /// The answers to choose from in an evaluation; empty where there is no choice.
    pub candidates: Vec<String>,
    /// Take only a part of the training examples.
    pub subsample: Subsample,
    /// Of longer inputs the prompt is cut.
    pub max_length: usize,
}

/// Which training examples are taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subsample {
    /// The part of them, in (0, 1].
    pub ratio: f64,
    /// Which ones.
    pub choice: Choice,
}

/// How a part of the examples is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The first ⌊N·ratio⌋, as the paper's authors do.
    First,
    /// Any, by the seed.
    Random,
    /// Any, by the seed, with the labels in their proportions.
    Stratified,
    /// Every k-th for a part of 1/k, as the paper's authors do with fields.
    Stride,
}

/// How learning rates follow from spectra.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// From metrics to factors of the base rate.
    pub mapping: Mapping,
    /// How strongly, for [`Mapping::Sigmoid`].
    pub gain: Gain,
    /// The metric.
    pub measure: Measure,
    /// Units to leave at the base rate, as patterns of names.
    pub exclude: Vec<String>,
    /// Leave out the last unit, as the authors' scripts do with `remove_last_layer`.
    pub exclude_last: bool,
    /// How alphas are computed, and what shares a rate: the settings of `analyze`.
    pub analysis: Settings,
    /// When spectra are computed.
    pub interval: Interval,
    /// Whether training waits for them; `None` waits on a CPU and does not on a GPU.
    pub wait: Option<bool>,
}

/// When spectra are computed during training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interval {
    /// Every min(100, max(1, steps per epoch / 10)) optimizer steps.
    Paper,
    /// When an alpha can have moved by more than a tolerance: see [`crate::balance::Drift`].
    Auto,
    /// At the start of every epoch, as the paper's authors do with neural operators.
    Epoch,
    /// Every so many optimizer steps.
    Steps(u64),
}

/// The base learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// At its highest.
    pub peak: f64,
    /// How it falls after the warm-up.
    pub decay: Decay,
    /// The part of all steps in which it rises from 0.
    pub warmup: f64,
}

/// The optimizer and its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Optimizer {
    /// Which one.
    pub kind: OptimizerKind,
    /// Decay of the first moment; momentum of SGD.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Decoupled for AdamW, added to the gradient for Adam and SGD; none on biases and norms.
    pub weight_decay: f64,
    /// Sharpness-aware minimisation around it.
    pub sam: Option<Sam>,
}

/// The optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Loshchilov and Hutter 2019.
    AdamW,
    /// Kingma and Ba 2015, weight decay as an L2 penalty.
    Adam,
    /// Shazeer and Stern 2018, with transformers' semantics and an external rate.
    Adafactor,
    /// With momentum.
    Sgd,
}

/// Sharpness-aware minimisation (Foret et al. 2021; adaptive: Kwon et al. 2021).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sam {
    /// The radius.
    pub rho: f64,
    /// The radius is relative to each weight.
    pub adaptive: bool,
}

/// LoRA (Hu et al. 2021): W stays as it is, and scale·B·A is learned beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// r: the rows of A and the columns of B.
    pub rank: usize,
    /// α of the scale.
    pub alpha: f64,
    /// The scale is α/√r (rsLoRA, Kalajdzievski 2023) and not α/r.
    pub rank_stabilised: bool,
    /// Dropout on what enters A.
    pub dropout: f64,
    /// Which matrices get an adapter.
    pub targets: Targets,
    /// Modules that are trained whole beside the head, by the ends of their names.
    pub save: Vec<String>,
    /// What the spectra are of.
    pub spectra: LoraSpectra,
    /// Write the whole model with the adapters in it, and not the adapters alone.
    pub merge: bool,
}

impl Lora {
    /// The factor of B·A in the model.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }
    }

    /// The factor of B·A in the spectra.
    pub fn spectral_scale(&self) -> f64 {
        match self.spectra {
            LoraSpectra::Scaled => self.scale(),
            LoraSpectra::Unscaled => 1.0,
        }
    }
}

/// Which matrices get an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Targets {
    /// Those that PEFT takes for the family: queries and values.
    Usual,
    /// All of the model but its head.
    AllLinear,
    /// Those whose names are, or end behind a dot in, one of these.
    Named(Vec<String>),
}

impl Targets {
    /// The names, where there are some; `usual` are those of the family.
    pub fn named(&self, usual: &[&str]) -> Option<Vec<String>> {
        match self {
            Targets::Usual => Some(usual.iter().map(|name| (*name).to_owned()).collect()),
            Targets::AllLinear => None,
            Targets::Named(names) => Some(names.clone()),
        }
    }
}

/// What the spectra of adapted matrices are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoraSpectra {
    /// The matrix as the model uses it: W + scale·B·A.
    Scaled,
    /// W + B·A, as the code of the paper's authors has it.
    Unscaled,
}

/// The loop's own numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Passes over the training examples.
    pub epochs: u64,
    /// Examples in a batch.
    pub batch: usize,
    /// Batches whose gradients are added up for one optimizer step.
    pub accumulation: usize,
    /// Gradients are scaled down to this norm; 0 leaves them.
    pub clip: f64,
    /// Keep only the blocks' inputs for the backward pass, and compute the rest again.
    pub checkpointing: bool,
    /// Matrix products in bfloat16.
    pub bf16: bool,
    /// Everything random follows from it.
    pub seed: u64,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Threads of the CPU; 0 takes what the machine allows.
    pub threads: usize,
    /// Optimizer steps between two states on disk; `None` once an epoch.
    pub save_steps: Option<u64>,
}

/// When training ends before its last epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// The alpha STD to reach.
    pub target: Option<Target>,
    /// Evaluations without a better metric.
    pub patience: Option<u64>,
    /// How far the metric may fall below its best so far: what training does not go beyond, and what the
    /// controller backs off at. In the metric's own unit (0.02 is two points of accuracy).
    pub max_metric_drop: Option<f64>,
}

/// Which state becomes the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The one with the best metric.
    Best,
    /// The last one.
    Last,
}
