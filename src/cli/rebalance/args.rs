//! The arguments of `evenkeel rebalance`, and their resolution into the trainer's options.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use evenkeel::Settings;
use evenkeel::balance::{Decay, Gain, Mapping, Measure, Target};
use evenkeel::rebalance::options::{
    Balance, Choice, Data, Interval, Keep, Optimizer, OptimizerKind, Options, Rate, Sam, Stop, Subsample, TextData,
    Training,
};
use evenkeel::rebalance::presets::{Defaults, MetricName, PRESETS, Preset};

use super::super::args::Fit;
use super::values::{fraction, gain, interval, pair, positive};

const EXAMPLES: &str = "\
Examples:
  # Fine-tune on a file of {\"text\": …, \"label\": …} until the blocks are 10 % more even
  evenkeel rebalance models/minilm --train train.jsonl --output out --until-std-drops 10

  # The paper's recipe for a GLUE task, on half a per cent of the data
  evenkeel rebalance roberta-base --preset qnli --train train.parquet --eval validation.parquet \\
      --subsample 0.005 --s 1 --output out

  # What would happen: blocks, rates, memory, steps
  evenkeel rebalance models/minilm --train train.jsonl --output out --dry-run

  # Go on where a killed run stopped
  evenkeel rebalance models/minilm --train train.jsonl --output out --until-std-drops 10 --resume

Exit codes: 0 the target was reached, or none was given; 1 the target was not reached; 2 an error.";

