//! Text classification and regression as a [`Problem`]: a pretrained encoder and its examples.

use std::path::Path;

use evenkeel::rebalance::options::{self, Options};
use evenkeel::rebalance::presets::{MetricName, Preset};
use evenkeel::source::ModelConfig;
use tch::{Device, Kind, Tensor};

use crate::data::subset::Choice;
use crate::data::{Column, Columns, Examples, Labels, Prepared, Sources, Targets, TextTokenizer, prepare};
use crate::error::{Error, Result};
use crate::memory::{self, Batch, Need};
use crate::model::{self, Directory, Pretrained, Task};
use crate::score::{self, Outputs, argmax};
use crate::training::{Mode, Parameter, Problem, Score};

/// Examples of an evaluation batch: no gradients are kept, so that it may be larger than one of training.
const EVALUATION_BATCH: usize = 64;

/// A model and its texts.
pub struct Text {
    pretrained: Pretrained,
    config: Option<ModelConfig>,
    train: Examples,
    eval: Examples,
    labels: Labels,
    metrics: Vec<MetricName>,
    device: Device,
}

impl Text {
    /// Reads model and data, and checks that they belong together. Returns what a user should know, too.
    ///
    /// # Errors
    /// Whatever does not fit, before anything is trained.
    pub fn open(
        options: &Options,
        data: &options::TextData,
        device: Device,
    ) -> Result<(Text, Vec<String>)> {
        let directory = Directory::open(&options.model)?;
        let longest = directory.config().max_length();
        if data.max_length > longest {
            return Err(Error::Option(format!(
                "the model takes at most {longest} tokens: --max-length {longest}."
            )));
        }
        let tokenizer = TextTokenizer::open(directory.path())?;
        let Prepared { train, eval, labels, mut notes } =
            read(data, &directory, &tokenizer, options)?;
        let vocabulary = directory.config().vocabulary;
        let largest = train.tokens().largest_id().max(eval.tokens().largest_id());
        if usize::try_from(largest).map_or(true, |id| id >= vocabulary) {
            return Err(Error::Option(format!(
                "the tokenizer gives token {largest}, but the model knows {vocabulary}: they do not belong together."
            )));
        }
        let metrics = data.metrics.clone();
        for metric in &metrics {
            score::suits(*metric, data.regression, labels.outputs())?;
        }
        let task = match &labels {
            Labels::Classes(names) => Task::Classes(names.clone()),
            Labels::Regression => Task::Regression,
        };
        let settings = model::Settings {
            device,
            seed: options.training.seed,
            new_head: false,
            recompute: options.training.checkpointing,
            bf16: options.training.bf16,
        };
        let config = directory.checkpoint().config().cloned();
        let pretrained = directory.load(&task, settings)?;
        if !pretrained.initialised().is_empty() {
            notes.push(format!(
                "The checkpoint has no head for this task; these begin at random: {}.",
                pretrained.initialised().join(", ")
            ));
        }
        Ok((Text { pretrained, config, train, eval, labels, metrics, device }, notes))
    }

    fn logits(&self, examples: &Examples, rows: &[usize], mode: Mode) -> Result<(Tensor, Tensor)> {
        let batch = examples.batch(rows, self.device)?;
        let mut lengths = rows.iter().map(|row| examples.tokens().length(*row));
        let first = lengths.next();
        let padded = lengths.any(|length| Some(length) != first);
        let inputs = model::Batch {
            ids: batch.ids,
            mask: padded.then_some(batch.mask),
            token_types: Some(batch.types),
        };
        Ok((self.pretrained.model().logits(&inputs, mode)?, batch.labels))
    }
}

/// Reads the data by the columns that were named, or else by those that usual releases have.
fn read(
    data: &options::TextData,
    directory: &Directory,
    tokenizer: &TextTokenizer,
    options: &Options,
) -> Result<Prepared> {
    let configured = match directory.task() {
        Some(Task::Classes(names)) => names.clone(),
        _ => Vec::new(),
    };
    let mut first = None;
    for columns in columns(data) {
        let sources = Sources {
            train: &data.train,
            eval: data.eval.as_deref(),
            eval_fraction: data.eval_fraction,
            columns: &columns,
            labels: &data.labels,
            configured: &configured,
            regression: data.regression,
            ratio: data.subsample.ratio,
            choice: match data.subsample.choice {
                options::Choice::First => Choice::First,
                options::Choice::Random => Choice::Random,
                options::Choice::Stratified => Choice::Stratified,
            },
            seed: options.training.seed,
            max_length: data.max_length,
        };
        match prepare(&sources, tokenizer) {
            // Only a column that is not there is a reason to look for others.
            Err(error @ Error::Column { .. }) => first = first.or(Some(error)),
            other => return other,
        }
    }
    Err(first.unwrap_or_else(|| Error::Option("no columns are known for this data.".to_owned())))
}

