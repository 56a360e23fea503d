//! The arguments of `evenkeel rebalance`, and their resolution into the trainer's options.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, ValueEnum};
use evenkeel::Settings;
use evenkeel::balance::{Gain, Mapping, Measure, Target};
use evenkeel::rebalance::options::{
    Balance, Choice, Data, Interval, LanguageData, Options, Stop, Subsample, TextData,
};
use evenkeel::rebalance::presets::{Defaults, Form, MetricName, PRESETS, Preset};

use super::super::args::Fit;
use super::fields::FieldArgs;
use super::lora::LoraArgs;
use super::optimizer::OptimizerArgs;
use super::training::TrainingArgs;
use super::values::{fraction, gain, interval, pair, positive};

const EXAMPLES: &str = "\
Examples:
  # Fine-tune on a file of {\"text\": …, \"label\": …} until the blocks are 10 % more even
  evenkeel rebalance models/minilm --train train.jsonl --output out --until-std-drops 10

  # The paper's recipe for a GLUE task, on half a per cent of the data
  evenkeel rebalance roberta-base --preset qnli --train train.parquet --eval validation.parquet \\
      --subsample 0.005 --s 1 --output out

  # Questions that a text answers, with a new head on the encoder
  evenkeel rebalance roberta-base --preset squad --train train-v1.1.json --eval dev-v1.1.json \\
      --subsample 0.01 --output out

  # Adapters of rank 8 in place of the weights, as PEFT saves them
  evenkeel rebalance roberta-base --preset sst2 --train train.tsv --lora 8 --output adapter

  # A neural operator on PDEBench's compressible flow, every second point and fifth frame, a tenth of the data
  evenkeel rebalance --init fno2d --train 2D_CFD.hdf5 --reduce-space 2 --reduce-time 5 --subsample 0.1 \\
      --s 0.25 --output out

  # What would happen: blocks, rates, memory, steps
  evenkeel rebalance models/minilm --train train.jsonl --output out --dry-run

  # Go on where a killed run stopped
  evenkeel rebalance models/minilm --train train.jsonl --output out --until-std-drops 10 --resume

Exit codes: 0 the target was reached, or none was given; 1 the target was not reached; 2 an error.";