/// Fine-tune a text classifier with layer-wise learning rates until its blocks are more evenly trained
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RebalanceOptions {
    /// The directory of the model to start from: config.json, weights, tokenizer
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The directory to write the result to; it must not exist yet
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    balance: BalanceArgs,
    #[command(flatten)]
    pub fit: Fit,
    #[command(flatten)]
    optimizer: OptimizerArgs,
    #[command(flatten)]
    training: TrainingArgs,
    #[command(flatten)]
    stop: StopArgs,
    /// The program that trains [default: $EVENKEEL_TRAINER, else evenkeel-trainer beside this one or on PATH]
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub trainer: Option<PathBuf>,
    /// Continue the run that stands in --output, bit for bit (on a CPU)
    #[arg(long, help_heading = "Run")]
    resume: bool,
    /// Show the blocks, their rates, the steps and the memory needed, and train nothing
    #[arg(long, conflicts_with = "resume", help_heading = "Run")]
    dry_run: bool,
    /// No progress bar
    #[arg(short, long, help_heading = "Run")]
    quiet: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
struct DataArgs {
    /// Training examples: JSONL, CSV, TSV or Parquet
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Evaluation examples [default: a stratified tenth of the training examples, held back]
    #[arg(long, value_name = "FILE")]
    eval: Option<PathBuf>,
    /// The part of the training examples that is held back without --eval
    #[arg(long, value_name = "X", default_value_t = 0.1)]
    eval_fraction: f64,
    /// Columns, labels, metrics and settings of a known task
    #[arg(long, value_name = "TASK", value_parser = PossibleValuesParser::new(PRESETS.iter().map(|p| p.name)))]
    preset: Option<String>,
    /// Column of the text, by name or number from 0 [default: the preset's, else text or sentence]
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,
    /// Column of the second text, for tasks on pairs
    #[arg(long, value_name = "COLUMN")]
    text_pair: Option<String>,
    /// Column of the label [default: the preset's, else label]
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// The labels in the order of their numbers [default: the preset's, the model's, or those that occur]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    labels: Vec<String>,
    /// The label is a number to be predicted
    #[arg(long)]
    regression: bool,
    /// What evaluations report; the first decides which state is best (may be given several times)
    /// [default: the preset's, else accuracy, or pearson-spearman]
    #[arg(long, value_name = "METRIC", value_parser = PossibleValuesParser::new(MetricName::ALL.map(MetricName::name)))]
    metric: Vec<String>,
    /// Train on this part of the examples
    #[arg(long, value_name = "RATIO", default_value_t = 1.0)]
    subsample: f64,
    /// Which part: the first rows, as the paper's authors take; any; or any with the labels' proportions
    #[arg(long, value_enum, default_value = "first")]
    subsample_choice: ChoiceName,
    /// Cut inputs to this many tokens [default: 128]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ChoiceName {
    First,
    Random,
    Stratified,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Balancing")]
struct BalanceArgs {
    /// From the blocks' alphas to factors of the learning rate (uniform: plain fine-tuning)
    #[arg(long, value_enum, default_value = "sigmoid")]
    schedule: ScheduleName,
    /// How strongly, for sigmoid: one number, LOW,HIGH for alphas below and above the mean, or auto, which
    /// raises it while a target is out of reach (our own addition) [default: auto with a target, else 1.25]
    #[arg(long, value_name = "S|LOW,HIGH|auto", value_parser = gain)]
    s: Option<Gain>,
    /// Steepness of the sigmoid
    #[arg(long, value_name = "X", default_value_t = 10.0)]
    tau: f64,
    /// Smallest and largest factor, for linear and rank [default: 0.5,1.5]
    #[arg(long, value_name = "LOW,HIGH", value_parser = pair)]
    factors: Option<(f64, f64)>,
    /// No factor is larger, for --s auto
    #[arg(long, value_name = "X", default_value_t = 30.0)]
    max_factor: f64,
    /// What is to become even
    #[arg(long, value_name = "METRIC", default_value = "alpha", value_parser = PossibleValuesParser::new(Measure::ALL.map(Measure::name)))]
    measure: String,
    /// Leave blocks or layers whose names match at the base rate (may be given several times)
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Leave the last one at the base rate, as the authors' scripts do
    #[arg(long)]
    exclude_last: bool,
    /// When alphas are computed anew: auto (when one can have moved by 0.003), paper (every
    /// min(100, max(1, steps per epoch / 10)) steps), or every N steps
    #[arg(long, value_name = "auto|paper|N", default_value = "auto", value_parser = interval)]
    spectra_interval: Interval,
    /// Wait for them, or train on meanwhile [default: async on a GPU, else sync]
    #[arg(long, value_enum)]
    spectra: Option<WaitName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScheduleName {
    Sigmoid,
    Linear,
    Sqrt,
    Log2,
    Rank,
    Uniform,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WaitName {
    Sync,
    Async,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Optimizer")]
struct OptimizerArgs {
    /// The optimizer
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: OptimizerName,
    /// The highest base learning rate [default: the preset's, else 2e-5]
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
struct TrainingArgs {
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

#[derive(Debug, Args)]
#[command(next_help_heading = "Stopping (before the last epoch)")]
struct StopArgs {
    /// When the STD of alpha has dropped by so much from the start's, and no better model comes after that
    #[arg(long, value_name = "PERCENT", conflicts_with = "until_std")]
    until_std_drops: Option<f64>,
    /// When the STD of alpha is at most X, and no better model comes after that
    #[arg(long, value_name = "X")]
    until_std: Option<f64>,
    /// After N evaluations without a better metric
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    patience: Option<u64>,
    /// When the metric has fallen so far below its best (0.02: two points of accuracy)
    #[arg(long, value_name = "X")]
    max_metric_drop: Option<f64>,
}

impl RebalanceOptions {
    /// The options for the trainer: defaults filled in, and everything checked that can be checked
    /// without the model and the data.
    pub fn resolve(&self) -> Result<Options> {
        let preset = self.data.preset.as_deref().and_then(Preset::named);
        let defaults = preset.map_or_else(Defaults::default, |preset| preset.defaults);
        let target = self.stop.target()?;
        Ok(Options {
            model: self.model.clone(),
            output: self.output.clone(),
            data: Data::Text(self.data.resolve(preset, &defaults)?),
            balance: self.balance.resolve(&self.fit, target.is_some())?,
            rate: self.optimizer.rate(&defaults)?,
            optimizer: self.optimizer.resolve(&defaults)?,
            training: self.training.resolve(&defaults)?,
            stop: Stop {
                target,
                patience: self.stop.patience,
                max_metric_drop: positive("--max-metric-drop", self.stop.max_metric_drop)?,
            },
            result: match self.training.keep {
                KeepName::Best => Keep::Best,
                KeepName::Last => Keep::Last,
            },
            resume: self.resume,
            dry_run: self.dry_run,
            quiet: self.quiet,
        })
    }
}

impl DataArgs {
    fn resolve(&self, preset: Option<&Preset>, defaults: &Defaults) -> Result<TextData> {
        let regression = self.regression || preset.is_some_and(|p| p.regression);
        if regression && !self.labels.is_empty() {
            bail!("--labels names classes, but a regression has none.");
        }
        let metrics: Vec<MetricName> = match (self.metric.is_empty(), preset) {
            (false, _) => self.metric.iter().filter_map(|name| MetricName::named(name)).collect(),
            (true, Some(preset)) => preset.metrics.to_vec(),
            (true, None) if regression => vec![MetricName::PearsonSpearman],
            (true, None) => vec![MetricName::Accuracy],
        };
        if let Some(odd) = metrics.iter().find(|metric| metric.is_of_numbers() != regression) {
            let needed = if odd.is_of_numbers() { "a regression" } else { "labels that are classes" };
            bail!("--metric {} needs {needed}.", odd.name());
        }
        let labels = match preset {
            Some(preset) if self.labels.is_empty() => preset.labels.iter().map(|l| (*l).to_owned()).collect(),
            _ => self.labels.clone(),
        };
        Ok(TextData {
            train: self.train.clone(),
            eval: self.eval.clone(),
            eval_fraction: fraction("--eval-fraction", self.eval_fraction)?,
            preset: self.preset.clone(),
            text: self.text.clone(),
            text_pair: self.text_pair.clone(),
            label: self.label.clone(),
            labels,
            regression,
            metrics,
            subsample: Subsample {
                ratio: if self.subsample == 1.0 { 1.0 } else { fraction("--subsample", self.subsample)? },
                choice: match self.subsample_choice {
                    ChoiceName::First => Choice::First,
                    ChoiceName::Random => Choice::Random,
                    ChoiceName::Stratified => Choice::Stratified,
                },
            },
            max_length: self.max_length.unwrap_or(defaults.max_length),
        })
    }
}

impl BalanceArgs {
    fn resolve(&self, fit: &Fit, has_target: bool) -> Result<Balance> {
        let (low, high) = self.factors.unwrap_or((0.5, 1.5));
        let mapping = match self.schedule {
            ScheduleName::Sigmoid => Mapping::Sigmoid { tau: self.tau },
            ScheduleName::Linear => Mapping::Linear { low, high },
            ScheduleName::Sqrt => Mapping::Sqrt,
            ScheduleName::Log2 => Mapping::Log2,
            ScheduleName::Rank => Mapping::Rank { low, high },
            ScheduleName::Uniform => Mapping::Uniform,
        };
        let is_sigmoid = matches!(mapping, Mapping::Sigmoid { .. });
        if self.s.is_some() && !is_sigmoid {
            bail!("--s belongs to --schedule sigmoid.");
        }
        if self.factors.is_some() && !matches!(mapping, Mapping::Linear { .. } | Mapping::Rank { .. }) {
            bail!("--factors belongs to --schedule linear and rank.");
        }
        let gain = match self.s {
            Some(Gain::Auto { .. }) if !has_target => {
                bail!("--s auto works towards a target: give --until-std-drops or --until-std.");
            }
            Some(gain) => gain,
            None if has_target && is_sigmoid => Gain::AUTO,
            None => Gain::Fixed { below: 1.25, above: 1.25 },
        };
        let gain = match gain {
            Gain::Auto { cap, .. } if self.max_factor > 1.0 && self.max_factor.is_finite() => {
                Gain::Auto { cap, max_factor: self.max_factor }
            }
            Gain::Auto { .. } => bail!("--max-factor must be above 1."),
            fixed => fixed,
        };
        let mut analysis = Settings::default();
        fit.apply(&mut analysis)?;
        analysis.check()?;
        Ok(Balance {
            mapping,
            gain,
            measure: Measure::named(&self.measure)
                .ok_or_else(|| anyhow!("there is no measure {}.", self.measure))?,
            exclude: self.exclude.clone(),
            exclude_last: self.exclude_last,
            analysis,
            interval: self.spectra_interval,
            wait: self.spectra.map(|wait| wait == WaitName::Sync),
        })
    }
}

impl OptimizerArgs {
    fn rate(&self, defaults: &Defaults) -> Result<Rate> {
        let decay = match self.decay {
            DecayName::Linear => Decay::Linear,
            DecayName::Cosine => Decay::Cosine,
            DecayName::Step => Decay::Step { every_epochs: self.step_epochs, gamma: self.step_factor },
            DecayName::Constant => Decay::Constant,
        };
        if !(0.0..1.0).contains(&self.warmup) {
            bail!("--warmup is a part of all steps: at least 0 and below 1.");
        }
        let peak = positive("--learning-rate", Some(self.learning_rate.unwrap_or(defaults.peak)))?;
        Ok(Rate { peak: peak.unwrap_or(defaults.peak), decay, warmup: self.warmup })
    }

    fn resolve(&self, defaults: &Defaults) -> Result<Optimizer> {
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
    fn resolve(&self, defaults: &Defaults) -> Result<Training> {
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

impl StopArgs {
    fn target(&self) -> Result<Option<Target>> {
        if let Some(percent) = self.until_std_drops {
            if !(percent > 0.0 && percent < 100.0) {
                bail!("--until-std-drops is a percentage: above 0 and below 100.");
            }
            return Ok(Some(Target::DropPercent(percent)));
        }
        Ok(positive("--until-std", self.until_std)?.map(Target::Below))
    }
}