/// The columns to look for, in this order.
fn columns(data: &options::TextData) -> Vec<Columns> {
    let column = |name: &str| Column::new(name);
    let known = data.preset.as_deref().and_then(Preset::named).map_or(&[][..], |preset| preset.columns);
    let mut all: Vec<Columns> = known
        .iter()
        .map(|release| Columns {
            text: column(data.text.as_deref().unwrap_or(release.text)),
            pair: data.text_pair.as_deref().or(release.pair).map(column),
            label: column(data.label.as_deref().unwrap_or(release.label)),
            header: Some(release.header),
        })
        .collect();
    if all.is_empty() {
        let texts = match &data.text {
            Some(text) => vec![text.as_str()],
            None => vec!["text", "sentence"],
        };
        all.extend(texts.into_iter().map(|text| Columns {
            text: column(text),
            pair: data.text_pair.as_deref().map(column),
            label: column(data.label.as_deref().unwrap_or("label")),
            header: None,
        }));
    }
    all
}

impl Problem for Text {
    fn parameters(&self) -> &[Parameter] {
        self.pretrained.model().parameters()
    }

    fn config(&self) -> Option<ModelConfig> {
        self.config.clone()
    }

    fn examples(&self) -> usize {
        self.train.len()
    }

    fn evaluation_examples(&self) -> usize {
        self.eval.len()
    }

    fn memory(&self, options: &Options) -> Need {
        let tokens = self.train.tokens();
        let batch = Batch {
            examples: options.training.batch.min(tokens.len()),
            length: (0..tokens.len()).map(|row| tokens.length(row)).max().unwrap_or(0),
            on_gpu: self.device.is_cuda(),
        };
        let parameters = self.parameters().iter().map(|parameter| parameter.tensor.numel()).sum();
        memory::need(options, self.pretrained.source().config(), parameters, batch)
    }

    fn loss(&self, examples: &[usize]) -> Result<Tensor> {
        let (logits, labels) = self.logits(&self.train, examples, Mode::Train)?;
        Ok(self.pretrained.task().loss(&logits, &labels)?)
    }

    fn evaluate(&self, done: &mut dyn FnMut(usize, usize)) -> Result<Vec<Score>> {
        let outputs = self.labels.outputs();
        let mut logits = vec![0f32; self.eval.len() * outputs];
        let mut passed = 0;
        for rows in self.eval.by_length(EVALUATION_BATCH) {
            let (found, _) = self.logits(&self.eval, &rows, Mode::Evaluate)?;
            let found = Vec::<f32>::try_from(
                found.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_reshape([-1])?,
            )?;
            for (row, values) in rows.iter().zip(found.chunks_exact(outputs)) {
                if let Some(place) = logits.get_mut(row * outputs..(row + 1) * outputs) {
                    place.copy_from_slice(values);
                }
            }
            passed += rows.len();
            done(passed, self.eval.len());
        }
        let score = |metric: &MetricName| {
            let value = match self.eval.targets() {
                Targets::Classes(expected) => {
                    let predicted = argmax(&logits, outputs);
                    score::value(
                        *metric,
                        Outputs::Classes { predicted: &predicted, expected, classes: outputs },
                    )
                }
                Targets::Values(expected) => {
                    let widen =
                        |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
                    score::value(
                        *metric,
                        Outputs::Values { predicted: &widen(&logits), expected: &widen(expected) },
                    )
                }
            };
            Ok(Score { name: metric.name().to_owned(), value: value? })
        };
        self.metrics.iter().map(score).collect()
    }

    fn write(&self, directory: &Path) -> Result<()> {
        self.pretrained.write(directory)
    }
}