/// Train with layer-wise learning rates until blocks or layers are more evenly trained: text classifiers, language
/// models, neural operators
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RebalanceOptions {
    /// The model to start from: a directory with config.json, weights, and for texts a tokenizer; of neural
    /// operators also a torch file of PDEBench's
    #[arg(value_name = "MODEL", required_unless_present = "init")]
    model: Option<PathBuf>,
    /// The directory to write the result to; it must not exist yet
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    fields: FieldArgs,
    #[command(flatten)]
    balance: BalanceArgs,
    #[command(flatten)]
    pub fit: Fit,
    #[command(flatten)]
    optimizer: OptimizerArgs,
    #[command(flatten)]
    lora: LoraArgs,
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
pub(super) struct DataArgs {
    /// Training examples: JSONL, CSV, TSV or Parquet; for neural operators HDF5 in PDEBench's layout, or .pt
    #[arg(long, value_name = "FILE")]
    pub train: PathBuf,
    /// Evaluation examples [default: a stratified tenth of the training examples, held back; of fields the
    /// first fifth]
    #[arg(long, value_name = "FILE")]
    pub eval: Option<PathBuf>,
    /// The part of the training examples that is held back without --eval [default: 0.1]
    #[arg(long, value_name = "X")]
    eval_fraction: Option<f64>,
    /// Columns, labels, metrics and settings of a known task
    #[arg(long, value_name = "TASK", value_parser = PossibleValuesParser::new(PRESETS.iter().map(|p| PossibleValue::new(p.name).help(p.about))))]
    preset: Option<String>,
    /// Column of the text, by name or number from 0; where all columns are given by number, a CSV or TSV file has
    /// no header [default: the preset's, else text or sentence]
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,
    /// Column of the second text, for tasks on pairs
    #[arg(long, value_name = "COLUMN")]
    text_pair: Option<String>,
    /// Column of the label [default: the preset's, else label]
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Column of the prompt of a language model, which learns --answer alone
    #[arg(long, value_name = "COLUMN", requires = "answer", conflicts_with_all = ["text", "text_pair", "label", "preset", "regression", "metric"])]
    prompt: Option<String>,
    /// Column of the answer; with --labels evaluations choose among these
    #[arg(long, value_name = "COLUMN", requires = "prompt")]
    answer: Option<String>,
    /// The labels in the order of their numbers [default: the preset's, the model's, or those that occur]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    labels: Vec<String>,
    /// The label is a number to be predicted
    #[arg(long)]
    regression: bool,
    /// Begin with a head at random even where the model has one: for other labels than it was made for
    #[arg(long, conflicts_with = "prompt")]
    new_head: bool,
    /// What evaluations report; the first decides which state is best (may be given several times)
    /// [default: the preset's, else accuracy, or pearson-spearman]
    #[arg(long, value_name = "METRIC", value_parser = PossibleValuesParser::new(MetricName::ALL.map(MetricName::name)))]
    metric: Vec<String>,
    /// Train on this part of the examples
    #[arg(long, value_name = "RATIO", default_value_t = 1.0)]
    subsample: f64,
    /// Which part: the first rows, as the paper's authors take; any; any with the labels' proportions; or every
    /// k-th for a part of 1/k, as the authors take of fields [default: the preset's, else first; stride for fields]
    #[arg(long, value_enum)]
    subsample_choice: Option<ChoiceName>,
    /// Cut inputs to this many tokens, or divide contexts of questions into parts that long [default: the
    /// preset's, else 128]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Tokens that neighbouring parts of a long context have in common (squad)
    #[arg(long, value_name = "N", default_value_t = 128)]
    doc_stride: usize,
    /// The part of a problems.json to evaluate on (scienceqa)
    #[arg(long, value_name = "NAME", default_value = "val")]
    eval_split: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ChoiceName {
    First,
    Random,
    Stratified,
    Stride,
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
    /// Leave the last layer at the base rate, as the authors' scripts do, if it is in no block: of models with
    /// blocks of layers all blocks take part, whatever the head is
    #[arg(long)]
    exclude_last: bool,
    /// When alphas are computed anew: auto (when one can have moved by 0.003), paper (every
    /// min(100, max(1, steps per epoch / 10)) steps), epoch (at the start of each), or every N steps
    /// [default: auto; epoch for fields]
    #[arg(long, value_name = "auto|paper|epoch|N", value_parser = interval)]
    spectra_interval: Option<Interval>,
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
    /// When the metric has become so much worse than its best (0.02: two points of accuracy)
    #[arg(long, value_name = "X")]
    max_metric_drop: Option<f64>,
}

impl RebalanceOptions {
    /// The options for the trainer: defaults filled in, and everything checked that can be checked
    /// without the model and the data.
    pub fn resolve(&self) -> Result<Options> {
        let preset = self.data.preset.as_deref().and_then(Preset::named);
        let is_about_fields = self.fields.are_meant(&self.data.train);
        let defaults = match preset {
            _ if is_about_fields => Defaults::FIELDS,
            Some(preset) => preset.defaults,
            None => Defaults::default(),
        };
        let subsample = self.data.subsample(&defaults)?;
        let (target, lora) = (self.stop.target()?, self.lora.resolve()?);
        let data = if is_about_fields {
            if lora.is_some() {
                bail!("--lora is for text models, and {} holds fields.", self.data.train.display());
            }
            Data::Fields(self.fields.resolve(&self.data, subsample)?)
        } else {
            self.fields.refuse_for_texts()?;
            self.data.resolve(preset, &defaults, subsample)?
        };
        let peak = if lora.is_some() { defaults.lora_peak } else { defaults.peak };
        Ok(Options {
            model: self.model.clone(),
            output: self.output.clone(),
            data,
            balance: self.balance.resolve(&self.fit, &defaults, target.is_some())?,
            rate: self.optimizer.rate(&defaults, peak)?,
            optimizer: self.optimizer.resolve(&defaults)?,
            lora,
            training: self.training.resolve(&defaults)?,
            stop: Stop {
                target,
                patience: self.stop.patience,
                max_metric_drop: positive("--max-metric-drop", self.stop.max_metric_drop)?,
            },
            result: self.training.keep(),
            resume: self.resume,
            dry_run: self.dry_run,
            quiet: self.quiet,
        })
    }
}

impl DataArgs {
    /// Which part of the examples is trained on.
    fn subsample(&self, defaults: &Defaults) -> Result<Subsample> {
        let choice = match self.subsample_choice {
            None => defaults.choice,
            Some(ChoiceName::First) => Choice::First,
            Some(ChoiceName::Random) => Choice::Random,
            Some(ChoiceName::Stratified) => Choice::Stratified,
            Some(ChoiceName::Stride) => Choice::Stride,
        };
        let ratio = if self.subsample == 1.0 { 1.0 } else { fraction("--subsample", self.subsample)? };
        Ok(Subsample { ratio, choice })
    }

    /// The part that is held back where no file is for evaluations.
    fn held_back(&self) -> Result<f64> {
        fraction("--eval-fraction", self.eval_fraction.unwrap_or(0.1))
    }

    /// Refuses what only texts have, for fields.
    pub fn refuse_for_fields(&self) -> Result<()> {
        let given = [
            ("--preset", self.preset.is_some()),
            ("--text", self.text.is_some()),
            ("--text-pair", self.text_pair.is_some()),
            ("--label", self.label.is_some()),
            ("--labels", !self.labels.is_empty()),
            ("--prompt", self.prompt.is_some()),
            ("--answer", self.answer.is_some()),
            ("--regression", self.regression),
            ("--new-head", self.new_head),
            ("--metric", !self.metric.is_empty()),
            ("--max-length", self.max_length.is_some()),
            ("--eval-fraction", self.eval_fraction.is_some()),
            ("--subsample-choice stratified", matches!(self.subsample_choice, Some(ChoiceName::Stratified))),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => bail!("{name} is for texts, and {} holds fields.", self.train.display()),
            None => Ok(()),
        }
    }

    fn resolve(&self, preset: Option<&Preset>, defaults: &Defaults, subsample: Subsample) -> Result<Data> {
        match (&self.prompt, &self.answer) {
            (Some(prompt), Some(answer)) => {
                self.language(prompt, answer, defaults, subsample).map(Data::Language)
            }
            _ => self.texts(preset, defaults, subsample).map(Data::Text),
        }
    }

    fn language(
        &self,
        prompt: &str,
        answer: &str,
        defaults: &Defaults,
        subsample: Subsample,
    ) -> Result<LanguageData> {
        Ok(LanguageData {
            train: self.train.clone(),
            eval: self.eval.clone(),
            eval_fraction: self.held_back()?,
            prompt: prompt.to_owned(),
            answer: answer.to_owned(),
            candidates: self.labels.clone(),
            subsample,
            max_length: self.max_length.unwrap_or(defaults.max_length),
        })
    }

    fn texts(&self, preset: Option<&Preset>, defaults: &Defaults, subsample: Subsample) -> Result<TextData> {
        let form = preset.map_or(Form::Texts, |preset| preset.form);
        if form != Form::Texts {
            self.refuse_columns()?;
        }
        if form == Form::Letters && self.new_head {
            bail!("--new-head is for classes and numbers; a language model's head is its vocabulary.");
        }
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
        if let Some(odd) = metrics.iter().find(|metric| !metric.suits(form, regression)) {
            bail!("--metric {} is not for this task: {}.", odd.name(), form.metrics(regression).join(", "));
        }
        let labels = match preset {
            Some(preset) if self.labels.is_empty() => preset.labels.iter().map(|l| (*l).to_owned()).collect(),
            _ => self.labels.clone(),
        };
        Ok(TextData {
            train: self.train.clone(),
            eval: self.eval.clone(),
            eval_fraction: self.held_back()?,
            preset: self.preset.clone(),
            text: self.text.clone(),
            text_pair: self.text_pair.clone(),
            label: self.label.clone(),
            labels,
            regression,
            new_head: self.new_head,
            metrics,
            subsample,
            max_length: self.max_length.unwrap_or(defaults.max_length),
            doc_stride: self.doc_stride,
            eval_split: self.eval_split.clone(),
        })
    }

    /// Refuses what names columns or labels, for tasks whose files say where everything stands.
    fn refuse_columns(&self) -> Result<()> {
        let given = [
            ("--text", self.text.is_some()),
            ("--text-pair", self.text_pair.is_some()),
            ("--label", self.label.is_some()),
            ("--labels", !self.labels.is_empty()),
            ("--regression", self.regression),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((name, _)) => {
                bail!("{name} is for texts in columns, which the files of this preset are not.")
            }
            None => Ok(()),
        }
    }
}

impl BalanceArgs {
    fn resolve(&self, fit: &Fit, defaults: &Defaults, has_target: bool) -> Result<Balance> {
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
            interval: self.spectra_interval.unwrap_or(if defaults.of_fields {
                Interval::Epoch
            } else {
                Interval::Auto
            }),
            wait: self.spectra.map(|wait| wait == WaitName::Sync),
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
